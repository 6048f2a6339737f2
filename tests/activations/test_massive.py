"""What holds most of a stream's energy: found by the stated rule, taken down, put back exactly."""

import pytest
import torch
from torch.nn import functional

from lorascope.activations.massive import Massive, find_massive, levelling
from lorascope.activations.mixing import Levelled, TensorRows
from lorascope.geometry.chance import random_rotation
from lorascope.randomness import generator

D = 64


def ordinary(count=4000, name="rows"):
    return torch.randn(count, D, generator=generator(0, name))


@pytest.fixture
def rows():
    """Unit normal rows; coordinate 5 is about 60 and varies by 3, 11 about −25 and varies by 1."""
    x = ordinary()
    x[:, 5] = 60 + 3 * x[:, 5]
    x[:, 11] = -25 + x[:, 11]
    return x


def test_coordinates_by_hand(rows):
    found = find_massive(rows)
    assert found.coordinates == (5, 11)
    assert len(found.directions) == 0
    # Of 62 + 3609 + 626 in all; the median coordinate's is 1.
    assert found.shares == pytest.approx((3609 / 4297, 626 / 4297), rel=0.02)
    assert found.ratios == pytest.approx((3609, 626), rel=0.05)
    assert found.share == pytest.approx(4235 / 4297, rel=0.01)
    first, second = found.record()["coordinates"]
    assert (first["coordinate"], second["coordinate"]) == (5, 11)
    assert first["share"] == pytest.approx(0.840, abs=0.01)


@pytest.mark.parametrize(
    ("size", "found"),
    # 100 times the median needs a mean square above 100, 5 % of the energy one above 3.3.
    [(9.0, ()), (11.0, (7,))],
)
def test_both_conditions_must_hold(size, found):
    x = ordinary(20000)
    x[:, 7] = size
    assert find_massive(x).coordinates == found
    # Spread over more coordinates, each a smaller share.
    x[:, 20:60] *= 9
    assert find_massive(x).coordinates == ()


def test_a_stream_that_lies_in_a_few_coordinates_has_no_massive_ones():
    x = 0.01 * ordinary()
    x[:, :9] *= 1000
    assert not find_massive(x)
    assert not find_massive(torch.zeros(50, D))
    assert find_massive(torch.zeros(50, D)).record() == {"coordinates": [], "directions": []}


def test_directions_are_what_stands_out_once_the_coordinates_are_gone(rows):
    aim = functional.normalize(torch.randn(D, generator=generator(0, "aim")), dim=0)
    aim[[5, 11]] = 0.0
    aim = functional.normalize(aim, dim=0)
    x = rows + 20 * aim
    found = find_massive(x)
    assert found.coordinates == (5, 11)
    assert len(found.directions) == 1
    assert abs(float(found.directions[0] @ aim)) > 0.999
    assert found.directions[0, [5, 11]].abs().max() < 1e-6
    # 20² of 62 + 3609 + 626 + 400, and 400 times an ordinary direction's.
    assert found.shares[2] == pytest.approx(400 / 4697, rel=0.03)
    assert found.record()["directions"][0]["mostly"][0] == int(aim.abs().argmax())
    basis = found.basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(3), atol=1e-5, rtol=0)
    assert not find_massive(x, directions=False).directions.numel()


def test_a_low_rank_delta_has_no_massive_coordinates():
    random = generator(0, "low rank")
    x = torch.randn(4000, 3, generator=random) @ torch.randn(3, D, generator=random)
    assert not find_massive(x, directions=False)


def test_a_rotated_stream_has_the_direction_instead_of_the_coordinate(rows):
    turn = random_rotation(D, generator(0, "turn"))
    found = find_massive(rows @ turn)
    # Both coordinates are nearly constant: together they are one direction of the second moment.
    assert not found.coordinates
    assert len(found.directions) == 1
    lies_in = turn[5] * 60 - turn[11] * 25
    assert abs(float(functional.normalize(lies_in, dim=0) @ found.directions[0])) > 0.999


def test_without_projects_everything_massive_out(rows):
    found = find_massive(rows)
    left = found.without(rows)
    assert (left[:, [5, 11]] == 0).all()
    others = [i for i in range(D) if i not in (5, 11)]
    assert torch.equal(left[:, others], rows[:, others])
    aim = functional.normalize(torch.ones(D), dim=0)
    slanted = Massive((), aim[None], (0.5,), (20.0,))
    assert (slanted.without(rows) @ aim).abs().max() < 1e-4


def test_levelled_rows_are_centred_and_no_wider_than_the_others(rows):
    massive = find_massive(rows)
    others = [i for i in range(D) if i not in (5, 11)]
    widest, mean = rows[:, others].std(0).max(), rows[:, others].var(0).mean().sqrt()
    for treatment, target in (("clip", widest), ("whiten", mean)):
        level = levelling(rows, massive, treatment).level(rows)
        assert level[:, 5].std() == pytest.approx(float(target), rel=1e-4)
        # That one varies by about 1 itself: nothing is scaled up.
        assert level[:, 11].std() == pytest.approx(min(float(target), float(rows[:, 11].std())))
        assert level[:, [5, 11]].mean(0).abs().max() < 1e-4
        assert torch.equal(level[:, others], rows[:, others])
    assert levelling(rows, massive, "keep") is None
    assert levelling(ordinary(), find_massive(ordinary()), "clip") is None


def test_what_does_not_vary_is_centred_alone():
    x = ordinary()
    x[:, 3] = 50.0
    level = levelling(x, find_massive(x), "clip")
    assert level.factors.tolist() == [1.0]
    assert level.level(x)[:, 3].abs().max() == 0


def test_the_map_and_its_inverse(rows):
    aim = functional.normalize(torch.randn(D, generator=generator(1, "aim")), dim=0)
    x = rows + 20 * torch.randn(len(rows), 1, generator=generator(0, "size")) * aim
    massive = find_massive(x)
    assert (len(massive.coordinates), len(massive.directions)) == (2, 1)
    level = levelling(x, massive, "clip")
    assert level.factors.max() <= 1
    # read and write are A and its inverse as matrices.
    there = level.read(torch.eye(D))
    torch.testing.assert_close(there @ level.write(torch.eye(D)), torch.eye(D), atol=1e-4, rtol=0)
    y = level.level(x)
    torch.testing.assert_close((x - level.offset) @ there, y, atol=1e-3, rtol=0)
    torch.testing.assert_close(level.write(y) + level.offset, x, atol=1e-3, rtol=0)


def test_levelled_rows_come_in_the_chunks_of_the_rows(rows):
    class Chunked(TensorRows):
        sizes = [1000] * 4

        def chunks(self, order=None):
            parts = self.rows.split(1000)
            return iter([parts[i] for i in (range(4) if order is None else order)])

    level = levelling(rows, find_massive(rows), "clip")
    found = Levelled(Chunked(rows.bfloat16()), level)
    assert (len(found), found.d_model, list(found.sizes)) == (4000, D, [1000] * 4)
    second, first = found.chunks([1, 0])
    assert first.dtype == torch.float32
    assert torch.equal(torch.cat([first, second]), level.level(rows.bfloat16()[:2000]))
