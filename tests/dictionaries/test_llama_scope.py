"""Llama Scope by hand: what is scaled, which gate, in which unit."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.relu import ReluDictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

# width 2, three latents; directions [3, 4], [0, -2], [0, 0.5] with norms 5, 2, 0.5
TENSORS = {
    "encoder.weight": torch.tensor([[1.0, 3.0], [0.0, -1.0], [-2.0, 0.5]]),
    "encoder.bias": torch.tensor([0.5, 0.25, 1.0]),
    "decoder.weight": torch.tensor([[3.0, 0.0, 0.0], [4.0, -2.0, 0.5]]),
    "decoder.bias": torch.tensor([1.0, -1.0]),
}
# mean norm 4√2, so s = √2 / 4√2 = 0.25
CONFIG = {
    "hook_point_in": "blocks.15.hook_resid_post",
    "hook_point_out": "blocks.15.hook_resid_post",
    "d_model": 2,
    "d_sae": 3,
    "use_decoder_bias": True,
    "apply_decoder_bias_to_pre_encoder": False,
    "use_glu_encoder": False,
    "act_fn": "jumprelu",
    "jump_relu_threshold": 10.0,
    "norm_activation": "dataset-wise",
    "dataset_average_activation_norm": {"in": 4 * math.sqrt(2), "out": 4 * math.sqrt(2)},
    "sparsity_include_decoder_norm": True,
    "top_k": 50,
}
X = torch.tensor([[1.0, 0.5], [-4.0, -5.0], [-9.0, 2.0], [-7.0, 2.0]])
# (x W + b/s)·‖w_dec‖ with b/s = [2, 1, 4]:
# latent 0: 5·(x₀ + 3x₁ + 2)        22.5   -85     -5      5
# latent 1: 2·(-x₁ + 1)             1      12      -2     -2
# latent 2: ½·(-2x₀ + ½x₁ + 4)      1.125  4.75    11.5   9.5
PRE = [[22.5, 1.0, 1.125], [-85.0, 12.0, 4.75], [-5.0, -2.0, 11.5], [5.0, -2.0, 9.5]]


def write(folder, tensors=None, **changed):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    save_file(tensors or TENSORS, folder / "checkpoints" / "final.safetensors")
    (folder / "hyperparams.json").write_text(json.dumps({**CONFIG, **changed}))
    return folder


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=1e-5)


def test_by_hand(tmp_path):
    dictionary = open_dictionary(write(tmp_path))
    close(X @ dictionary.encoder + dictionary.encoder_bias, PRE)
    close(
        dictionary.encode(X),
        [[22.5, 0.0, 0.0], [0.0, 12.0, 0.0], [0.0, 0.0, 11.5], [0.0, 0.0, 0.0]],
    )
    # unit directions [0.6, 0.8], [0, -1], [0, 1] and b/s = [4, -4]
    close(dictionary(X), [[17.5, 14.0], [4.0, -16.0], [4.0, 7.5], [4.0, -4.0]])


def test_trap_the_gate_sees_the_decoder_norm(tmp_path):
    """Bare pre-activations: latent 1 of row 1 has 6 and would be silent, latent 2 of row 3 has
    19 and would fire."""
    active = open_dictionary(write(tmp_path)).encode(X) > 0
    assert active[1].tolist() == [False, True, False]
    assert active[3].tolist() == [False, False, False]
    bare = open_dictionary(write(tmp_path / "bare", sparsity_include_decoder_norm=False))
    close(bare.encode(X), [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 23.0], [0.0, 0.0, 19.0]])


def test_trap_the_threshold_is_in_the_streams_units(tmp_path):
    """On inputs scaled by 0.25 all pre-activations are a quarter; none would pass 10."""
    z = open_dictionary(write(tmp_path)).encode(X)
    assert (z > 0).sum() == 3
    assert 0.25 * max(map(max, PRE)) < 10
    # and a threshold scaled with the inputs, 2.5 here, would let six pass
    low = open_dictionary(write(tmp_path, jump_relu_threshold=2.5)).encode(X)
    assert (low > 0).sum() == 6


def test_trap_the_scale_is_folded_in_both_biases_and_no_matrix(tmp_path):
    raw = open_dictionary(write(tmp_path, norm_activation="inference"))
    # b instead of b/s: latent 0 of row 0 is 5·(1 + 1.5 + 0.5) = 15
    close(raw.encode(X)[0], [15.0, 0.0, 0.0])
    close(raw(X)[0], [15 * 0.6 + 1, 15 * 0.8 - 1])
    folded = open_dictionary(write(tmp_path))
    assert torch.equal(folded.encoder, raw.encoder)
    assert torch.equal(folded.directions, raw.directions)


def test_the_decoder_bias_before_the_encoder_where_the_file_says_so(tmp_path):
    dictionary = open_dictionary(write(tmp_path, apply_decoder_bias_to_pre_encoder=True))
    # row 0 less [4, -4] is [-3, 4.5]: latent 0 has 5·(-3 + 13.5 + 2) = 62.5
    close(dictionary.encode(X)[0], [62.5, 0.0, 0.0])
    config = {k: v for k, v in CONFIG.items() if k != "apply_decoder_bias_to_pre_encoder"}
    (tmp_path / "hyperparams.json").write_text(json.dumps(config))
    assert not open_dictionary(tmp_path).subtract_bias


def test_topk_without_a_threshold_picks_by_what_the_norm_makes_of_it(tmp_path):
    dictionary = open_dictionary(write(tmp_path, act_fn="topk", jump_relu_threshold=0.0, top_k=1))
    assert isinstance(dictionary, TopKDictionary)
    # row 1: 12 against 4.75; without norms it would be 6 against 9.5
    close(dictionary.encode(X)[1], [0.0, 12.0, 0.0])


def test_topk_with_a_threshold_is_a_jumprelu(tmp_path):
    saved, gated = write(tmp_path / "a", act_fn="topk"), write(tmp_path / "b")
    assert torch.equal(open_dictionary(saved).encode(X), open_dictionary(gated).encode(X))


def test_relu(tmp_path):
    dictionary = open_dictionary(write(tmp_path, act_fn="relu"))
    assert isinstance(dictionary, ReluDictionary)
    close(dictionary.encode(X), [[max(0.0, p) for p in row] for row in PRE])


def test_card(tmp_path):
    folder = tmp_path / "fnlp--Llama3_1-8B-Base-LXR-8x" / "Llama3_1-8B-Base-L15R-8x"
    dictionary = open_dictionary(write(folder) / "checkpoints" / "final.safetensors")
    card = dictionary.card
    assert (card.site, card.model) == ("layers.15", "meta-llama/Llama-3.1-8B")
    assert (card.l0, card.format, card.source) == (50, "llama_scope", str(folder))
    mlp = {"hook_point_in": "blocks.15.hook_mlp_out", "hook_point_out": "blocks.15.hook_mlp_out"}
    assert open_dictionary(write(tmp_path / "m", **mlp)).card.site == "blocks.15.hook_mlp_out"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"hook_point_out": "blocks.15.hook_mlp_out"}, "a transcoder that reads blocks.15.hook_re"),
        ({"use_glu_encoder": True}, "use_glu_encoder makes an encoder that no dictionary here has"),
        ({"norm_activation": "token-wise"}, "'token-wise' scales each input by its own norm"),
        ({"dataset_average_activation_norm": None}, "lacks dataset_average_activation_norm"),
        ({"dataset_average_activation_norm": {"out": 2}}, "lacks dataset_average_activation_norm"),
        ({"dataset_average_activation_norm": {"in": 0}}, "in is 0, expected a finite number"),
        (
            {"dataset_average_activation_norm": {"in": float("inf")}},
            "in is inf, expected a finite number",
        ),
        ({"act_fn": "gelu"}, "act_fn 'gelu' is not one of relu, topk, jumprelu"),
    ],
)
def test_what_cannot_be_held_is_refused(tmp_path, changed, expected):
    with pytest.raises(InputError, match=expected):
        open_dictionary(write(tmp_path, **changed))
