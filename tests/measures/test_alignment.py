"""Alignment by hand, against numpy and SciPy, with refusals that say what to do."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch

from lorascope.errors import InputError
from lorascope.geometry.chance import shifted
from lorascope.geometry.cka import cka
from lorascope.measures.alignment import (
    NullSettings,
    angle_estimates,
    max_cosine,
    max_cosine_estimates,
)
from lorascope.measures.cka import cka_estimates
from lorascope.measures.definitions import DEFINITIONS
from lorascope.randomness import generator
from lorascope.results import Key

PLACE = Key(adapter="r4", site="layers.2", seed=3)


def normal(n, d, *names):
    return torch.randn(n, d, generator=generator(0, *names))


def by_measure(estimates):
    return {e.measure: e for e in estimates}


def cosines(first, second, nulls=None, **options):
    return by_measure(
        max_cosine_estimates(first, second, nulls=nulls or NullSettings(), place=PLACE, **options)
    )


def angles(first, second, k, nulls=None, **options):
    return angle_estimates(
        first, second, k=k, nulls=nulls or NullSettings(), place=PLACE, **options
    )


def test_cosines_by_hand():
    # Against (1, 0) and (0, 2): max cosines 1, 0.8, 0 (both are negative or zero), 0.6 → dead.
    first = torch.tensor([[5.0, 0.0], [0.6, 0.8], [-1.0, 0.0], [0.6, -0.8]])
    second = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    alive = torch.tensor([True, True, True, False])
    found = cosines(first, second, alive=alive)
    values = {key: e.value for key, e in found.items()}
    assert values == pytest.approx(
        {
            "max_cosine.mean": 0.6,
            "max_cosine.median": 0.8,
            "max_cosine.q90": 0.96,
            "max_cosine.above_0.7": 2 / 3,
            "max_cosine.below_0.3": 1 / 3,
        },
        abs=1e-6,
    )
    assert {e.n for e in found.values()} == {3}
    assert {e.key for e in found.values()} == {PLACE}
    assert all(e.unit == DEFINITIONS[key].unit for key, e in found.items())
    # The other way round every alive direction of `second` is searched for among all of `first`.
    assert cosines(second, first)["max_cosine.mean"].value == pytest.approx(0.9)


def test_the_mean_and_its_null_agree_with_numpy():
    first, second = normal(80, 24, "a"), normal(300, 24, "b")
    x, y = (m.numpy().astype(np.float64) for m in (first, second))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    s = (x / np.linalg.norm(x, axis=1, keepdims=True) @ y.T).max(1)
    random = np.random.default_rng(0).standard_normal((20_000, 24))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    null = (random @ y.T).max(1)
    found = cosines(first, second)
    assert found["max_cosine.mean"].value == pytest.approx(s.mean(), abs=1e-6)
    assert found["max_cosine.q90"].value == pytest.approx(np.quantile(s, 0.9), abs=1e-6)
    half = 1.99045 * s.std(ddof=1) / math.sqrt(80)  # t with 79 degrees
    assert found["max_cosine.mean"].interval == pytest.approx(
        (s.mean() - half, s.mean() + half), abs=1e-5
    )
    level = found["max_cosine.mean"].nulls[0]
    assert level.name == "isotropic"
    assert level.level == pytest.approx(null.mean(), abs=0.004)
    # A draw is a mean over 80 directions; 2.09 is t with 19 degrees.
    assert (level.high - level.low) / 2 == pytest.approx(2.15 * null.std() / 80**0.5, rel=0.4)
    assert found["max_cosine.below_0.3"].chance == pytest.approx((null < 0.3).mean(), abs=0.02)


def test_nulls_come_strictest_first_and_only_where_given():
    first, second = normal(30, 8, "a"), normal(30, 8, "b")
    delta, base = torch.eye(8), torch.diag(torch.linspace(0.1, 3, 8))
    both = cosines(first, second, NullSettings(delta, base, repeats=2))
    assert [c.name for c in both["max_cosine.mean"].nulls] == [
        "covariance-matched",
        "base covariance-matched",
        "isotropic",
        "rotated",
    ]
    one = cosines(first, second, NullSettings(base_covariance=base, repeats=2))
    assert one["max_cosine.median"].nulls[0].name == "base covariance-matched"
    found = angles(first, second, 3, NullSettings(delta, repeats=2))
    assert [c.name for c in found[0].nulls] == ["covariance-matched", "isotropic"]


def test_the_covariance_null_knows_a_shared_low_dimensional_span():
    # Both sets live in the same 3 of 40 dimensions: no relation beyond the covariance.
    spread = torch.cat([torch.full((3,), 3.0), torch.full((37,), 0.05)])
    first, second = normal(300, 40, "a") * spread, normal(300, 40, "b") * spread
    found = cosines(first, second, NullSettings(delta_covariance=torch.diag(spread.square())))
    mean = found["max_cosine.mean"]
    assert mean.verdict in ("equal", "not settled")
    assert mean.value > 0.9
    isotropic = next(c for c in mean.nulls if c.name == "isotropic")
    assert isotropic.level < 0.5
    assert mean.against(isotropic) == "above"


def test_draws_are_capped_and_follow_the_seed():
    first, second = normal(200, 10, "a"), normal(50, 10, "b")
    wide = cosines(first, second, NullSettings(max_directions=10))["max_cosine.mean"]
    full = cosines(first, second, NullSettings())["max_cosine.mean"]
    assert wide.value == full.value
    for few, many in zip(wide.nulls, full.nulls, strict=True):
        assert few.high - few.low > 2 * (many.high - many.low)
        assert few.low < many.level < few.high
    again = cosines(first, second, NullSettings())["max_cosine.mean"]
    other = cosines(first, second, NullSettings(seed=1))["max_cosine.mean"]
    assert again == full
    assert other.chance != full.chance


def test_one_line_max_cosine_takes_dictionaries_and_tensors():
    first, second = normal(40, 12, "a"), normal(60, 12, "b")
    from_tensors = max_cosine(first, second, seed=5)
    learned = SimpleNamespace(directions=torch.nn.Parameter(first))
    assert max_cosine(learned, second, seed=5) == from_tensors
    assert from_tensors.measure == "max_cosine.mean"
    assert [c.name for c in from_tensors.nulls] == ["isotropic", "rotated"]
    assert from_tensors.key.seed == 5


def test_angles_agree_with_scipy_for_each_k():
    first, second = normal(60, 20, "a") * torch.linspace(2, 0.5, 20), normal(50, 20, "b")
    spans = [
        np.linalg.svd((x / x.norm(dim=1, keepdim=True)).double().numpy())[2]
        for x in (first, second)
    ]
    found = angles(first, second, [4, 9], NullSettings(repeats=2))
    assert [e.key.k for e in found] == [4] * 4 + [9] * 4
    for k in (4, 9):
        theta = np.degrees(scipy.linalg.subspace_angles(spans[0][:k].T, spans[1][:k].T))
        here = by_measure([e for e in found if e.n == k])
        assert here["angle.mean"].value == pytest.approx(theta.mean(), abs=1e-5)
        assert here["angle.min"].value == pytest.approx(theta.min(), abs=1e-5)
        assert here["angle.above_70"].value == pytest.approx((theta > 70).mean())
        assert here["angle.below_20"].value == pytest.approx((theta < 20).mean())
    alone = angles(first, second, 4, NullSettings(repeats=2))
    assert [(e.value, e.interval) for e in found[:4]] == [(e.value, e.interval) for e in alone]


def test_the_angles_interval_is_the_jackknife_over_tenths():
    first, second = normal(60, 20, "a"), normal(50, 20, "b")
    first = first / first.norm(dim=1, keepdim=True)
    reference = np.linalg.svd(torch.nn.functional.normalize(second).double().numpy())[2][:5].T
    without = []
    for g in range(10):
        rest = first[torch.arange(60) % 10 != g].double().numpy()
        span = np.linalg.svd(rest)[2][:5].T
        without.append(np.degrees(scipy.linalg.subspace_angles(span, reference)).mean())
    half = 2.2621571628 * math.sqrt(0.9 * ((without - np.mean(without)) ** 2).sum())
    mean = by_measure(angles(first, second, 5))["angle.mean"]
    assert mean.interval == pytest.approx((mean.value - half, mean.value + half), abs=1e-3)


def test_dead_latents_do_not_enter_the_angles():
    first, second = normal(60, 20, "a"), normal(50, 20, "b")
    padded = torch.cat([first, normal(30, 20, "dead")])
    alive = torch.arange(90) < 60
    assert angles(padded, second, 5, alive=alive) == angles(first, second, 5)
    assert angles(padded, second, 5)[0].value != angles(first, second, 5)[0].value


@pytest.mark.parametrize(
    ("first", "delta", "message"),
    [
        (normal(40, 6, "a") @ normal(6, 20, "b"), None, r"alive latents spans 6 .* choose k ≤ 6"),
        (normal(8, 20, "a"), None, r"tenth left out spans 7 .* choose k ≤ 7"),
        (
            normal(40, 20, "a"),
            torch.diag((torch.arange(20) < 3).float()),
            r"covariance-matched null spans 3 .* choose k ≤ 3",
        ),
    ],
)
def test_k_beyond_the_rank_says_what_is_possible(first, delta, message):
    with pytest.raises(InputError, match=message):
        angles(first, normal(50, 20, "c"), 8, NullSettings(delta))


def two_sets(documents=40, length=25):
    ids = torch.arange(documents).repeat_interleave(length)
    x = normal(len(ids), 6, "x") + normal(documents, 6, "topic")[ids]
    related = x[:, [0, 1, 2, 3, 0, 0]] * torch.tensor([1, 1, 1, 1, 0, 0])
    return x, related + normal(len(ids), 6, "y"), ids


def test_cka_agrees_with_numpy_and_its_jackknife_is_over_documents():
    x, y, ids = two_sets()

    def numpy_cka(kept):
        a, b = (m[kept].double().numpy() for m in (x, y))
        a, b = a - a.mean(0), b - b.mean(0)
        return np.sum((b.T @ a) ** 2) / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))

    found = by_measure(cka_estimates(x, y, ids, "base_delta", place=PLACE))
    plain, debiased = found["cka.base_delta"], found["cka_debiased.base_delta"]
    whole = numpy_cka(slice(None))
    assert plain.value == pytest.approx(whole, rel=1e-5)
    assert debiased.value == pytest.approx(whole, abs=0.01)
    without = [numpy_cka(ids % 10 != g) for g in range(10)]
    half = 2.2621571628 * math.sqrt(0.9 * ((without - np.mean(without)) ** 2).sum())
    assert plain.interval == pytest.approx((whole - half, whole + half), abs=1e-5)
    assert (plain.n, plain.key) == (1000, PLACE)
    assert [c.name for c in plain.nulls] == ["rows shifted"]
    assert plain.verdict == debiased.verdict == "above"


def test_document_ids_only_need_to_tell_documents_apart():
    x, y, ids = two_sets()
    plain = cka_estimates(x, y, ids, "base_adapted", place=PLACE)
    assert cka_estimates(x, y, 7 * ids + 1000, "base_adapted", place=PLACE) == plain
    assert plain[0].measure == "cka.base_adapted"


def test_the_null_shifts_by_whole_documents():
    x, y, ids = two_sets(documents=20, length=30)
    plain, debiased = cka_estimates(x, y, ids, "base_delta", place=PLACE, repeats=4)
    moved = [shifted(y, 30, generator(0, "cka", i)) for i in range(4)]
    expected = np.mean([cka(x, rows).plain for rows in moved])
    assert plain.nulls[0].level == pytest.approx(expected, rel=1e-4)
    assert plain.value > 1.5 * expected
    # Pairs within a document leave the other null no level of its own.
    assert abs(debiased.nulls[0].level) < 0.03
    assert debiased.value > 0.2


def test_topics_shared_within_documents_alone_give_no_debiased_cka():
    ids = torch.arange(12).repeat_interleave(30)
    x = normal(360, 6, "x") + 2 * normal(12, 6, "topic of x")[ids]
    y = normal(360, 6, "y") + 2 * normal(12, 6, "topic of y")[ids]
    _, debiased = cka_estimates(x, y, ids, "base_delta", place=PLACE)
    assert cka(x, y).debiased > 0.15
    assert abs(debiased.value) < 0.12
    assert debiased.interval[0] < 0 < debiased.interval[1]


def test_few_documents_have_cka_without_an_interval():
    x, y, ids = two_sets(documents=7)
    for estimate in cka_estimates(x, y, ids, "base_delta", place=PLACE):
        assert all(math.isnan(bound) for bound in estimate.interval)
        assert estimate.value > 0.1


def refuse(message, call, *arguments, **options):
    with pytest.raises(InputError, match=message):
        call(*arguments, **options)


def test_refusals_say_what_and_what_to_do():
    a, b = normal(20, 8, "a"), normal(20, 6, "b")
    refuse("8 and 6 wide; compare dictionaries of the same model", cosines, a, b)
    refuse(r"second dictionary's directions have shape \(0, 8\)", cosines, a, a[:0])
    refuse("no latent of the first", cosines, a, a, alive=torch.zeros(20, dtype=torch.bool))
    refuse("one bool a latent", cosines, a, a, alive=torch.ones(20))
    refuse(r"null's covariance has shape \(6, 6\)", cosines, a, a, NullSettings(torch.eye(6)))
    refuse("k of 1 or more", angles, a, a, 0)
    refuse("1 draws of a null", NullSettings, repeats=1)
    refuse("max_directions is 1", NullSettings, max_directions=1)


def test_cka_refusals():
    x, y, ids = two_sets()
    refuse('Did you mean "base_delta"', cka_estimates, x, y, ids, "base_dleta", place=PLACE)
    refuse(
        r"\(999, 6\) with 1000 document ids",
        cka_estimates,
        x,
        y[1:],
        ids,
        "base_delta",
        place=PLACE,
    )
    refuse(
        r"\(1000, 6\) and \(1000, 4\)", cka_estimates, x, y[:, :4], ids, "base_delta", place=PLACE
    )
    refuse("add documents", cka_estimates, x, y, 0 * ids, "base_delta", place=PLACE)
    refuse("does not vary", cka_estimates, x, 0 * y, ids, "base_delta", place=PLACE)
    refuse("1 draws", cka_estimates, x, y, ids, "base_delta", place=PLACE, repeats=1)
