#!/usr/bin/env bash
# Library:   sae-lens 6.54.12 (with transformers 5.23.0, torch 2.13.0)
# Guess:     the model in SAELens's list of releases is the one that a loaded SAE's metadata names, so
#            either says which model to run the SAE on.
# Behaviour: for the release llama_scope_r1_distill they differ: the list names the distilled model, the
#            metadata of every SAE its base family's model. The metadata also names SlimPajama as the data
#            of the SAE whose folder says it saw none of it. Both are constants of the loader, not read
#            from the repository's files. Two small SAEs with made-up sizes and weights are put into the
#            Hub's cache in that repository's layout, so nothing is downloaded but the packages.
# Seen:      list: deepseek-ai/DeepSeek-R1-Distill-Llama-8B
#            l0r_800m_slimpajama: meta-llama/Llama-3.1-8B, cerebras/SlimPajama-627B, from 800M-Slimpajama-0-OpenR1-Math-220k/L0R
#            l0r_800m_openr1_math: meta-llama/Llama-3.1-8B, cerebras/SlimPajama-627B, from 0-Slimpajama-800M-OpenR1-Math-220k/L0R
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

HF_HOME=$folder/hf HF_HUB_CACHE=$folder/hf/hub "$venv/bin/python" -W ignore - <<'PY'
import json
import os
import sys
from pathlib import Path

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors.torch import save_file

RELEASE = "llama_scope_r1_distill"
listed = get_pretrained_saes_directory()[RELEASE]
top = Path(os.environ["HF_HUB_CACHE"]) / f"models--{listed.repo_id.replace('/', '--')}"
commit = "1" * 40
(top / "refs").mkdir(parents=True)
(top / "refs" / "main").write_text(commit)

print("list:", listed.model)
torch.manual_seed(0)
found = {}
for name in ("l0r_800m_slimpajama", "l0r_800m_openr1_math"):
    path = listed.saes_map[name]
    files = top / "snapshots" / commit / path
    files.mkdir(parents=True)
    settings = {"d_model": 8, "expansion_factor": 2, "hook_point_in": "blocks.0.hook_resid_post"}
    (files / "config.json").write_text(json.dumps(settings))
    weights = {
        "encoder.weight": torch.randn(16, 8),
        "encoder.bias": torch.zeros(16),
        "decoder.weight": torch.randn(8, 16),
        "decoder.bias": torch.zeros(8),
        "log_jumprelu_threshold": torch.zeros(16),
    }
    save_file(weights, files / "sae_weights.safetensors")
    metadata = SAE.from_pretrained(RELEASE, name).cfg.metadata
    found[name] = (metadata.model_name, metadata.dataset_path)
    print(f"{name}: {', '.join(found[name])}, from {path}")

stated = ("meta-llama/Llama-3.1-8B", "cerebras/SlimPajama-627B")
as_stated = (
    listed.model == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    and all(seen == stated for seen in found.values())
    and listed.saes_map["l0r_800m_openr1_math"].startswith("0-Slimpajama-")
)
sys.exit(0 if as_stated else 1)
PY
