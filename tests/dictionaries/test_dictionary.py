"""Encode and decode by hand, and what a rotation of the stream does to them."""

import pytest
import torch
from scipy.stats import ortho_group

from lorascope.dictionaries.gated import GatedDictionary
from lorascope.dictionaries.jumprelu import JumpReluDictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError
from lorascope.training.architectures import ReLU

# width 2, three latents; no tensor is its own transpose
ENCODER = torch.tensor([[1.0, 0.0, -2.0], [3.0, -1.0, 0.5]])
ENCODER_BIAS = torch.tensor([0.5, 0.0, 1.0])
DIRECTIONS = torch.tensor([[1.0, 2.0], [0.0, -4.0], [7.0, 0.25]])
DECODER_BIAS = torch.tensor([1.0, -1.0])
PARTS = (ENCODER, ENCODER_BIAS, DIRECTIONS, DECODER_BIAS)
X = torch.tensor([[3.0, 0.0], [0.0, -2.0]])


def test_relu_by_hand():
    dictionary = ReluDictionary(*PARTS)
    assert (dictionary.n_latents, dictionary.d_model) == (3, 2)
    # centred [2, 1] and [-1, -1]; pre [5.5, -1, -2.5] and [-3.5, 1, 2.5]
    assert dictionary.encode(X).tolist() == [[5.5, 0.0, 0.0], [0.0, 1.0, 2.5]]
    assert dictionary(X).tolist() == [[6.5, 10.0], [18.5, -4.375]]
    assert dictionary.decode(torch.tensor([0.0, 2.0, 1.0])).tolist() == [8.0, -8.75]


def test_the_bias_may_stay_on_the_input():
    dictionary = ReluDictionary(*PARTS, subtract_bias=False)
    # pre [3.5, 0, -5] and [-5.5, 2, 0]; the decoder adds its bias all the same
    assert dictionary.encode(X).tolist() == [[3.5, 0.0, 0.0], [0.0, 2.0, 0.0]]
    assert dictionary(X).tolist() == [[4.5, 6.0], [1.0, -9.0]]


def test_jumprelu_by_hand():
    dictionary = JumpReluDictionary(*PARTS, torch.tensor([5.5, 0.75, 2.0]))
    # 5.5 is not above its threshold of 5.5; what passes, passes unchanged
    assert dictionary.encode(X).tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 2.5]]
    assert dictionary(X).tolist() == [[1.0, -1.0], [18.5, -4.375]]


def test_a_negative_threshold_lets_no_negative_latent_through():
    dictionary = JumpReluDictionary(*PARTS, torch.tensor([-10.0, -10.0, -10.0]))
    assert dictionary.encode(X).tolist() == [[5.5, 0.0, 0.0], [0.0, 1.0, 2.5]]


def test_topk_by_hand():
    # pre [5.5, -1, -2.5] and [-3.5, 1, 2.5]
    one = TopKDictionary(*PARTS, k=1)
    assert one.encode(X).tolist() == [[5.5, 0.0, 0.0], [0.0, 0.0, 2.5]]
    assert one(X).tolist() == [[6.5, 10.0], [18.5, -0.375]]
    # negative pre-activations stay silent however large k is
    assert TopKDictionary(*PARTS, k=3).encode(X).tolist() == [[5.5, 0.0, 0.0], [0.0, 1.0, 2.5]]


def test_topk_keeps_the_largest_of_every_row_of_any_shape(random_dictionary, rows):
    dictionary = random_dictionary("topk")
    z = dictionary.encode(rows)
    dense = ReluDictionary(**dict(dictionary.named_buffers())).encode(rows)
    for row, whole in zip(z, dense, strict=True):
        kept = sorted(whole.tolist(), reverse=True)[: dictionary.k]
        assert sorted(row.tolist(), reverse=True)[: dictionary.k] == kept
        assert set(row.tolist()) <= {0.0, *kept}
    assert torch.equal(dictionary.encode(rows.view(2, 4, 5, 5)), z.view(2, 4, 5, 9))
    assert torch.equal(dictionary.encode(rows[3]), z[3])


def test_k_out_of_range_is_refused():
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"k is {k}, expected 1 to 3"):
            TopKDictionary(*PARTS, k=k)


def test_gated_by_hand():
    log_scale, magnitude_bias = torch.tensor([2.0, 0.5, 1.0]).log(), torch.tensor([-1.0, 3.0, -9.0])
    dictionary = GatedDictionary(*PARTS, log_scale, magnitude_bias)
    # gate [5.5, -1, -2.5] and [-3.5, 1, 2.5]; without its bias [5, -1, -3.5] and [-4, 1, 1.5];
    # magnitude 2·5 − 1 = 9; 0.5·1 + 3 = 3.5; 1.5 − 9 < 0 although the gate is open
    expected = torch.tensor([[9.0, 0.0, 0.0], [0.0, 3.5, 0.0]])
    torch.testing.assert_close(dictionary.encode(X), expected)
    torch.testing.assert_close(dictionary(X), torch.tensor([[10.0, 17.0], [1.0, -15.0]]))


ARCHITECTURES = ["relu", "topk", "jumprelu", "gated"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("subtract_bias", [True, False])
def test_a_rotated_dictionary_does_in_the_rotated_stream_what_it_did(
    random_dictionary, rows, architecture, subtract_bias
):
    dictionary = random_dictionary(architecture, subtract_bias)
    rotation = torch.from_numpy(ortho_group.rvs(5, random_state=1)).float()
    assert not torch.allclose(rotation, rotation.T, atol=0.1)
    turned = dictionary.rotated(rotation)
    torch.testing.assert_close(turned.encode(rows @ rotation), dictionary.encode(rows))
    torch.testing.assert_close(turned(rows @ rotation), dictionary(rows) @ rotation)
    assert not torch.allclose(turned.encode(rows), dictionary.encode(rows), atol=0.1)


def test_what_was_given_in_low_precision_is_kept_in_float32():
    dictionary = ReluDictionary(*(part.bfloat16() for part in PARTS))
    assert all(tensor.dtype == torch.float32 for tensor in dictionary.buffers())
    assert list(dictionary.parameters()) == []


def test_tensors_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"encoder has shape \(3, 2\), expected \(2, 3\)"):
        ReluDictionary(ENCODER.T, ENCODER_BIAS, DIRECTIONS, DECODER_BIAS)
    with pytest.raises(ValueError, match=r"decoder_bias has shape \(3,\), expected \(2,\)"):
        ReluDictionary(ENCODER, ENCODER_BIAS, DIRECTIONS, ENCODER_BIAS)
    with pytest.raises(ValueError, match="threshold has shape"):
        JumpReluDictionary(*PARTS, torch.ones(2))
    with pytest.raises(ValueError, match="magnitude_bias has shape"):
        GatedDictionary(*PARTS, torch.ones(3), torch.ones(2))


def test_settings_out_of_reach_are_refused():
    with pytest.raises(InputError, match=r"target_l0 20\.0 must be below n_latents 16"):
        ReLU.parse({"n_latents": 16, "target_l0": 20}, "here")
    with pytest.raises(InputError, match='here: "l1" is 0; give more than 0'):
        ReLU.parse({"n_latents": 16, "l1": 0}, "here")
