"""The dictionaries of an adapt study, each a stage of the run: trained here or brought along.

Those of one site read the same rows of the stream, which the model computes as they are needed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.streamed import StreamedRows
from lorascope.adapt.dictionary_training import MIXED
from lorascope.adapt.fitting import adapted_blocks
from lorascope.adapt.preparing import still
from lorascope.adapt.splicing import Placed, place
from lorascope.adapt.wrapper import identity
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.measures.firing import firing
from lorascope.runs import read_json, versions, write_atomically
from lorascope.training.dictionaries import Fitting, Job, fit_many
from lorascope.training.loop import Progress
from lorascope.training.starts import SAMPLE
from lorascope.workflows.adapt.cells import Wanted
from lorascope.workflows.adapt.state import TEXTS, Adapted
from lorascope.workflows.adapt.study import AdaptStudy, TrainTopK

DICTIONARIES = "dictionaries"
CHECKPOINTS = "checkpoints"
FACTS = "facts.json"
# Held-out rows that say how many latents fire and how much they miss.
L0_ROWS = 4096


class Standing:
    """The dictionaries of a study, opened when they are asked for.

    Attributes:
        facts: {name: what the report says of it}: site, width, L0, error on held-out rows.
    """

    def __init__(self, addresses: dict[str, str], facts: dict[str, dict[str, Any]]) -> None:
        self._addresses = addresses
        self.facts = facts

    def open(self, name: str) -> Dictionary:
        """One of them."""
        return open_dictionary(self._addresses[name])


def check_brought(state: Adapted) -> dict[str, str]:
    """{name: identity} of the dictionaries brought along, each proved to fit its site and its fits.

    Raises:
        InputError: one cannot be opened, is of another width, site or model, or has thresholds
            that a fit around it would act on.
    """
    found: dict[str, str] = {}
    # Only those that stand on the model together are held in memory together.
    together = [cell.dictionaries for cell in state.asked.fits if len(cell.dictionaries) > 1]
    several = {name for names in together for name in names}
    kept: dict[str, Placed] = {}
    for one in state.asked.dictionaries.values():
        if one.address:
            opened = open_dictionary(one.address)
            placed = place(
                state.module, {one.site: opened}, model=state.study.model, force=state.study.force
            )
            found[one.name] = identity(opened)
            _require_still(state, {one.name: placed}, alone=True)
            if one.name in several:
                kept[one.name] = placed
    _require_still(state, kept, alone=False)
    return found


def _require_still(state: Adapted, brought: dict[str, Placed], *, alone: bool) -> None:
    """Refuse fits around these that would let an L0 drift; TopK trained here cannot."""
    for cell in state.asked.fits:
        if (len(cell.dictionaries) == 1) is not alone:
            continue
        placed = {
            site: dictionary
            for name in cell.dictionaries
            for site, dictionary in brought.get(name, {}).items()
        }
        if placed:
            with warnings.catch_warnings():
                # Where it is allowed the fit itself warns.
                warnings.simplefilter("ignore", UserWarning)
                adapted_blocks(state.module, placed, cell.settings(state.study))


def stand(state: Adapted, brought: dict[str, str]) -> Standing:
    """Train, or find finished, every dictionary; look at those brought along.

    Args:
        brought: identities of these, as `check_brought` gives them.
    """
    run, asked = state.run, state.asked
    train = state.study.dictionaries.train
    trained = [one for one in asked.dictionaries.values() if not one.address]
    addresses = {one.name: one.address for one in asked.dictionaries.values()}
    total = len(trained) * train.tokens if train else 0
    with state.reporter.bar("training dictionaries", total, "rows") as advance:
        for _, several in groupby(sorted(trained, key=_site), key=_site):
            together = _Together(state, list(several), advance)
            for one in together.wanted:
                addresses[one.name] = str(together.stage(one))
    for name, mark in brought.items():
        one = asked.dictionaries[name]

        def make(folder: Path, one: Wanted = one) -> None:
            _note(state, one, open_dictionary(one.address), folder)

        run.stage(f"{DICTIONARIES}/{name}", [one.site, one.address, mark], make, TEXTS)
    folders = {name: run.folder / DICTIONARIES / name for name in asked.dictionaries}
    facts = {name: dict(read_json(folder / FACTS)) for name, folder in folders.items()}
    return Standing(addresses, facts)


def _site(one: Wanted) -> str:
    return one.site


def training_settings(train: TrainTopK, rows: int) -> Fitting:
    """How a dictionary is trained on a stream of so many rows."""
    return Fitting(epochs=train.tokens / rows, batch=train.batch, rate=train.rate)


class _Together:
    """Dictionaries of one site: trained at once when the first of them is asked for."""

    def __init__(self, state: Adapted, wanted: list[Wanted], advance: Any) -> None:
        self.wanted = wanted
        self._state, self._advance = state, advance
        self._trained: dict[str, Dictionary] = {}

    def stage(self, one: Wanted) -> Path:
        """The folder of a finished dictionary."""

        def make(folder: Path) -> None:
            if not self._trained:
                self._train()
            save(self._trained[one.name], folder)
            _note(self._state, one, self._trained[one.name], folder)

        what = self._what(one)
        if self._state.run.current(*what, TEXTS):
            self._advance(self._settings.tokens)
        return self._state.run.stage(*what, make, TEXTS)

    @property
    def _settings(self) -> TrainTopK:
        train = self._state.study.dictionaries.train
        assert train is not None
        return train

    def _what(self, one: Wanted) -> tuple[str, list[object]]:
        plain = self._settings.plain()
        kept = {name: plain[name] for name in ("tokens", "batch", "rate", "seed")}
        return f"{DICTIONARIES}/{one.name}", [one.site, one.n_latents, one.k, kept]

    def _train(self) -> None:
        state, train = self._state, self._settings
        todo = [one for one in self.wanted if not state.run.current(*self._what(one), TEXTS)]
        checkpoints = state.run.folder / CHECKPOINTS

        def observe(progress: Progress) -> None:
            self._advance(min(train.batch, train.tokens - progress.step * train.batch))

        with still(state.module):
            site = todo[0].site
            rows = StreamedRows(state.module, state.tokenizer, site, state.training)
            jobs = [
                Job(
                    one.architecture,
                    train.seed,
                    _card(state.study, site, rows.d_model),
                    checkpoints / f"{one.name}.pt",
                    [observe],
                )
                for one in todo
            ]
            made = fit_many(
                jobs,
                rows,
                training_settings(train, len(rows)),
                sample=rows.sample(SAMPLE),
                window=MIXED,
                device=str(state.module.get_input_embeddings().weight.device),
            )
        self._trained = {
            one.name: dictionary.cpu() for one, (dictionary, _) in zip(todo, made, strict=True)
        }


def _card(study: AdaptStudy, site: str, d_model: int) -> Card:
    return Card(
        target="base",
        site=site,
        d_model=d_model,
        model=study.model,
        revision=study.revision,
        versions=versions(),
    )


def _note(state: Adapted, one: Wanted, dictionary: Dictionary, folder: Path) -> None:
    """Write what the report says of a dictionary, from held-out rows of the stream."""
    with still(state.module):
        streamed = StreamedRows(state.module, state.tokenizer, one.site, state.held_out)
        rows = streamed.sample(L0_ROWS).rows.float().cpu()
    fired = firing(dictionary, rows)
    facts = {
        "name": one.name,
        "site": one.site,
        "n_latents": dictionary.n_latents,
        "l0": float(fired.per_row.mean()),
        "relative_error": _relative_error(dictionary, rows),
        "architecture": dictionary.architecture,
        "tokens": dictionary.card.tokens,
        "source": one.address or "trained here",
        "identity": identity(dictionary)[:16],
    }
    write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")


@torch.no_grad()
def _relative_error(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> float:
    """Mean over rows of ‖x − x̂‖ / ‖x‖."""
    parts: Sequence[Tensor] = rows.split(1024)
    missed = torch.cat([(part - dictionary(part)).norm(dim=1) for part in parts])
    return float((missed / rows.norm(dim=1)).mean())
