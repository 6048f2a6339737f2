#!/usr/bin/env bash
# Library:   transformers 5.23.0 and peft 0.21.2 (with torch 2.13.0)
# Guess:     from_pretrained gives the same model for a Hub repository and for a folder with that
#            repository's files, whichever of the two libraries reads it.
# Behaviour: for files that hold both a whole model (config.json, model.safetensors) and an adapter it
#            does not. By a folder's path transformers puts the adapter on the folder's own weights; by
#            the repository's name it puts it on the base that adapter_config.json names, and leaves
#            the repository's own model.safetensors unread. PEFT takes the named base both ways.
#            The Hub's cache is filled here by hand, so nothing is downloaded but the packages.
# Seen:      AutoModelForCausalLM      by name: base, by path: own; adapter tensors 2, 2
#            LlamaForCausalLM          by name: base, by path: own; adapter tensors 2, 2
#            AutoPeftModelForCausalLM  by name: base, by path: base; adapter tensors 2, 2
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

HF_HOME=$folder/hf HF_HUB_CACHE=$folder/hf/hub "$venv/bin/python" -W ignore - <<'PY'
import os
import sys
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
CACHE = Path(os.environ["HF_HUB_CACHE"])
BASE, OWN = 1.0, 2.0


def model(mark):
    """A small model whose last norm's weights are all `mark`."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    with torch.no_grad():
        made.model.norm.weight.fill_(mark)
    return made


def repository(name, commit):
    """The folder in the Hub's cache that holds the files of repository `name`."""
    top = CACHE / f"models--{name.replace('/', '--')}"
    files = top / "snapshots" / commit
    files.mkdir(parents=True)
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text(commit)
    return files


model(BASE).save_pretrained(repository("example/base", "1" * 40))
whole = repository("example/whole", "2" * 40)
model(OWN).save_pretrained(whole)
adapter = get_peft_model(model(BASE), LoraConfig(r=2, target_modules=["q_proj"]))
adapter.peft_config["default"].base_model_name_or_path = "example/base"
adapter.save_pretrained(whole)

found = {}
for reader in (AutoModelForCausalLM, LlamaForCausalLM, AutoPeftModelForCausalLM):
    for way, where in (("name", "example/whole"), ("path", str(whole))):
        weights = dict(reader.from_pretrained(where).named_parameters())
        mark = next(w for n, w in weights.items() if n.endswith("model.norm.weight"))[0].item()
        tensors = sum("lora_" in n for n in weights)
        found[reader.__name__, way] = ({BASE: "base", OWN: "own"}[mark], tensors)
    by = [found[reader.__name__, way] for way in ("name", "path")]
    print(f"{reader.__name__:25} by name: {by[0][0]}, by path: {by[1][0]}; adapter tensors {by[0][1]}, {by[1][1]}")

as_stated = found == {
    ("AutoModelForCausalLM", "name"): ("base", 2),
    ("AutoModelForCausalLM", "path"): ("own", 2),
    ("LlamaForCausalLM", "name"): ("base", 2),
    ("LlamaForCausalLM", "path"): ("own", 2),
    ("AutoPeftModelForCausalLM", "name"): ("base", 2),
    ("AutoPeftModelForCausalLM", "path"): ("base", 2),
}
sys.exit(0 if as_stated else 1)
PY
