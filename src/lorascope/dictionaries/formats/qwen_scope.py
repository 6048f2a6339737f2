"""Qwen Scope: a file `layerN.sae.pt` a block, all of a release in one folder; TopK on raw rows.

`W_enc [n, d]`, `W_dec [d, n]`, `b_enc`, `b_dec`; block N's output is read and nothing taken off
it. k stands in the release's name alone: `SAE-Res-<model>-W<thousands>K-L0_<k>`.
"""

from __future__ import annotations

import re
from pathlib import Path

from lorascope.dictionaries.addresses import AskedDictionary
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.places import output_of
from lorascope.dictionaries.stored import described, tensors_of_pickle
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

WEIGHTS = "layer*.sae.pt"
FILES = (WEIGHTS,)
_FILE = re.compile(r"layer(\d+)\.sae\.pt")
_RELEASE = re.compile(r"SAE-Res-(Qwen[\w.-]+?)-W(\d+)K-L0_(\d+)(?!\w)")


def recognises(folder: Path) -> bool:
    """Whether a folder holds files of this format."""
    return any(_FILE.fullmatch(path.name) for path in folder.glob(WEIGHTS))


def read(folder: Path, asked: AskedDictionary | None = None) -> TopKDictionary:
    """Open one file of a release.

    Args:
        asked: which file, where the folder holds several; k, where its path does not say it.

    Raises:
        InputError: the folder holds several and none is named, k is not known, or missing or
            truncated tensors.
    """
    asked = asked or AskedDictionary()
    path = folder / (asked.file or _only(folder))
    layer = _FILE.fullmatch(path.name)
    if layer is None:
        raise InputError(f"{path}: expected a name like layer7.sae.pt, which says the block")
    releases = list(_RELEASE.finditer(path.absolute().as_posix()))
    release = releases[-1] if releases else None
    k = int(release[3]) if release else asked.k
    if not k or (asked.k and asked.k != k):
        found = f"its release says k is {k} and the address {asked.k}" if k else "k is not known"
        raise InputError(
            f"{path}: {found}; only the release's name, SAE-Res-<model>-W<width>K-L0_<k>, says how "
            "many latents are active; give it at the end of the address, ?k=50 for instance"
        )
    stored = tensors_of_pickle(path)
    encoder, directions = stored.matrix("W_enc").T, stored.matrix("W_dec").T
    encoder_bias, decoder_bias = stored.vector("b_enc"), stored.vector("b_dec")
    stored.refuse_rest()
    card = Card(
        site=output_of(int(layer[1])), model=f"Qwen/{release[1]}" if release else "", l0=float(k)
    )
    with described(path):
        return TopKDictionary(
            encoder, encoder_bias, directions, decoder_bias, k, subtract_bias=False, card=card
        )


def _only(folder: Path) -> str:
    found = [one.name for one in folder.glob(WEIGHTS) if _FILE.fullmatch(one.name)]
    found.sort(key=lambda name: (len(name), name))
    if len(found) != 1:
        raise InputError(
            f"{folder}: holds {len(found)} dictionaries, {', '.join(found[:3])} and so on; name "
            f"one of them, {folder.name}/{found[0] if found else 'layer0.sae.pt'} for instance"
        )
    return found[0]
