"""Gemma Scope (Gemma 2): `params.npz` with JumpReLU weights on raw activations.

`W_enc [d, n]`, `W_dec [n, d]`, `b_enc`, `b_dec`, `threshold`, in upper or lower case. The decoder
bias is not subtracted from the input. What the weights read is said by the place in the hub
alone: `gemma-scope-<size>-<pt or it>-<res, mlp or att>/layer_L/width_W/average_l0_N`, where
`layer_L` of a `res` release is the output of block L. Transcoders have the same tensors, so a
file from an unknown place is not known to read the stream until its user says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.places import EMBEDDINGS, output_of
from lorascope.dictionaries.stored import described, npz
from lorascope.errors import InputError

WEIGHTS = "params.npz"
FILES = (WEIGHTS,)
_RELEASE = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)(?![\w-])")


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / WEIGHTS).exists()


def read(folder: Path, asked: AskedDictionary | None = None) -> JumpReluDictionary:
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
    text = folder.absolute().as_posix() + "/"
    releases = list(_RELEASE.finditer(text))
    layer, l0 = re.search(r"/layer_(\d+)/", text), re.search(r"/average_l0_(\d+)/", text)
    stated = float(l0[1]) if l0 else 0.0
    if not releases:
        return Card(
            l0=stated,
            unplaced=True,
            note=unplaced("a folder gemma-scope-<size>-<pt or it>-<place>", layer),
        )
    size, tuning, kind = releases[-1].groups()
    if kind == "transcoders":
        raise InputError(
            f"{folder}: a transcoder reads one place and writes another; "
            "give a dictionary that reconstructs what it reads (the res release)"
        )
    embedding = "/embedding/" in text
    return Card(
        site=_site(kind, layer[1] if layer else "", embedding),
        model=f"google/gemma-2-{size}" + ("-it" if tuning == "it" else ""),
        l0=stated,
        unplaced=not layer and not embedding,
        note="reads embeddings before Gemma scales them by √d_model" if embedding else "",
    )


def unplaced(where: str, layer: re.Match[str] | None) -> str:
    """The note on a file whose place in the hub, which alone says what it reads, is lost."""
    example = f"layers.{layer[1]}" if layer else "layers.L"
    return (
        "what it reads is not known: the residual stream, MLP and attention outputs and "
        f"transcoders have the same tensors, and only {where} in its path tells them apart; say "
        f"it at the end of the address, ?site={example} for the output of that block"
    )


def _site(kind: str, layer: str, embedding: bool) -> str:
    if embedding:
        return EMBEDDINGS
    if not layer:
        return ""
    places = {"mlp": f"blocks.{layer}.hook_mlp_out", "att": f"blocks.{layer}.attn.hook_z"}
    return places.get(kind) or output_of(int(layer))
