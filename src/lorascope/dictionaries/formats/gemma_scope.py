"""Gemma Scope (Gemma 2): `params.npz` with JumpReLU weights on raw activations.

`W_enc [d, n]`, `W_dec [n, d]`, `b_enc`, `b_dec`, `threshold`, in upper or lower case. The decoder
bias is not subtracted from the input. What the weights read is said by the place in the hub
alone: `gemma-scope-<size>-<pt or it>-<res, mlp or att>/layer_L/width_W/average_l0_N`, where
`layer_L` of a `res` release is the output of block L.
"""

from __future__ import annotations

import re
from pathlib import Path

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.places import EMBEDDINGS, output_of
from lorascope.dictionaries.stored import described, npz
from lorascope.errors import InputError

WEIGHTS = "params.npz"
FILES = (WEIGHTS,)
_RELEASE = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path) -> JumpReluDictionary:
    """Open a folder holding `params.npz`; nothing in the file is executed.

    Raises:
        InputError: the file is truncated, pickled, lacks a tensor, or belongs to a transcoder.
    """
    card = _card(folder)
    stored = npz(folder / WEIGHTS)
    encoder, directions = stored.matrix("W_enc", "w_enc"), stored.matrix("W_dec", "w_dec")
    encoder_bias, decoder_bias = stored.vector("b_enc"), stored.vector("b_dec")
    threshold = stored.vector("threshold")
    stored.refuse_rest()
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


def _card(folder: Path) -> Card:
    text = folder.as_posix() + "/"
    release, layer = _RELEASE.search(text), re.search(r"layer_(\d+)/", text)
    l0 = re.search(r"average_l0_(\d+)/", text)
    model, kind = "", "res"
    if release:
        model = f"google/gemma-2-{release[1]}" + ("-it" if release[2] == "it" else "")
        kind = release[3]
    if kind == "transcoders":
        raise InputError(
            f"{folder}: a transcoder reads one place and writes another; "
            "give a dictionary that reconstructs what it reads (the res release)"
        )
    return Card(
        site=_site(kind, layer[1] if layer else "", "/embedding/" in text),
        model=model,
        l0=float(l0[1]) if l0 else 0.0,
        note="reads embeddings before Gemma scales them by √d_model"
        if "/embedding/" in text
        else "",
    )


def _site(kind: str, layer: str, embedding: bool) -> str:
    if embedding:
        return EMBEDDINGS
    if not layer:
        return ""
    places = {"mlp": f"blocks.{layer}.hook_mlp_out", "att": f"blocks.{layer}.attn.hook_z"}
    return places.get(kind) or output_of(int(layer))
