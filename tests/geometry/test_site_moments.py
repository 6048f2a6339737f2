"""Both pairs of every delta from one pass, against each pair computed alone and in float64."""

import numpy as np
import pytest
import torch

from lorascope.geometry import cka as geometry_cka
from lorascope.geometry import products
from lorascope.geometry.cka import SiteMoments, cka


def rows(n=300, d=9, seed=0):
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=random) * torch.linspace(0.3, 3, d) + 2
    small = 0.2 * base.flip(1) + 0.3 * torch.randn(n, d, generator=random)
    large = base.square() - 5 + torch.randn(n, d, generator=random)
    return base, {"small": small, "large": large}


def numbers(pairs):
    return [form for pair in pairs for form in (pair.plain, pair.debiased)]


def alone(base, delta):
    return numbers((cka(base, delta), cka(base, base.double() + delta.double())))


def exact_plain(x, y):
    x, y = (m.double().numpy() for m in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(y.T @ x) ** 2 / own


def test_all_pairs_equal_each_computed_alone():
    base, deltas = rows()
    moments = SiteMoments(base, deltas).update(base, deltas)
    assert moments.n == 300
    found = {name: numbers(moments.cka(name)) for name in deltas}
    for name, delta in deltas.items():
        assert found[name] == pytest.approx(alone(base, delta), abs=1e-10)
    assert len({round(value, 3) for values in found.values() for value in values}) >= 6


def test_the_centre_and_the_pieces_make_no_difference():
    base, deltas = rows(n=2500)
    first = {name: delta[:50] for name, delta in deltas.items()}
    streamed = SiteMoments(base[:50], first)
    for start, end in ((0, 700), (700, 2400), (2400, 2500)):
        streamed.update(base[start:end], {k: v[start:end] for k, v in deltas.items()})
    whole = SiteMoments(base, deltas).update(base, deltas)
    for name in deltas:
        assert numbers(streamed.cka(name)) == pytest.approx(numbers(whole.cka(name)), abs=1e-10)


def test_a_group_of_rows_is_left_out():
    base, deltas = rows()
    whole = SiteMoments(base, deltas).update(base, deltas)
    part = whole.fresh().update(base[:90], {k: v[:90] for k, v in deltas.items()})
    assert (whole.n, part.n, whole.fresh().n) == (300, 90, 0)
    for name, delta in deltas.items():
        rest = alone(base[90:], delta[90:])
        assert numbers(whole.cka(name, without=part)) == pytest.approx(rest, abs=1e-9)
        assert numbers(whole.cka(name)) == pytest.approx(alone(base, delta), abs=1e-10)
        assert abs(rest[0] - alone(base, delta)[0]) > 1e-4


def even(n, d, random):
    return torch.randn(n, d, generator=random) * (0.2 + torch.rand(d, generator=random))


def binary(n, d, random):
    share = torch.rand(d, generator=random)
    return (torch.rand(n, d, generator=random) < share) * (0.2 + torch.rand(d, generator=random))


def outliers(n, d, random):
    x = torch.randn(n, d, generator=random)
    x[:, 3] *= 80
    return x


def sinks(n, d, random):
    x = torch.randn(n, d, generator=random)
    x[:: n // 7] += 300 * torch.randn(d, generator=random)
    return x


def heavy_tails(n, d, random):
    return torch.randn(n, d, generator=random) * torch.rand(n, 1, generator=random) ** -0.4


def one_direction(n, d, random):
    strengths = 30 * torch.randn(n, 1, generator=random)
    return torch.randn(n, d, generator=random) + strengths * torch.randn(d, generator=random)


@pytest.mark.parametrize("kind", [outliers, sinks, heavy_tails, one_direction])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_float32_products_are_within_a_millionth_of_float64(kind, offset, monkeypatch):
    monkeypatch.setattr(geometry_cka, "_NARROW", 0)
    random = torch.Generator().manual_seed(3)
    base = kind(3000, 80, random) + offset * torch.randn(80, generator=random)
    low_rank = torch.randn(3000, 6, generator=random) @ torch.randn(6, 80, generator=random)
    delta = 0.3 * low_rank + 0.02 * base + torch.randn(3000, 80, generator=random)
    # A centre from few rows is off the mean by several standard errors.
    moments = SiteMoments(base[:40], {"": delta[:40]}).update(base, {"": delta})
    assert moments._base.gram.dtype == torch.float32
    found = moments.cka("")
    assert found.base_delta.plain == pytest.approx(exact_plain(base, delta), abs=1e-6)
    adapted = base.double() + delta.double()
    assert found.base_adapted.plain == pytest.approx(exact_plain(base, adapted), abs=1e-6)
    # Debiased: by way of N × N kernels.
    assert found.base_delta.debiased == pytest.approx(exact_debiased(base, delta), abs=1e-6)
    assert found.base_adapted.debiased == pytest.approx(exact_debiased(base, adapted), abs=1e-6)


@pytest.mark.parametrize("kind", [even, outliers, binary, heavy_tails, one_direction])
def test_bfloat16_products_are_within_a_ten_thousandth_of_float64(kind, monkeypatch):
    monkeypatch.setattr(products, "bfloat16_pays", lambda *sets: True)
    used = watched(monkeypatch)
    random = torch.Generator().manual_seed(4)
    n, d = 2200, 1024
    base = kind(n, d, random) + 5 * torch.randn(d, generator=random)
    low_rank = torch.randn(n, 6, generator=random) @ torch.randn(6, d, generator=random)
    delta = 0.3 * low_rank + 0.02 * base + torch.randn(n, d, generator=random)
    found = SiteMoments(base, {"": delta}).update(base, {"": delta}).cka("")
    assert used == [True, False]  # a chunk of 2,048 rows, and few more
    alone = cka(base, delta)
    plain, debiased = exact_plain(base, delta), exact_debiased(base, delta)
    for pair in (found.base_delta, alone):
        assert pair.plain == pytest.approx(plain, abs=1e-4)
        assert pair.debiased == pytest.approx(debiased, abs=1e-4)
    adapted = base.double() + delta.double()
    assert found.base_adapted.plain == pytest.approx(exact_plain(base, adapted), abs=1e-4)
    assert found.base_adapted.debiased == pytest.approx(exact_debiased(base, adapted), abs=1e-4)


def test_uneven_columns_are_not_rounded(monkeypatch):
    monkeypatch.setattr(products, "bfloat16_pays", lambda *sets: True)
    used = watched(monkeypatch)
    random = torch.Generator().manual_seed(5)
    base = torch.randn(1100, 1100, generator=random)
    uneven = base * torch.where(torch.arange(1100) < 100, 50.0, 1.0)
    for rows in (base, uneven, 0 * base):
        SiteMoments(rows, {"": base}).update(rows, {"": base})
    assert used == [True, False, False]


def test_one_dominating_column_keeps_its_digits(monkeypatch):
    monkeypatch.setattr(products, "bfloat16_pays", lambda *sets: True)
    used = watched(monkeypatch)
    random = torch.Generator().manual_seed(6)
    base, delta = (torch.randn(1100, 1030, generator=random) for _ in range(2))
    base[:, 5] *= 2000
    delta[:, 5] += 0.7 * base[:, 5]
    found = SiteMoments(base, {"": delta}).update(base, {"": delta}).cka("").base_delta
    assert used == [True]
    # In bfloat16 alone this would be off by about 1e-3, and may exceed 1.
    assert found.plain == pytest.approx(exact_plain(base, delta), abs=1e-6)


def watched(monkeypatch):
    """A list that grows by whether a chunk's products are in bfloat16."""
    used = []

    def recorded(sets, columns):
        made = paired(sets, columns)
        used.append(made[0].rounded is not None)
        return made

    paired = products.paired
    monkeypatch.setattr(geometry_cka, "paired", recorded)
    return used


def exact_debiased(x, y):
    def kernel(rows):
        rows = rows.double() - rows.double().mean(0)
        return (rows @ rows.T).fill_diagonal_(0)

    def unbiased(k, m):
        n = len(k)
        ks, ms = k.sum(0), m.sum(0)
        middle = ks.sum() * ms.sum() / ((n - 1) * (n - 2))
        return ((k * m).sum() + middle - 2 / (n - 2) * (ks @ ms)).item()

    k, m = kernel(x), kernel(y)
    return unbiased(k, m) / (unbiased(k, k) * unbiased(m, m)) ** 0.5


def test_rows_that_do_not_fit_are_refused():
    base, deltas = rows()
    moments = SiteMoments(base, deltas)
    with pytest.raises(ValueError, match="at least 4 rows, 0 seen"):
        moments.cka("small")
    with pytest.raises(ValueError, match="not paired: 300 and 299 and 300"):
        moments.update(base, {**deltas, "small": deltas["small"][1:]})
    with pytest.raises(ValueError, match=r"deltas \['small'\] given where \['small', 'large'\]"):
        moments.update(base, {"small": deltas["small"]})
