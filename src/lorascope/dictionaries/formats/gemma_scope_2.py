"""Gemma Scope 2 (Gemma 3): `config.json` and `params.safetensors`, JumpReLU on raw activations.

`w_enc [d, n]`, `w_dec [n, d]`, `b_enc`, `b_dec`, `threshold`. The decoder bias is not subtracted
from the input. `hf_hook_point_in` names what is read: `model.layers.L.output` is the output of
block L. Some folders have no `config.json`; the place in the hub then says the same:
`gemma-scope-2-<size>-<pt or it>/<resid_post, attn_out or mlp_out>[_all]/layer_L_…`. Transcoders,
cross-layer transcoders, crosscoders and affine connections share the layout and are refused.
"""

from __future__ import annotations

import re
from pathlib import Path

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.fields import Fields, settings
from lorascope.dictionaries.formats.gemma_scope import unplaced
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.places import site_of
from lorascope.dictionaries.stored import described, safetensors
from lorascope.errors import InputError

WEIGHTS, CONFIG = "params.safetensors", "config.json"
FILES = (CONFIG, WEIGHTS)
_RELEASE = re.compile(r"gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)(?![\w-])")
_PLACE = re.compile(
    r"/(resid_post|attn_out|mlp_out|transcoder|clt|crosscoder)(?:_all)?/layer_(\d+)_[^/]*/"
)
# What config.json says of each place where there is one.
_HOOKS = {
    "resid_post": "model.layers.{}.output",
    "attn_out": "model.layers.{}.self_attn.o_proj.input",
    "mlp_out": "model.layers.{}.post_feedforward_layernorm.output",
}
_OTHERS = {
    "transcoder": "a transcoder",
    "clt": "a cross-layer transcoder (CLT)",
    "crosscoder": "a crosscoder",
}


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, asked: AskedDictionary | None = None) -> JumpReluDictionary:
    """Open a folder holding `params.safetensors`, and `config.json` where there is one.

    Raises:
        InputError: another architecture, a transcoder, or missing or truncated tensors.
    """
    _refuse_by_place(folder)
    config = settings(folder / CONFIG) if (folder / CONFIG).exists() else None
    card = _inferred(folder) if config is None else _said(folder, config)
    stored = safetensors(folder / WEIGHTS)
    if stored.names("affine"):
        raise InputError(
            f"{stored.path}: a transcoder with an affine connection "
            f"({', '.join(stored.names('affine'))}); give a dictionary that reconstructs what it "
            "reads (type sae)"
        )
    encoder, directions = stored.matrix("w_enc"), stored.matrix("w_dec")
    encoder_bias, decoder_bias = stored.vector("b_enc"), stored.vector("b_dec")
    threshold = stored.vector("threshold")
    stored.refuse_rest()
    with described(stored.path):
        if config is not None:
            config.sizes({"width": len(encoder_bias)})
        return JumpReluDictionary(
            encoder,
            encoder_bias,
            directions,
            decoder_bias,
            threshold,
            subtract_bias=False,
            card=card,
        )


def _said(folder: Path, config: Fields) -> Card:
    _refuse_others(folder, config)
    return Card(
        site=site_of(config.text("hf_hook_point_in")),
        model=_model(config.text("model_name")),
        l0=config.number("l0", above=-1) or 0.0,
    )


def _inferred(folder: Path) -> Card:
    text = folder.absolute().as_posix() + "/"
    release, place = list(_RELEASE.finditer(text)), _PLACE.search(text)
    if not release or place is None:
        layer = re.search(r"/layer_(\d+)_", text)
        where = "config.json, or gemma-scope-2-<size>-<pt or it>/<place>/layer_L_…"
        return Card(unplaced=True, note=unplaced(where, layer))
    size, tuning = release[-1].groups()
    # The one pre-trained Gemma 3 whose checkpoint does not say so.
    suffix = "" if (size, tuning) == ("270m", "pt") else f"-{tuning}"
    return Card(
        site=site_of(_HOOKS[place[1]].format(place[2])),
        model=f"google/gemma-3-{size}{suffix}",
        note="config.json is missing: site and model are those of its place on the hub",
    )


def _refuse_by_place(folder: Path) -> None:
    place = _PLACE.search(folder.absolute().as_posix() + "/")
    if place and place[1] in _OTHERS:
        raise InputError(
            f"{folder}: {_OTHERS[place[1]]} reads one place and writes another; "
            "give a dictionary that reconstructs what it reads (resid_post, for instance)"
        )


def _refuse_others(folder: Path, config: Fields) -> None:
    architecture, kind = config.text("architecture"), config.text("type", "sae")
    if architecture != "jump_relu":
        raise InputError(f"{folder}: architecture {architecture!r} is not jump_relu")
    reads = config.text("hf_hook_point_in")
    writes = config.text("hf_hook_point_out") or reads
    affine = config.flag("affine_connection", False)
    if kind != "sae" or reads != writes or affine:
        named = "transcoder" if kind == "sae" else kind
        raise InputError(
            f"{folder}: a {named} that reads {reads} and writes {writes}"
            f"{' with an affine connection' if affine else ''}; "
            "give a dictionary that reconstructs what it reads (type sae)"
        )


def _model(name: str) -> str:
    if not name:
        return ""
    return name.replace("gemma-v3", "gemma-3") if "/" in name else _model(f"google/{name}")
