"""The tests of the instrument on data whose truth is known, run on this machine.

1. Recovery: rows made from known features; the planted shares beside those found.
2. Nothing planted: how often each measure finds something all the same.
3. An adapter built by hand on the embedded model: found, named, and taken away again.
4. Null adapters and featureless dictionaries through a real audit: how often they are apart.
5. Coverage of every kind of interval.
6. Power: planted alignment, behaviour and single latents.
7. Two adapters that do the same: what `compare` lists of either alone; named latents like others.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lorascope.activations.splits import by_hash
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import windows
from lorascope.models.adapted import load
from lorascope.planted import nothing
from lorascope.planted.adapters import punctuation, write_adapter
from lorascope.planted.coverage import CoverageRow, coverage_rows
from lorascope.planted.detection import Detected, detect, random_recoveries
from lorascope.planted.latent_search import search_shares
from lorascope.planted.named_latents import exchangeable_shares, planted_latent_shares
from lorascope.planted.power import alignment_shares, behaviour_shares
from lorascope.planted.rates import NOMINAL, Rate, allowed, false_positives
from lorascope.planted.recovery import PlantedRecovery, RecoverySettings, recover
from lorascope.planted.shares import LEVEL, Share
from lorascope.progress import Reporter
from lorascope.results import Estimate
from lorascope.selftest.null_audit import NullAudit, null_audit

ADAPTER = "planted"
# Records that show the adapter's maker what tokens look like inside the model.
_SHOWN = 500
# What part 3 must reach; of the KL a norm behind the MLP always keeps a part (docs/selftest.md).
LEAST, LEAST_KL = 0.9, 0.85


_AUDIT = NullAudit((8,), 7, ("layers.3",), 120, effects=True, strict=False)


@dataclass(frozen=True)
class SelftestSizes:
    """How much the self-test does.

    Attributes:
        documents: made documents a planted share, of 64 rows.
        trained: measure against trained base dictionaries too.
        repeats: with nothing planted.
        records: instruction records to train a dictionary on, and as many to look at it on.
        tokens: on which outputs are compared.
        recoveries: random dictionaries spliced into the model, and on how many tokens.
        audit: of null adapters.
        intervals: trials of each kind of interval.
        scenes: of planted alignment; five times as many of planted behaviour.
        named: dictionaries with named latents, for each number of these.
        searches: pairs of adapters that do the same, at each strength.
    """

    documents: int = 96
    trained: bool = True
    repeats: int = 200
    records: int = 200
    tokens: int = 4096
    recoveries: tuple[int, int] = (40, 512)
    audit: NullAudit = _AUDIT
    intervals: int = 200
    scenes: int = 10
    named: int = 200
    searches: int = 60


STANDARD = SelftestSizes()
QUICK = SelftestSizes(
    trained=False,
    repeats=40,
    records=120,
    tokens=2048,
    recoveries=(0, 0),
    audit=NullAudit((8,), 4, ("layers.3",), 120, effects=False, strict=False),
    intervals=40,
    scenes=2,
    named=40,
    searches=12,
)
FULL = SelftestSizes(
    audit=NullAudit((4, 8, 16), 10, ("layers.2", "layers.4"), 240, effects=True, strict=True),
    intervals=1000,
    scenes=50,
    named=1000,
    searches=300,
)


@dataclass(frozen=True)
class Selftest:
    """What a self-test found.

    Attributes:
        recovery: planted shares and what was found.
        rates: false positives of every measure.
        detected: what was found of the adapter built by hand.
        coverage: how often each kind of interval held the truth.
        shares: verdicts about null draws, power, searches: each beside its bar.
        failures: a line for everything that failed; empty where all passed.
        seconds: how long it took.
    """

    recovery: list[PlantedRecovery]
    rates: list[Rate]
    detected: Detected
    coverage: list[CoverageRow]
    shares: list[Share]
    failures: list[str]
    seconds: float

    def plain(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "passed": not self.failures,
            "failures": self.failures,
            "recovery": [{**asdict(f), "recovered": f.recovered} for f in self.recovery],
            "false_positives": [
                {**asdict(r), "rate": r.rate, "interval": r.interval, "passed": r.passed}
                for r in self.rates
            ],
            "adapter": asdict(self.detected),
            "coverage": [
                {**asdict(r), "share": r.share, "interval": r.interval, "passed": r.passed}
                for r in self.coverage
            ],
            "shares": [
                {
                    **asdict(s),
                    "share": s.share if s.trials else None,
                    "interval": s.interval,
                    "passed": s.passed,
                }
                for s in self.shares
            ],
            "seconds": round(self.seconds, 1),
        }


def selftest(sizes: SelftestSizes, reporter: Reporter, seed: int = 0) -> Selftest:
    """Run every part."""
    start = time.monotonic()
    reporter.say("planted features: training dictionaries and measuring")
    settings = RecoverySettings(documents=sizes.documents, trained=sizes.trained, seed=seed)
    recovery = list(recover(settings))
    with tempfile.TemporaryDirectory(prefix="lorascope-") as folder:
        reporter.say("an adapter built by hand: capturing its deltas and training a dictionary")
        detected, spliced = _adapter(sizes, Path(folder), seed)
        reporter.say("null adapters: an audit of their own")
        shares = null_audit(sizes.audit, Path(folder) / "audit", reporter, seed)
    found: list[list[Estimate]] = []
    with reporter.bar("nothing planted", sizes.repeats, "repeats") as advance:
        for estimates in nothing.repeats(sizes.repeats, seed):
            found.append(estimates)
            advance(1)
    rates = false_positives([*found, *spliced])
    reporter.say("intervals, power, and two adapters that do the same")
    coverage = coverage_rows(sizes.intervals, seed)
    shares += _planted_shares(sizes, seed)
    failures = [
        *_unrecovered(recovery),
        *_too_many(rates),
        *_undetected(detected),
        *_uncovered(coverage),
        *(str(share) for share in shares if not share.passed),
    ]
    seconds = time.monotonic() - start
    return Selftest(recovery, rates, detected, coverage, shares, failures, seconds)


def _planted_shares(sizes: SelftestSizes, seed: int) -> list[Share]:
    strengths = (0.125, 0.25, 0.5) if sizes == FULL else (0.25,)
    return [
        *alignment_shares(sizes.scenes, seed, strengths),
        *behaviour_shares(5 * sizes.scenes, seed),
        *planted_latent_shares(sizes.named, seed),
        *exchangeable_shares(sizes.named, seed),
        *search_shares(sizes.searches, seed),
    ]


def _adapter(
    sizes: SelftestSizes, folder: Path, seed: int
) -> tuple[Detected, list[list[Estimate]]]:
    bare = load("embedded", {}, device="cpu")
    # A share of the records in an order that their texts and the seed decide.
    documents, _ = by_hash(read_documents("embedded"), 0.25, seed, "selftest")
    ends = [0, _SHOWN, _SHOWN + sizes.records, _SHOWN + 2 * sizes.records]
    parts = [windows(documents[a:b], bare.tokenizer, 256) for a, b in pairwise(ends)]
    tokens = punctuation(bare)
    direction = write_adapter(bare, parts[0], tokens, folder / ADAPTER, seed=seed)
    model = load("embedded", {ADAPTER: str(folder / ADAPTER)}, device="cpu")
    detected = detect(
        model,
        ADAPTER,
        direction,
        tokens,
        parts[1],
        parts[2],
        folder,
        most=sizes.tokens,
        seed=seed,
    )
    count, most = sizes.recoveries
    if not count:
        return detected, []
    return detected, random_recoveries(model, ADAPTER, parts[2], count, most, seed)


def _unrecovered(recovery: list[PlantedRecovery]) -> Iterator[str]:
    """A quantity fails where more of its intervals miss the truth than 5 % makes likely, and so do
    all of them together."""
    missing = sum(not found.recovered for found in recovery)
    if missing > allowed(len(recovery)):
        yield f"recovery: {missing} of {len(recovery)} intervals miss what was planted"
    for quantity in dict.fromkeys(found.quantity for found in recovery):
        rows = [found for found in recovery if found.quantity == quantity]
        missed = [found for found in rows if not found.recovered]
        if len(missed) > allowed(len(rows)):
            worst = max(missed, key=lambda found: abs(found.value - found.planted))
            yield (
                f"recovery: {quantity} ({worst.measure}) missed {len(missed)} of {len(rows)} "
                f"planted values; planted {worst.planted:.3g}, found {worst.value:.3g}"
            )


def _too_many(rates: list[Rate]) -> Iterator[str]:
    found, trials = (sum(getattr(r, name) for r in rates) for name in ("found", "repeats"))
    together = Share("nothing planted", "all measures together", found, trials, NOMINAL)
    if rates and not together.passed:
        yield str(together)
    for rate in rates:
        if not rate.passed:
            yield (
                f"nothing planted: {rate.measure} found something in {rate.found} of "
                f"{rate.repeats} repeats ({rate.null}); at most {allowed(rate.repeats)} are chance"
            )


def _undetected(detected: Detected) -> Iterator[str]:
    for words, value in detected.figures():
        least = LEAST_KL if "KL" in words else LEAST
        if value < least:
            yield f"adapter built by hand: {words} is {value:.3f}, below {least}"


def _uncovered(coverage: list[CoverageRow]) -> Iterator[str]:
    """More kinds than chance allows whose share of held truths cannot lie within their bar."""
    missed = [row for row in coverage if not row.passed]
    if len(missed) > allowed(len(coverage)):
        for row in missed:
            seeds = "" if row.seeds is None else f", {row.seeds} seeds"
            yield (
                f"coverage: {row.kind}, {row.n} {row.unit}{seeds}: {row.covered} of {row.trials}, "
                f"asked {row.bar[0]:.0%} to {row.bar[1]:.0%} (binomial tests at {LEVEL:.1%})"
            )
