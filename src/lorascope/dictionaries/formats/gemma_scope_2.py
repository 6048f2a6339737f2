"""Gemma Scope 2 (Gemma 3): `config.json` and `params.safetensors`, JumpReLU on raw activations.

`w_enc [d, n]`, `w_dec [n, d]`, `b_enc`, `b_dec`, `threshold`. The decoder bias is not subtracted
from the input. `hf_hook_point_in` names what is read: `model.layers.L.output` is the output of
block L. Transcoders, crosscoders and affine connections share the layout and are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.stored import described, safetensors, settings
from lorascope.errors import InputError

WEIGHTS, CONFIG = "params.safetensors", "config.json"
FILES = (CONFIG, WEIGHTS)


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path) -> JumpReluDictionary:
    """Open a folder holding `config.json` and `params.safetensors`.

    Raises:
        InputError: another architecture, a transcoder, or missing or truncated tensors.
    """
    config = settings(folder / CONFIG)
    _refuse_others(folder, config)
    stored = safetensors(folder / WEIGHTS)
    encoder, directions = stored.matrix("w_enc"), stored.matrix("w_dec")
    encoder_bias, decoder_bias = stored.vector("b_enc"), stored.vector("b_dec")
    threshold = stored.vector("threshold")
    stored.refuse_rest()
    card = Card(
        site=site_of(config.get("hf_hook_point_in")),
        model=_model(str(config.get("model_name") or "")),
        l0=float(config.get("l0") or 0),
    )
    with described(stored.path):
        return JumpReluDictionary(
            encoder,
            encoder_bias,
            directions,
            decoder_bias,
            threshold,
            subtract_bias=False,
            card=card,
        )


def _refuse_others(folder: Path, config: dict[str, Any]) -> None:
    architecture, kind = config.get("architecture"), config.get("type", "sae")
    if architecture != "jump_relu":
        raise InputError(f"{folder}: architecture {architecture!r} is not jump_relu")
    reads = config.get("hf_hook_point_in")
    writes = config.get("hf_hook_point_out") or reads
    if kind != "sae" or reads != writes or config.get("affine_connection"):
        raise InputError(
            f"{folder}: a {kind} that reads {reads} and writes {writes}"
            f"{' with an affine connection' if config.get('affine_connection') else ''}; "
            "give a dictionary that reconstructs what it reads (type sae)"
        )


def _model(name: str) -> str:
    if not name:
        return ""
    return name.replace("gemma-v3", "gemma-3") if "/" in name else _model(f"google/{name}")
