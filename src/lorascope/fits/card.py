"""A fit around dictionaries: its card, and opening it around the same ones only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from transformers import PreTrainedModel

from lorascope.config import Settings
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits.wrapper import DICTIONARIES, Spliced, identity, with_adapter
from lorascope.models.freezing import fingerprint
from lorascope.models.places import CONFIG_FILE
from lorascope.models.sites import parse_site
from lorascope.outputs.splicing import Given, place
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
        standing: {site: what the fitted dictionary computes that stands there instead}.
        blocks: those that LoRA adapts.
        settings: of the fit.
        steps, tokens: optimiser steps, and the tokens whose prediction was compared in them.
        seconds: wall clock of these steps; evaluations on held-out text left out.
        fitted: {part: how many numbers were fitted}.
        held_out: {condition: result}; conditions are original, spliced, adapted (adapter and
            splice) and unspliced (adapter alone).
        trained_on: digests of the training documents.
        versions: libraries that made it.
    """

    model: str
    base: str
    dictionaries: dict[str, str]
    standing: dict[str, str] = Field(default_factory=dict)
    special_ids: tuple[int, ...]
    blocks: tuple[int, ...]
    settings: dict[str, Any]
    steps: int
    tokens: int
    seconds: float
    fitted: dict[str, int]
    held_out: dict[str, Result]
    trained_on: tuple[str, ...] = ()
    versions: dict[str, str]

    @property
    def parameters(self) -> int:
        """How many numbers were fitted in all."""
        return sum(self.fitted.values())

    @property
    def share_closed(self) -> float:
        """Share of the splice's cost in cross-entropy that the adapter recovers."""
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


def is_fit(folder: Path) -> bool:
    """Whether a folder is an adapter that was fitted around dictionaries; others have cards too."""
    card = folder / CARD
    is_adapter = card.is_file() and (folder / CONFIG_FILE).is_file()
    return is_adapter and {"dictionaries", "held_out"} <= set(read_json(card))


def open_fitted(
    folder: str | Path, module: PreTrainedModel, dictionaries: Given, *, force: bool = False
) -> Spliced:
    """A fit on its model, around the dictionaries it was fitted to, or what became of them.

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
    for site, expected in card.standing.items():
        changed = open_dictionary(Path(folder) / DICTIONARIES / site)
        if identity(changed) != expected:
            raise InputError(
                f"{folder}: the dictionary saved for {site} is not the one that was fitted; put "
                "the saved one back"
            )
        placed[parse_site(site)] = changed
    # With LoRA the files of an ordinary PEFT adapter lie in the folder itself.
    adapted = with_adapter(module, Path(folder)) if "lora" in card.fitted else module.eval()
    return Spliced(adapted, placed, model=card.model, special_ids=card.special_ids)
