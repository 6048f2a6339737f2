#!/usr/bin/env bash
# Library:   transformers 5.23.0 (with torch 2.13.0)
# Guess:     a model cast with .double() computes in float64, so its outputs may serve as the exact
#            reference for a float32 run (errors near 1e-15).
# Behaviour: the eager attention of GPT-NeoX and Llama computes its softmax in float32 and casts the
#            result back: the tensor says float64, every value in it is a float32 number. SDPA attention
#            of the same model does not. Llama's RMSNorm is float32 with either attention. GPT-2's eager
#            attention stays in float64.
# Seen:      GPTNeoX: attention float64, all values float32 numbers True
#            GPTNeoX: logits, eager - eager with float64 softmax 1.5e-08, SDPA - the same 3.1e-16
#            Llama: attention float64, all values float32 numbers True
#            Llama: logits, eager - eager with float64 softmax 6.4e-08, SDPA - the same 0.0e+00
#            GPT2: attention float64, all values float32 numbers False
#            GPT2: logits, eager - eager with float64 softmax 0.0e+00, SDPA - the same 3.3e-16
#            Llama: RMSNorm's output - float64 RMSNorm 3.5e-07
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

"$venv/bin/python" - <<'PY'
import sys
from unittest import mock

import torch
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

shape = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
gpt2 = {"vocab_size": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
softmax = functional.softmax


def own_softmax(x, dim=-1, **_):
    """Softmax in the type of its input, whatever type was asked for."""
    return softmax(x, dim=dim)


torch.manual_seed(0)
ids = torch.randint(0, 64, (1, 32))
rounded, eager_error, sdpa_error = {}, {}, {}
for name, config, kind, sizes in (
    ("GPTNeoX", GPTNeoXConfig, GPTNeoXForCausalLM, shape),
    ("Llama", LlamaConfig, LlamaForCausalLM, shape),
    ("GPT2", GPT2Config, GPT2LMHeadModel, gpt2),
):
    model = kind(config(**sizes, attn_implementation="eager")).eval().double()
    with torch.no_grad():
        out = model(ids, output_attentions=True)
        with mock.patch.object(functional, "softmax", own_softmax):
            reference = model(ids).logits
        model.set_attn_implementation("sdpa")
        sdpa = model(ids).logits
    attention = out.attentions[-1]
    rounded[name] = bool((attention == attention.float().double()).all())
    eager_error[name] = (out.logits - reference).abs().max().item()
    sdpa_error[name] = (sdpa - reference).abs().max().item()
    kept = str(attention.dtype).removeprefix("torch.")
    print(f"{name}: attention {kept}, all values float32 numbers {rounded[name]}")
    print(
        f"{name}: logits, eager - eager with float64 softmax {eager_error[name]:.1e},"
        f" SDPA - the same {sdpa_error[name]:.1e}"
    )
    if name == "Llama":
        norm, x = model.model.norm, torch.randn(32, 64, dtype=torch.float64)
        exact = x / (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
        norm_error = (norm(x) - exact).abs().max().item()
print(f"Llama: RMSNorm's output - float64 RMSNorm {norm_error:.1e}")

as_stated = (
    rounded == {"GPTNeoX": True, "Llama": True, "GPT2": False}
    and all(eager_error[name] > 1e-10 for name in ("GPTNeoX", "Llama"))
    and eager_error["GPT2"] < 1e-13
    and all(error < 1e-13 for name, error in sdpa_error.items() if name != "Llama")
    and norm_error > 1e-10
)
sys.exit(0 if as_stated else 1)
PY
