"""dictionary_learning: `config.json` and `ae.pt` in a folder `trainer_i`, on raw activations.

Scales of training are folded into the biases by the library before it saves. By `dict_class`:

- AutoEncoder: ReLU, `bias` subtracted from the input; the library's loader gives its directions
  norm 1 and so does this reader.
- AutoEncoderNew: ReLU, nothing subtracted. The library's trainers file it under "AutoEncoder"
  too; its `decoder.bias` in place of `bias` tells it apart.
- AutoEncoderTopK: the k largest a row; a `threshold` may be stored and is not used.
- BatchTopKSAE, MatryoshkaBatchTopKSAE: one threshold for all latents, all groups active. It is
  −1 until step `threshold_start_step` (1,000): every positive pre-activation then passes.
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

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.fields import Fields, settings, shown
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import output_of
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.stored import StoredTensors, described, tensors_of_pickle
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError, did_you_mean

WEIGHTS, CONFIG = "ae.pt", "config.json"
FILES = (CONFIG, WEIGHTS)
# Classes, and the name each gives the bias its decoder adds.
_BIAS = {
    "AutoEncoder": "bias",
    "AutoEncoderNew": "decoder.bias",
    "AutoEncoderTopK": "b_dec",
    "BatchTopKSAE": "b_dec",
    "MatryoshkaBatchTopKSAE": "b_dec",
    "JumpReluAutoEncoder": "b_dec",
    "GatedAutoEncoder": "decoder_bias",
}
_READS_RAW = ("AutoEncoderNew", "JumpReluAutoEncoder")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, asked: AskedDictionary | None = None) -> Dictionary:
    """Open a folder holding `config.json` and `ae.pt`; only tensors are unpickled.

    Raises:
        InputError: an unknown dict_class, one that the tensors contradict, a transcoder, or
            missing, truncated or pickled content.
    """
    config = settings(folder / CONFIG)
    if "trainer" not in config:
        raise InputError(f"{folder}/{CONFIG}: lacks trainer; give a folder that training wrote")
    trainer = config.inner("trainer")
    name = shown(trainer.raw("dict_class")).strip("'")
    if name not in _BIAS:
        raise InputError(
            f"{folder}: dict_class {name!r} is not one of {', '.join(_BIAS)}."
            f"{did_you_mean(name, _BIAS)}"
        )
    card = _card(folder, config, trainer)
    stored = tensors_of_pickle(folder / WEIGHTS)
    name = _class(stored, name)
    with described(stored.path):
        k = _k(stored, trainer) if "TopK" in name else None
        options = {"subtract_bias": name not in _READS_RAW, "card": card}
        if k:
            options["card"] = card.model_copy(update={"l0": float(k)})
        made = _make(name, stored, k, options)
        sizes = {"activation_dim": made.d_model, "dict_size": made.n_latents}
        trainer.sizes(sizes)
    stored.refuse_rest()
    return made


def _class(stored: StoredTensors, said: str) -> str:
    """The class whose tensors these are.

    Raises:
        InputError: the tensors are not those of the class that is said.
    """
    found = [name for name in dict.fromkeys(_BIAS.values()) if stored.has(name)]
    if said == "AutoEncoder" and found == ["decoder.bias"]:
        return "AutoEncoderNew"
    if found and found != [_BIAS[said]]:
        raise InputError(
            f"{stored.path}: holds {', '.join(found)}, and dict_class {said!r} of {CONFIG} has "
            f"{_BIAS[said]}; the class decides whether the bias is subtracted from the input; "
            "fetch both again"
        )
    return said


def _make(name: str, stored: StoredTensors, k: int | None, options: dict[str, Any]) -> Dictionary:
    if name == "GatedAutoEncoder":
        gate = stored.vector("gate_bias")
        return GatedDictionary(
            **_maps(name, stored, gate).parts(),
            log_scale=stored.vector("r_mag"),
            magnitude_bias=stored.vector("mag_bias"),
            **options,
        )
    maps = _maps(name, stored, stored.vector("encoder.bias", "b_enc"))
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
        if k is None:
            raise InputError(f"{stored.path}: k is neither there nor in {CONFIG}; fetch both again")
        return TopKDictionary(**maps.parts(), k=k, **options)
    stored.leave("group_sizes")
    threshold = torch.full_like(maps.encoder_bias, stored.number("threshold"))
    return JumpReluDictionary(**maps.parts(), threshold=threshold, **options)


def _maps(name: str, stored: StoredTensors, encoder_bias: torch.Tensor) -> Maps:
    linear = stored.has("encoder.weight")
    encoder = stored.matrix("encoder.weight").T if linear else stored.matrix("W_enc")
    linear = stored.has("decoder.weight")
    directions = stored.matrix("decoder.weight").T if linear else stored.matrix("W_dec")
    return Maps(encoder, encoder_bias, directions, stored.vector(_BIAS[name]))


def _k(stored: StoredTensors, trainer: Fields) -> int | None:
    """k, which older files keep in the configuration alone.

    Raises:
        InputError: it is no whole number, or both places say another.
    """
    said = trainer.whole("k")
    if not stored.has("k"):
        return said
    found = stored.number("k")
    if not found.is_integer() or found < 1 or (said is not None and said != found):
        raise InputError(
            f"{stored.path}: k is {found:g} there and {said} in {CONFIG}; fetch both again"
        )
    return int(found)


def _card(folder: Path, config: Fields, trainer: Fields) -> Card:
    # Buffers without keys and values are older ones, which read a module's output.
    buffer = config.raw("buffer")
    end = buffer.get("io") or "out" if isinstance(buffer, dict) else "out"
    if end not in ("in", "out"):
        raise InputError(
            f"{folder}: trained with io {shown(end)}, a transcoder; "
            "give a dictionary that reconstructs what it reads"
        )
    layer = trainer.whole("layer", least=0)
    return Card(
        site=_site(layer, trainer.text("submodule_name"), end == "in"),
        model=trainer.text("lm_name"),
    )


def _site(layer: int | None, submodule: str, reads_input: bool) -> str:
    """A trainer without a submodule's name, or with resid_post, was on a block's output."""
    if layer is None:
        return ""
    if not submodule or re.fullmatch(r"resid(_post|_pre)?(_layer)?(_?\d+)?", submodule):
        return output_of(layer - (reads_input or submodule.startswith("resid_pre")))
    return submodule if str(layer) in submodule else f"{submodule}_layer_{layer}"
