"""SAELens layout, written: `cfg.json`, `sae_weights.safetensors`, and the card beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.groupmax import GroupMaxDictionary
from lorascope.dictionaries.places import block_of
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.runs import write_atomically, write_json

CONFIG, WEIGHTS, CARD = "cfg.json", "sae_weights.safetensors", "lorascope.json"
# Without a version SAELens takes the file for an old one and drops the metadata's names.
LAYOUT_VERSION = "6.0.0"
_NAMES = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}
_NAMES["groupmax"] = "groupmax"  # read here alone: SAELens has no such architecture
_MAPS = {"encoder": "W_enc", "directions": "W_dec", "decoder_bias": "b_dec"}
_TENSORS = {
    "standard": {**_MAPS, "encoder_bias": "b_enc"},
    "topk": {**_MAPS, "encoder_bias": "b_enc"},
    "groupmax": {**_MAPS, "encoder_bias": "b_enc"},
    "jumprelu": {**_MAPS, "encoder_bias": "b_enc", "threshold": "threshold"},
    "gated": {
        **_MAPS,
        "encoder_bias": "b_gate",
        "log_scale": "r_mag",
        "magnitude_bias": "b_mag",
    },
}


def write(dictionary: Dictionary, folder: Path) -> None:
    """Write a dictionary so that SAELens opens it with equal encode and decode.

    GroupMax, which SAELens does not have, is written in the same layout and opened here alone.

    The weights come last and at once: a folder that holds them is whole.

    Raises:
        TypeError: the dictionary is of no architecture of this layout.
    """
    architecture = _NAMES.get(getattr(dictionary, "architecture", ""))
    if architecture is None:
        raise TypeError(f"{type(dictionary).__name__} has no SAELens layout")
    names = _TENSORS[architecture]
    card = dictionary.card.model_copy(update={"d_model": dictionary.d_model})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG, json.dumps(_config(dictionary, architecture), indent=1))
    write_json(folder / CARD, card.plain())
    tensors = {names[name]: t.cpu().contiguous() for name, t in dictionary.named_buffers()}
    partial = folder / f".{WEIGHTS}.{os.getpid()}.partial"
    save_file(tensors, partial)
    partial.replace(folder / WEIGHTS)


def _config(dictionary: Dictionary, architecture: str) -> dict[str, Any]:
    card = dictionary.card
    block = block_of(card.site)
    metadata = {
        "model_name": card.model or None,
        "hook_name": f"blocks.{block}.hook_resid_post" if block is not None else card.site or None,
        "hf_hook_name": f"model.{card.site}" if block is not None else None,
        "neuronpedia_id": card.neuronpedia or None,
        "prepend_bos": True,
        "sae_lens_version": LAYOUT_VERSION,
        "lorascope_target": card.target,
    }
    own = {}
    if isinstance(dictionary, TopKDictionary | GroupMaxDictionary):
        own = {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    return {
        "architecture": architecture,
        "d_in": dictionary.d_model,
        "d_sae": dictionary.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtract_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **own,
        "metadata": metadata,
    }
