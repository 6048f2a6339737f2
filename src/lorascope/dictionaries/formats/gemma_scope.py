"""Gemma Scope (Gemma 2): `params.npz` with JumpReLU weights on raw activations.

`W_enc [d, n]`, `W_dec [n, d]`, `b_enc`, `b_dec`, `threshold`, in upper or lower case. The decoder
bias is not subtracted from the input. The folder's place in the hub repository,
`layer_L/width_W/average_l0_N`, names the site: `layer_L` is the output of block L.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.errors import InputError

PARAMETERS = "params.npz"
FILES = (PARAMETERS,)
_TENSORS = {
    "encoder": "w_enc",
    "encoder_bias": "b_enc",
    "directions": "w_dec",
    "decoder_bias": "b_dec",
    "threshold": "threshold",
}


def recognises(folder: Path) -> bool:
    """Whether a folder holds this format."""
    return (folder / PARAMETERS).exists()


def read(folder: Path) -> JumpReluDictionary:
    """Open a folder holding `params.npz`; nothing in the file is executed.

    Raises:
        InputError: the file is truncated, pickled, or lacks a tensor.
    """
    path = folder / PARAMETERS
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = {name.lower(): name for name in stored.files}
            parts = {part: torch.from_numpy(stored[names[name]]) for part, name in _TENSORS.items()}
    except KeyError as error:
        raise InputError(f"{path}: lacks tensor {error}; fetch it again") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from None
    try:
        return JumpReluDictionary(**parts, subtract_bias=False, card=_card(folder))
    except ValueError as error:
        raise InputError(f"{path}: {error}; fetch it again") from None


def _card(folder: Path) -> Card:
    text = folder.as_posix()
    layer = re.search(r"layer_(\d+)/", text + "/")
    size = re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)-res", text)
    model = ""
    if size:
        model = f"google/gemma-2-{size[1]}" + ("-it" if size[2] == "it" else "")
    return Card(site=f"layers.{layer[1]}" if layer else "", model=model, source=str(folder))
