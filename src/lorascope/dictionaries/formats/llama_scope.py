"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`, as OpenMOSS' code loads it.

`encoder.weight [n, d]`, `decoder.weight [d, n]` and their biases, on activations scaled to mean
norm √d over the dataset. Its own code, on loading (Language-Model-SAEs, `from_config`), does:

1. dataset-wise norms are folded, s = √d / mean norm: biases divided by s, matrices kept, so that
   latents come in the stream's own units;
2. with `sparsity_include_decoder_norm`, directions get norm 1 and the encoder takes the norm;
3. `topk` with a threshold becomes JumpReLU. The one threshold is in the units steps 1 and 2 give:
   it gates (x W_enc + b_enc/s)·‖w_dec‖, neither scaled inputs nor bare pre-activations.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.fields import Fields, settings
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.stored import StoredTensors, described, safetensors
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

WEIGHTS, CONFIG = "checkpoints/final.safetensors", "hyperparams.json"
FILES = (CONFIG, WEIGHTS)
_MODELS = {"Llama3_1-8B-Base": "meta-llama/Llama-3.1-8B"}


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, asked: AskedDictionary | None = None) -> Dictionary:
    """Open a folder holding `hyperparams.json` and `checkpoints/final.safetensors`.

    Raises:
        InputError: a transcoder, a gated linear unit, a norm taken from each input, or missing or
            truncated tensors.
    """
    config = settings(folder / CONFIG)
    refuse_others(folder, config)
    stored = safetensors(folder / WEIGHTS)
    with described(stored.path):
        maps = linear_maps(config, stored)
        stored.refuse_rest()
        config.sizes({"d_model": maps.d, "d_sae": maps.n})
        maps = _folded(config, maps)
        return _gated(folder, config, maps)


def linear_maps(config: Fields, stored: StoredTensors) -> Maps:
    """Maps of two linear layers; without `use_decoder_bias` the decoder adds nothing."""
    decoder = stored.matrix("decoder.weight")
    biased = config.flag("use_decoder_bias", True)
    return Maps(
        encoder=stored.matrix("encoder.weight").T,
        encoder_bias=stored.vector("encoder.bias"),
        directions=decoder.T,
        decoder_bias=stored.vector("decoder.bias") if biased else torch.zeros(decoder.shape[0]),
    )


def _folded(config: Fields, maps: Maps) -> Maps:
    if config.text("norm_activation", "dataset-wise") == "dataset-wise":
        norms = config.inner("dataset_average_activation_norm")
        reads = norms.number("in", above=0)
        writes = norms.number("out", above=0) or reads
        if reads is None or writes is None:
            raise InputError(
                f"{config.where}: lacks dataset_average_activation_norm, without which its "
                "dataset-wise norm cannot be folded; fetch it again"
            )
        root = math.sqrt(maps.d)
        maps = maps.in_stream_units(root / reads, root / writes)
    with_norms = config.flag("sparsity_include_decoder_norm", True)
    return maps.unit_directions() if with_norms else maps


def _gated(folder: Path, config: Fields, maps: Maps) -> Dictionary:
    options: dict[str, Any] = {
        "subtract_bias": config.flag("apply_decoder_bias_to_pre_encoder", False),
        "card": _card(folder, config),
    }
    name = config.text("act_fn", "relu").lower()
    threshold = config.number("jump_relu_threshold") or 0.0
    if name == "jumprelu" or (name == "topk" and threshold > 0):
        return JumpReluDictionary(
            **maps.parts(), threshold=torch.full_like(maps.encoder_bias, threshold), **options
        )
    if name == "topk":
        k = config.whole("top_k")
        if k is None:
            raise config.refusal("top_k", "a whole number")
        return TopKDictionary(**maps.parts(), k=k, **options)
    if name == "relu":
        return ReluDictionary(**maps.parts(), **options)
    raise InputError(f"{folder}: act_fn {name!r} is not one of relu, topk, jumprelu")


def refuse_others(folder: Path, config: Fields) -> None:
    """Refuse what is no autoencoder, or what no weights can hold.

    Raises:
        InputError: a transcoder, a gated linear unit, or a norm taken from each input.
    """
    reads = config.text("hook_point_in")
    writes = config.text("hook_point_out") or reads
    if reads != writes:
        raise InputError(
            f"{folder}: a transcoder that reads {reads} and writes {writes}; "
            "give a dictionary that reconstructs what it reads"
        )
    if config.flag("use_glu_encoder", False):
        raise InputError(f"{folder}: use_glu_encoder makes an encoder that no dictionary here has")
    norm = config.text("norm_activation", "dataset-wise")
    if norm not in ("dataset-wise", "inference", "none"):
        raise InputError(
            f"{folder}: norm_activation {norm!r} scales each input by its own norm at run time, "
            "which no weights can hold; give a dictionary with a dataset-wise norm"
        )


def _card(folder: Path, config: Fields) -> Card:
    path = folder.absolute().as_posix()
    model = next((m for name, m in _MODELS.items() if name in path), "")
    stated = config.whole("top_k", least=0) or 0
    return Card(site=site_of(config.text("hook_point_in")), model=model, l0=float(stated))
