#!/usr/bin/env bash
# Library:   sae-dashboard 0.8.0 (with sae-lens 6.54.12, transformers 4.56.2, torch 2.13.0)
# Guess:     making a dashboard only reads: the SAE and the model that were given to SaeVisRunner.run are
#            afterwards what they were before.
# Behaviour: the model is, the SAE is not. `run` folds the norms of the decoder's rows into the encoder,
#            on the object it was given. Afterwards its directions are unit vectors and its latents have
#            other values, though it reconstructs the same: a threshold or a steering strength taken from
#            it before the dashboard means something else after it. It is folded under inference_mode,
#            so its weights take no part in autograd any more: the SAE cannot be trained on.
# Seen:      norms of the first three directions: 2.13, 2.05, 2.01, afterwards 1.00, 1.00, 1.00
#            largest of their latents on the same rows: 3.43, afterwards 7.31
#            latent 0 added at strength 1: rows move by 2.13, afterwards by 1.00
#            reconstruction: 0.000 of its norm apart; model's weights the same: True
#            a gradient of the SAE: yes, afterwards no
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    # numpy < 2 comes with TransformerLens 2, and no newer pyarrow lives with that. SAEDashboard is
    # installed without its own list: that has packages for cross-layer transcoders, unused here.
    "$venv/bin/pip" install -q torch==2.13.0 transformers==4.56.2 sae-lens==6.54.12 \
        transformer-lens==2.17.0 "pyarrow<22" "datasets<4" eindex-callum==0.1.2 dataclasses-json==0.6.7 \
        "jaxtyping<0.3" "matplotlib<4"
    "$venv/bin/pip" install -q --no-deps sae-dashboard==0.8.0
fi

"$venv/bin/python" -W ignore - 2> "$folder/errors.txt" <<'PY' || {
import copy
import sys

import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import HookedSAETransformer, StandardSAE, StandardSAEConfig
from transformer_lens import HookedTransformerConfig

torch.manual_seed(0)
sizes = dict(n_layers=1, d_model=8, n_ctx=16, d_head=4, n_heads=2, d_mlp=16, d_vocab=32)
model = HookedSAETransformer(HookedTransformerConfig(act_fn="gelu", device="cpu", **sizes))
sae = StandardSAE(StandardSAEConfig(d_in=8, d_sae=16, device="cpu"))
with torch.no_grad():
    for weights in sae.parameters():
        weights.normal_(0, 0.7)
rows, tokens = torch.randn(7, 8), torch.randint(0, 32, (8, 16))


def has_gradient():
    try:
        with torch.enable_grad():
            sae(rows).square().mean().backward()
    except RuntimeError:
        return False
    return True


def looked_at():
    with torch.no_grad():
        return {
            "norms": sae.W_dec[:3].norm(dim=1).clone(),
            "latent": sae.encode(rows)[:, :3].max().item(),
            "moved": sae.W_dec[0].norm().item(),
            "rows": sae(rows),
            "gradient": has_gradient(),
        }


before, weights = looked_at(), copy.deepcopy(model.state_dict())
SaeVisRunner(
    SaeVisConfig(
        hook_point="blocks.0.hook_resid_post",
        features=[0, 1, 2],
        minibatch_size_features=3,
        minibatch_size_tokens=4,
        device="cpu",
        verbose=False,
    )
).run(encoder=sae, model=model, tokens=tokens)
after = looked_at()


def norms(found):
    return ", ".join(f"{norm:.2f}" for norm in found["norms"].tolist())


apart = ((after["rows"] - before["rows"]).norm() / before["rows"].norm()).item()
same = all(torch.equal(weights[name], one) for name, one in model.state_dict().items())
said = {True: "yes", False: "no"}
print(f"norms of the first three directions: {norms(before)}, afterwards {norms(after)}")
print(
    f"largest of their latents on the same rows: {before['latent']:.2f},",
    f"afterwards {after['latent']:.2f}",
)
print(
    f"latent 0 added at strength 1: rows move by {before['moved']:.2f},",
    f"afterwards by {after['moved']:.2f}",
)
print(f"reconstruction: {apart:.3f} of its norm apart; model's weights the same: {same}")
print(f"a gradient of the SAE: {said[before['gradient']]}, afterwards {said[after['gradient']]}")
ones = torch.allclose(after["norms"], torch.ones(3), atol=1e-5)
changed = abs(after["latent"] / before["latent"] - 1) > 0.1 and ones
stays = apart < 1e-4 and same
sys.exit(0 if changed and stays and before["gradient"] and not after["gradient"] else 1)
PY
    code=$?
    cat "$folder/errors.txt" >&2
    exit "$code"
}
