"""Dictionaries of rows with massive coordinates: trained on what is left, exact on the stream."""

import pytest
import torch
from torch.nn import functional

from lorascope.activations.massive import find_massive
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.randomness import generator
from lorascope.training import dictionaries
from lorascope.training.architectures import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK
from lorascope.training.dictionaries import Job, fit, fit_many
from lorascope.training.settings import Fitting
from lorascope.training.snapshots import Saving, read_snapshots

D, PLANTED, LATENTS = 64, 96, 256
SHORT = Fitting(epochs=2, batch=128, products="float32")
ARCHITECTURES = {
    "relu": ReLU(n_latents=LATENTS),
    "topk": TopK(n_latents=LATENTS, k=8),
    "batch_topk": BatchTopK(n_latents=LATENTS, k=8),
    "matryoshka": Matryoshka(n_latents=LATENTS, k=8),
    "jumprelu": JumpReLU(n_latents=LATENTS, target_l0=8),
    "gated": Gated(n_latents=LATENTS),
}


def plain(count, name):
    """Sums of four or so planted directions with a little noise."""
    directions = torch.randn(PLANTED, D, generator=generator(0, "planted"))
    random = generator(0, name)
    on = torch.rand(count, PLANTED, generator=random) < 4 / PLANTED
    strengths = on * (1 + torch.rand(count, PLANTED, generator=random))
    noise = 0.02 * torch.randn(count, D, generator=random)
    return strengths @ functional.normalize(directions, dim=1) + noise


def massive(count, name):
    """The same rows; coordinate 5 holds 86 % of the energy, 11 another 11 %: a large constant that
    varies by three tenths of its size."""
    x = plain(count, name)
    energy = x.square().sum(1).mean() / 0.03
    varying = torch.randn(count, 2, generator=generator(1, name))
    for i, (column, share) in enumerate(((5, 0.86), (11, 0.11))):
        size = (-1) ** i * (share * energy).sqrt()
        x[:, column] = size * (0.91**0.5 + 0.3 * varying[:, i])
    return x


@pytest.fixture(scope="module")
def rows():
    return massive(8000, "rows")


@pytest.fixture(scope="module")
def held_out():
    return massive(2000, "held out")


def unexplained(dictionary, held_out, rows, project=lambda x: x):
    error, about = held_out - dictionary(held_out), held_out - rows.mean(0)
    return float(project(error).square().sum() / project(about).square().sum())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_saved_dictionary_does_on_the_stream_what_the_trained_one_does(
    name, rows, held_out, monkeypatch, tmp_path
):
    trained = []
    outside = dictionaries._Space.outside

    def look(self, dictionary):
        trained.append((dictionary, self.level.map))
        return outside(self, dictionary)

    monkeypatch.setattr(dictionaries._Space, "outside", look)
    found = fit(ARCHITECTURES[name], rows, fitting=SHORT)
    [(inside, level)] = trained
    save(found, tmp_path / "saved")
    saved = open_dictionary(tmp_path / "saved")
    y = level.level(held_out)
    z, codes = inside.encode(y), saved.encode(held_out)
    assert (z > 0).any(1).float().mean() > 0.5
    # One in a hundred thousand may lie on its threshold.
    assert ((codes > 0) != (z > 0)).float().mean() < 1e-4
    norms = level.write(inside.directions).norm(dim=1)
    scaled = z if name == "topk" else z * norms
    assert (codes - scaled).norm() < 1e-3 * scaled.norm()
    back = level.write(inside(y)) + level.offset
    assert (saved(held_out) - back).norm() < 1e-3 * (back - rows.mean(0)).norm()
    if name != "topk":
        torch.testing.assert_close(saved.directions.norm(dim=1), torch.ones(LATENTS))
    assert saved.card.massive == [5, 11]
    assert saved.card.scale == pytest.approx(float(level.level(rows).norm(dim=1).mean()), rel=1e-4)


def test_the_budget_goes_to_what_is_not_massive(rows, held_out):
    project = find_massive(rows).without
    fitting = Fitting(epochs=8, batch=256, products="float32")
    left, live = {}, {}
    for treatment in ("keep", "clip", "whiten"):
        settings = fitting.model_copy(update={"massive": treatment})
        found = fit(ReLU(n_latents=LATENTS), rows, fitting=settings)
        left[treatment] = unexplained(found, held_out, rows, project)
        live[treatment] = int((found.encode(held_out) > 0).any(0).sum())
    twin = fit(ReLU(n_latents=LATENTS), plain(8000, "rows"), fitting=fitting)
    alone = unexplained(twin, plain(2000, "held out"), plain(8000, "rows"))
    assert left["keep"] > 0.6
    assert live["keep"] < 0.6 * LATENTS
    for treatment in ("clip", "whiten"):
        assert left[treatment] < alone + 0.05
        assert live[treatment] > 0.9 * LATENTS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_where_nothing_is_massive_training_is_what_it_was(name):
    x = plain(2000, "rows")
    card = Card(target="base")
    ends = []
    for treatment in ("keep", "clip", "whiten"):
        settings = SHORT.model_copy(update={"massive": treatment})
        found = fit(ARCHITECTURES[name], x, fitting=settings, card=card)
        assert (found.card.massive, found.card.massive_directions) == ([], 0)
        ends.append(dict(found.named_buffers()))
    for other in ends[1:]:
        assert all(torch.equal(ends[0][key], other[key]) for key in ends[0])


def test_directions_are_taken_down_in_base_streams_alone():
    aim = functional.normalize(torch.ones(D), dim=0)
    x = plain(4000, "rows") + 30 * aim
    of_base = fit(ReLU(n_latents=64), x, fitting=SHORT, card=Card(target="base"))
    of_delta = fit(ReLU(n_latents=64), x, fitting=SHORT, card=Card(target="delta"))
    assert (of_base.card.massive, of_base.card.massive_directions) == ([], 1)
    assert of_delta.card.massive_directions == 0
    assert of_base.card.scale < 5 < 25 < of_delta.card.scale
    assert unexplained(of_base, plain(500, "x") + 30 * aim, x) < 0.5


def test_snapshots_are_of_the_stream_too(rows, held_out, tmp_path):
    saving = Saving(tmp_path / "snapshots", shares=(0.5, 1.0))
    job = Job(ReLU(n_latents=64), saving=saving)
    [(found, history)] = fit_many([job], rows, SHORT, held_out=held_out)
    half, whole = (open_dictionary(one.folder) for one in read_snapshots(tmp_path / "snapshots"))
    assert unexplained(half, held_out, rows) < 1
    torch.testing.assert_close(whole.directions, found.directions, atol=1e-5, rtol=1e-4)
    # Looked at where it is trained: in the stream the massive coordinates would hide the error.
    errors = history.points("held_out_error")
    assert 0 < errors[-1][1] < errors[0][1] < 1.2
