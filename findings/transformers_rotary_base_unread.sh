#!/usr/bin/env bash
# Library:   transformers 5.23.0 and 4.56.2 (with torch 2.13.0)
# Guess:     a Llama checkpoint saved by one release is the same model in the other; one that cannot read
#            a field of config.json says so.
# Behaviour: 5.23.0 writes the rotary base as rope_parameters.rope_theta alone. 4.56.2 keeps
#            rope_parameters as a field it does not know, takes its own default of 10000 for rope_theta,
#            loads every weight and prints nothing; from the second position on it computes another
#            model. The other way round nothing is lost: 5.23.0 reads a rope_theta of 4.56.2, and with
#            that field added to config.json the older release computes what the newer one does.
# Seen:      saved by 5.23.0 with base 100000: read by 4.56.2 with 10000, nothing printed
#            last hidden states: 0.578 of their norm apart, 0.000 at the first position
#            with rope_theta added to config.json: 0.000 of their norm apart
#            saved by 4.56.2 with base 100000: read by 5.23.0 with 100000
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0
fi
# The older release in a folder that stands before the environment's own packages; torch is the same.
"$venv/bin/python" -m pip install -q --target "$folder/older" transformers==4.56.2

cat > "$folder/save.py" <<'PY'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
config = LlamaConfig(
    vocab_size=97, rope_theta=100000.0, initializer_range=0.2, attn_implementation="eager", **sizes
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
PY
cat > "$folder/read.py" <<'PY'
import sys

import torch
from transformers import LlamaForCausalLM

model = LlamaForCausalLM.from_pretrained(sys.argv[1], attn_implementation="eager").eval()
config = model.config
base = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
with torch.no_grad():
    rows = model.model(torch.arange(1, 65)[None]).last_hidden_state[0]
torch.save({"base": base, "rows": rows}, sys.argv[2])
PY
newer() { "$venv/bin/python" "$@"; }
older() { PYTHONPATH=$folder/older "$venv/bin/python" "$@"; }

newer "$folder/save.py" "$folder/saved" 2> "$folder/newer.txt"
newer "$folder/read.py" "$folder/saved" "$folder/newer.pt" 2>> "$folder/newer.txt"
older "$folder/read.py" "$folder/saved" "$folder/older.pt" > "$folder/printed.txt" 2>&1
cp -r "$folder/saved" "$folder/both"
newer - "$folder/both/config.json" <<'PY'
import json
import sys
from pathlib import Path

file = Path(sys.argv[1])
config = json.loads(file.read_text())
file.write_text(json.dumps(config | {"rope_theta": config["rope_parameters"]["rope_theta"]}))
PY
older "$folder/read.py" "$folder/both" "$folder/both.pt"
older "$folder/save.py" "$folder/back"
newer "$folder/read.py" "$folder/back" "$folder/back.pt" 2>> "$folder/newer.txt"

newer - "$folder" <<'PY'
import sys
from pathlib import Path

import torch

FOLDER = Path(sys.argv[1])
newer, older, both, back = (
    torch.load(FOLDER / f"{name}.pt") for name in ("newer", "older", "both", "back")
)
printed = (FOLDER / "printed.txt").read_text().strip()


def apart(found, at=slice(None)):
    wanted = newer["rows"][at]
    return ((found["rows"][at] - wanted).norm() / wanted.norm()).item()


print(
    f"saved by 5.23.0 with base {newer['base']:.0f}: read by 4.56.2 with {older['base']:.0f},",
    f"printed: {printed}" if printed else "nothing printed",
)
print(
    f"last hidden states: {apart(older):.3f} of their norm apart,",
    f"{apart(older, slice(1)):.3f} at the first position",
)
print(f"with rope_theta added to config.json: {apart(both):.3f} of their norm apart")
print(f"saved by 4.56.2 with base 100000: read by 5.23.0 with {back['base']:.0f}")
bases = [found["base"] for found in (newer, older, both, back)] == [1e5, 1e4, 1e5, 1e5]
rows = apart(older) > 0.05 and max(apart(older, slice(1)), apart(both)) < 1e-4
sys.exit(0 if bases and rows and not printed else 1)
PY
