#!/usr/bin/env bash
# Library:   sae-lens 6.54.12 (with transformer-lens 3.9.0, transformers 5.23.0, torch 2.13.0)
# Guess:     run_with_saes leaves the model as it found it, and with use_error_term=True it gives the
#            logits that the model gives without an SAE, hooks included.
# Behaviour: not for a hook at the SAE's own place, say one that steers there while latents are read: the
#            SAE takes the hook point's place, so in that run the hook is not called, and afterwards a
#            new hook point stands there, without it. Hooks added with is_permanent=True go as well, and
#            nothing is printed. With SAETransformerBridge, a hook added to that name after such a run is
#            not called either. A hook at another place stays.
# Seen:      share of the hook's change of the logits: before the run, in it, after it, added anew
#            HookedSAETransformer, at the SAE's place: 1.000 0.000 0.000 1.000
#            HookedSAETransformer, there and permanent: 1.000 0.000 0.000 1.000
#            HookedSAETransformer, a block before: 1.000 1.000 1.000 1.000
#            SAETransformerBridge, at the SAE's place: 1.000 0.000 0.000 0.000
#            SAETransformerBridge, there and permanent: 1.000 0.000 0.000 0.000
#            SAETransformerBridge, a block before: 1.000 1.000 1.000 1.000
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
from sae_lens import HookedSAETransformer, StandardSAE, StandardSAEConfig
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.saes.sae import SAEMetadata
from tokenizers import Tokenizer, models
from transformer_lens import HookedTransformerConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as progress

progress.disable_progress_bar()
IDS = torch.arange(1, 20)[None]
PLACE, BEFORE = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"


def hooked():
    sizes = dict(n_layers=3, d_model=32, n_ctx=32, d_head=8, n_heads=4, d_mlp=48, d_vocab=97)
    return HookedSAETransformer(HookedTransformerConfig(act_fn="gelu", device="cpu", **sizes))


def bridge():
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes)).save_pretrained(sys.argv[1])
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    special = {f"{name}_token": "w0" for name in ("unk", "bos", "eos", "pad")}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(sys.argv[1])
    return SAETransformerBridge.boot_transformers(sys.argv[1], device="cpu")


def shares(model, place, permanent):
    """How much of what a steering hook changes is there before, in and after a run with an SAE."""
    base = model(IDS)
    vector = torch.randn(32)

    def steer(rows, hook):
        return rows + vector

    model.add_hook(place, steer, is_permanent=permanent)
    steered = model(IDS)
    metadata = SAEMetadata(hook_name=PLACE)
    sae = StandardSAE(StandardSAEConfig(d_in=32, d_sae=64, device="cpu", metadata=metadata))
    found = [steered, model.run_with_saes(IDS, saes=[sae], use_error_term=True), model(IDS)]
    model.reset_hooks(including_permanent=True)
    model.add_hook(place, steer)
    found.append(model(IDS))
    return [round(((one - base).norm() / (steered - base).norm()).item(), 3) for one in found]


said = io.StringIO()
logging.getLogger().addHandler(logging.StreamHandler(said))
ways = {}
with torch.no_grad():
    for make in (hooked, bridge):
        for way, place, permanent in (
            ("at the SAE's place", PLACE, False),
            ("there and permanent", PLACE, True),
            ("a block before", BEFORE, False),
        ):
            torch.manual_seed(0)
            model = make()
            with (
                warnings.catch_warnings(record=True) as warned,
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
            ):
                warnings.simplefilter("always")
                ways[type(model).__name__, way] = shares(model, place, permanent)
            said.writelines(str(w.message) for w in warned if w.category is not FutureWarning)

print("share of the hook's change of the logits: before the run, in it, after it, added anew")
for (name, way), found in ways.items():
    print(f"{name}, {way}:", *(f"{share:.3f}" for share in found))
print("printed or warned:", said.getvalue().strip() or "nothing")
as_stated = all(
    found == ([1, 1, 1, 1] if way == "a block before" else [1, 0, 0, float("Hooked" in name)])
    for (name, way), found in ways.items()
)
sys.exit(0 if as_stated and not said.getvalue().strip() else 1)
PY
