"""dictionary_learning: `config.json` and `ae.pt` in a folder `trainer_i`, on raw activations.

Scales of training are folded into the biases by the library before it saves. By `dict_class`:

- AutoEncoder: ReLU, `bias` subtracted from the input; the library's loader gives its directions
  norm 1 and so does this reader.
- AutoEncoderNew: ReLU, nothing subtracted.
- AutoEncoderTopK: the k largest a row; a `threshold` may be stored and is not used.
- BatchTopKSAE, MatryoshkaBatchTopKSAE: one threshold for all latents, all groups active.
- JumpReluAutoEncoder: a threshold a latent, nothing subtracted.
- GatedAutoEncoder: `gate_bias`, `mag_bias`, `r_mag`; `decoder_bias` subtracted.

`encoder.weight [n, d]` and `decoder.weight [d, n]` are linear layers, `W_enc [d, n]` and
`W_dec [n, d]` plain matrices.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import output_of
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.stored import Stored, described, settings, tensors_of_pickle
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError, did_you_mean

WEIGHTS, CONFIG = "ae.pt", "config.json"
FILES = (CONFIG, WEIGHTS)
_CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
    "GatedAutoEncoder",
)
_READS_RAW = ("AutoEncoderNew", "JumpReluAutoEncoder")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path) -> Dictionary:
    """Open a folder holding `config.json` and `ae.pt`; only tensors are unpickled.

    Raises:
        InputError: an unknown dict_class, a transcoder, or missing, truncated or pickled content.
    """
    config = settings(folder / CONFIG)
    trainer = config.get("trainer")
    if not isinstance(trainer, dict):
        raise InputError(f"{folder}/{CONFIG}: lacks trainer; give a folder that training wrote")
    name = str(trainer.get("dict_class"))
    if name not in _CLASSES:
        raise InputError(
            f"{folder}: dict_class {name!r} is not one of {', '.join(_CLASSES)}."
            f"{did_you_mean(name, _CLASSES)}"
        )
    card = _card(folder, config, trainer)
    stored = tensors_of_pickle(folder / WEIGHTS)
    with described(stored.path):
        made = _make(name, stored, trainer, {"subtract_bias": name not in _READS_RAW, "card": card})
    stored.refuse_rest()
    return made


def _make(
    name: str, stored: Stored, trainer: dict[str, Any], options: dict[str, Any]
) -> Dictionary:
    if name == "GatedAutoEncoder":
        gate = stored.vector("gate_bias")
        return GatedDictionary(
            **_maps(stored, gate).parts(),
            log_scale=stored.vector("r_mag"),
            magnitude_bias=stored.vector("mag_bias"),
            **options,
        )
    maps = _maps(stored, stored.vector("encoder.bias", "b_enc"))
    if name == "AutoEncoder":
        norms = maps.directions.norm(dim=1)
        is_unit = torch.allclose(norms, torch.ones_like(norms))
        return ReluDictionary(**(maps if is_unit else maps.unit_directions()).parts(), **options)
    if name == "AutoEncoderNew":
        return ReluDictionary(**maps.parts(), **options)
    if name == "JumpReluAutoEncoder":
        return JumpReluDictionary(**maps.parts(), threshold=stored.vector("threshold"), **options)
    if name == "AutoEncoderTopK":
        stored.leave("threshold")
        return TopKDictionary(**maps.parts(), k=_k(stored, trainer), **options)
    stored.leave("k", "group_sizes")
    threshold = torch.full_like(maps.encoder_bias, stored.number("threshold"))
    return JumpReluDictionary(**maps.parts(), threshold=threshold, **options)


def _maps(stored: Stored, encoder_bias: torch.Tensor) -> Maps:
    linear = stored.has("encoder.weight")
    encoder = stored.matrix("encoder.weight").T if linear else stored.matrix("W_enc")
    linear = stored.has("decoder.weight")
    directions = stored.matrix("decoder.weight").T if linear else stored.matrix("W_dec")
    decoder_bias = stored.vector("b_dec", "bias", "decoder_bias", "decoder.bias")
    return Maps(encoder, encoder_bias, directions, decoder_bias)


def _k(stored: Stored, trainer: dict[str, Any]) -> int:
    """k, which older files keep in the configuration alone."""
    said = trainer.get("k")
    kept = int(stored.number("k")) if stored.has("k") else said
    if not isinstance(kept, int) or (said is not None and said != kept):
        raise InputError(
            f"{stored.path}: k is {kept!r} there and {said!r} in {CONFIG}; fetch both again"
        )
    return kept


def _card(folder: Path, config: dict[str, Any], trainer: dict[str, Any]) -> Card:
    buffer = config.get("buffer")
    end = buffer.get("io", "out") if isinstance(buffer, dict) else "out"
    if end not in ("in", "out"):
        raise InputError(
            f"{folder}: trained with io {end!r}, a transcoder; "
            "give a dictionary that reconstructs what it reads"
        )
    k = trainer.get("k")
    return Card(
        site=_site(trainer.get("layer"), str(trainer.get("submodule_name") or ""), end == "in"),
        model=str(trainer.get("lm_name") or ""),
        l0=float(k) if isinstance(k, int) else 0.0,
    )


def _site(layer: object, submodule: str, reads_input: bool) -> str:
    """A trainer without a submodule's name, or with resid_post, was on a block's output."""
    if not isinstance(layer, int):
        return ""
    if not submodule or re.fullmatch(r"resid(_post|_pre)?(_layer)?(_?\d+)?", submodule):
        return output_of(layer - (reads_input or submodule.startswith("resid_pre")))
    return submodule if str(layer) in submodule else f"{submodule}_layer_{layer}"
