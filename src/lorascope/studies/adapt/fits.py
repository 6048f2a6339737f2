"""Every fit of an adapt study, each a stage of the run: fitted, scored, and its numbers written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.fits.fitting import Fitted, fit
from lorascope.fits.run import HELD_OUT_KL, HELD_OUT_LOSS
from lorascope.fits.settings import Adapting
from lorascope.measures.adapting import adapt_estimates
from lorascope.measures.token_changes import change_histogram, token_change_estimates
from lorascope.outputs.evaluation import Evaluated
from lorascope.outputs.kept import KeptStates
from lorascope.progress import Advance
from lorascope.results import Key
from lorascope.runs import read_json, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.adapt.cells import FitCell
from lorascope.studies.adapt.dictionaries import CHECKPOINTS
from lorascope.studies.adapt.dictionaries import at as dictionary_at
from lorascope.studies.adapt.state import TEXTS, Adapted
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.training.loop import StepProgress
from lorascope.workflows.measured import Measured
from lorascope.workflows.tracking import trackers

FITS = "fits"
FACTS = "fit.json"
_SUMS = "held_out.safetensors"
# What a fit reads of the study beside its own settings.
SETTINGS = ("model", "fit.direction", "fit.evaluations", "fit.random_draws")


def place_of(cell: FitCell) -> Key:
    """Where a fit's numbers stand in the results."""
    return Key(
        adapter=cell.fit,
        rank=cell.rank,
        site="+".join(cell.sites),
        seed=cell.seed,
        dictionary=cell.around,
    )


@stage(version=2, title="fitting adapters")
def fit_one(work: Work, *, study: AdaptStudy, cell: FitCell, settings: Adapting) -> None:
    """Fit one cell, score it, and write its numbers; a run that was stopped goes on.

    The study's margin is set when the results are written.
    """
    state: Adapted = work.state
    place = place_of(cell)
    with work.reporter.bar(cell.name, settings.tokens, "tokens") as advance:
        around = state.around(cell)
        fitted = run_fit(work, study, around, settings, advance, state.kept)
    conditions, random = fitted.conditions, fitted.random
    unigram = state.unigram(settings.splice_special)
    numbers = [
        *adapt_estimates(conditions, random, place, unigram=unigram, margin=math.inf),
        *token_change_estimates(conditions, random, place),
    ]
    Measured(numbers).write(work.folder)
    facts = fit_facts(fitted) | {"name": cell.name, **cell_facts(cell)}
    facts["changes"] = change_histogram(conditions["spliced"], conditions["adapted"])
    write_json(work.folder / FACTS, facts)
    save_sums(conditions, work.folder)


def stages(state: Adapted) -> Iterator[Stage]:
    """One stage a fit, `fits/<name>`."""
    study = state.study
    for cell in state.asked.fits:
        arguments = {
            "study": study.only(*SETTINGS),
            "cell": cell,
            "settings": cell.settings(study),
        }
        dictionaries = [dictionary_at(name) for name in cell.dictionaries]
        yield Stage(at(cell), fit_one, arguments, (TEXTS, *dictionaries))


def at(cell: FitCell) -> str:
    """The stage of a fit."""
    return f"{FITS}/{cell.name}"


def run_fit(
    work: Work,
    study: AdaptStudy,
    dictionaries: dict[str, Dictionary],
    settings: Adapting,
    advance: Advance,
    kept: KeptStates | None = None,
) -> Fitted:
    """Fit into a stage's folder; a run that was stopped goes on from its checkpoint.

    Args:
        dictionaries: by site.
        advance: hears of all tokens of the budget.
        kept: states that fits take from each other; None where a fit is timed.
    """
    state: Adapted = work.state
    observe = _Advancing(advance)
    with trackers(work) as looking:
        fitted = fit(
            state.module,
            state.tokenizer,
            dictionaries,
            state.training,
            state.held_out,
            work.folder,
            settings,
            model=study.model,
            evaluations=study.fit.evaluations,
            random_draws=study.fit.random_draws,
            scored=study.fit.direction,
            trained_on=state.trained_on,
            # Those brought along were compared with model and sites when they were opened.
            force=True,
            observers=[observe, *looking],
            checkpoint=work.run / CHECKPOINTS / f"{digest(work.stage.name)[:16]}.pt",
            kept=kept,
        )
    # What a budget leaves over, and what an earlier process had done of it.
    advance(max(0, settings.tokens - observe.seen))
    return fitted


class _Advancing:
    """Moves the bar by the tokens of every step."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self.seen = 0

    def __call__(self, progress: StepProgress) -> None:
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


def cell_facts(cell: FitCell) -> dict[str, Any]:
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


def facts_of(folder: Path, cells: Sequence[FitCell]) -> list[dict[str, Any]]:
    """One record a fit of a run folder, as its stage left it."""
    return [dict(read_json(folder / at(cell) / FACTS)) for cell in cells]


def save_sums(held_out: dict[str, Evaluated], folder: Path) -> None:
    """Keep the sums by document of every condition."""
    tensors = {
        # Ways that ran once share their sums; each is written on its own.
        f"{condition}.{field}": getattr(one, field).clone()
        for condition, one in held_out.items()
        for field in ("loss", "kl", "tokens")
    }
    save_file(tensors, folder / _SUMS)


def read_sums(folder: Path) -> dict[str, Evaluated]:
    """The sums a fit left; single tokens' losses are not kept."""
    tensors = load_file(folder / _SUMS)
    conditions = dict.fromkeys(name.partition(".")[0] for name in tensors)
    return {
        condition: Evaluated(
            loss=tensors[f"{condition}.loss"],
            kl=tensors[f"{condition}.kl"],
            tokens=tensors[f"{condition}.tokens"],
            losses=torch.zeros(0),
            owners=torch.zeros(0, dtype=torch.int32),
        )
        for condition in conditions
    }
