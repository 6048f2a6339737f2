"""Foldings by hand, and the property they exist for: nothing changes on raw rows."""

import pytest
import torch

from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.maps import Maps
from lorascope.dictionaries.relu import ReluDictionary

# width 2, three latents
MAPS = Maps(
    torch.tensor([[1.0, 0.0, -2.0], [3.0, -1.0, 0.5]]),
    torch.tensor([0.5, 0.25, 1.0]),
    torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]]),
    torch.tensor([1.0, -1.0]),
)


def test_input_factor_by_hand():
    folded = MAPS.for_raw_input(0.5)
    assert folded.encoder.tolist() == [[0.5, 0.0, -1.0], [1.5, -0.5, 0.25]]
    assert torch.equal(folded.encoder_bias, MAPS.encoder_bias)
    assert folded.directions.tolist() == [[6.0, 8.0], [0.0, -4.0], [0.0, 0.0]]
    assert folded.decoder_bias.tolist() == [2.0, -2.0]


def test_stream_units_by_hand():
    folded = MAPS.in_stream_units(0.5, 0.25)
    assert torch.equal(folded.encoder, MAPS.encoder)
    assert folded.encoder_bias.tolist() == [1.0, 0.5, 2.0]
    assert folded.directions.tolist() == [[6.0, 8.0], [0.0, -4.0], [0.0, 0.0]]
    assert folded.decoder_bias.tolist() == [4.0, -4.0]


def test_unit_directions_by_hand_and_a_silent_latent_stays_finite():
    # norms 5, 2, 0
    folded = MAPS.unit_directions()
    assert folded.encoder.tolist() == [[5.0, 0.0, 0.0], [15.0, -2.0, 0.0]]
    assert folded.encoder_bias.tolist() == [2.5, 0.5, 0.0]
    torch.testing.assert_close(
        folded.directions, torch.tensor([[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]])
    )


@pytest.mark.parametrize("subtract_bias", [True, False])
def test_trap_the_decoder_bias_is_folded_too(rows, random_dictionary, subtract_bias):
    """On raw rows: what the dictionary did on scaled rows, unscaled, with the same latents."""
    trained = random_dictionary("jumprelu", subtract_bias)
    parts = dict(trained.named_buffers())
    threshold = parts.pop("threshold")
    folded = JumpReluDictionary(
        **Maps(**parts).for_raw_input(0.31).parts(),
        threshold=threshold,
        subtract_bias=subtract_bias,
    )
    latents = trained.encode(0.31 * rows)
    assert 0.1 < (latents > 0).float().mean() < 0.9
    torch.testing.assert_close(folded.encode(rows), latents)
    torch.testing.assert_close(folded(rows), trained(0.31 * rows) / 0.31)


@pytest.mark.parametrize("subtract_bias", [True, False])
def test_foldings_of_a_relu_leave_the_reconstruction(rows, random_dictionary, subtract_bias):
    trained = random_dictionary("relu", subtract_bias)
    maps = Maps(**dict(trained.named_buffers()))
    options = {"subtract_bias": subtract_bias}
    unit = ReluDictionary(**maps.unit_directions().parts(), **options)
    torch.testing.assert_close(unit(rows), trained(rows))
    norms = trained.directions.norm(dim=1)
    torch.testing.assert_close(unit.encode(rows), trained.encode(rows) * norms)
    in_units = ReluDictionary(**maps.in_stream_units(0.31, 0.31).parts(), **options)
    torch.testing.assert_close(in_units(rows), trained(0.31 * rows) / 0.31)
    torch.testing.assert_close(in_units.encode(rows), trained.encode(0.31 * rows) / 0.31)


def test_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"directions has shape \(3,\), expected rows"):
        Maps(MAPS.encoder, MAPS.encoder_bias, MAPS.encoder_bias, MAPS.decoder_bias)
    with pytest.raises(ValueError, match=r"encoder_bias has shape \(2,\), expected \(3,\)"):
        Maps(MAPS.encoder, MAPS.decoder_bias, MAPS.directions, MAPS.decoder_bias)
