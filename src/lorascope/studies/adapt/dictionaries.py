"""The dictionaries of an adapt study, each a stage of the run: trained here or brought along.

Those of one site read the same rows of the stream, which the model computes as they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lorascope.activations.streamed import StreamedRows
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import save
from lorascope.errors import InputError
from lorascope.fits.dictionary_training import MIXED
from lorascope.fits.preparing import still
from lorascope.fits.wrapper import identity
from lorascope.measures.firing import firing
from lorascope.runs import versions, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.adapt.bringing import open_brought
from lorascope.studies.adapt.cells import AdaptDictionary
from lorascope.studies.adapt.state import DICTIONARIES, FACTS, TEXTS, Adapted
from lorascope.studies.adapt.study import AdaptStudy, TrainTopK
from lorascope.training.dictionaries import Job, fit_many
from lorascope.training.loop import StepProgress
from lorascope.training.settings import Fitting
from lorascope.training.starts import SAMPLE
from lorascope.workflows.tracking import trackers

CHECKPOINTS = "checkpoints"
# Held-out rows that say how many latents fire and how much they miss.
L0_ROWS = 4096
# What training reads of the study.
_SETTINGS = (
    *(f"dictionaries.train.{name}" for name in ("tokens", "batch", "rate", "seed")),
    *("model", "revision"),
)


@stage(version=1, title="training dictionaries", together=True)
def train(works: Sequence[Work]) -> None:
    """Train the dictionaries of one site at once, and look at each on held-out rows."""
    first = works[0]
    state: Adapted = first.state
    study: AdaptStudy = first.stage.arguments["study"]
    wanted: list[AdaptDictionary] = [work.stage.arguments["wanted"] for work in works]
    settings = study.dictionaries.train
    assert settings is not None
    site, total = wanted[0].site, settings.tokens * len(works)
    with (
        first.reporter.bar(site, total, "rows") as advance,
        still(state.module),
        ExitStack() as tracked,
    ):

        def observe(progress: StepProgress) -> None:
            advance(min(settings.batch, settings.tokens - progress.step * settings.batch))

        rows = StreamedRows(state.module, state.tokenizer, site, state.training)
        jobs = [
            Job(
                one.architecture,
                settings.seed,
                _card(study, site, rows.d_model),
                first.run / CHECKPOINTS / f"{one.name}.pt",
                [observe, *tracked.enter_context(trackers(work))],
            )
            for work, one in zip(works, wanted, strict=True)
        ]
        made = fit_many(
            jobs,
            rows,
            training_settings(settings, len(rows)),
            sample=rows.sample(SAMPLE),
            window=MIXED,
            device=str(state.module.get_input_embeddings().weight.device),
        )
    for work, one, (found, _) in zip(works, wanted, made, strict=True):
        dictionary = found.cpu()
        save(dictionary, work.folder)
        _note(state, one, dictionary, work.folder)


@stage(version=1, title="looking at dictionaries")
def look_at(work: Work, *, wanted: AdaptDictionary, content: str) -> None:
    """Look at a dictionary that was brought along on held-out rows.

    Args:
        content: what it computes with.

    Raises:
        InputError: it has been replaced since the study was read.
    """
    opened = open_brought(wanted)
    if identity(opened) != content:
        raise InputError(f"{wanted.address}: has changed since the study was read; run it again")
    _note(work.state, wanted, opened, work.folder)


def stages(state: Adapted) -> Iterator[Stage]:
    """One stage a dictionary, `dictionaries/<name>`; those trained at one site are made at once."""
    for one in state.asked.dictionaries.values():
        name = at(one.name)
        if one.address:
            arguments = {"wanted": one, "content": state.brought[one.name]}
            yield Stage(name, look_at, arguments, (TEXTS,))
        else:
            arguments = {"study": state.study.only(*_SETTINGS), "wanted": one}
            yield Stage(name, train, arguments, (TEXTS,), f"dictionaries {one.site}")


def at(name: str) -> str:
    """The stage of a dictionary."""
    return f"{DICTIONARIES}/{name}"


def training_settings(train: TrainTopK, rows: int) -> Fitting:
    """How a dictionary is trained on a stream of so many rows."""
    return Fitting(epochs=train.tokens / rows, batch=train.batch, rate=train.rate)


def _card(study: AdaptStudy, site: str, d_model: int) -> Card:
    return Card(
        target="base",
        site=site,
        d_model=d_model,
        model=study.model,
        revision=study.revision,
        versions=versions(),
    )


def _note(state: Adapted, one: AdaptDictionary, dictionary: Dictionary, folder: Path) -> None:
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
    write_json(folder / FACTS, facts)


@torch.no_grad()
def _relative_error(dictionary: Dictionary, rows: Float[Tensor, "rows d"]) -> float:
    """Mean over rows of ‖x − x̂‖ / ‖x‖."""
    parts: Sequence[Tensor] = rows.split(1024)
    missed = torch.cat([(part - dictionary(part)).norm(dim=1) for part in parts])
    return float((missed / rows.norm(dim=1)).mean())
