#!/usr/bin/env bash
# Library:   dictionary_learning 0.1.0 (with torch 2.13.0)
# Guess:     `frac_variance_explained` of its `evaluate` is 1 for rows that come back exactly, and falls
#            when each of them comes back wrong by the same vector (a decoder bias that is off).
# Behaviour: it stays exactly where it was. The residual's variance is taken about the residual's own mean,
#            so a constant error of any size is not counted: rows that come back 100 times their own spread
#            away score 1, and always answering 0 scores 0 whatever the mean of the rows. Of the numbers
#            beside it l2_loss, cossim and l2_ratio see the error.
# Seen:      exact:        frac_variance_explained 1.000, l2_loss 0.00
#            off by 100:   frac_variance_explained 1.000, l2_loss 400.00
#            always 0:     frac_variance_explained 0.000, l2_loss 12.60
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    # What its evaluation imports; its other requirements draw pictures.
    "$venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 einops==0.8.2 \
        sentencepiece==0.2.3 protobuf==7.36.2 'python-socketio[client]==5.18.1' tqdm pillow
    "$venv/bin/pip" install -q --no-deps dictionary_learning==0.1.0 nnsight==0.3.7
fi

"$venv/bin/python" -W ignore - <<'PY'
import sys

import torch
from dictionary_learning.dictionary import Dictionary
from dictionary_learning.evaluation import evaluate


class Answer(Dictionary):
    """Gives rows back as they came, times `scale`, plus `offset`."""

    dict_size = activation_dim = 16

    def __init__(self, scale, offset):
        super().__init__()
        self.scale, self.offset = scale, offset

    def encode(self, x):
        return x

    def decode(self, f):
        return self.scale * f + self.offset

    @classmethod
    def from_pretrained(cls, path, device=None):
        raise NotImplementedError

    def forward(self, x, output_features=False, ghost_mask=None):
        return (self.decode(x), x) if output_features else self.decode(x)


torch.manual_seed(0)
rows = 3 + torch.randn(4096, 16)
seen = {}
for name, dictionary in {
    "exact": Answer(1, 0),
    "off by 100": Answer(1, 100),
    "always 0": Answer(0, 0),
}.items():
    found = evaluate(dictionary, iter([rows]))
    seen[name] = found["frac_variance_explained"]
    print(f"{name + ':':<13} frac_variance_explained {seen[name]:.3f}, l2_loss {found['l2_loss']:.2f}")

blind = seen["off by 100"] > 0.9999 and abs(seen["always 0"]) < 1e-6
sys.exit(0 if blind and seen["exact"] == 1 else 1)
PY
