"""A dictionary of levelled rows becomes one of the stream: the same latents, mapped back."""

import pytest
import torch
from torch.nn import functional

from lorascope.activations.massive import Levelling
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.randomness import generator

D, N = 24, 40


def parts(name):
    random = generator(0, name)
    directions = functional.normalize(torch.randn(N, D, generator=random), dim=1)
    encoder = directions.T + 0.1 * torch.randn(D, N, generator=random)
    biases = 0.3 * torch.randn(N, generator=random), 0.2 * torch.randn(D, generator=random)
    return encoder, biases[0], directions, biases[1]


def made(kind):
    random = generator(0, "rest")
    if kind == "relu":
        return ReluDictionary(*parts(kind))
    if kind == "topk":
        return TopKDictionary(*parts(kind), k=5)
    if kind == "jumprelu":
        return JumpReluDictionary(*parts(kind), threshold=torch.rand(N, generator=random))
    scale, bias = 0.4 * torch.randn(2, N, generator=random)
    return GatedDictionary(*parts(kind), log_scale=scale, magnitude_bias=bias)


@pytest.fixture
def level():
    """Coordinate 2 to a fiftieth about 300, a slanted direction to a seventh about −9."""
    slanted = torch.ones(D)
    slanted[2] = 0.0
    unit = torch.eye(D)[2]
    basis = torch.stack([unit, functional.normalize(slanted, dim=0)])
    return Levelling(basis, torch.tensor([300.0, -9.0]), torch.tensor([1 / 50, 1 / 7]))


@pytest.fixture
def rows(level):
    """Of the stream, of ordinary size once levelled."""
    y = torch.randn(300, D, generator=generator(0, "rows"))
    return level.write(y) + level.offset


@pytest.mark.parametrize("kind", ["relu", "topk", "jumprelu", "gated"])
def test_the_same_latents_and_the_reconstruction_mapped_back(kind, level, rows, tmp_path):
    trained = made(kind)
    exported = trained.undoing(level)
    y = level.level(rows)
    z, found = trained.encode(y), exported.encode(rows)
    assert (z > 0).float().mean() > 0.05
    norms = level.write(trained.directions).norm(dim=1)
    assert norms.max() > 3
    expected = z if kind == "topk" else z * norms
    assert torch.equal(found > 0, z > 0)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    back = level.write(trained(y)) + level.offset
    torch.testing.assert_close(exported(rows), back, atol=5e-3, rtol=1e-4)
    assert isinstance(exported, type(trained))
    save(exported, tmp_path / "saved")
    again = open_dictionary(tmp_path / "saved")
    assert torch.equal(again.encode(rows), found)
    assert torch.equal(again(rows), exported(rows))


@pytest.mark.parametrize("kind", ["relu", "jumprelu", "gated"])
def test_directions_have_norm_one_again(kind, level):
    torch.testing.assert_close(made(kind).undoing(level).directions.norm(dim=1), torch.ones(N))


def test_latents_of_topk_compete_as_they_were_trained_to(level, rows):
    trained = made("topk")
    exported = trained.undoing(level)
    norms = exported.directions.norm(dim=1)
    assert norms.max() > 3
    # With unit directions other latents would be the largest.
    z = torch.relu((rows - exported.decoder_bias) @ exported.encoder + exported.encoder_bias)
    others = (z * norms).topk(5, dim=1).indices.sort().values
    assert (others != z.topk(5, dim=1).indices.sort().values).any(1).float().mean() > 0.2


def test_silent_latents_stay_silent(level):
    encoder, bias, directions, decoder_bias = parts("silent")
    directions = directions.clone()
    directions[3] = 0.0
    found = ReluDictionary(encoder, bias, directions, decoder_bias).undoing(level)
    assert all(tensor.isfinite().all() for tensor in found.buffers())
    assert found.directions[3].norm() == 0


def test_a_bias_that_is_not_taken_off_is_refused(level):
    other = ReluDictionary(*parts("other"), subtract_bias=False)
    with pytest.raises(ValueError, match="b_dec"):
        other.undoing(level)
