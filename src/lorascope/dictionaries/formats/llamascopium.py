"""Llamascopium (once Language-Model-SAEs): `config.json` and `sae_weights.safetensors`.

`W_E [d, n]`, `b_E`, `W_D [n, d]`, `b_D`, or, in Llama-Scope-R1-Distill, `encoder.weight [n, d]`,
`decoder.weight [d, n]` and their biases; `log_jumprelu_threshold [n]` for JumpReLU. With
`norm_activation: dataset-wise` the weights work on s·x, s = √d / mean norm; that norm stands
among the weights as `dataset_average_activation_norm.<hook>`. With `sparsity_include_decoder_norm`
the gate sees pre-activations times the decoder's norms. All is folded so that latents come in the
stream's own units: the gate ((s x W_E + b_E)·‖w‖ > θ) is that of (x W_E + b_E/s)·‖w‖ > θ/s.
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
from lorascope.dictionaries.formats.llama_scope import linear_maps, refuse_others
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.stored import StoredTensors, described, safetensors
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

WEIGHTS, CONFIG = "sae_weights.safetensors", "config.json"
FILES = (CONFIG, WEIGHTS)
_OTHERS = {
    "clt": "a cross-layer transcoder (CLT)",
    "crosscoder": "a crosscoder",
    "molt": "a mixture of linear transforms",
    "lorsa": "a low-rank sparse attention",
}
_NORM = "dataset_average_activation_norm"
_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format; SAELens' has `cfg.json` beside weights of that name."""
    own = (folder / WEIGHTS).exists() and (folder / CONFIG).exists()
    return own and not (folder / "cfg.json").exists()


def how_to_convert(folder: Path) -> str:
    """What to do with a folder whose weights Llamascopium wrote in another file; else nothing.

    One process writes `.pt`, several write a folder of `.dcp`, whose metadata is a pickle.
    """
    if not (folder / CONFIG).exists():
        return ""
    stem = WEIGHTS.removesuffix(".safetensors")
    saved = f'safetensors.torch.save_file(torch.load("{stem}.pt", weights_only=True)'
    if (folder / f"{stem}.pt").exists():
        return (
            f"its weights are in {stem}.pt, and of Llamascopium {WEIGHTS} is read alone; write it "
            f'in that folder with {saved}["sae"], "{WEIGHTS}")'
        )
    if (folder / f"{stem}.dcp").exists():
        return (
            f"its weights are in {stem}.dcp, a checkpoint of several processes, which is not read: "
            "its metadata is a pickle, that can run code; if you trust it, run in that folder "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
            f'{stem}.dcp {stem}.pt, then {saved}, "{WEIGHTS}")'
        )
    return ""


def read(folder: Path, asked: AskedDictionary | None = None) -> Dictionary:
    """Open a folder holding `config.json` and `sae_weights.safetensors`.

    Args:
        asked: its factor is taken for s where neither file knows the norm.

    Raises:
        InputError: another kind than an autoencoder, a gate or a norm that acts on batches, or
            missing or truncated tensors.
    """
    config = settings(folder / CONFIG)
    if "hook_point_in" not in config:
        raise InputError(
            f"{config.where}: lacks hook_point_in, so it is not Llamascopium's, and cfg.json of "
            "SAELens' layout is not there; fetch that"
        )
    kind = config.text("sae_type", "sae")
    if kind != "sae":
        raise InputError(
            f"{folder}: {_OTHERS.get(kind, f'sae_type {kind!r}')}, no autoencoder; give a "
            "dictionary that reconstructs what it reads (sae_type sae)"
        )
    refuse_others(folder, config)
    stored = safetensors(folder / WEIGHTS)
    with described(stored.path):
        scale = _scale(config, stored, asked or AskedDictionary())
        maps = _maps(config, stored)
        config.sizes({"d_model": maps.d})
        factor = config.number("expansion_factor", above=0)
        if factor and int(maps.d * factor) != maps.n:
            raise ValueError(
                f"{CONFIG} says {int(maps.d * factor)} latents (expansion_factor {factor:g}), the "
                f"tensors have {maps.n}"
            )
        made = _gated(folder, config, maps.in_stream_units(scale, scale), stored, scale)
    stored.refuse_rest()
    return made


def _maps(config: Fields, stored: StoredTensors) -> Maps:
    if not stored.has("W_E"):
        return linear_maps(config, stored)
    directions = stored.matrix("W_D")
    biased = config.flag("use_decoder_bias", True)
    return Maps(
        stored.matrix("W_E"),
        stored.vector("b_E"),
        directions,
        stored.vector("b_D") if biased else torch.zeros(directions.shape[1]),
    )


def _scale(config: Fields, stored: StoredTensors, asked: AskedDictionary) -> float:
    """s, 1 where the weights work on raw rows."""
    hook = config.text("hook_point_in")
    names = stored.names(f"{_NORM}.")
    norms = {name.removeprefix(f"{_NORM}."): stored.number(name) for name in names}
    if config.text("norm_activation", "dataset-wise") != "dataset-wise":
        return 1.0
    width = config.whole("d_model")
    if width is None:
        raise config.refusal("d_model", "a whole number")
    said = config.inner(_NORM)
    norm = norms.get(hook)
    if norm is None:
        norm = said.number(hook, above=0) or said.number("in", above=0)
    if norm is None and asked.factor:
        return asked.factor
    if norm is None:
        norm = stored.number(f"{_NORM}.{hook}")
    if not math.isfinite(norm) or not norm > 0:
        raise ValueError(f"{_NORM}.{hook} is {norm:g}, expected a finite number above 0")
    return math.sqrt(width) / norm


def _gated(
    folder: Path, config: Fields, maps: Maps, stored: StoredTensors, scale: float
) -> Dictionary:
    if config.flag("sparsity_include_decoder_norm", True):
        maps = maps.unit_directions()
    name = config.text("act_fn", "relu").lower()
    card = Card(site=site_of(config.text("hook_point_in")))
    options: dict[str, Any] = {"subtract_bias": False, "card": card}
    if name == "jumprelu":
        return JumpReluDictionary(
            **maps.parts(), threshold=stored.exponential(*_THRESHOLDS) / scale, **options
        )
    if name == "topk":
        k = config.whole("top_k")
        if k is None:
            raise config.refusal("top_k", "a whole number")
        options["card"] = card.model_copy(update={"l0": float(k)})
        return TopKDictionary(**maps.parts(), k=k, **options)
    if name == "relu":
        return ReluDictionary(**maps.parts(), **options)
    raise InputError(
        f"{folder}: act_fn {name!r} is not one of relu, topk, jumprelu; those with a batch or a "
        "layer in their name choose over more than one row at run time, which no weights can hold"
    )
