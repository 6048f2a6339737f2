"""What a saved latent adapter belongs to: the card beside its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lorascope.config import Settings
from lorascope.dictionaries.addresses import SCHEME
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.hub import UNNAMED, Described, model_card, public
from lorascope.errors import InputError
from lorascope.fits.wrapper import identity
from lorascope.models.places import LATENT_FILE
from lorascope.results.estimate import Estimate
from lorascope.runs import read_json

# How far below its run's folder an adapter lies: RUN/adapters/NAME.
_RUN = 2
WEIGHTS, CARD = LATENT_FILE, "lorascope.json"


class OverDictionary(Settings):
    """The dictionary whose latents are read and written.

    Attributes:
        address: where it was opened from, relative to the card's folder where both lie in one
            run; empty for one that was never saved.
        identity: hash of what it computes with.
        neuronpedia: its id there; empty where unknown.
    """

    address: str = ""
    identity: str
    n_latents: int
    d_model: int
    neuronpedia: str = ""

    @classmethod
    def of(cls, dictionary: Dictionary) -> OverDictionary:
        """What names this dictionary."""
        return cls(
            address=dictionary.card.source,
            identity=identity(dictionary),
            n_latents=dictionary.n_latents,
            d_model=dictionary.d_model,
            neuronpedia=dictionary.card.neuronpedia,
        )

    def beside(self, folder: Path) -> OverDictionary:
        """The same for a card in `folder`: a dictionary of the same run by its way from there.

        A run that is renamed or copied then opens its own dictionaries; others, which stay where
        they are, are named by their whole path.
        """
        if not self.address or "://" in self.address or self.address.startswith(SCHEME):
            return self
        whole = os.path.normpath(Path(self.address).absolute())
        way = os.path.relpath(whole, folder.absolute())
        near = Path(way).parts.count("..") <= _RUN
        return self.model_copy(update={"address": Path(way).as_posix() if near else whole})

    def found_from(self, folder: Path) -> str:
        """Where to open it from, for a card in `folder`; empty where nothing is known."""
        if not self.address or "://" in self.address or self.address.startswith(SCHEME):
            return self.address
        near = Path(os.path.normpath(folder.absolute() / self.address))
        return str(near) if near.exists() else self.address


class LatentCard(Settings):
    """`lorascope.json` of a latent adapter.

    Attributes:
        model: id of the base model.
        base: fingerprint of its weights; empty for an adapter that was not trained here.
        site: where the stream goes through the adapter.
        special_ids: tokens that keep their stream.
        data: where its examples came from.
        examples: how many changed and unchanged ones it was trained on.
        settings: of its training.
        candidates: latents that were preselected to be read and to be written; None where all of
            the dictionary's could be.
        steps: optimiser steps.
        loss: mean training loss over the last tenth of the steps, nats/token.
        trained_on: digests of the training documents, so that audits can leave them out.
        versions: libraries that made it.
    """

    kind: Literal["latent adapter"] = "latent adapter"
    model: str
    base: str = ""
    site: str
    dictionary: OverDictionary
    special_ids: tuple[int, ...] = ()
    rank: int = Field(gt=0)
    data: str = ""
    examples: dict[str, int] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    candidates: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    steps: int = 0
    loss: float | None = None
    trained_on: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)

    def require(self, dictionary: Dictionary, where: str) -> None:
        """Refuse another dictionary than the adapter was made over.

        Raises:
            InputError: says which one it needs.
        """
        if identity(dictionary) == self.dictionary.identity:
            return
        given = dictionary.card.source or f"{dictionary.n_latents} latents"
        known = self.dictionary
        wanted = known.address or f"the one of {known.n_latents} latents it was trained over"
        raise InputError(
            f"{where}: the adapter was made over another dictionary ({wanted}), not over the one "
            f"given ({given}); give that one, or train an adapter over this one"
        )

    def readme(
        self, numbers: Sequence[Estimate] = (), texts: Sequence[str] = (), license: str = ""
    ) -> str:
        """What the folder's README says: the model card."""
        return model_card(self.described(numbers, texts, license))

    def described(
        self, numbers: Sequence[Estimate] = (), texts: Sequence[str] = (), license: str = ""
    ) -> Described:
        """What the model card is made from."""
        over = self.dictionary
        return Described(
            title=f"Latent adapter of {public(self.model)}, rank {self.rank} at {self.site}",
            library="lorascope",
            paragraphs=[
                f"Rank {self.rank} at {self.site}, over a dictionary of {over.n_latents:,} latents "
                f"({over.address or 'not saved'}; a relative path starts from this folder). It "
                "acts by a hook and changes no weight; how it was trained stands in "
                f"`{CARD}`.",
                "It reads latents of the dictionary and writes latents of the same: "
                "`adapter.pairs()` lists latent read, latent written, weight.",
            ],
            usage=(
                "import lorascope as ls\n\n"
                f'adapter = ls.LatentAdapter.from_pretrained("{UNNAMED}")\n'
                f"model = ls.load({json.dumps(self.model)}, "
                f'adapters={{"latent": "{UNNAMED}"}})'
            ),
            model=self.model,
            relation="adapter",
            tags=("sae", "adapter", "mechanistic-interpretability"),
            texts=texts,
            numbers=numbers,
            license=license,
        )


def read_card(folder: Path) -> LatentCard:
    """The card of a saved latent adapter.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of a saved latent adapter")
    return LatentCard.parse(read_json(path), str(path))
