#!/usr/bin/env bash
# Numbers of SAEBench 0.6.0's own functions for tests/studies/evaluate, from an environment of its own:
# it needs numpy < 2 and datasets < 4, which lorascope does not live with.
#   scripts/golden_saebench.sh            # makes the environment in a temporary folder
#   VENV=/path/to/venv scripts/golden_saebench.sh
set -euo pipefail
export OMP_NUM_THREADS=1
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q sae-bench==0.6.0
    # Not used here; one built for another torch than the one beside it stops transformers' import.
    "$venv/bin/pip" uninstall -q -y torchvision
fi
cd "$folder"
"$venv/bin/python" "$here/scripts/golden_saebench.py" "$here/tests/studies/evaluate/golden_saebench.json"
