"""sparsify: `cfg.json` and `sae.safetensors`, TopK on raw activations.

`encoder.weight [n, d]`, `encoder.bias`, `W_dec [n, d]` (directions are rows already), `b_dec`.
The decoder bias is always subtracted from the input, whatever `normalize_decoder` says; only
transcoders do not, and they are refused. The folder's name is the hookpoint: `layers.L`, or
`layers.L/seedS`, is the output of block L.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.places import EMBEDDINGS, site_of
from lorascope.dictionaries.stored import described, safetensors, settings
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
# The run's own configuration, which names the model, lies above the hookpoint.
FILES = (CONFIG, WEIGHTS, "../config.json", "../../config.json")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path) -> TopKDictionary:
    """Open a folder holding `cfg.json` and `sae.safetensors`.

    Raises:
        InputError: a transcoder, a skip connection, signed or grouped activations, or missing or
            truncated tensors.
    """
    config = settings(folder / CONFIG)
    _refuse_others(folder, config)
    stored = safetensors(folder / WEIGHTS)
    encoder, directions = stored.matrix("encoder.weight").T, stored.matrix("W_dec")
    encoder_bias, decoder_bias = stored.vector("encoder.bias"), stored.vector("b_dec")
    stored.refuse_rest()
    k = config.get("k")
    if not isinstance(k, int):
        raise InputError(f"{folder}/{CONFIG}: k is {k!r}, expected a whole number; fetch it again")
    with described(stored.path):
        return TopKDictionary(
            encoder, encoder_bias, directions, decoder_bias, k, card=_card(folder, k)
        )


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    for key in ("transcode", "skip_connection"):
        if config.get(key):
            raise InputError(
                f"{folder}: {key} is set, so it does not reconstruct what it reads; "
                "give a sparse autoencoder"
            )
    activation = config.get("activation", "topk")
    if activation != "topk" or config.get("signed"):
        name = "signed topk" if config.get("signed") else activation
        raise InputError(f"{folder}: activation {name!r} is not topk")


def _card(folder: Path, k: int) -> Card:
    place = folder.absolute()
    if re.fullmatch(r"seed\d+", place.name):
        place = place.parent
    run = settings(place.parent / "config.json") if (place.parent / "config.json").exists() else {}
    # Early releases wrote layer_5 and layers_5 for what is layers.5 now.
    name = re.sub(r"^layers?_(\d+)$", r"layers.\1", place.name)
    if name == "embed_tokens":
        site = EMBEDDINGS
    else:
        site = site_of(name) if re.search(r"(layers|h|blocks)\.\d+", name) else ""
    return Card(site=site, model=str(run.get("model") or ""), l0=float(k))
