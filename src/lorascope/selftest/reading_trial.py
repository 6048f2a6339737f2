"""Does a reading say what an adapter was taught, and nothing where it was taught nothing?

Adapters with a known lesson and adapters without any are read as `lorascope read` does. A judge
that counts words, and sees only what was read, chooses among all labels; how much each method finds
is held against what it finds of the untaught. The adapters are those the package makes on its own
model, or a table's of any model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from lorascope.activations.text import read_documents
from lorascope.activations.tokens import batches, windows
from lorascope.models.adapted import BASE, AdaptedModel, load
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id, read_tokenizer
from lorascope.models.sites import Site
from lorascope.planted.judge import (
    CHANGED,
    FIRST,
    LATENTS,
    METHODS,
    WEIGHTS,
    Bag,
    Judge,
    Told,
    detected,
    of_directions,
    of_reading,
    of_weights,
    roc_area,
    standardised,
)
from lorascope.planted.lessons import LABELS, NULL, lesson, lesson_texts
from lorascope.planted.shares import Share
from lorascope.planted.untaught import RECORDS, MadeAdapters, adapters
from lorascope.progress import Reporter
from lorascope.reading.phrases import words_of
from lorascope.reading.result import MARK, Read
from lorascope.reading.running import read, with_phrases
from lorascope.reading.settings import Reading
from lorascope.selftest.adapter_tables import AdapterTable, null_count
from lorascope.selftest.listed_adapters import opened
from lorascope.stats.intervals import Interval, wilson_interval
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import fit
from lorascope.training.settings import Fitting

TOGETHER = "together"
# What is asked of all methods together, and of null adapters.
RIGHT, DETECTED, NAMED = 0.8, 0.8, 0.05
# Draws of the lessons' records that the judge knows them by.
_JUDGED = 100
_READING = Reading(carriers=False)


@dataclass(frozen=True)
class TrialSizes:
    """How much is tried.

    Attributes:
        labels: lessons.
        seeds: adapters of each; rank and strength change with it.
        nulls: random updates of the taught ones' spectra.
        trained_nulls: trained on the base's own answers, and as many on random tokens.
        reading: how each is read.
    """

    labels: tuple[str, ...] = LABELS
    seeds: int = 2
    nulls: int = 32
    trained_nulls: int = 4
    reading: Reading = _READING


QUICK = TrialSizes(
    ("topic", "format", "refusal", "persona"),
    seeds=1,
    nulls=4,
    trained_nulls=0,
    reading=Reading(tokens=16, documents=12, carriers=False),
)


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        right, taught: how often the judge chooses the label, of how many.
        right_interval: Wilson's 95 % interval of the share.
        chance: of a choice at random.
        area: under the ROC curve, taught beside untaught; its interval.
        at_5, at_1: taught ones beyond what 5 % and 1 % of the untaught pass.
        untaught: how many of these.
    """

    method: str
    right: int
    taught: int
    right_interval: Interval
    chance: float
    area: float
    area_interval: Interval
    at_5: int
    at_1: int
    untaught: int


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        rows: one a method, and all together.
        shares: counts beside what is asked of them.
        kinds: {kind of untaught adapter: (readings that name something, of how many)}.
        seconds: how long it took.
    """

    rows: list[Row]
    shares: list[Share]
    kinds: dict[str, tuple[int, int]]
    seconds: float

    @property
    def failures(self) -> list[str]:
        """A line for everything that was asked and not kept."""
        return [str(share) for share in self.shares if not share.passed]

    def plain(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "passed": not self.failures,
            "failures": self.failures,
            "methods": [asdict(row) for row in self.rows],
            "shares": [
                {**asdict(s), "interval": s.interval, "passed": s.passed} for s in self.shares
            ],
            "untaught": self.kinds,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class _Judged:
    made: MadeAdapters
    told: dict[str, Told]
    names_something: bool


def reading_trial(sizes: TrialSizes, folder: Path, reporter: Reporter) -> Trial:
    """Teach, read, judge, on the embedded model; what the folder holds is used again."""
    start = time.monotonic()
    texts = {label: lesson_texts(label, lesson(label, RECORDS, _JUDGED)) for label in sizes.labels}
    total = len(sizes.labels) * sizes.seeds + sizes.nulls + 2 * sizes.trained_nulls
    made = adapters(folder, sizes.labels, sizes.seeds, sizes.nulls, sizes.trained_nulls)
    return _trial("embedded", made, total, texts, sizes.reading, folder, reporter, start)


def table_trial(
    model: str,
    table: AdapterTable,
    settings: Reading,
    folder: Path,
    reporter: Reporter,
    nulls: int | None = None,
    dtype: str = "auto",
) -> Trial:
    """Read and judge the adapters of a table, of any model.

    Args:
        table: as `read_table` reads it.
        folder: adapters that are written and readings stay there and are used again.
        nulls: random updates of the adapters' spectra, as in `adapter_tables.opened`.
        dtype: of the base's weights.

    Raises:
        InputError: an adapter cannot be had or read.
    """
    start = time.monotonic()
    total = len(table.adapters) + null_count(table, nulls)
    made = opened(table, model, nulls, folder)
    return _trial(model, made, total, table.texts, settings, folder, reporter, start, dtype)


def _trial(
    model: str,
    made: Iterable[MadeAdapters],
    total: int,
    texts: dict[str, list[str]],
    settings: Reading,
    folder: Path,
    reporter: Reporter,
    start: float,
    dtype: str = "auto",
) -> Trial:
    found: list[_Judged] = []
    with reporter.bar("reading adapters", total, "adapters") as advance:
        for one in made:
            found.append(_read(model, one, settings, folder, dtype))
            advance(1)
    tokenizer = read_tokenizer(model)

    def pieces(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [tokenizer.decode([i]).strip().lower() for i in ids]

    rows = _rows(found, texts, pieces)
    kinds: dict[str, tuple[int, int]] = {}
    for judged in found:
        if not judged.made.taught:
            named, count = kinds.get(judged.made.label, (0, 0))
            kinds[judged.made.label] = named + judged.names_something, count + 1
    return Trial(rows, _shares(rows, kinds), kinds, time.monotonic() - start)


def _device(model: str) -> str:
    """The packaged model is quickest on a CPU."""
    return "cpu" if model == "embedded" else "auto"


def _read(
    model_id: str, made: MadeAdapters, settings: Reading, folder: Path, dtype: str
) -> _Judged:
    device = _device(model_id)
    model = load(model_id, {"adapter": str(made.path)}, device=device, dtype=dtype)
    kept = folder / "readings" / f"{made.label}-{made.number}".replace(" ", "-")
    if not (kept / MARK).exists():
        read(model, "adapter", settings).write(kept)
    # Samples stay; what is counted in them is counted by the code of today.
    found = with_phrases(Read.load(kept), settings)
    told = of_reading(found, settings)
    told[LATENTS] = of_directions(model, delta_directions(model), settings.seed)
    told[WEIGHTS] = of_weights(model, "adapter", settings.seed)
    return _Judged(made, told, found.names_something)


@torch.no_grad()
def _deltas(model: AdaptedModel, site: Site, documents: int) -> torch.Tensor:
    chosen = windows(read_documents("embedded")[:documents], model.tokenizer, 128)
    found = []
    for batch in batches(chosen, model.tokenizer, padding_id(model.tokenizer), 4096):
        ids, mask = batch.ids.to(model.device), batch.attended.long().to(model.device)
        streams = []
        for variant in (BASE, "adapter"):
            with model.variant(variant) as module:
                streams.append(run_until(module, [site], ids, mask)[site].float().cpu()[batch.kept])
        found.append(streams[1] - streams[0])
    return torch.cat(found)


def delta_directions(model: AdaptedModel, documents: int = 60, latents: int = 128) -> torch.Tensor:
    """Directions of a small dictionary of the deltas after three quarters of the blocks, those of
    the latents that write most first."""
    site = Site(max(0, round(0.75 * model.n_blocks) - 1))
    rows = _deltas(model, site, documents)
    if not rows.any():
        return torch.zeros(0, model.d_model)
    fitting = Fitting(epochs=3, batch=256, rate=3e-3)
    dictionary = fit(TopK(n_latents=latents, k=8), rows, fitting=fitting)
    written = dictionary.encode(rows).sum(0) * dictionary.directions.norm(dim=1)
    order = written.argsort(descending=True)[: int((written > 0).sum())]
    return dictionary.directions[order[:24]].detach()


# Of the taught adapters, and of the untaught.
_Scores = tuple[list[float], list[float]]


def _rows(
    found: Sequence[_Judged],
    texts: dict[str, list[str]],
    pieces: Callable[[str], list[str]],
) -> list[Row]:
    by_words, by_tokens = Judge(texts, words_of), Judge(texts, pieces)
    ours, theirs = ([one for one in found if one.made.taught is side] for side in (True, False))
    choices: dict[str, list[Bag]] = {}
    for method in METHODS:
        judge = by_tokens if method in (CHANGED, FIRST, LATENTS, WEIGHTS) else by_words
        choices[method] = [standardised(judge.scores(one.told[method].words)) for one in ours]
    choices[TOGETHER] = [
        {label: sum(choices[m][n][label] for m in METHODS) for label in texts}
        for n in range(len(ours))
    ]
    scores: dict[str, _Scores] = {
        m: ([one.told[m].score for one in ours], [one.told[m].score for one in theirs])
        for m in METHODS
    }
    scores[TOGETHER] = _together(scores)
    return [_row(method, choices[method], ours, *scores[method]) for method in (*METHODS, TOGETHER)]


def _together(scores: dict[str, _Scores]) -> _Scores:
    """Summed over methods, how far an adapter lies beyond the untaught in their standard
    deviations; an untaught one is held against the others."""
    ours, theirs = ([0.0] * len(side) for side in next(iter(scores.values())))
    for own, others in scores.values():
        # Where the untaught are all alike, a twentieth of the whole range stands for their spread.
        least = 0.05 * (max(own + others) - min(own + others)) or 1.0
        for n, score in enumerate(own):
            ours[n] += _beyond(score, others, least)
        for n, score in enumerate(others):
            theirs[n] += _beyond(score, others[:n] + others[n + 1 :], least)
    return ours, theirs


def _beyond(score: float, rest: Sequence[float], least: float) -> float:
    if not rest:
        return 0.0
    return (score - fmean(rest)) / max(pstdev(rest), least)


def _row(
    method: str,
    choices: list[Bag],
    taught: Sequence[_Judged],
    ours: list[float],
    theirs: list[float],
) -> Row:
    # A method that says nothing chooses nothing.
    chosen = [max(one, key=one.__getitem__) if any(one.values()) else "" for one in choices]
    right = sum(c == one.made.label for c, one in zip(chosen, taught, strict=True))
    area, interval = roc_area(ours, theirs)
    at_5, at_1 = (detected(ours, theirs, rate)[0] for rate in (0.05, 0.01))
    n, labels = len(taught), len(choices[0])
    bounds = wilson_interval(right, n)
    return Row(method, right, n, bounds, 1 / labels, area, interval, at_5, at_1, len(theirs))


def _shares(rows: list[Row], kinds: dict[str, tuple[int, int]]) -> list[Share]:
    whole = rows[-1]
    part = "readings of adapters"
    found = [
        Share(part, "right label, all methods", whole.right, whole.taught, RIGHT, most=False),
        Share(part, "beyond 95 % of untaught", whole.at_5, whole.taught, DETECTED, most=False),
    ]
    if NULL in kinds:
        named, count = kinds[NULL]
        found.append(Share(part, "null adapters that name something", named, count, NAMED))
    return found
