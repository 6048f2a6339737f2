"""How good a dictionary is on the stream it was made for, and whether that is good enough.

1. `yardstick_estimates` measures one dictionary on held-out rows of its own stream.
2. `judge` holds the numbers of one dictionary against `Bars`.
3. `without_verdicts` takes the verdict from every number that was measured with one that fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.activations.massive import Massive
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures.rows import by_document, chunks
from lorascope.measures.settings import Bars
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import BASE, BASE_DIFFERENCE, DELTA, EXACT_DELTA, Of
from lorascope.stats.documents import ratio
from lorascope.stats.intervals import or_point, wilson_interval

PCA: Final = "as many principal components"
MEAN: Final = "mean predictor"
FAMILY: Final = "yardstick."


@dataclass(frozen=True, eq=False)
class Stream:
    """The rows a dictionary was made for.

    Attributes:
        mean, covariance: of the training rows, centred.
        rows: held out.
        documents: the document of each held-out row.
        massive: what is massive in the stream; None where nothing is.
    """

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    rows: Float[Tensor, "rows d"]
    documents: Int[Tensor, " rows"]
    massive: Massive | None = None


@dataclass(frozen=True)
class YardstickVerdict:
    """Whether one dictionary is good enough, and why not.

    Attributes:
        dictionary: "base", "delta" or what a control is made of.
        seed: None for one that serves every seed.
        reason: the bars missed, or the numbers that met them.
        setting: of an ablation's dictionary.
        null, draw: of a dictionary that belongs to a draw of a null, as in `Key`.
        stands_for: name of the null that a control stands for.
    """

    dictionary: str
    site: str
    adapter: str
    seed: int | None
    passed: bool
    reason: str
    setting: str = ""
    null: str = ""
    draw: int | None = None
    stands_for: str = ""

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _ErrorSums:
    """By document: squared errors of the dictionary and of the components, about the mean; rows."""

    errors: Float[Tensor, " documents"]
    components: Float[Tensor, " documents"]
    total: Float[Tensor, " documents"]
    rows: Float[Tensor, " documents"]


@torch.no_grad()
def yardstick_estimates(dictionary: Dictionary, stream: Stream, place: Key) -> list[Estimate]:
    """FVU beside the principal components', L0 and live share; FVU without what is massive too."""
    per_row, live = _fired(dictionary, stream.rows)
    active = components(float(per_row.double().mean()), dictionary.d_model)
    found = _fvu(dictionary, stream, active, place)
    if stream.massive:
        without = replace(place, massive="without")
        found += _fvu(dictionary, stream, active, without, stream.massive)
    alive, n = int(live.sum()), dictionary.n_latents
    l0, interval = ratio(*by_document(per_row, stream.documents))
    rows = len(stream.rows)
    return [
        *found,
        Estimate("yardstick.l0", l0, interval, rows, "latents/token", (), place),
        Estimate(
            "yardstick.live_share", alive / n, wilson_interval(alive, n), n, "share", (), place
        ),
    ]


def components(l0: float, d_model: int) -> int:
    """How many principal components stand beside so many active latents."""
    return min(d_model, max(1, round(l0)))


def principal(covariance: Float[Tensor, "d d"], count: int) -> Float[Tensor, "k d"]:
    """The leading principal directions, largest first."""
    _, vectors = torch.linalg.eigh(covariance.double())
    return vectors.flip(1)[:, :count].T.float()


def _fired(
    dictionary: Dictionary, rows: Float[Tensor, "rows d"]
) -> tuple[Float[Tensor, " rows"], Tensor]:
    per_row, live = [], torch.zeros(dictionary.n_latents, dtype=torch.bool)
    for chunk in chunks(rows):
        active = dictionary.encode(chunk.to(dictionary.directions)) > 0
        per_row.append(active.sum(1).float().cpu())
        live |= active.any(0).cpu()
    return torch.cat(per_row), live


def _fvu(
    dictionary: Dictionary,
    stream: Stream,
    count: int,
    place: Key,
    massive: Massive | None = None,
) -> list[Estimate]:
    sums = _sums(dictionary, stream, count, massive)
    whole = float(sums.total.sum())
    if whole <= 0:
        return []
    value, own = ratio(sums.errors, sums.total, sums.rows)
    pca, theirs = ratio(sums.components, sums.total, sums.rows)
    _, gap = ratio(sums.errors - sums.components, sums.total, sums.rows)
    n, mean = len(stream.rows), Null.exact(MEAN, 1.0, rival=True)
    beside = Null(PCA, pca, *or_point(pca, theirs), rival=True, difference=gap)
    return [
        Estimate("yardstick.fvu", value, own, n, "ratio", (mean, beside), place),
        Estimate("yardstick.fvu_pca", pca, theirs, n, "ratio", (mean,), place),
    ]


def _sums(
    dictionary: Dictionary, stream: Stream, count: int, massive: Massive | None
) -> _ErrorSums:
    covariance, mean = stream.covariance, stream.mean
    if massive:
        covariance = massive.without(massive.without(covariance).T)
    axes = principal(covariance, count)
    errors: list[Tensor] = []
    left: list[Tensor] = []
    total: list[Tensor] = []
    for chunk in chunks(stream.rows):
        error = chunk - dictionary(chunk.to(dictionary.directions)).to(chunk)
        centred = chunk - mean
        if massive:
            error, centred = massive.without(error), massive.without(centred)
        outside = centred - (centred @ axes.T) @ axes
        for sums, rows in ((errors, error), (left, outside), (total, centred)):
            sums.append(rows.double().square().sum(1))
    parts = [by_document(torch.cat(each), stream.documents) for each in (errors, left, total)]
    (error, counts), (component, _), (whole, _) = parts
    return _ErrorSums(error, component, whole, counts)


def judge(
    estimates: Sequence[Estimate], bars: Bars, width: int, stands_for: str = ""
) -> YardstickVerdict:
    """Whether one dictionary reaches the bars, from the yardsticks of that dictionary alone.

    Args:
        estimates: at one place; a value that is not finite fails its bar.
        width: of the stream.
        stands_for: what the null is called that a control stands for.

    Raises:
        ValueError: its FVU, L0 or live share is not among them.
    """
    found = {(e.measure, e.key.massive): e for e in estimates}
    for name in ("yardstick.fvu", "yardstick.live_share"):
        if (name, "") not in found:
            raise ValueError(f"no {name} among the dictionary's yardsticks")
    fvu, live = found["yardstick.fvu", ""], found["yardstick.live_share", ""]
    told = found.get(("yardstick.fvu", "without"), fvu)
    alive = round(live.value * live.n)
    pca = found["yardstick.fvu_pca", told.key.massive]
    given = not stands_for and fvu.key.draw is None
    missed = _missed_fvu(fvu, told, pca if given else None, bars)
    if not live.value >= bars.live_share and alive < width:
        missed.append(f"{alive} of {live.n} latents live, at least {bars.live_share:.0%} wanted")
    recovered = found.get(("yardstick.loss_recovered", ""))
    if recovered is not None and not recovered.value >= bars.loss_recovered:
        missed.append(
            f"loss recovered {recovered.value:.2f}, at least {bars.loss_recovered:.2f} wanted"
        )
    met = f"FVU {told.value:.2f}, {alive} of {live.n} latents live"
    key, reason = fvu.key, "; ".join(missed) or met
    where = (key.dictionary, key.site, key.adapter, key.seed)
    of_null = (key.setting, key.null, key.draw, stands_for)
    return YardstickVerdict(*where, not missed, reason, *of_null)


def _missed_fvu(whole: Estimate, told: Estimate, pca: Estimate | None, bars: Bars) -> list[str]:
    """`told` is the FVU without massive coordinates, or the whole one where there are none."""
    missed, most = [], 1 - bars.better_than_mean
    # Each FVU is named once, with every bar that it misses.
    for each in {id(e): e for e in (whole, told)}.values():
        wanted = [] if each.value <= most else [f"{most:.2f}"]
        if pca is not None and each is told:
            least = max(bars.enough, bars.times_pca * pca.value)
            if not each.value <= least:
                wanted.append(f"{least:.2f} (as many principal components {pca.value:.2f})")
        if wanted:
            words = " without massive coordinates" if each.key.massive else ""
            missed.append(f"FVU{words} {each.value:.2f}, at most {' and '.join(wanted)} wanted")
    return missed


def without_verdicts(
    estimates: Iterable[Estimate], verdicts: Iterable[YardstickVerdict]
) -> list[Estimate]:
    """The same numbers; those measured with a dictionary that failed are no longer judged.

    A number is measured with the dictionaries its label names; with the control of each of its
    rivals; and, where neither label nor measure says which, with every dictionary of its site,
    adapter and seed. The yardsticks themselves stay judged. What a null adapter's dictionary is
    worth is part of what the null does, and takes nothing from the adapter's own numbers.
    """
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return [
        replace(e, judged=False) if any(_rests_on(e, verdict) for verdict in failed) else e
        for e in estimates
    ]


# Numbers whose key names another dictionary than all they are measured with.
_MEASURED_WITH: Final = {
    "improvement": {BASE, DELTA},
    "overlap": {BASE},
    "weakly_aligned": {BASE},
}
# By label.
_LABELLED: Final = {
    BASE: {BASE},
    BASE_DIFFERENCE: {BASE},
    DELTA: {DELTA},
    EXACT_DELTA: set[str](),
}


def measured_with(estimate: Estimate) -> set[str]:
    """Which dictionaries a number rests on, "base" and "delta"; both where nothing says."""
    key = estimate.key
    if estimate.measure.startswith(FAMILY) or (not key.dictionary and key.seed is None):
        return set()
    known = _MEASURED_WITH.get(estimate.measure)
    if known is not None:
        return known
    named = [label for label in Of.key(key) if label]
    both = {BASE, DELTA}
    return set().union(*(_LABELLED.get(label, both) for label in named)) if named else both


def _rests_on(estimate: Estimate, verdict: YardstickVerdict) -> bool:
    key = estimate.key
    if key.site not in ("", verdict.site):
        return False
    of_adapter = key.adapter in ("", verdict.adapter)
    if verdict.stands_for:
        named = any(null.name == verdict.stands_for for null in estimate.rivals)
        return of_adapter and named and key.draw is None
    of_adapter &= (key.null, key.draw) == (verdict.null, verdict.draw)
    if verdict.dictionary not in measured_with(estimate):
        return False
    # A pair's key names the first of its two seeds.
    same_seed = None in (key.seed, verdict.seed) or key.seed == verdict.seed
    if not same_seed and not Of.key(key).seeds_alone:
        return False
    if verdict.dictionary == BASE:
        return not verdict.setting
    ablated = estimate.measure.startswith("ablation.")
    return of_adapter and (key.setting == verdict.setting if ablated else not verdict.setting)
