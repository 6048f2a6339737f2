"""Fitting a dictionary: planted directions come back, by seed, whatever the units of the rows."""

import pytest
import torch
from torch.nn import functional

from lorascope.activations.mixing import TensorRows
from lorascope.dictionaries.card import Card
from lorascope.errors import InputError
from lorascope.randomness import generator
from lorascope.training.architectures import Gated, ReLU
from lorascope.training.dictionaries import Job, fit, fit_many, product_dtype
from lorascope.training.settings import Fitting

D, PLANTED = 32, 48
SHORT = Fitting(epochs=4, batch=128, products="float32")


@pytest.fixture(scope="module")
def directions():
    return functional.normalize(torch.randn(PLANTED, D, generator=generator(0, "planted")), dim=1)


@pytest.fixture(scope="module")
def rows(directions):
    """Sums of three or so planted directions, off centre, with a little noise."""
    random = generator(0, "rows")
    active = torch.rand(6000, PLANTED, generator=random) < 3 / PLANTED
    strengths = active * (1 + torch.rand(6000, PLANTED, generator=random))
    noise = 0.02 * torch.randn(6000, D, generator=random)
    return strengths @ directions + noise + 0.3


def mean_max_cosine(planted, learned):
    return (planted @ learned.directions.T).max(dim=1).values.mean().item()


def test_planted_directions_are_recovered(directions, rows):
    fitting = Fitting(epochs=40, batch=256, rate=5e-3, products="float32")
    [(learned, history)] = fit_many([Job(ReLU(n_latents=64, l1=0.1))], rows, fitting)
    start = fit(ReLU(n_latents=64, l1=0.1), rows, fitting=Fitting(epochs=0.01, batch=256))
    assert mean_max_cosine(directions, start) < 0.6
    assert mean_max_cosine(directions, learned) > 0.9
    assert history.tail_mean("error") < 0.2 * history.series("error")[0]
    torch.testing.assert_close(learned.directions.norm(dim=1), torch.ones(64))


def test_units_do_not_matter(rows):
    settings = ReLU(n_latents=64)
    plain, hundredfold = (fit(settings, factor * rows, fitting=SHORT) for factor in (1.0, 100.0))
    assert hundredfold.card.scale == pytest.approx(100 * plain.card.scale, rel=1e-5)
    z, z100 = plain.encode(rows), hundredfold.encode(100 * rows)
    assert (z > 0).float().mean() > 0.05
    assert (z100 / 100 - z).norm() < 1e-3 * z.norm()
    assert (hundredfold.directions - plain.directions).norm() < 1e-3 * plain.directions.norm()


@pytest.mark.parametrize("target", [4.0, 10.0])
def test_the_target_l0_is_reached(rows, target):
    fitting = Fitting(epochs=60, batch=256, products="float32")
    settings = ReLU(n_latents=64, l1=0.02, target_l0=target)
    [(learned, history)] = fit_many([Job(settings)], rows, fitting)
    active = (learned.encode(rows) > 0).float().sum(1).mean().item()
    assert active == pytest.approx(target, rel=0.1)
    assert history.series("l0")[0] > 1.5 * target
    assert history.series("l1")[-1] > history.series("l1")[0]


@pytest.mark.parametrize("architecture", [ReLU, Gated], ids=["relu", "gated"])
def test_the_target_l0_is_reached_in_a_short_run(rows, architecture):
    fitting = Fitting(epochs=10, batch=256, products="float32")
    assert fitting.steps(len(rows)) == 235
    learned = fit(architecture(n_latents=64, l1=0.02, target_l0=6), rows, fitting=fitting)
    active = (learned.encode(rows) > 0).float().sum(1).mean().item()
    assert active == pytest.approx(6, rel=0.1)


def test_dead_latents_are_brought_back(rows):
    fitting = Fitting(epochs=12, batch=256, rate=2e-2, products="float32")
    alive = {}
    for resample in (False, True):
        settings = ReLU(n_latents=128, l1=0.6, resample=resample)
        learned = fit(settings, rows, fitting=fitting)
        alive[resample] = int((learned.encode(rows) > 0).any(0).sum())
    assert alive[False] < 100
    assert alive[True] > alive[False] + 10


def test_the_seed_decides_everything(rows):
    def weights(seed):
        learned = fit(ReLU(n_latents=64), rows, fitting=SHORT, seed=seed)
        return torch.cat([tensor.flatten() for tensor in learned.buffers()])

    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(weights(0), first)
    assert (weights(1) - first).norm() > 0.1 * first.norm()


def test_bfloat16_products_end_near_float32(rows):
    fitting = Fitting(epochs=10, batch=256, products="float32")
    ends = {}
    for products in ("float32", "bfloat16"):
        settings = fitting.model_copy(update={"products": products})
        learned = fit(ReLU(n_latents=64), rows, fitting=settings)
        ends[products] = (learned(rows) - rows).square().sum(1).mean().item()
    assert ends["bfloat16"] == pytest.approx(ends["float32"], rel=0.05)
    assert ends["bfloat16"] != ends["float32"]


def test_rows_in_low_precision_are_rows_all_the_same(rows):
    learned = fit(ReLU(n_latents=64), rows.bfloat16(), fitting=SHORT)
    exact = fit(ReLU(n_latents=64), rows.bfloat16().float(), fitting=SHORT)
    assert learned.card.scale == pytest.approx(exact.card.scale, rel=1e-6)
    torch.testing.assert_close(learned.directions, exact.directions, rtol=1e-2, atol=1e-2)


def test_rows_may_come_in_chunks(rows):
    class Chunked(TensorRows):
        sizes = [1000] * 6

        def chunks(self, order=None):
            parts = self.rows.split(1000)
            return iter([parts[i] for i in (range(6) if order is None else order)])

    whole, chunked = (fit(ReLU(n_latents=64), r, fitting=SHORT) for r in (rows, Chunked(rows)))
    errors = [(d(rows) - rows).square().sum(1).mean().item() for d in (whole, chunked)]
    assert chunked.card.scale == pytest.approx(whole.card.scale, rel=1e-6)
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


def test_the_card_says_how_it_was_made(rows):
    given = Card(target="delta", site="layers.2", adapter="r4")
    card = fit(ReLU(n_latents=64, l1=0.2), rows, fitting=SHORT, seed=5, card=given).card
    assert (card.target, card.site, card.adapter, card.seed) == ("delta", "layers.2", "r4", 5)
    # 4 epochs of 6000 rows are 187.5 batches of 128
    assert SHORT.steps(6000) == 188
    assert card.tokens == 188 * 128
    assert card.scale == pytest.approx(rows.norm(dim=1).mean().item(), rel=1e-6)
    assert card.settings == {**ReLU(n_latents=64, l1=0.2).plain(), **SHORT.plain()}


def test_rows_that_cannot_be_fitted_are_refused(rows):
    with pytest.raises(InputError, match=r"100 rows are too few .* batches of 128; give more text"):
        fit(ReLU(n_latents=8), rows[:100], fitting=SHORT)
    with pytest.raises(InputError, match="the rows are all zero: there is nothing to train on"):
        fit(ReLU(n_latents=8), torch.zeros(200, D), fitting=SHORT)
    with pytest.raises(InputError, match="some rows hold NaN or infinity"):
        fit(ReLU(n_latents=8), rows[:200].masked_fill(rows[:200] > 2, torch.inf), fitting=SHORT)


def test_the_type_of_products():
    assert product_dtype("float32", "cuda") == torch.float32
    assert product_dtype("bfloat16", "cpu") == torch.bfloat16
    assert product_dtype("auto", "cpu") in (torch.float32, torch.bfloat16)
