"""Write an adapted model and a dictionary to a folder for evaluators of other environments.

SAEBench and SAEDashboard load a model by name and a dictionary in SAELens' layout. What is written:

    model/          a checkpoint, the adapter merged into its weights, and the tokenizer
    base/           the base model's, where the dictionary reads adapted minus base
    dictionary/     cfg.json, sae_weights.safetensors
    saebench.py     sparse probing with SAEBench, in its environment; not for adapted minus base
    dashboard.py    feature pages with SAEDashboard, in its environment (`dashboards` has the rest)
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from peft import PeftModel

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.fits.card import is_fit, read_card
from lorascope.fits.wrapper import with_adapter
from lorascope.models.adapter_files import WEIGHT_FILES, locate, sha256_of
from lorascope.models.load import load_base
from lorascope.models.prepared import prepare
from lorascope.models.sites import resolve_sites
from lorascope.runs import read_json, write_atomically, write_json
from lorascope.studies.evaluate import dashboards
from lorascope.studies.evaluate.dashboards import ShownTexts

PathLike = str | os.PathLike[str]
_SAEBENCH = '''"""Sparse probing with SAEBench: pip install sae-bench==0.6.0, elsewhere."""

import os
from pathlib import Path
from unittest.mock import patch

# Its type checks know TransformerLens' older class alone, which has models by name only.
os.environ["JAXTYPING_DISABLE"] = "1"

from sae_bench.evals.sparse_probing import main
from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
from sae_lens import SAE
from transformer_lens.model_bridge import TransformerBridge

here = Path(__file__).parent
model = TransformerBridge.boot_transformers(str(here / "model"), device="cpu")
sae = SAE.load_from_disk(here / "dictionary")
config = SparseProbingEvalConfig(model_name="{name}", llm_dtype="float32", llm_batch_size=16)
# It would load the model by its name, without the adapter.
with patch.object(
    main.HookedTransformer, "from_pretrained_no_processing", lambda *_, **__: model
):
    main.run_eval(config, [("handed_over", sae)], "cpu", str(here / "saebench"))
'''


def hand_over(
    model: str,
    dictionary: PathLike | Dictionary,
    site: str,
    folder: PathLike,
    *,
    adapter: PathLike | None = None,
    name: str = "",
    texts: ShownTexts | None = None,
    **loading: Any,
) -> Path:
    """Write a merged model and a dictionary for SAEBench and SAEDashboard into a new folder.

    Args:
        dictionary: address or dictionary, at `site`; one of deltas reads adapted minus base.
        adapter: a PEFT adapter, or the folder of a fit that `adapt` made with LoRA alone.
        name: what TransformerLens and Neuronpedia call the model; its id by default.
        texts: what latents are shown on; the packaged instructions by default.
        loading: for `load_base`.

    Raises:
        InputError: the folder is not empty, the adapter cannot be merged, is missing or is not
            the one whose deltas the dictionary was made of, SAELens has no such dictionary, or the
            texts are too short.
    """
    out, shown_on = Path(folder), texts or ShownTexts()
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out}: not empty; give another folder")
    found = dictionary if isinstance(dictionary, Dictionary) else open_dictionary(str(dictionary))
    of_delta = found.card.target not in ("unknown", "base")
    located = None if adapter is None else _located(Path(adapter))
    _require(found, located, of_delta)
    module, tokenizer = load_base(model, **loading)
    (place,) = resolve_sites(module, [site])
    if found.d_model != module.get_input_embeddings().weight.shape[1]:
        raise InputError(
            f"the dictionary reads rows of width {found.d_model}, the model's are of another; "
            "give one made for this model"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as aside:
        whole = Path(aside) / "whole"
        shown = dashboards.sequences(tokenizer, shown_on)
        rows = dashboards.stream(module, place, shown.ids)
        if of_delta:
            _save(module, tokenizer, whole / "base")
        if located is not None:
            module = _merged(model, module, located)
            theirs = dashboards.stream(module, place, shown.ids)
            rows = theirs - rows if of_delta else theirs
        _save(module, tokenizer, whole / "model")
        save(found, whole / "dictionary")
        models = ("model", "base") if of_delta else ("model",)
        known = name or model
        dashboards.write(whole, module, place, found, shown, rows, shown_on, models, known)
        if not of_delta:
            write_atomically(whole / "saebench.py", _SAEBENCH.format(name=known))
        _put(whole, out)
    return out


def _put(whole: Path, out: Path) -> None:
    if out.is_dir():
        out.rmdir()
    whole.replace(out)


def _located(folder: Path) -> Path:
    """The folder of the adapter, or of the fit, that is merged."""
    if is_fit(folder):
        return folder
    located = locate("adapter", str(folder))
    if located is None:
        raise InputError(f"{folder}: a whole model, not an adapter; give it as `model`")
    return located


def _require(dictionary: Dictionary, adapter: Path | None, of_delta: bool) -> None:
    """Refuse, before a model is loaded, what no folder can be written of."""
    card = dictionary.card
    if getattr(dictionary, "architecture", "") == "groupmax":
        raise InputError("SAELens has no GroupMax dictionaries, so that its tools cannot open one")
    if of_delta and adapter is None:
        raise InputError(
            f"dictionary {card.source}: reads what adapter {card.adapter or '(unnamed)'} adds to "
            "the stream, adapted minus base: give that adapter (--adapter)"
        )
    if of_delta and adapter is not None and card.adapter_sha256:
        files = [adapter / name for name in WEIGHT_FILES if (adapter / name).is_file()]
        if files and card.adapter_sha256 not in map(sha256_of, files):
            raise InputError(
                f"dictionary {card.source}: made of adapter {card.adapter} with SHA-256 "
                f"{card.adapter_sha256[:12]}…, {adapter} has {sha256_of(files[0])[:12]}…; give "
                "the one it was made of"
            )


def _save(module: Any, tokenizer: Any, folder: Path) -> None:
    """A checkpoint that versions of transformers before 5 read as well."""
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "config.json"
    config = read_json(file)
    rotary = config.get("rope_parameters")
    if isinstance(rotary, dict) and "rope_theta" in rotary and "rope_theta" not in config:
        # Where older versions look; they would take their own default without a word.
        config["rope_theta"] = rotary["rope_theta"]
        if rotary.get("rope_type", "default") != "default":
            kept = {key: value for key, value in rotary.items() if key != "rope_theta"}
            config["rope_scaling"] = kept
        write_json(file, config)


def _merged(model: str, module: Any, folder: Path) -> Any:
    """The model with the adapter in its weights."""
    if is_fit(folder):
        card = read_card(folder)
        if set(card.fitted) != {"lora"}:
            raise InputError(
                f"{folder}: {', '.join(card.fitted)} were fitted; only LoRA can be merged into "
                "weights: fit with LoRA alone to hand it over"
            )
    else:
        # PEFT says nothing of tensors that it has no place for.
        prepare(model, {"adapter": folder})
    dressed: PeftModel = with_adapter(module, folder)
    return dressed.merge_and_unload()
