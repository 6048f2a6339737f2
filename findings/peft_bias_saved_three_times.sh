#!/usr/bin/env bash
# Library:   peft 0.21.2 (with torch 2.13.0)
# Guess:     an adapter file holds each trained tensor once, so its tensors may be counted and their
#            norms summed.
# Behaviour: with bias="all" and a module in modules_to_save, that module's bias is written three times:
#            as `head.bias` (the trained one, where its weight stands too), again as
#            `head.modules_to_save.bias`, and, from before training, as `head.original_module.bias`.
# Seen:      base_model.model.body.base_layer.bias: after training
#            base_model.model.head.bias: after training
#            base_model.model.head.modules_to_save.bias: after training
#            base_model.model.head.original_module.bias: before training
#            weights of head: 1
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

"$venv/bin/python" - "$folder/adapter" <<'PY'
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

torch.manual_seed(0)
config = LoraConfig(r=2, target_modules=["body"], modules_to_save=["head"], bias="all")
network = nn.Sequential()
network.add_module("body", nn.Linear(4, 4))
network.add_module("head", nn.Linear(4, 3))
adapted = get_peft_model(network, config)

before = {n: p.detach().clone() for n, p in adapted.named_parameters() if n.endswith("bias")}
optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
adapted(torch.randn(8, 4)).pow(2).sum().backward()
optimizer.step()
after = {n: p.detach() for n, p in adapted.named_parameters() if n.endswith("bias")}
trained = {n for n in after if not torch.equal(after[n], before[n])}

adapted.save_pretrained(sys.argv[1])
saved = load_file(f"{sys.argv[1]}/adapter_model.safetensors")
found = {}
for name in sorted(n for n in saved if n.endswith("bias")):
    then = [n for n in trained if torch.equal(saved[name], after[n])]
    found[name] = "after training" if then else "before training"
    print(f"{name}: {found[name]}")
weights = sum(".head." in n and n.endswith("weight") for n in saved)
print("weights of head:", weights)

prefix = "base_model.model"
as_stated = (
    trained == {f"{prefix}.body.base_layer.bias", f"{prefix}.head.modules_to_save.default.bias"}
    and found
    == {
        f"{prefix}.body.base_layer.bias": "after training",
        f"{prefix}.head.bias": "after training",
        f"{prefix}.head.modules_to_save.bias": "after training",
        f"{prefix}.head.original_module.bias": "before training",
    }
    and weights == 1
)
sys.exit(0 if as_stated else 1)
PY
