"""Every fit of an adapt study, each a stage of the run: fitted, scored, and its numbers written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorascope.adapt.evaluation import Evaluated
from lorascope.adapt.fitting import Fitted, fit
from lorascope.adapt.run import HELD_OUT_KL, HELD_OUT_LOSS
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.adapting import adapt_estimates, unigram_losses
from lorascope.measures.token_changes import change_histogram, token_change_estimates
from lorascope.progress import Advance
from lorascope.results import Estimate, Key
from lorascope.runs import Run, read_json, write_atomically
from lorascope.training.loop import Progress
from lorascope.workflows.adapt.cells import Cell
from lorascope.workflows.adapt.dictionaries import CHECKPOINTS, DICTIONARIES, Standing
from lorascope.workflows.adapt.state import TEXTS, Adapted
from lorascope.workflows.adapt.study import AdaptStudy
from lorascope.workflows.measured import Measured

FITS = "fits"
FACTS = "fit.json"
_SUMS = "held_out.safetensors"


def place_of(cell: Cell) -> Key:
    """Where a fit's numbers stand in the results."""
    return Key(
        adapter=cell.fit,
        rank=cell.rank,
        site="+".join(cell.sites),
        seed=cell.seed,
        dictionary=cell.around,
    )


def fit_all(state: Adapted, standing: Standing) -> Measured:
    """Fit, or find finished, every fit of the study; returns all their numbers."""
    cells = state.asked.fits
    fitting = Fitting(state, standing)
    found = Measured()
    total = state.study.fit.tokens * len(cells)
    title = f"fitting {len(cells)} adapters"
    with state.reporter.bar(title, total, "tokens") as advance:
        for cell in cells:
            found.add(Measured.read(fitting.stage(cell, advance)))
    remove_if_empty(state.run.folder / CHECKPOINTS)
    return found


class Fitting:
    """What all fits of a run share."""

    def __init__(self, state: Adapted, standing: Standing) -> None:
        self._state, self._standing = state, standing
        self._unigram: Float[Tensor, " documents"] | None = None
        self._opened: dict[str, Dictionary] = {}

    @property
    def unigram(self) -> Float[Tensor, " documents"]:
        """Losses of the held-out tokens by their frequencies alone, by document."""
        if self._unigram is None:
            state = self._state
            special = state.study.fit.splice_special
            self._unigram = unigram_losses(state.training, state.held_out, state.tokenizer, special)
        return self._unigram

    def stage(self, cell: Cell, advance: Advance) -> Path:
        """The folder of a finished fit."""
        state, budget = self._state, self._state.study.fit.tokens
        name, depends_on = stage_key(state.study, cell)
        parents = [TEXTS, *(f"{DICTIONARIES}/{name}" for name in cell.dictionaries)]

        def make(folder: Path) -> None:
            dictionaries = self._dictionaries(cell)
            place = place_of(cell)
            fitted = run_fit(state, cell.name, dictionaries, cell, folder, advance)
            measured = Measured(self.estimates(fitted, place))
            measured.write(folder)
            facts = fit_facts(fitted) | {"name": cell.name, **cell_facts(cell)}
            facts["changes"] = change_histogram(
                fitted.held_out["spliced"], fitted.held_out["adapted"]
            )
            write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")
            save_sums(fitted.held_out, folder)

        if state.run.current(name, depends_on, *parents):
            advance(budget)
        return state.run.stage(name, depends_on, make, *parents)

    def estimates(self, fitted: Fitted, place: Key) -> list[Estimate]:
        """All numbers of one fit; the study's margin is set when the results are written."""
        ways, random = fitted.held_out, fitted.random
        return [
            *adapt_estimates(ways, random, place, unigram=self.unigram, margin=math.inf),
            *token_change_estimates(ways, random, place),
        ]

    def _dictionaries(self, cell: Cell) -> dict[str, Dictionary]:
        """{site: dictionary} of a cell; those of the last cell are kept, others let go."""
        for name in [name for name in self._opened if name not in cell.dictionaries]:
            del self._opened[name]
        for name in cell.dictionaries:
            if name not in self._opened:
                self._opened[name] = self._standing.open(name)
        pairs = zip(cell.sites, cell.dictionaries, strict=True)
        return {site: self._opened[name] for site, name in pairs}


def stage_key(study: AdaptStudy, cell: Cell) -> tuple[str, list[object]]:
    """The name of a fit's stage, and what it depends on beside its parents."""
    plain = cell.settings(study).plain()
    looks = [study.fit.evaluations, study.fit.random_draws]
    return f"{FITS}/{cell.name}", [plain, looks, study.seed]


def run_fit(
    state: Adapted,
    name: str,
    dictionaries: dict[str, Dictionary],
    cell: Cell,
    folder: Path,
    advance: Advance,
    tokens: int | None = None,
) -> Fitted:
    """Fit one cell into `folder`; a run that was stopped goes on from its checkpoint.

    Args:
        name: of the checkpoint.
        tokens: another budget than the study's.
    """
    study = state.study
    settings = cell.settings(study)
    if tokens is not None:
        settings = settings.model_copy(update={"tokens": tokens})
    observe = _Advancing(advance)
    fitted = fit(
        state.module,
        state.tokenizer,
        dictionaries,
        state.training,
        state.held_out,
        folder,
        settings,
        model=study.model,
        evaluations=study.fit.evaluations,
        random_draws=study.fit.random_draws,
        trained_on=state.trained_on,
        force=study.force,
        observers=[observe],
        checkpoint=state.run.folder / CHECKPOINTS / f"{digest(name)[:16]}.pt",
    )
    # What a budget leaves over, and what an earlier process had done of it.
    advance(max(0, settings.tokens - observe.seen))
    return fitted


class _Advancing:
    """Moves the bar by the tokens of every step."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self.seen = 0

    def __call__(self, progress: Progress) -> None:
        tokens = int(progress.scalars["tokens"])
        self._advance(tokens)
        self.seen += tokens


def fit_facts(fitted: Fitted) -> dict[str, Any]:
    """What the report says of a fit that is not an estimate."""
    card = fitted.card
    loss, kl = fitted.history.points(HELD_OUT_LOSS), fitted.history.points(HELD_OUT_KL)
    return {
        "steps": card.steps,
        "fit_tokens": card.tokens,
        "fit_seconds": card.seconds,
        "parameters": card.parameters,
        "blocks": list(card.blocks),
        "curve": [
            {"step": step, "loss": value, "kl": other}
            for (step, value), (_, other) in zip(loss, kl, strict=True)
        ],
        "base": card.base,
        "frozen": card.dictionaries,
    }


def cell_facts(cell: Cell) -> dict[str, Any]:
    """Where a fit stands among the others."""
    return {
        "fit": cell.fit,
        "fitted": cell.what,
        "kind": cell.kind,
        "rank": cell.rank,
        "adapts": list(cell.blocks) if isinstance(cell.blocks, tuple) else cell.blocks,
        "seed": cell.seed,
        "around": cell.around,
        "dictionaries": list(cell.dictionaries),
        "sites": list(cell.sites),
    }


def facts_of(run: Run, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One record a fit, as its stage left it."""
    return [dict(read_json(run.folder / FITS / cell.name / FACTS)) for cell in cells]


def save_sums(held_out: dict[str, Evaluated], folder: Path) -> None:
    """Keep the sums by document of every way."""
    tensors = {
        # Ways that ran once share their sums; each is written on its own.
        f"{way}.{field}": getattr(one, field).clone()
        for way, one in held_out.items()
        for field in ("loss", "kl", "tokens")
    }
    save_file(tensors, folder / _SUMS)


def read_sums(folder: Path) -> dict[str, Evaluated]:
    """The sums a fit left; single tokens' losses are not kept."""
    tensors = load_file(folder / _SUMS)
    ways = dict.fromkeys(name.partition(".")[0] for name in tensors)
    return {
        way: Evaluated(
            loss=tensors[f"{way}.loss"],
            kl=tensors[f"{way}.kl"],
            tokens=tensors[f"{way}.tokens"],
            losses=torch.zeros(0),
            owners=torch.zeros(0, dtype=torch.int32),
        )
        for way in ways
    }


def remove_if_empty(folder: Path) -> None:
    """Take away the folder of checkpoints once nothing is in it."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
