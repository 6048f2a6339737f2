#!/usr/bin/env bash
# Library:   sae-lens 6.54.12 (with transformers 5.23.0, torch 2.13.0)
# Guess:     `decode` is a function of the latents: latents of one batch give the same rows whenever they
#            are decoded, and a loaded SAE decodes latents it did not encode itself.
# Behaviour: with `normalize_activations` "layer_norm" or "constant_norm_rescale", `encode` keeps the means
#            and norms of its last batch on the object and `decode` undoes those. Latents kept from batch A
#            and decoded after any other batch went through come out on that batch's scale, without a
#            warning; so do latents edited for steering, and those read from a file. With "none" and
#            "expected_average_only_in" they do not change.
# Seen:      none: 0.000 of the right rows' norm
#            expected_average_only_in: 0.000 of the right rows' norm
#            constant_norm_rescale: 0.863 of the right rows' norm
#            layer_norm: 0.870 of the right rows' norm
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 sae-lens==6.54.12
fi

"$venv/bin/python" -W ignore - <<'PY'
import sys

import torch
from sae_lens import StandardSAE, StandardSAEConfig

torch.manual_seed(0)
rows, smaller = 3 * torch.randn(7, 16), 0.5 * torch.randn(7, 16)
apart = {}
for norm in ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm"):
    sae = StandardSAE(
        StandardSAEConfig(
            d_in=16, d_sae=32, normalize_activations=norm, apply_b_dec_to_input=False, device="cpu"
        )
    )
    with torch.no_grad():
        for weights in sae.parameters():
            weights.normal_(0, 0.3)
        latents = sae.encode(rows)
        right = sae.decode(latents)
        sae.encode(smaller)
        again = sae.decode(latents)
    apart[norm] = ((again - right).norm() / right.norm()).item()
    print(f"{norm}: {apart[norm]:.3f} of the right rows' norm")

stays = apart["none"] == apart["expected_average_only_in"] == 0
moves = min(apart["constant_norm_rescale"], apart["layer_norm"]) > 0.5
sys.exit(0 if stays and moves else 1)
PY
