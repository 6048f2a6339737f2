"""SAELens layout, read: `cfg.json` and `sae_weights.safetensors`, whichever version wrote them.

Tensors: `W_enc [d, n]`, `W_dec [n, d]`, `b_dec`; `b_enc`, or for gated dictionaries `b_gate`,
`b_mag`, `r_mag`; `threshold` for JumpReLU. Training checkpoints are read as the dictionary their
training would have saved: BatchTopK and Matryoshka with `topk_threshold` as JumpReLU, and the
input scale of `activation_scaler.json` folded in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.formats.saelens_layout import CARD, CONFIG, WEIGHTS
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.stored import Stored, described, safetensors, settings
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.runs import read_json

SCALER = "activation_scaler.json"
FILES = (CONFIG, WEIGHTS, CARD, SCALER)
_ARCHITECTURES = ("standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk")
_OLDER_KEYS = {"activation_fn_str": "activation_fn", "hook_point": "hook_name"}
_AVERAGE_NORM = "expected_average_only_in"
_UNFOLDED = (
    "its file says that inputs were scaled to an average norm and holds no scale; the weights are "
    "taken as they stand, as SAELens takes them: look at the FVU on real texts"
)
_CENTRED = (
    "trained on a stream whose mean over dimensions TransformerLens had taken off; Hugging Face's "
    "stream keeps it: look at the FVU on real texts"
)


@dataclass(frozen=True)
class _Options:
    """What a configuration decides apart from the tensors.

    Attributes:
        factor: what inputs are multiplied by before the stored weights see them.
        with_norms: whether the gate sees pre-activations times the decoder's norms.
    """

    architecture: str
    factor: float
    with_norms: bool
    k: int
    finetuned: bool
    rest: dict[str, Any]


def recognises(folder: Path) -> bool:
    """Whether a folder holds this layout."""
    return (folder / WEIGHTS).exists()


def read(
    folder: Path, overrides: Mapping[str, Any] | None = None, factor: float | None = None
) -> Dictionary:
    """Open a folder in SAELens layout.

    Args:
        overrides: keys laid over the configuration, as SAELens' registry has them.
        factor: what inputs are multiplied by in training, where the registry knows it.

    Raises:
        InputError: an architecture or a normalisation that no weights can hold, missing, unknown
            or truncated tensors.
    """
    config = {_OLDER_KEYS.get(k, k): v for k, v in settings(folder / CONFIG).items()}
    config |= dict(overrides or {})
    architecture, k = _architecture(folder, config)
    scale, note = _input_scale(folder, config, factor)
    options = _Options(
        architecture,
        scale,
        _with_norms(config, architecture),
        k,
        bool(config.get("finetuning_scaling_factor")),
        {
            "subtract_bias": bool(config.get("apply_b_dec_to_input", True)),
            "card": _card(folder, config, note),
        },
    )
    stored = safetensors(folder / WEIGHTS)
    with described(stored.path):
        made = _make(stored, options)
    stored.refuse_rest()
    return made


def _make(stored: Stored, options: _Options) -> Dictionary:
    if options.architecture == "gated":
        maps = _maps(stored, "b_gate", options).for_raw_input(options.factor)
        return GatedDictionary(
            **maps.parts(),
            log_scale=stored.vector("r_mag"),
            magnitude_bias=stored.vector("b_mag"),
            **options.rest,
        )
    maps = _maps(stored, "b_enc", options).for_raw_input(options.factor)
    if options.with_norms:
        maps = maps.unit_directions()
    if options.architecture == "standard":
        return ReluDictionary(**maps.parts(), **options.rest)
    if options.architecture == "topk":
        return TopKDictionary(**maps.parts(), k=options.k, **options.rest)
    threshold = _threshold(stored, maps.encoder_bias, options)
    return JumpReluDictionary(**maps.parts(), threshold=threshold, **options.rest)


def _maps(stored: Stored, bias: str, options: _Options) -> Maps:
    maps = Maps(
        stored.matrix("W_enc"), stored.vector(bias), stored.matrix("W_dec"), stored.vector("b_dec")
    )
    name = "scaling_factor" if stored.has("scaling_factor") else "finetuning_scaling_factor"
    if not stored.has(name):
        return maps
    gains = stored.vector(name).float()
    if not options.finetuned and not torch.allclose(gains, torch.ones_like(gains)):
        raise ValueError(f"{name} is stored, but finetuning_scaling_factor is off")
    if gains.shape != maps.encoder_bias.shape:
        raise ValueError(f"{name} has shape {tuple(gains.shape)}, expected one a latent")
    return replace(maps, directions=maps.directions * gains[:, None])


def _threshold(stored: Stored, like: Tensor, options: _Options) -> Tensor:
    if stored.has("topk_threshold"):
        level = stored.number("topk_threshold")
        # With norms the gate sees pre·‖w_dec‖, and the folded factor has divided w_dec.
        return torch.full_like(like, level / options.factor if options.with_norms else level)
    if stored.has("log_threshold"):
        return stored.vector("log_threshold").float().exp()
    return stored.vector("threshold")


def _architecture(folder: Path, config: Mapping[str, Any]) -> tuple[str, int]:
    """The architecture and k; older files name the activation function apart from it."""
    architecture = str(config.get("architecture", "standard"))
    activation = str(config.get("activation_fn") or "relu")
    k = config.get("k")
    if activation == "topk":
        k = (config.get("activation_fn_kwargs") or {}).get("k", k)
        architecture, activation = "topk" if architecture == "standard" else architecture, "relu"
    if architecture not in _ARCHITECTURES or activation != "relu":
        raise InputError(
            f"{folder}: architecture {architecture!r} with {activation} is not one of "
            f"{', '.join(_ARCHITECTURES)} with relu"
        )
    if architecture != "topk":
        return architecture, 0
    if not isinstance(k, int):
        raise InputError(f"{folder}/{CONFIG}: k is {k!r}, expected a whole number; fetch it again")
    return architecture, k


def _with_norms(config: Mapping[str, Any], architecture: str) -> bool:
    """Whether the gate sees the decoder's norms; other architectures carry the key unused."""
    families = ("topk", "batchtopk", "matryoshka_batchtopk")
    return architecture in families and bool(config.get("rescale_acts_by_decoder_norm"))


def _input_scale(
    folder: Path, config: Mapping[str, Any], registered: float | None
) -> tuple[float, str]:
    """What inputs were multiplied by and the file has not folded, with a note where it is silent.

    Raises:
        InputError: each input is normalised by itself, which no weights can hold.
    """
    kind = config.get("normalize_activations")
    if kind in (None, False, "none"):
        return 1.0, ""
    if kind not in (True, _AVERAGE_NORM):
        raise InputError(
            f"{folder}: normalize_activations {kind!r} changes the input at run time, which no "
            "weights can hold; give a dictionary trained with none or expected_average_only_in"
        )
    beside = folder / SCALER
    factor = settings(beside).get("scaling_factor") if beside.exists() else registered
    if factor is None:
        return 1.0, "" if beside.exists() else _UNFOLDED
    if not isinstance(factor, int | float) or not factor > 0:
        raise InputError(f"{beside}: scaling_factor is {factor!r}, expected a positive number")
    return float(factor), ""


def _card(folder: Path, config: Mapping[str, Any], note: str) -> Card:
    if (folder / CARD).exists():
        return Card.parse(read_json(folder / CARD), str(folder / CARD))
    said = {**(config.get("metadata") or {}), **config}
    centred = (said.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights")
    return Card(
        site=site_of(said.get("hook_name")),
        model=str(said.get("model_name") or ""),
        neuronpedia=str(said.get("neuronpedia_id") or ""),
        note="; ".join(filter(None, (note, _CENTRED if centred else ""))),
    )
