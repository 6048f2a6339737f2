#!/usr/bin/env bash
# Library:   transformer-lens 3.9.0 (with peft 0.21.2, transformers 5.23.0, torch 2.13.0)
# Guess:     TransformerBridge.boot_transformers(..., hf_model=MODEL) computes what MODEL computes, with
#            LoRA layers in it or without, whichever of its linear maps they are on.
# Behaviour: it does on maps that the bridge wraps as they are. Where queries, keys and values are one map
#            (GPT-2, GPT-NeoX and Pythia; PEFT's default target there) the bridge copies its weight into
#            three maps of its own, and of a LoRA layer that is the base weight: logits are the base's to
#            rounding, the LoRA weights are still among the bridge's parameters, nothing is printed. With
#            the adapter merged first the bridge computes it.
# Seen:      share of the adapter's change of the logits that the bridge computes
#            llama q_proj: 1.000
#            gpt2 c_fc: 1.000
#            gpt_neox dense: 1.000
#            gpt2 c_attn: 0.000, merged first 1.000; LoRA weights among the bridge's parameters 4 of 4
#            gpt_neox query_key_value: 0.000, merged first 1.000; LoRA weights among the bridge's parameters 4 of 4
#            printed or warned: nothing
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 peft==0.21.2 transformer-lens==3.9.0
fi

"$venv/bin/python" -W ignore - "$folder" <<'PY'
import contextlib
import io
import logging
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as progress

progress.disable_progress_bar()
said = io.StringIO()
logging.getLogger().addHandler(logging.StreamHandler(said))
IDS = torch.arange(1, 20)[None]
WORDS = {f"w{i}": i for i in range(97)}
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
CONFIGS = {
    "llama": LlamaConfig(vocab_size=97, attn_implementation="eager", **SIZES),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, attn_implementation="eager"),
    "gpt_neox": GPTNeoXConfig(vocab_size=97, attn_implementation="eager", **SIZES),
}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel(WORDS, unk_token="w0")),
    **{f"{name}_token": "w0" for name in ("unk", "bos", "eos", "pad")},
)


def adapted(kind, target):
    """A base model's logits, and that model with a LoRA adapter whose update is not zero."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(CONFIGS[kind]).eval()
    base.save_pretrained(f"{sys.argv[1]}/{kind}")
    tokenizer.save_pretrained(f"{sys.argv[1]}/{kind}")
    logits = base(IDS).logits
    model = get_peft_model(base, LoraConfig(r=2, target_modules=target)).eval()
    for name, weights in model.named_parameters():
        if "lora_" in name:
            weights += 0.3 * torch.randn(weights.shape)
    return logits, model


def computed(kind, target, merged=False):
    """The share of the adapter's change of the logits in a bridge's, and its LoRA weights."""
    base, model = adapted(kind, target)
    change = model(IDS).logits - base
    lora = {id(weights) for name, weights in model.named_parameters() if "lora_" in name}
    inner = model.merge_and_unload() if merged else model.base_model.model
    with (
        warnings.catch_warnings(record=True) as warned,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        warnings.simplefilter("always")
        bridge = TransformerBridge.boot_transformers(
            f"{sys.argv[1]}/{kind}", hf_model=inner, device="cpu"
        )
        got = bridge(IDS) - base
    said.writelines(str(one.message) for one in warned if one.category is not FutureWarning)
    share = ((got * change).sum() / change.square().sum()).item()
    assert (got - share * change).norm() < 1e-3 * change.norm()
    there = sum(id(weights) in lora for weights in bridge.parameters())
    return abs(round(share, 3)), there, len(lora)


ways = {}
with torch.no_grad():
    for kind, target in (("llama", "q_proj"), ("gpt2", "c_fc"), ("gpt_neox", "dense")):
        ways[f"{kind} {target}"] = computed(kind, [target]), None
    for kind, target in (("gpt2", "c_attn"), ("gpt_neox", "query_key_value")):
        ways[f"{kind} {target}"] = computed(kind, None), computed(kind, None, merged=True)

print("share of the adapter's change of the logits that the bridge computes")
for way, ((share, there, lora), merged) in ways.items():
    if merged is None:
        print(f"{way}: {share:.3f}")
    else:
        print(
            f"{way}: {share:.3f}, merged first {merged[0]:.3f};",
            f"LoRA weights among the bridge's parameters {there} of {lora}",
        )
print("printed or warned:", said.getvalue().strip() or "nothing")
as_stated = all(
    share == 1 if merged is None else (share == 0 and merged[0] == 1 and there == lora)
    for (share, there, lora), merged in ways.values()
)
sys.exit(0 if as_stated and not said.getvalue().strip() else 1)
PY
