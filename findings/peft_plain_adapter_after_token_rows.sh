#!/usr/bin/env bash
# Library:   peft 0.21.2 (with transformers 5.23.0, torch 2.13.0)
# Guess:     two adapters of one model can be loaded side by side in either order, one of them with
#            `trainable_token_indices`, the other a plain LoRA adapter without.
# Behaviour: the plain one first works, and both compute what they compute alone. The one with token rows
#            first does not: loading the plain one after it ends in a KeyError for token rows that the plain
#            adapter never had, after its name has been added. The names of both are then listed, and the
#            one named last computes with freshly initialised factors: what the base computes.
# Seen:      plain, tokens: both as alone
#            tokens, plain: KeyError for embed_tokens.token_adapter.trainable_tokens_delta
#            tokens, plain: listed adapters ['tokens', 'plain']; plain is the base: True
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

"$venv/bin/python" -W ignore - "$folder" <<'PY'
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.arange(1, 20)[None]


def base():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    return LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes)).eval()


def trained(name, **options):
    """The folder of an adapter with weights unlike their start, and what it computes."""
    model = get_peft_model(base(), LoraConfig(r=2, target_modules=["q_proj"], **options)).eval()
    for weights in model.parameters():
        if weights.requires_grad:
            weights.data += 0.1 * torch.randn(weights.shape)
    model.save_pretrained(f"{sys.argv[1]}/{name}")
    return f"{sys.argv[1]}/{name}", model(IDS).logits


with torch.no_grad():
    alone = {"tokens": trained("tokens", trainable_token_indices=[3, 5]), "plain": trained("plain")}
    same = []
    model = PeftModel.from_pretrained(base(), alone["plain"][0], "plain").eval()
    model.load_adapter(alone["tokens"][0], "tokens")
    for name, (_, logits) in alone.items():
        model.set_adapter(name)
        same.append(torch.equal(model(IDS).logits, logits))
    print("plain, tokens:", "both as alone" if all(same) else same)

    model = PeftModel.from_pretrained(base(), alone["tokens"][0], "tokens").eval()
    missing = ""
    try:
        model.load_adapter(alone["plain"][0], "plain")
    except KeyError as error:
        missing = str(error).strip("'").removeprefix("base_model.model.model.")
        print(f"tokens, plain: KeyError for {missing}")
    listed = list(model.peft_config)
    model.set_adapter("plain")
    untouched = torch.equal(model(IDS).logits, base()(IDS).logits)
    print(f"tokens, plain: listed adapters {listed}; plain is the base: {untouched}")
sys.exit(0 if all(same) and missing.endswith("trainable_tokens_delta") and untouched else 1)
PY
