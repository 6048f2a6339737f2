"""The texts of TPP and SCR: classes, and pairs of a label with what goes along with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lorascope.errors import InputError
from lorascope.randomness import generator
from lorascope.studies.evaluate.labelled import classes, spurious_rows
from lorascope.studies.evaluate.settings import Targeted

_MOST_CLASSES = 5
# Texts, and the class, or label and spurious attribute, of each.
Texts = tuple[list[str], list[tuple[int, ...]]]


def tpp_texts(settings: Targeted, seed: int) -> tuple[Texts, Texts]:
    """(texts, class of each) to train on and held out.

    Raises:
        InputError: fewer than two classes, or too few texts of one.
    """
    found = classes(settings.source)
    chosen = {
        name: list(dict.fromkeys(texts)) for name, texts in list(found.items())[:_MOST_CLASSES]
    }
    return _cut(chosen, {name: (i,) for i, name in enumerate(chosen)}, settings, seed)


def scr_texts(settings: Targeted, seed: int) -> tuple[Texts, Texts]:
    """(texts, label and spurious attribute of each) to train on and held out; four equal groups.

    Raises:
        InputError: a column is missing, holds something else than 0 and 1, or a group is too small.
    """
    groups: dict[str, list[str]] = {}
    marks: dict[str, tuple[int, ...]] = {}
    for text, label, spurious in spurious_rows(settings.source):
        name = f"label {label}, spurious {spurious}"
        groups.setdefault(name, []).append(text)
        marks[name] = (label, spurious)
    return _cut({n: list(dict.fromkeys(t)) for n, t in groups.items()}, marks, settings, seed)


def _cut(
    groups: Mapping[str, Sequence[str]],
    marks: Mapping[str, tuple[int, ...]],
    settings: Targeted,
    seed: int,
) -> tuple[Texts, Texts]:
    fewest = min(map(len, groups.values()))
    share = min(1.0, fewest / (settings.train + settings.test))
    train, test = int(share * settings.train), int(share * settings.test)
    if min(train, test) < 8:
        raise InputError(
            f"{settings.source}: {fewest} different texts of one group; 8 to train on and 8 to "
            "measure on are needed"
        )
    parts: list[Texts] = [([], []), ([], [])]
    for name, texts in groups.items():
        order = torch.randperm(len(texts), generator=generator(seed, "group", name)).tolist()
        for part, places in zip(parts, (order[:train], order[train : train + test]), strict=True):
            part[0].extend(texts[i] for i in places)
            part[1].extend(marks[name] for _ in places)
    return parts[0], parts[1]
