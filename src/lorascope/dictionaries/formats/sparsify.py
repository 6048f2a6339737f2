"""sparsify: `cfg.json` and `sae.safetensors`, TopK or GroupMax on raw activations.

`encoder.weight [n, d]`, `encoder.bias`, `W_dec [n, d]` (directions are rows already), `b_dec`.
The decoder bias is always subtracted from the input, whatever `normalize_decoder` says; only
transcoders do not, and they are refused. The folder's name is the hookpoint: `layers.L`, or
`layers.L/seedS`, is the output of block L.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.fields import Fields, settings
from lorascope.dictionaries.groupmax import GroupMaxDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import EMBEDDINGS, site_of
from lorascope.dictionaries.stored import described, safetensors
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
# The run's own configuration, which names the model, lies above the hookpoint.
FILES = (CONFIG, WEIGHTS, "../config.json", "../../config.json")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, asked: AskedDictionary | None = None) -> Dictionary:
    """Open a folder holding `cfg.json` and `sae.safetensors`.

    Raises:
        InputError: a transcoder, a skip connection, signed activations, or missing or truncated
            tensors.
    """
    config = settings(folder / CONFIG)
    activation = _activation(folder, config)
    stored = safetensors(folder / WEIGHTS)
    encoder, directions = stored.matrix("encoder.weight").T, stored.matrix("W_dec")
    encoder_bias, decoder_bias = stored.vector("encoder.bias"), stored.vector("b_dec")
    stored.refuse_rest()
    k = config.whole("k")
    if k is None:
        raise config.refusal("k", "a whole number")
    with described(stored.path):
        maps = Maps(encoder, encoder_bias, directions, decoder_bias)
        # 0 latents stand for a multiple of the width that expansion_factor says.
        latents = {"num_latents": maps.n} if config.raw("num_latents") != 0 else {}
        config.sizes({"d_in": maps.d, **latents})
        options: dict[str, Any] = {**maps.parts(), "k": k, "card": _card(folder, k)}
        if activation == "groupmax":
            return GroupMaxDictionary(**options)
        return TopKDictionary(**options)


def _activation(folder: Path, config: Fields) -> str:
    """topk or groupmax.

    Raises:
        InputError: it is another, or no autoencoder at all.
    """
    for key in ("transcode", "skip_connection"):
        if config.flag(key, False):
            raise InputError(
                f"{folder}: a transcoder ({key} is set), which does not reconstruct what it "
                "reads; give a sparse autoencoder"
            )
    activation = config.text("activation", "topk")
    if config.flag("signed", False):
        activation = "signed topk"
    if activation not in ("topk", "groupmax"):
        raise InputError(f"{folder}: activation {activation!r} is not topk or groupmax")
    return activation


def _card(folder: Path, k: int) -> Card:
    place = folder.absolute()
    if re.fullmatch(r"seed\d+", place.name):
        place = place.parent
    above = place.parent / "config.json"
    model = settings(above).text("model") if above.is_file() else ""
    # Early releases wrote layer_5 and layers_5 for what is layers.5 now.
    name = re.sub(r"^layers?_(\d+)$", r"layers.\1", place.name)
    if name == "embed_tokens":
        site = EMBEDDINGS
    else:
        site = site_of(name) if re.search(r"(layers|h|blocks)\.\d+", name) else ""
    return Card(site=site, model=model, l0=float(k))
