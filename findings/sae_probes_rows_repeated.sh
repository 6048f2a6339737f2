#!/usr/bin/env bash
# Library:   sae-probes 0.4.2 (its data and its split; with pandas 3.1.1)
# Guess:     the rows of one of its 113 binary sets are different prompts, so the rows that its own split
#            holds out are prompts that the probe has not seen.
# Behaviour: 108 of the 113 sets hold prompts more than once, up to two rows in three, and
#            `get_train_test_indices` draws rows, not prompts. With 1,024 rows to train on and the rest held
#            out, 18 % of the held-out rows on average are prompts that were trained on, letter for letter; in
#            one set 90 %. A probe that only remembers gets those right.
# Seen:      sets with repeated prompts: 108 of 113
#            most repeated: 131_temp_cat_Typical Time, 66.0 % of its rows
#            held-out rows whose prompt was trained on: mean 18.3 %, most 89.6 %
#            (131_temp_cat_Typical Time)
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q numpy==2.4.6 pandas==3.1.1 zstandard==0.25.0
fi
"$venv/bin/pip" download -q --no-deps --dest "$folder" sae-probes==0.4.2
(cd "$folder" && python3 -m zipfile -e sae_probes-*.whl package)

"$venv/bin/python" -W ignore - "$folder/package/sae_probes" <<'PY'
import ast
import sys
from pathlib import Path

import numpy as np
import pandas as pd

package = Path(sys.argv[1])
# The split alone: importing the module needs the packages that run models.
module = ast.parse((package / "utils_data.py").read_text())
(function,) = (
    one for one in module.body if getattr(one, "name", "") == "get_train_test_indices"
)
scope = {"np": np}
exec(compile(ast.Module([function], []), "utils_data.py", "exec"), scope)
split = scope["get_train_test_indices"]

listed = pd.read_csv(package / "data" / "probing_datasets_MASTER.csv.zst")
names = listed[listed["Data type"] == "Binary Classification"]["Dataset save name"]
repeated, known = {}, {}
for name in names:
    rows = pd.read_csv(package / "data" / f"{name}.zst")
    name = Path(name).stem
    repeated[name] = rows["prompt"].duplicated().mean()
    labels = (rows["target"] == sorted(rows["target"].unique())[1]).astype(int).to_numpy()
    fewest = min(labels.sum(), (1 - labels).sum())
    train = min(1024, int(1.6 * fewest))
    held_out = min(2 * int(fewest) - train - 2, 1024)
    first, second = split(labels, train, held_out)
    prompts = set(rows["prompt"].iloc[first])
    known[name] = rows["prompt"].iloc[second].isin(prompts).mean()

times = sum(share > 0 for share in repeated.values())
most = max(repeated, key=repeated.get)
mean = float(np.mean(list(known.values())))
worst = max(known, key=known.get)
print(f"sets with repeated prompts: {times} of {len(repeated)}")
print(f"most repeated: {most}, {100 * repeated[most]:.1f} % of its rows")
print(
    f"held-out rows whose prompt was trained on: mean {100 * mean:.1f} %, "
    f"most {100 * known[worst]:.1f} % ({worst})"
)
sys.exit(0 if (times, len(repeated)) == (108, 113) and mean > 0.1 else 1)
PY
