"""The audit's numbers on rows whose truth is known: planted against found.

1. Rows are made from known features, a base and a delta dictionary trained on them.
2. The measures read rows and dictionaries as in an audit.
3. Each number is turned into the planted quantity it stands for, its interval with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lorascope.activations.scaling import mean_and_covariance
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.alignment import NullSettings, max_cosine_estimates
from lorascope.measures.cka import cka_estimates
from lorascope.measures.firing import firing
from lorascope.measures.overlap import overlap_estimates
from lorascope.measures.pursuit import pursuit_estimates
from lorascope.measures.rows import HeldOut
from lorascope.planted.activations import Planted, PlantedRecipe
from lorascope.results import Estimate, Key
from lorascope.results.null_names import ISOTROPIC
from lorascope.stats.intervals import Interval
from lorascope.training.architectures import TopK
from lorascope.training.dictionaries import Job, fit_many
from lorascope.training.settings import Fitting

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# A latent that fires on fewer rows stands for no feature: the planted ones fire on twelve times
# as many.
_IN_USE = 0.005
_LENGTH = 64
_K = 5
# New directions are not exactly as hard to express as random ones on average.
_SLACK = 0.04


@dataclass(frozen=True)
class PlantedRecovery:
    """One number beside what was planted.

    Attributes:
        quantity: what was planted, in words.
        measure: key of the number it is read from.
        against: which base dictionary: "true" features, "trained", or none.
        planted: the truth.
        value, interval: what was found.
        slack: how far the truth may lie outside the interval, for a number that stands for the
            planted quantity only nearly.
    """

    quantity: str
    measure: str
    against: str
    planted: float
    value: float
    interval: Interval
    slack: float = 0.0

    @property
    def recovered(self) -> bool:
        """Whether the interval holds the truth, to rounding and slack."""
        low, high = self.interval
        beyond = self.slack + 1e-9
        return low - beyond <= self.planted <= high + beyond

    @classmethod
    def of(cls, quantity: str, against: str, planted: float, estimate: Estimate) -> PlantedRecovery:
        """An estimate that is the planted quantity as it stands."""
        value, interval = estimate.value, estimate.interval
        return cls(quantity, estimate.measure, against, planted, value, interval)


@dataclass(frozen=True)
class RecoverySettings:
    """How much is planted.

    Attributes:
        shares: of the delta's features that are the base's, and of firings together.
        documents: of 64 rows each, to train on; a third as many are held out.
        trained: measure against a trained base dictionary too.
        seed: of everything.
    """

    shares: Sequence[float] = SHARES
    documents: int = 96
    trained: bool = True
    seed: int = 0


def recover(settings: RecoverySettings) -> Iterator[PlantedRecovery]:
    """Every planted quantity at every planted share."""
    base = None
    for share in settings.shares:
        planted = Planted.of(PlantedRecipe(share, seed=settings.seed))
        probe = planted.rows(settings.documents, _LENGTH, "probe")
        held_out = planted.rows(max(settings.documents // 3, 2), _LENGTH, "held out")
        bases: dict[str, Dictionary] = {"true": planted.dictionary()}
        if settings.trained:
            # The base's features are the same at every share.
            base = base or _trained(probe.base, settings.seed)
            bases["trained"] = base
        learned = _trained(probe.delta, settings.seed)
        for against, dictionary in bases.items():
            yield from _directions(dictionary, learned, probe, held_out, share, against)
            yield _expressed(dictionary, learned, probe, held_out, share, against)
    for together in settings.shares:
        planted = Planted.of(PlantedRecipe(1.0, together, seed=settings.seed))
        held_out = planted.rows(max(settings.documents // 2, 8), _LENGTH, "held out")
        yield from _rows(planted, held_out, together)


def _trained(rows: Float[Tensor, "rows d"], seed: int) -> Dictionary:
    job = Job(TopK(n_latents=64, k=_K), seed=seed)
    fitting = Fitting(epochs=12, batch=256, rate=1e-2, products="float32")
    return fit_many([job], rows, fitting)[0][0]


def _directions(
    base: Dictionary,
    learned: Dictionary,
    probe: HeldOut,
    held_out: HeldOut,
    share: float,
    against: str,
) -> Iterator[PlantedRecovery]:
    """How many of the delta's directions the base has: cosines above 0.7, and below 0.3."""
    fired = firing(learned, held_out.delta).per_latent
    _, covariance = mean_and_covariance([probe.delta])
    estimates = max_cosine_estimates(
        learned.directions,
        base.directions,
        nulls=NullSettings(covariance, repeats=2),
        place=Key(),
        alive=fired >= _IN_USE * len(held_out),
    )
    by_measure = {estimate.measure: estimate for estimate in estimates}
    yield PlantedRecovery.of(
        "shared directions", against, share, by_measure["max_cosine.above_0.7"]
    )
    yield PlantedRecovery.of(
        "new directions", against, 1 - share, by_measure["max_cosine.below_0.3"]
    )


def _expressed(
    base: Dictionary,
    learned: Dictionary,
    probe: HeldOut,
    held_out: HeldOut,
    share: float,
    against: str,
) -> PlantedRecovery:
    """How much of the delta base directions express, between random ones and the delta's own."""
    mean, covariance = mean_and_covariance([probe.delta])
    estimates = pursuit_estimates(base, learned, held_out, mean, covariance, Key())
    k = next(
        e.key.k for e in estimates if e.measure == "pursuit.gap" and e.key.dictionary == "delta"
    )
    ours, theirs = (
        next(
            e
            for e in estimates
            if (e.measure, e.key.dictionary, e.key.k) == ("pursuit.fvu", name, k)
        )
        for name in ("base", "delta")
    )
    random = next(chance for chance in ours.nulls if chance.name == ISOTROPIC)
    own = theirs.value
    low, high = (
        (level - bound) / (level - own)
        for level, bound in zip((random.low, random.high), reversed(ours.interval), strict=True)
    )
    value = (random.level - ours.value) / (random.level - own)
    return PlantedRecovery(
        "energy expressed", "pursuit.fvu", against, share, value, (low, high), _SLACK
    )


def _rows(planted: Planted, held_out: HeldOut, together: float) -> Iterator[PlantedRecovery]:
    """How often base and delta fire together, and how far their rows are one another's images."""
    for estimate in overlap_estimates(planted.dictionary(), held_out, Key()):
        if estimate.measure == "overlap":
            yield PlantedRecovery.of("firings together", "true", together, estimate)
        else:
            yield PlantedRecovery.of("firings apart", "true", 1 - together, estimate)
    rows, documents = (held_out.base, held_out.delta), held_out.documents
    estimates = cka_estimates(*rows, documents, "base_delta", place=Key(), repeats=2)
    debiased = next(e for e in estimates if e.measure.startswith("cka_debiased"))
    yield PlantedRecovery.of("CKA of all rows", "", planted.cka(), debiased)
