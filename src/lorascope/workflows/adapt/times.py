"""Loss against training time: TopK, end to end, and TopK with LoRA at its checkpoints."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorascope.adapt.dictionary_training import EndToEnd, train_end_to_end, train_streamed
from lorascope.adapt.evaluation import Evaluated
from lorascope.config import digest
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.measures.frontier import Point, frontier_estimates
from lorascope.progress import Advance
from lorascope.results import Estimate, Key, Null
from lorascope.runs import write_atomically
from lorascope.stats.documents import ratio
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import Fitting
from lorascope.training.loop import Progress
from lorascope.training.snapshots import Saving, Snapshot, read_snapshots
from lorascope.workflows.adapt.cells import Cell
from lorascope.workflows.adapt.dictionaries import CHECKPOINTS
from lorascope.workflows.adapt.fits import read_sums, remove_if_empty, run_fit, save_sums
from lorascope.workflows.adapt.several import spliced_alone
from lorascope.workflows.adapt.state import TEXTS, Adapted
from lorascope.workflows.adapt.study import Times
from lorascope.workflows.measured import Measured

TIMES = "times"
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


def take_times(state: Adapted) -> Timed | None:
    """Train both dictionaries and fit LoRA at the checkpoints of one; None where not asked for.

    Raises:
        InputError: the reference is brought along and its width or k is not given.
    """
    times = state.study.experiments.times
    if times is None:
        return None
    timing = _Timing(state, times)
    per_fit = times.fit_tokens or state.study.fit.tokens
    total = times.tokens + times.end_to_end_tokens + per_fit * len(times.shares)
    with state.reporter.bar("loss against time", total, "tokens") as advance:
        topk = timing.topk(advance)
        end_to_end = timing.end_to_end(advance)
        fits = [timing.fit(snapshot, advance) for snapshot in topk]
    remove_if_empty(state.run.folder / CHECKPOINTS)
    curves = {
        TOPK: [_point(one, sums["spliced"]) for one, sums, _ in fits],
        E2E: [_point(one, sums) for one, sums in end_to_end],
        OURS: [
            _point(one, sums["adapted"], card["seconds"], card["tokens"])
            for one, sums, card in fits
        ],
    }
    place = Key(site=state.asked.reference.site, dictionary=timing.name)
    seed = state.study.seed
    found = frontier_estimates(
        curves, levels(curves, times.levels), place, ours=OURS, against=E2E, seed=seed
    )
    found = [one if one.nulls else _beyond(one, curves) for one in found]
    drawn = {name: [_drawn(point) for point in curve] for name, curve in curves.items()}
    return Timed(Measured(found), drawn)


def require_size(state: Adapted) -> None:
    """Refuse curves whose dictionaries have no size; raises as `take_times`."""
    times = state.study.experiments.times
    if times is not None:
        _Timing(state, times)


def levels(curves: dict[str, list[Point]], count: int) -> list[float]:
    """Losses in even steps from the worst first point of ours and end to end to the best of all."""
    high = max(curves[name][0].mean_loss for name in (E2E, OURS))
    low = min(point.mean_loss for curve in curves.values() for point in curve)
    steps = [high - (high - low) * (i + 1) / count for i in range(count)]
    return list(dict.fromkeys(math.ceil(1000 * step) / 1000 for step in steps))


class _Timing:
    def __init__(self, state: Adapted, times: Times) -> None:
        self._state, self._times = state, times
        reference = state.asked.reference
        n_latents = times.n_latents or reference.n_latents
        k = times.k or reference.k
        if n_latents is None or k is None:
            raise InputError(
                "experiments.times: the reference is brought along, so give n_latents and k of the "
                "dictionaries to train"
            )
        self._site = reference.site
        self._architecture = TopK(n_latents=n_latents, k=k)
        self.name = f"{n_latents} latents, k {k}"
        self._shared = [self._site, n_latents, k, list(times.shares)]

    def topk(self, advance: Advance) -> list[Snapshot]:
        """A TopK dictionary at each share of its training."""
        state, times = self._state, self._times
        train = state.study.dictionaries.train
        defaults = Fitting()
        batch, rate, seed = (
            (train.batch, train.rate, train.seed)
            if train
            else (defaults.batch, defaults.rate, state.study.seed)
        )

        def make(folder: Path) -> None:
            def observe(progress: Progress) -> None:
                advance(min(batch, times.tokens - progress.step * batch))

            kept = self._kept(depends_on)
            train_streamed(
                state.module,
                state.tokenizer,
                self._site,
                state.training,
                self._architecture,
                Fitting(batch=batch, rate=rate),
                tokens=times.tokens,
                model=state.study.model,
                seed=seed,
                saving=Saving(kept, times.shares),
                checkpoint=kept.with_suffix(".pt"),
                observers=[observe],
            )
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            shutil.rmtree(kept)

        depends_on = [self._shared, times.tokens, batch, rate, seed]
        return self._snapshots("topk", depends_on, make, times.tokens, advance)

    def end_to_end(self, advance: Advance) -> list[tuple[Snapshot, Evaluated]]:
        """An end-to-end dictionary at each share of its training, spliced."""
        state, times, fit = self._state, self._times, self._state.study.fit
        shared = fit.model_dump(include=set(EndToEnd.model_fields) - {"rate", "tokens", "seed"})
        settings = EndToEnd(
            **shared,
            rate=times.end_to_end_rate,
            tokens=times.end_to_end_tokens,
            seed=state.study.seeds[0],
        )

        def make(folder: Path) -> None:
            def observe(progress: Progress) -> None:
                advance(int(progress.scalars["tokens"]))

            kept = self._kept(depends_on)
            train_end_to_end(
                state.module,
                state.tokenizer,
                self._site,
                state.training,
                self._architecture,
                settings,
                model=state.study.model,
                saving=Saving(kept, times.shares),
                checkpoint=kept.with_suffix(".pt"),
                observers=[observe],
            )
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            for snapshot in read_snapshots(folder):
                dictionary = open_dictionary(snapshot.folder)
                save_sums(spliced_alone(state, self._site, dictionary), snapshot.folder)
            shutil.rmtree(kept)

        depends_on = [self._shared, settings.plain()]
        snapshots = self._snapshots(
            "end_to_end", depends_on, make, times.end_to_end_tokens, advance
        )
        return [(one, read_sums(one.folder)["spliced"]) for one in snapshots]

    def fit(
        self, snapshot: Snapshot, advance: Advance
    ) -> tuple[Snapshot, dict[str, Evaluated], dict[str, Any]]:
        """LoRA around one of the TopK dictionaries: its sums, seconds and tokens."""
        state, lora = self._state, self._state.study.fit.lora
        tokens = self._times.fit_tokens or state.study.fit.tokens
        seed = state.study.seeds[0]
        cell = Cell((snapshot.folder.name,), (self._site,), "lora", lora.rank, lora.blocks, seed)
        name = f"{TIMES}/fit-{snapshot.folder.name}"

        def make(folder: Path) -> None:
            dictionaries = {self._site: open_dictionary(snapshot.folder)}
            fitted = run_fit(state, name, dictionaries, cell, folder, advance, tokens)
            save_sums(fitted.held_out, folder)
            card = {"seconds": fitted.card.seconds, "tokens": fitted.card.tokens}
            write_atomically(folder / "time.json", json.dumps(card) + "\n")

        depends_on = [cell.settings(state.study).plain(), tokens, state.study.fit.evaluations]
        parents = (TEXTS, f"{TIMES}/topk")
        if state.run.current(name, depends_on, *parents):
            advance(tokens)
        folder = state.run.stage(name, depends_on, make, *parents)
        return snapshot, read_sums(folder), json.loads((folder / "time.json").read_text())

    def _snapshots(
        self, name: str, depends_on: list[Any], make: Any, tokens: int, advance: Advance
    ) -> list[Snapshot]:
        run = self._state.run
        if run.current(f"{TIMES}/{name}", depends_on, TEXTS):
            advance(tokens)
        return read_snapshots(run.stage(f"{TIMES}/{name}", depends_on, make, TEXTS))

    def _kept(self, depends_on: list[Any]) -> Path:
        """Where snapshots stay while training goes on, so that a stop loses none of them."""
        return self._state.run.folder / CHECKPOINTS / f"times-{digest(depends_on)[:16]}"


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
