#!/usr/bin/env bash
# Library:   sae-lens 6.54.12 (with transformer-lens 3.9.0, transformers 5.23.0, torch 2.13.0)
# Guess:     SAETransformerBridge is TransformerLens' TransformerBridge that SAEs can be attached to: with
#            none attached, a hook does in the one what it does in the other.
# Behaviour: TransformerBridge takes the names that SAEs are published under (hook_resid_pre,
#            hook_resid_post, hook_mlp_out, attn.hook_z, ...) everywhere. SAETransformerBridge takes them in
#            add_hook, but its list of hook points has only the bridge's own names (hook_in, hook_out), and
#            run_with_hooks and hooks() skip what is not in it: a patched, steered or ablated run is the
#            untouched one bit for bit, and run_with_cache has no such key. Nothing is printed. After
#            enable_compatibility_mode() both classes take these names.
# Seen:      logits with a hook by add_hook, run_with_hooks, hooks(); in the cache
#            TransformerBridge     hook_resid_pre   changed, changed, changed; yes
#            TransformerBridge     hook_resid_post  changed, changed, changed; yes
#            TransformerBridge     hook_mlp_out     changed, changed, changed; yes
#            TransformerBridge     attn.hook_z      changed, changed, changed; yes
#            TransformerBridge     hook_out         changed, changed, changed; yes
#            SAETransformerBridge  hook_resid_pre   changed, as without, as without; no
#            SAETransformerBridge  hook_resid_post  changed, as without, as without; no
#            SAETransformerBridge  hook_mlp_out     changed, as without, as without; no
#            SAETransformerBridge  attn.hook_z      changed, as without, as without; no
#            SAETransformerBridge  hook_out         changed, changed, changed; yes
#            both in compatibility mode: all changed, all in the cache
#            printed or warned: nothing
# Exit code: 0 while this is so.
set -euo pipefail
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
venv=${VENV:-$folder/venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 transformers==5.23.0 transformer-lens==3.9.0 sae-lens==6.54.12
fi

"$venv/bin/python" -W ignore - "$folder" <<'PY'
import contextlib
import io
import logging
import sys
import warnings

import torch
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as progress

progress.disable_progress_bar()
IDS = torch.arange(1, 20)[None]
NAMES = ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "attn.hook_z", "hook_out")


def save(folder):
    """A small Llama model of random weights, with a tokenizer of words."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    special = {f"{name}_token": "w0" for name in ("unk", "bos", "eos", "pad")}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


def moved(rows, hook):
    return rows + torch.linspace(-1, 1, rows.shape[-1])


def add_hook(model, name):
    model.add_hook(name, moved)
    return model(IDS)


def run_with_hooks(model, name):
    return model.run_with_hooks(IDS, fwd_hooks=[(name, moved)])


def hooks(model, name):
    with model.hooks(fwd_hooks=[(name, moved)]):
        return model(IDS)


def tried(model, name):
    """Whether a hook changes the logits in each of three ways, and whether the cache has the name."""
    base = model(IDS)
    changes = []
    for way in (add_hook, run_with_hooks, hooks):
        changes.append(not torch.equal(way(model, name), base))
        model.reset_hooks()
    return [*changes, name in model.run_with_cache(IDS)[1].keys()]


said = io.StringIO()
logging.getLogger().addHandler(logging.StreamHandler(said))
found, compatible = {}, []
with (
    torch.no_grad(),
    warnings.catch_warnings(record=True) as warned,
    contextlib.redirect_stdout(said),
    contextlib.redirect_stderr(said),
):
    warnings.simplefilter("always")
    save(sys.argv[1])
    for kind in (TransformerBridge, SAETransformerBridge):
        model = kind.boot_transformers(sys.argv[1], device="cpu")
        for name in NAMES:
            found[kind.__name__, name] = tried(model, f"blocks.0.{name}")
        model.enable_compatibility_mode(no_processing=True)
        compatible += [all(tried(model, f"blocks.0.{name}")) for name in NAMES]
said.writelines(str(one.message) for one in warned if one.category is not FutureWarning)

print("logits with a hook by add_hook, run_with_hooks, hooks(); in the cache")
for (kind, name), (*changes, cached) in found.items():
    ways = ", ".join("changed" if change else "as without" for change in changes)
    print(f"{kind:21} {name:16} {ways}; {'yes' if cached else 'no'}")
if all(compatible):
    print("both in compatibility mode: all changed, all in the cache")
print("printed or warned:", said.getvalue().strip() or "nothing")
as_stated = all(
    ways == [True, *[kind == "TransformerBridge" or name == "hook_out"] * 3]
    for (kind, name), ways in found.items()
)
sys.exit(0 if as_stated and all(compatible) and not said.getvalue().strip() else 1)
PY
