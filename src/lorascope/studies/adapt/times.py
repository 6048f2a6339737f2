"""Loss against training time: TopK, end to end, and TopK with LoRA at its checkpoints.

Stages `times/topk` and `times/end_to_end`, each with its dictionary at every share of its training,
and `times/fit-<share>`. Seconds are wall clock: they compare where nothing else runs beside them.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorascope.config import digest
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits.dictionary_training import EndToEnd, train_end_to_end, train_streamed
from lorascope.fits.settings import Adapting
from lorascope.measures.frontier import Point, frontier_estimates
from lorascope.outputs.evaluation import Evaluated
from lorascope.results import Estimate, Key, Null
from lorascope.runs import read_json, write_atomically
from lorascope.stages import Stage, Work, plain, stage
from lorascope.stats.documents import ratio
from lorascope.studies.adapt.cells import FitCell
from lorascope.studies.adapt.dictionaries import CHECKPOINTS
from lorascope.studies.adapt.fits import SETTINGS, read_sums, run_fit, save_sums
from lorascope.studies.adapt.several import spliced_alone
from lorascope.studies.adapt.state import TEXTS, Adapted
from lorascope.studies.adapt.study import AdaptStudy, Times
from lorascope.training.architectures import TopK
from lorascope.training.loop import StepProgress
from lorascope.training.settings import Fitting
from lorascope.training.snapshots import Saving, Snapshot, read_snapshots
from lorascope.workflows.measured import Measured
from lorascope.workflows.tracking import trackers

TIMES = "times"
_TOPK_AT, _END_TO_END_AT = f"{TIMES}/topk", f"{TIMES}/end_to_end"
_SNAPSHOTS, _CARD = "snapshots", "time.json"
TOPK, E2E, OURS = "TopK", "end to end", "TopK + LoRA"


@dataclass(frozen=True)
class Timed:
    """The curves of one study.

    Attributes:
        measured: times to each loss, and speed-ups.
        points: {curve: its points as the report draws them}.
    """

    measured: Measured
    points: dict[str, list[dict[str, Any]]]


@stage(version=1, title="timing TopK dictionaries")
def train_topk(
    work: Work,
    *,
    study: AdaptStudy,
    site: str,
    architecture: TopK,
    fitting: Fitting,
    tokens: int,
    seed: int,
    shares: tuple[float, ...],
) -> None:
    """A TopK dictionary at each share of its training."""
    state: Adapted = work.state
    kept, batch = _kept(work), fitting.batch
    with work.reporter.bar(TOPK, tokens, "tokens") as advance, trackers(work) as looking:

        def observe(progress: StepProgress) -> None:
            advance(min(batch, tokens - progress.step * batch))

        train_streamed(
            state.module,
            state.tokenizer,
            site,
            state.training,
            architecture,
            fitting,
            tokens=tokens,
            model=study.model,
            seed=seed,
            saving=Saving(kept, shares),
            checkpoint=kept.with_suffix(".pt"),
            observers=[observe, *looking],
        )
    shutil.copytree(kept, work.folder / _SNAPSHOTS)
    shutil.rmtree(kept)


@stage(version=1, title="timing end-to-end dictionaries")
def train_to_the_end(
    work: Work,
    *,
    study: AdaptStudy,
    site: str,
    architecture: TopK,
    settings: EndToEnd,
    shares: tuple[float, ...],
) -> None:
    """An end-to-end dictionary at each share of its training, spliced."""
    state: Adapted = work.state
    kept = _kept(work)
    with work.reporter.bar(E2E, settings.tokens, "tokens") as advance, trackers(work) as looking:

        def observe(progress: StepProgress) -> None:
            advance(int(progress.scalars["tokens"]))

        train_end_to_end(
            state.module,
            state.tokenizer,
            site,
            state.training,
            architecture,
            settings,
            model=study.model,
            saving=Saving(kept, shares),
            checkpoint=kept.with_suffix(".pt"),
            observers=[observe, *looking],
        )
    shutil.copytree(kept, work.folder / _SNAPSHOTS)
    for snapshot in read_snapshots(work.folder / _SNAPSHOTS):
        dictionary = open_dictionary(snapshot.folder)
        save_sums(spliced_alone(state, site, dictionary, settings), snapshot.folder)
    shutil.rmtree(kept)


@stage(version=1, title="timing fits")
def fit_at_share(
    work: Work, *, study: AdaptStudy, site: str, share: float, settings: Adapting
) -> None:
    """LoRA around the TopK dictionary at a share of its training: its sums, seconds and tokens."""
    snapshot = _snapshot(read_snapshots(work.input(_TOPK_AT) / _SNAPSHOTS), share)
    dictionaries = {site: open_dictionary(snapshot.folder)}
    with work.reporter.bar(f"{OURS} at {share:g}", settings.tokens, "tokens") as advance:
        fitted = run_fit(work, study, dictionaries, settings, advance)
    save_sums(fitted.conditions, work.folder)
    card = {"seconds": fitted.card.seconds, "tokens": fitted.card.tokens}
    write_atomically(work.folder / _CARD, json.dumps(card) + "\n")


def stages(state: Adapted) -> Iterator[Stage]:
    """The stages of the curves, where the study asks for them.

    Raises:
        InputError: the reference is brought along and its width or k is not given.
    """
    study, times = state.study, state.study.experiments.times
    if times is None:
        return
    site = state.asked.reference.site
    shared = {"site": site, "architecture": _size(state, times), "shares": times.shares}
    own = study.only("model")
    train, defaults = study.dictionaries.train, Fitting()
    batch, rate, seed = (
        (train.batch, train.rate, train.seed)
        if train
        else (defaults.batch, defaults.rate, study.seed)
    )
    topk = {"fitting": Fitting(batch=batch, rate=rate), "tokens": times.tokens, "seed": seed}
    yield Stage(_TOPK_AT, train_topk, {"study": own, **shared, **topk}, (TEXTS,))
    to_the_end = {"study": own, **shared, "settings": _end_to_end(study, times)}
    yield Stage(_END_TO_END_AT, train_to_the_end, to_the_end, (TEXTS,))
    for share in times.shares:
        arguments = {
            "study": study.only(*SETTINGS),
            "site": site,
            "share": share,
            "settings": _lora(study, times, site),
        }
        yield Stage(_fit_at(share), fit_at_share, arguments, (TEXTS, _TOPK_AT))


def read_times(state: Adapted) -> Timed | None:
    """What the stages of the curves found; None where the study does not ask for them."""
    study, times = state.study, state.study.experiments.times
    if times is None:
        return None
    topk = read_snapshots(state.folder / _TOPK_AT / _SNAPSHOTS)
    end_to_end = read_snapshots(state.folder / _END_TO_END_AT / _SNAPSHOTS)
    # Shares so close that one step serves both are one point.
    fits = {_snapshot(topk, share).step: share for share in reversed(times.shares)}
    folders = [(one, state.folder / _fit_at(fits[one.step])) for one in topk]
    read = [(one, read_sums(folder), read_json(folder / _CARD)) for one, folder in folders]
    curves = {
        TOPK: [_point(one, sums["spliced"]) for one, sums, _ in read],
        E2E: [_point(one, read_sums(one.folder)["spliced"]) for one in end_to_end],
        OURS: [
            _point(one, sums["adapted"], card["seconds"], card["tokens"])
            for one, sums, card in read
        ],
    }
    size = _size(state, times)
    place = Key(site=state.asked.reference.site, dictionary=f"{size.n_latents} latents, k {size.k}")
    found = frontier_estimates(
        curves, levels(curves, times.levels), place, ours=OURS, against=E2E, seed=study.seed
    )
    found = [one if one.nulls else _beyond(one, curves) for one in found]
    drawn = {name: [_drawn(point) for point in curve] for name, curve in curves.items()}
    return Timed(Measured(found), drawn)


def levels(curves: dict[str, list[Point]], count: int) -> list[float]:
    """Losses in even steps from the worst first point of ours and end to end to the best of all."""
    high = max(curves[name][0].mean_loss for name in (E2E, OURS))
    low = min(point.mean_loss for curve in curves.values() for point in curve)
    steps = [high - (high - low) * (i + 1) / count for i in range(count)]
    return list(dict.fromkeys(math.ceil(1000 * step) / 1000 for step in steps))


def _size(state: Adapted, times: Times) -> TopK:
    """Width and k of both dictionaries; raises as `stages`."""
    reference = state.asked.reference
    n_latents = times.n_latents or reference.n_latents
    k = times.k or reference.k
    if n_latents is None or k is None:
        raise InputError(
            "experiments.times: the reference is brought along, so give n_latents and k of the "
            "dictionaries to train"
        )
    return TopK(n_latents=n_latents, k=k)


def _end_to_end(study: AdaptStudy, times: Times) -> EndToEnd:
    """How the end-to-end dictionary is trained: as the fits are, with its own rate and budget."""
    own = set(EndToEnd.model_fields) - {"rate", "tokens", "seed"}
    return EndToEnd(
        **study.fit.model_dump(include=own),
        rate=times.end_to_end_rate,
        tokens=times.end_to_end_tokens,
        seed=study.seeds[0],
    )


def _lora(study: AdaptStudy, times: Times, site: str) -> Adapting:
    """Settings of the fit at each share: the study's LoRA, with the budget of these fits."""
    lora = study.fit.lora
    cell = FitCell((TOPK,), (site,), "lora", lora.rank, lora.blocks, study.seeds[0])
    tokens = times.fit_tokens or study.fit.tokens
    return cell.settings(study).model_copy(update={"tokens": tokens})


def _fit_at(share: float) -> str:
    return f"{TIMES}/fit-{share}"


def _snapshot(found: list[Snapshot], share: float) -> Snapshot:
    """The snapshot at a share of the whole training, whose end is the last one."""
    step = max(1, round(share * found[-1].step))
    return next(one for one in found if one.step == step)


def _kept(work: Work) -> Path:
    """Where snapshots stay while training goes on, so that a stop loses none of them."""
    mark = digest([work.stage.name, plain(work.stage.arguments)])
    return work.run / CHECKPOINTS / f"times-{mark[:16]}"


def _point(snapshot: Snapshot, sums: Evaluated, seconds: float = 0.0, tokens: int = 0) -> Point:
    return Point(snapshot.seconds + seconds, snapshot.tokens + tokens, sums.loss, sums.tokens)


def _beyond(one: Estimate, curves: dict[str, list[Point]]) -> Estimate:
    """A time that no other curve gets to: it stands beside how long these were trained."""
    own = one.key.adapter
    ends = {name: max(point.seconds for point in curve) for name, curve in curves.items()}
    chances = tuple(
        Null.exact(f"{name}, not there after", end) for name, end in ends.items() if name != own
    )
    return replace(one, nulls=chances)


def _drawn(point: Point) -> dict[str, Any]:
    loss, (low, high) = ratio(point.loss, point.scored)
    return {
        "seconds": point.seconds,
        "tokens": point.tokens,
        "loss": loss,
        "low": low,
        "high": high,
    }
