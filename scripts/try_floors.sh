#!/usr/bin/env bash
# Install the package with the lowest version that pyproject.toml allows of every direct dependency,
# and once more with the newest of all, and try both: version, help, plan, a very small audit.
#
#   scripts/try_floors.sh            # both
#   scripts/try_floors.sh lowest     # or newest
#
# torch is that of constraints.txt in both: the index decides which builds need no GPU packages, and
# few have one of the lowest. Where one is at hand, TORCH=2.6.0 scripts/try_floors.sh lowest.
# Environments are made in a temporary folder and removed. Needs PYTHON (python3 by default).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
torch=${TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

"$python" -m venv "$work/build"
"$work/build/bin/pip" wheel --quiet --no-deps --wheel-dir "$work" .
"$work/build/bin/pip" install --quiet packaging

# One line a dependency: its lowest version, or nothing but torch.
constraints() {
  "$work/build/bin/python" - "$1" "$torch" <<'PY'
import sys, tomllib
from packaging.requirements import Requirement
which, torch = sys.argv[1:]
listed = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
for requirement in map(Requirement, listed):
    (floor,) = [one.version for one in requirement.specifier if one.operator == ">="]
    if requirement.name == "torch":
        print(f"torch=={torch}")
    elif which == "lowest":
        print(f"{requirement.name}=={floor}")
PY
}

try_one() {
  local which=$1 there=$work/$1
  constraints "$which" >"$work/$which.txt"
  "$python" -m venv "$there"
  "$there/bin/pip" install --quiet -c "$work/$which.txt" "$work"/lorascope-*.whl
  "$there/bin/pip" check
  "$there/bin/pip" list --format freeze | grep -i -E \
    "^($(sed 's/==.*//' "$work/lowest.txt" | tr '_-' '..' | paste -sd '|'))=" || true
  mkdir "$work/$which-tried"
  cp studies/embedded.yaml "$work/$which-tried"
  (
    # Outside of the repository, so that the installed package is the one tried.
    cd "$work/$which-tried"
    "$there/bin/lorascope" --version
    "$there/bin/lorascope" selftest --help >help.txt
    "$there/bin/lorascope" plan embedded.yaml >plan.txt
    "$there/bin/lorascope" audit embedded.yaml --quiet --out run \
      --set 'train.training.ranks=[4]' --set train.training.steps=4 --set 'train.seeds=[0]' \
      --set 'sites=[layers.1]' --set texts.documents=120 --set texts.balance=null \
      --set ablation=null --set measures.effects=false --set 'dictionaries.seeds=[0]' \
      --set dictionaries.architecture.n_latents=64 --set dictionaries.fitting.epochs=1 \
      --set dictionaries.fitting.batch=128 --set controls.null_adapters=2 \
      --set controls.gaussian_dictionaries=2 --set 'measures.angles_k=[8]' \
      --set measures.rows=500 --set measures.repeats=2 --set measures.latents=2
    test -s run/report/index.html
  )
  echo "$which: works"
}

constraints lowest >"$work/lowest.txt"
for which in ${1:-lowest newest}; do
  try_one "$which"
done
