#!/usr/bin/env bash
# Library:   peft 0.21.2 (with transformers 5.23.0, torch 2.13.0)
# Guess:     on a model with tied embeddings, each adapter made with ensure_weight_tying=True gets a
#            LoRA layer on embed_tokens and a tied one on lm_head.
# Behaviour: only the first adapter does. The second gets none on lm_head, without a warning: PEFT
#            then looks for a module named `lm_head.base_layer` to tie. Its output embedding is the base's.
# Seen:      first: embed_tokens lm_head, asked to tie ['lm_head']
#            second: embed_tokens, asked to tie ['lm_head.base_layer']
#            first: logits are those of the adapted embedding True, of the base's False
#            second: logits are those of the adapted embedding False, of the base's True
#            warnings about tying: 0
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2
fi

"$venv/bin/python" - <<'PY'
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
)


def config():
    return LoraConfig(
        r=2, target_modules=["embed_tokens"], ensure_weight_tying=True, init_lora_weights=False
    )


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    adapted = get_peft_model(model, config(), adapter_name="first").eval()
    adapted.add_adapter("second", config())
told = [w for w in caught if "tie" in str(w.message) or "tying" in str(w.message)]

layers, follows = {}, {}
for name in ("first", "second"):
    owners = {n.split(".lora_")[0] for n, _ in adapted.named_parameters() if f".{name}" in n}
    layers[name] = sorted(owner.rsplit(".", 1)[-1] for owner in owners)
    to_tie = sorted(adapted.peft_config[name].target_modules_to_tie)
    print(f"{name}: {' '.join(layers[name])}, asked to tie {to_tie}")

ids = torch.arange(8)[None]
for name in ("first", "second"):
    adapted.set_adapter(name)
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        logits = adapted(ids).logits
        embedding = model.model.embed_tokens
        base = embedding.base_layer.weight
        tied = base + embedding.get_delta_weight(name)
        follows[name] = tuple(torch.allclose(logits, hidden @ w.T, atol=1e-3) for w in (tied, base))
    print(f"{name}: logits are those of the adapted embedding {follows[name][0]}, of the base's {follows[name][1]}")
print("warnings about tying:", len(told))

as_stated = (
    layers == {"first": ["embed_tokens", "lm_head"], "second": ["embed_tokens"]}
    and follows == {"first": (True, False), "second": (False, True)}
    and not told
)
sys.exit(0 if as_stated else 1)
PY
