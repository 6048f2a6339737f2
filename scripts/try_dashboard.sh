#!/usr/bin/env bash
# Exports a base and a delta dictionary, lets SAEDashboard 0.8.0 show them in an environment of its
# own, and holds its numbers against lorascope's. Minutes; leaves nothing behind.
#   scripts/try_dashboard.sh                     # of a quick demo, made first
#   RUN=runs/demo scripts/try_dashboard.sh       # of a run of the demo that is there
#   VENV=/path/to/venv scripts/try_dashboard.sh  # an environment that is there
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv"
    # numpy < 2 comes with TransformerLens 2, and no newer pyarrow lives with that.
    "$venv/bin/pip" install -q sae-dashboard==0.8.0 "pyarrow<22" "$(grep ^torch== "$here/constraints.txt")"
    # Not used here; one built for another torch than the one beside it stops transformers' import.
    "$venv/bin/pip" uninstall -q -y torchvision
fi
run=${RUN:-$folder/demo}
if [ ! -d "$run" ]; then
    "$python" -m lorascope demo --quick --quiet --out "$run"
fi
adapter=$(ls -d "$run"/adapters/* | head -1)
name=$(basename "$adapter")
base=$(ls -d "$run"/dictionaries/*-base-seed0 | tail -1)
delta=$(ls -d "$run"/dictionaries/*-delta-"$name"-seed0 | head -1)
"$python" -m lorascope export "$base" --adapter "$adapter" --features 12 --out "$folder/base"
"$python" -m lorascope export "$delta" --adapter "$adapter" --features 12 --out "$folder/delta"
for kind in base delta; do
    env -u PYTHONPATH "$venv/bin/python" -W ignore "$folder/$kind/dashboard.py"
    test -s "$folder/$kind/dashboard.html"
done
"$python" "$here/scripts/try_dashboard.py" "$folder/base" "$folder/delta"
