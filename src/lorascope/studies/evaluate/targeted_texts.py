"""The texts of TPP and SCR: classes, and pairs of a label with what goes along with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lorascope import embedded
from lorascope.errors import InputError
from lorascope.randomness import generator
from lorascope.studies.evaluate.labelled import classes, table_rows
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
    for text, label, spurious in _marked(settings.source):
        name = f"label {label}, spurious {spurious}"
        groups.setdefault(name, []).append(text)
        marks[name] = (label, spurious)
    if len(groups) < 4:
        raise InputError(
            f"{settings.source}: scr needs texts of all four pairs of label and spurious (0 or 1 "
            f"each); there are {', '.join(sorted(groups)) or 'none'}"
        )
    return _cut({n: list(dict.fromkeys(t)) for n, t in groups.items()}, marks, settings, seed)


def _marked(source: str) -> list[tuple[str, int, int]]:
    if source == "embedded":
        kinds = {"coding": 1, "factual": 0}
        known = [one for one in embedded.instructions() if one["category"] in kinds]
        return [
            (record[side], label, kinds[record["category"]])
            for record in known
            for label, side in enumerate(("instruction", "output"))
        ]
    found = []
    for row in table_rows(source):
        try:
            label, spurious = int(row["label"]), int(row["spurious"])
            text = str(row["text"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{source}: scr needs columns text, label and spurious, the last two 0 or 1; this "
                f"row has {', '.join(map(str, row))}"
            ) from None
        found.append((text, label, spurious))
    return found


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
