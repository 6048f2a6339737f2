"""Cosines against numpy and by hand."""

import numpy as np
import pytest
import torch

from lorascope.geometry import cosine
from lorascope.geometry.cosine import max_cosine, unit_rows


def test_unit_rows_keeps_zero_rows_and_tiny_ones():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-15, -4e-15]])
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, -0.8]])
    torch.testing.assert_close(unit_rows(rows), expected)


def test_unit_rows_raises_precision_never_lowers_it():
    assert unit_rows(torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert unit_rows(torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_max_cosine_by_hand_is_not_symmetric():
    a = torch.tensor([[1.0, 0.0]])
    b = torch.tensor([[3.0, 4.0], [-2.0, 0.0]])
    values, indices = max_cosine(a, b)
    assert values.tolist() == pytest.approx([0.6])
    assert indices.tolist() == [0]
    values, indices = max_cosine(b, a)
    assert values.tolist() == pytest.approx([0.6, -1.0])
    assert indices.tolist() == [0, 0]


@pytest.mark.parametrize("chunk", [1, 7, 40, 512])
def test_max_cosine_agrees_with_numpy_for_every_chunk(chunk):
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(40, 11, generator=g), 5 * torch.randn(23, 11, generator=g)
    x, y = a.numpy().astype(np.float64), b.numpy().astype(np.float64)
    cosines = (x @ y.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    values, indices = max_cosine(a, b, chunk)
    np.testing.assert_allclose(values.numpy(), cosines.max(1), atol=1e-6)
    assert indices.tolist() == cosines.argmax(1).tolist()


def test_zero_row_has_cosine_zero():
    values, _ = max_cosine(torch.zeros(1, 2), torch.tensor([[-1.0, 0.0]]))
    assert values.item() == 0.0


@pytest.mark.parametrize("b", [torch.ones(3, 4), torch.ones(0, 2)])
def test_rows_that_cannot_be_compared_are_refused(b):
    with pytest.raises(ValueError, match="cannot compare"):
        max_cosine(torch.ones(3, 2), b)


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def near_ties():
    """Rows whose best column differs from many others by less than bfloat16 can tell."""
    b = normal(1, 96, 1) + 0.03 * normal(200, 96, 2)
    return b[:50] + 0.01 * normal(50, 96, 3), b


def copies_and_opposites():
    b = normal(40, 33, 4)
    b = torch.cat([b, 3 * b, -b, b[:7]])
    return torch.cat([b[:20], -2 * b[5:9]]), b


def with_nought():
    a, b = normal(9, 17, 5), normal(70, 17, 6)
    a[3] = b[0] = b[68] = 0
    return a, b


def all_away():
    """No column has a positive cosine with any row."""
    return normal(30, 5, 7).abs(), -normal(45, 5, 8).abs()


HARD = {
    "random": lambda: (normal(65, 129, 9), normal(131, 129, 10)),
    "few columns": lambda: (normal(20, 8, 11), normal(3, 8, 12)),
    "one by one": lambda: (normal(1, 1, 13), normal(1, 1, 14)),
    "near ties": near_ties,
    "copies and opposites": copies_and_opposites,
    "nought": with_nought,
    "all away": all_away,
    "tiny and huge": lambda: (1e-12 * normal(30, 40, 15), 1e12 * normal(90, 40, 16)),
    "sparse": lambda: (normal(64, 200, 17).relu() ** 8, normal(128, 200, 18).relu() ** 8),
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("chunk", [7, 512])
@pytest.mark.parametrize("crowd", [0, 2, 64])
def test_screening_finds_what_float32_finds(case, chunk, crowd, monkeypatch):
    monkeypatch.setattr(cosine, "_CROWD", crowd)
    a, b = HARD[case]()
    values, indices = cosine._screened(a, b, chunk)
    plain, _ = cosine._plain(a, b, chunk)
    x, y = unit_rows(a.double()), unit_rows(b.double())
    exact = x @ y.T
    torch.testing.assert_close(values, plain, rtol=0, atol=5e-7)
    torch.testing.assert_close(values.double(), exact.amax(1), rtol=0, atol=5e-7)
    # Where float32 cannot tell two columns apart, either will do.
    chosen = exact.gather(1, indices[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, exact.amax(1), rtol=0, atol=5e-7)


def test_rounding_alone_would_have_chosen_wrongly():
    a, b = near_ties()
    exact = unit_rows(a.double()) @ unit_rows(b.double()).T
    rounded = (unit_rows(a).bfloat16() @ unit_rows(b).bfloat16().T).float()
    assert (rounded.argmax(1) != exact.argmax(1)).float().mean() > 0.3
    _, indices = cosine._screened(a, b, 512)
    best, second = exact.topk(2, dim=1).values.T
    clear = best - second > 1e-6
    assert clear.float().mean() > 0.9
    assert torch.equal(indices[clear], exact.argmax(1)[clear])


def test_rounding_that_works_against_the_largest_does_not_lose_it():
    """One column leans along what rounding takes from the row, the other away from it."""
    a = unit_rows(normal(20, 256, 26))
    lost = (a - a.bfloat16().float()).double()
    along = unit_rows(lost - (lost * a).sum(1, keepdim=True) * a)
    largest, next_largest = 0.05 * a + along, 0.0495 * a - along
    for i in range(len(a)):
        b = torch.stack([next_largest[i], largest[i]]).float()
        rounded = (a[i].bfloat16() @ unit_rows(b).bfloat16().T).tolist()
        assert rounded[0] > rounded[1] + 0.001
        assert cosine._screened(a[i : i + 1], b, 512)[1].tolist() == [1]


def test_no_true_cosine_leaves_the_margin():
    a, b = unit_rows(normal(100, 300, 19)), unit_rows(normal(200, 300, 20) ** 3)
    targets, moved = cosine._padded_targets(b)
    rounded, error = cosine._rounded(a)
    margin = error + moved
    distance = (rounded.double() @ targets[:200].double().T - a.double() @ b.double().T).abs()
    assert (distance <= margin[:, None]).all()
    assert (distance.amax(1) > 0.02 * margin).all()  # and the margin is no idle one


def test_the_first_of_equal_columns_is_named():
    b = normal(5, 20, 21)
    _, indices = cosine._screened(b, torch.cat([b] * 30), 512)
    assert indices.tolist() == [0, 1, 2, 3, 4]


def test_rows_that_are_not_numbers_stay_so():
    a = normal(4, 20, 22)
    a[2, 3] = torch.nan
    values, _ = cosine._screened(a, normal(90, 20, 23), 512)
    assert values.isnan().tolist() == [False, False, True, False]


def test_large_sets_are_screened_where_bfloat16_pays(monkeypatch):
    screened = []
    monkeypatch.setattr(cosine, "_WORTH_SCREENING", 20 * 30 * 40)
    monkeypatch.setattr(cosine, "_screened", lambda *a: screened.append(a) or cosine._plain(*a))
    a, b = normal(20, 40, 24), normal(30, 40, 25)
    for pays in (True, False):
        monkeypatch.setattr(cosine, "bfloat16_pays", lambda *x, pays=pays: pays)
        max_cosine(a, b)
        max_cosine(a[1:], b)
    assert len(screened) == 1
