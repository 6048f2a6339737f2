"""An adapter fitted around dictionaries: its card, and opening it around the same ones only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lorascope.adapt.splicing import Given, place
from lorascope.adapt.wrapper import Spliced, identity, with_adapter
from lorascope.config import Settings
from lorascope.errors import InputError
from lorascope.models.freezing import fingerprint
from lorascope.runs import read_json

CARD = "lorascope.json"


class Result(Settings):
    """One way of running the model on the held-out tokens, nats/token.

    Attributes:
        loss: cross-entropy.
        kl: from the original model, in the direction that was fitted.
    """

    loss: float
    kl: float


class FittedCard(Settings):
    """What an adapter was fitted to; `lorascope.json` beside the files PEFT writes.

    Attributes:
        model: id of the base model.
        base: fingerprint of its weights.
        dictionaries: {site: what the dictionary there computes, see `identity`}.
        special_ids: tokens that kept their stream.
        blocks: those that are adapted.
        settings: of the fit.
        steps, tokens: optimiser steps, and the tokens whose prediction was compared in them.
        parameters: how many numbers were fitted.
        held_out: {way: result}; ways are original, spliced, adapted (adapter and splice) and
            unspliced (adapter alone).
        trained_on: digests of the training documents.
        versions: libraries that made it.
    """

    model: str
    base: str
    dictionaries: dict[str, str]
    special_ids: tuple[int, ...]
    blocks: tuple[int, ...]
    settings: dict[str, Any]
    steps: int
    tokens: int
    parameters: int
    held_out: dict[str, Result]
    trained_on: tuple[str, ...] = ()
    versions: dict[str, str]

    @property
    def share_closed(self) -> float:
        """Share of the splice's cost in cross-entropy that the adapter wins back."""
        loss = {name: result.loss for name, result in self.held_out.items()}
        gap = loss["spliced"] - loss["original"]
        return (loss["spliced"] - loss["adapted"]) / gap if gap else float("nan")


def read_card(folder: str | Path) -> FittedCard:
    """The card of a fitted adapter.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of an adapter fitted by adapt")
    return FittedCard.parse(read_json(path), str(path))


def open_fitted(
    folder: str | Path, module: PreTrainedModel, dictionaries: Given, *, force: bool = False
) -> Spliced:
    """A fitted adapter on its model, around the dictionaries it was fitted to.

    Args:
        module: the bare base model.
        force: accept another base model; never other dictionaries.

    Raises:
        InputError: other dictionaries, or another base.
    """
    card = read_card(folder)
    placed = place(module, dictionaries, force=True)
    given = {site.name: identity(dictionary) for site, dictionary in placed.items()}
    if set(given) != set(card.dictionaries):
        raise InputError(
            f"{folder}: the adapter was fitted around dictionaries at "
            f"{', '.join(card.dictionaries)}, not at {', '.join(given)}; give those"
        )
    for site, found in given.items():
        if found != card.dictionaries[site]:
            raise InputError(
                f"{folder}: the adapter was fitted around another dictionary at {site}; give that "
                "one, or fit an adapter around this one"
            )
    if not force and fingerprint(module) != card.base:
        raise InputError(
            f"{folder}: the adapter was fitted to {card.model} with other weights or another dtype "
            "than this model's; load that model as it was, or force=True"
        )
    peft = with_adapter(module, Path(folder))
    return Spliced(peft, placed, model=card.model, special_ids=card.special_ids)
