"""How far base activations and an adapter's agree: plain and debiased linear CKA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from lorascope.errors import InputError, did_you_mean
from lorascope.geometry.between import LEAST_GROUPS, Moved, between_groups, ratio, shifted_pairs
from lorascope.geometry.cka import PairsOfDelta, SiteMoments
from lorascope.measures.alignment import alignment_estimates, check_repeats, jackknife
from lorascope.randomness import generator
from lorascope.results import Estimate, Key
from lorascope.results.null_names import SHIFTED
from lorascope.stats.intervals import MIN_DOCUMENTS

PAIRS = ("base_delta", "base_adapted")
_GROUPS = 10


def _check(x: Tensor, y: Tensor, documents: Tensor, which: str) -> None:
    if x.shape != y.shape or len(x) != len(documents):
        raise InputError(
            f"CKA {which}: rows {tuple(x.shape)} and {tuple(y.shape)} with {len(documents)} "
            "document ids; pass the same tokens' rows of one site in both"
        )
    counts = documents.unique(return_counts=True)[1]
    longest = int(counts.max()) if len(documents) else 0
    if len(x) < 8 or 2 * longest > len(x) or len(counts) < LEAST_GROUPS:
        raise InputError(
            f"CKA {which}: {len(x)} rows of {len(counts)} documents, {longest} of them in one, "
            "leave no pairs of different documents, or no room to shift whole ones; add documents"
        )


def cka_estimates(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "n d"],
    documents: Int[Tensor, " n"],
    pair: str,
    *,
    place: Key,
    repeats: int = 20,
    seed: int = 0,
) -> list[Estimate]:
    """One pair of `site_cka_estimates`: "base_delta" or "base_adapted", whose rows are `y`."""
    if pair not in PAIRS:
        guess = did_you_mean(pair, PAIRS)
        raise InputError(f'no CKA pair "{pair}"; known: {", ".join(PAIRS)}.{guess}')
    _check(x, y, documents, pair)
    delta, places = {pair: y if pair == "base_delta" else y - x}, {pair: place}
    both = site_cka_estimates(x, delta, documents, places=places, repeats=repeats, seed=seed)
    return [e for e in both if e.measure.endswith(f".{pair}")]


def site_cka_estimates(
    base: Float[Tensor, "n d"],
    deltas: Mapping[str, Float[Tensor, "n d"]],
    documents: Int[Tensor, " n"],
    *,
    places: Mapping[str, Key],
    repeats: int = 20,
    seed: int = 0,
) -> list[Estimate]:
    """Plain and debiased linear CKA of a site's base rows and each adapter's (equation 5).

    Pairs: h_base with h_Δ, and with h_base + h_Δ. Debiased: from pairs of rows of different groups
    of documents (`geometry.between`), ten groups, or one a document where there are fewer.
    Interval: jackknife over the groups; none for fewer than 8. Null: the adapter's rows moved round
    by at least the longest document, which keeps their structure and plain CKA's bias. InputError
    for unpaired, few or constant rows.
    """
    check_repeats(repeats)
    for name, rows in deltas.items():
        _check(base, rows, documents, f"of {name}")
    base = base.detach()
    deltas = {name: rows.detach().to(base.device) for name, rows in deltas.items()}
    _, index, counts = documents.to(base.device).unique(return_inverse=True, return_counts=True)
    group, longest = index % _GROUPS, int(counts.max())
    moments = SiteMoments(base, deltas).update(base, deltas)
    found, plain_without = between_groups(moments, base, deltas, group)
    randoms = [generator(seed, "cka", i) for i in range(repeats)]
    draws = [shifted_pairs(base, deltas, group, longest, random) for random in randoms]
    estimates = []
    for name, place in places.items():
        plain, (debiased, without, own) = moments.cka(name), found[name].pairs()
        for at, pair in enumerate(PAIRS):
            values = _numbers(pair, plain[at].plain, debiased[at])
            if any(map(math.isnan, values.values())):
                raise InputError(f"CKA {pair}: one set of rows does not vary; check the site")
            left_out = [
                _numbers(pair, one[at].plain, other[at])
                for one, other in zip(plain_without[name], without, strict=False)
            ]
            bounds = jackknife(values, left_out if len(left_out) >= MIN_DOCUMENTS else [])
            scale = own[0], own[1 + at]
            null = [_drawn(pair, draw[name][at], plain, at, scale) for draw in draws]
            estimates += alignment_estimates(values, bounds, {SHIFTED: null}, len(base), place)
    return estimates


def _numbers(pair: str, plain: float, debiased: float) -> dict[str, float]:
    return {f"cka.{pair}": plain, f"cka_debiased.{pair}": debiased}


def _drawn(
    pair: str, moved: Moved, plain: PairsOfDelta, at: int, own: Sequence[float]
) -> dict[str, float]:
    """Both forms with the moved rows' HSIC in the place of the pair's."""
    alone = plain[at]
    return _numbers(
        pair, ratio(moved.plain, alone.xx.plain, alone.yy.plain), ratio(moved.between, *own)
    )
