"""Write an adapted model and a dictionary to a folder for evaluators of other environments.

SAEBench and SAEDashboard load a model by name through TransformerLens and a dictionary in SAELens'
layout. What is written:

    model/          a checkpoint, the adapter merged into its weights, and the tokenizer
    dictionary/     cfg.json, sae_weights.safetensors
    saebench.py     sparse probing with SAEBench, in its environment
    dashboard.py    feature pages with SAEDashboard, in its environment
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.fits.card import CARD, read_card
from lorascope.fits.wrapper import with_adapter
from lorascope.models.adapter_files import locate
from lorascope.models.load import load_base
from lorascope.models.sites import parse_site, resolve_sites
from lorascope.runs import write_atomically

PathLike = str | os.PathLike[str]
_LOADING = """from pathlib import Path

from sae_lens import SAE
from transformer_lens import HookedTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

here = Path(__file__).parent
hf_model = AutoModelForCausalLM.from_pretrained(here / "model")
tokenizer = AutoTokenizer.from_pretrained(here / "model")
# The name says the architecture alone; the weights are those of the folder.
model = HookedTransformer.from_pretrained_no_processing(
    "{name}", hf_model=hf_model, tokenizer=tokenizer
)
sae = SAE.load_from_disk(here / "dictionary")
"""
_SAEBENCH = '''"""Sparse probing with SAEBench: pip install sae-bench==0.6.0, elsewhere."""

{loading}
from unittest.mock import patch

from sae_bench.evals.sparse_probing import main
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig

config = SparseProbingEvalConfig(model_name="{name}", llm_dtype="float32", llm_batch_size=16)
# It would load the model by its name, without the adapter.
with patch.object(
    main.HookedTransformer, "from_pretrained_no_processing", lambda *_, **__: model
):
    main.run_eval(config, [("handed_over", sae)], "cpu", str(here / "saebench"))
'''
_DASHBOARD = '''"""Feature pages: pip install sae-dashboard==0.8.0, in an environment of its own."""

{loading}
from sae_dashboard.data_writing_fns import save_feature_centric_vis
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner

texts = (here / "texts.txt").read_text().splitlines()
tokens = model.to_tokens(texts)
config = SaeVisConfig(hook_point="{hook}", features=list(range(64)), minibatch_size_tokens=64)
found = SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens)
save_feature_centric_vis(sae_vis_data=found, filename=str(here / "dashboard.html"))
'''


def hand_over(
    model: str,
    dictionary: PathLike | Dictionary,
    site: str,
    folder: PathLike,
    *,
    adapter: PathLike | None = None,
    name: str = "",
    **loading: Any,
) -> Path:
    """Write a merged model and a dictionary for SAEBench and SAEDashboard; returns the folder.

    Args:
        model: hub id, folder, or "embedded".
        dictionary: address or dictionary, at `site`.
        folder: a new or empty one.
        adapter: a PEFT adapter, or the folder of a fit that `adapt` made with LoRA alone.
        name: what TransformerLens calls the architecture; the model's id by default.
        loading: for `load_base`.

    Raises:
        InputError: the folder is not empty, or the adapter cannot be merged.
    """
    out = Path(folder)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out}: not empty; give another folder")
    module, tokenizer = load_base(model, **loading)
    (place,) = resolve_sites(module, [site])
    found = dictionary if isinstance(dictionary, Dictionary) else open_dictionary(str(dictionary))
    if found.d_model != module.get_input_embeddings().weight.shape[1]:
        raise InputError(
            f"the dictionary reads rows of width {found.d_model}, the model's are of another; "
            "give one made for this model"
        )
    merged: Any = module if adapter is None else _merged(module, Path(adapter))
    merged.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    save(found, out / "dictionary")
    known = name or model
    hook = f"blocks.{parse_site(place.name).index}.hook_resid_post"
    begun = _LOADING.format(name=known)
    scripts = {"saebench.py": _SAEBENCH, "dashboard.py": _DASHBOARD}
    for file, text in scripts.items():
        write_atomically(out / file, text.format(loading=begun, name=known, hook=hook))
    return out


def _merged(module: Any, folder: Path) -> nn.Module:
    """The model with the adapter in its weights."""
    if (folder / CARD).is_file():
        card = read_card(folder)
        if set(card.fitted) != {"lora"}:
            raise InputError(
                f"{folder}: {', '.join(card.fitted)} were fitted; only LoRA can be merged into "
                "weights: fit with LoRA alone to hand it over"
            )
    else:
        located = locate("adapter", str(folder))
        if located is None:
            raise InputError(f"{folder}: a whole model, not an adapter; give it as `model`")
        folder = located
    dressed: PeftModel = with_adapter(module, folder)
    found: nn.Module = dressed.merge_and_unload()
    return found
