"""Llamascopium's layout against its formulas, norms among the weights; other kinds refused."""

import json
import math
import subprocess
import sys
import warnings

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError

HOOK = "blocks.4.hook_resid_post"
CONFIG = {
    "sae_type": "sae",
    "d_model": 2,
    "expansion_factor": 1.5,
    "use_decoder_bias": True,
    "act_fn": "jumprelu",
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "top_k": 50,
    "hook_point_in": HOOK,
    "hook_point_out": HOOK,
    "use_glu_encoder": False,
}
# width 2, three latents, decoder norms 5, 2, 1; mean norm 4·√2, so s = 1/4
W_E = torch.tensor([[1.0, 0.0, -2.0], [3.0, -1.0, 0.5]])
B_E = torch.tensor([0.5, 0.25, 1.0])
W_D = torch.tensor([[3.0, 4.0], [0.0, -2.0], [-1.0, 0.0]])
B_D = torch.tensor([1.0, -2.0])
LOG_THRESHOLD = torch.tensor([6.0, 1.0, 0.25]).log()
NORM = torch.tensor(4 * math.sqrt(2))
OWN = {
    "W_E": W_E,
    "b_E": B_E,
    "W_D": W_D,
    "b_D": B_D,
    "activation_function.log_jumprelu_threshold": LOG_THRESHOLD,
    f"dataset_average_activation_norm.{HOOK}": NORM,
}
# as in fnlp/Llama-Scope-R1-Distill
LINEAR = {
    "encoder.weight": W_E.T,
    "encoder.bias": B_E,
    "decoder.weight": W_D.T,
    "decoder.bias": B_D,
    "log_jumprelu_threshold": LOG_THRESHOLD,
    f"dataset_average_activation_norm.{HOOK}": NORM,
}
X = torch.tensor([[4.0, 0.0], [0.0, -4.0], [-8.0, 4.0]])


def write(folder, tensors, **changed):
    kept = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    return folder


@pytest.mark.parametrize("tensors", [OWN, LINEAR], ids=["own", "linear"])
def test_jumprelu_by_hand(tmp_path, tensors):
    opened = open_dictionary(write(tmp_path, tensors))
    # x/4: [1, 0], [0, -1], [-2, 1]; pre [1.5, .25, -1], [-2.5, 1.25, .5], [1.5, -.75, 5.5]
    # times norms 5, 2, 1: [7.5, .5, -1], [-12.5, 2.5, .5], [7.5, -1.5, 5.5]; thresholds 6, 1, .25
    # in units of the stream four times that, on directions of norm 1
    z = [[30.0, 0.0, 0.0], [0.0, 10.0, 2.0], [30.0, 0.0, 22.0]]
    torch.testing.assert_close(opened.encode(X), torch.tensor(z))
    # 30·[.6, .8] + [4, -8];  10·[0, -1] + 2·[-1, 0] + [4, -8];  the first and 22·[-1, 0]
    rows = [[22.0, 16.0], [2.0, -18.0], [0.0, 16.0]]
    torch.testing.assert_close(opened(X), torch.tensor(rows))
    assert (opened.card.format, opened.card.site) == ("llamascopium", "layers.4")
    assert not opened.subtract_bias


def encode(x, scale, with_norms, gate):
    """`SparseAutoEncoder.encode` and `decode` around a gate, inputs and outputs denormalised."""
    norms = W_D.norm(dim=1) if with_norms else torch.ones(3)
    latents = gate((x * scale @ W_E + B_E) * norms) / norms
    return latents, (latents @ W_D + B_D) / scale


GATES = {
    "relu": torch.relu,
    "topk": lambda pre: torch.where(pre >= pre.topk(2).values[..., -1:], pre, 0.0).relu(),
    "jumprelu": lambda pre: pre * (pre > LOG_THRESHOLD.exp()),
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("with_norms", [True, False])
@pytest.mark.parametrize("mode", ["dataset-wise", "inference"])
def test_every_gate_and_mode_against_its_formula(tmp_path, gate, with_norms, mode):
    tensors = {k: v for k, v in OWN.items() if gate == "jumprelu" or "jumprelu" not in k}
    settings = {"act_fn": gate, "top_k": 2, "sparsity_include_decoder_norm": with_norms}
    opened = open_dictionary(write(tmp_path, tensors, **settings, norm_activation=mode))
    scale = 0.25 if mode == "dataset-wise" else 1.0
    x = 4 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    latents, rows = encode(x, scale, with_norms, GATES[gate])
    assert 0.1 < (latents > 0).float().mean() < 0.8
    assert torch.equal(opened.encode(x) > 0, latents > 0)
    torch.testing.assert_close(opened(x), rows)
    norms = W_D.norm(dim=1) if with_norms else 1
    torch.testing.assert_close(opened.encode(x), latents * norms / scale)
    assert isinstance(opened, TopKDictionary) == (gate == "topk")
    assert opened.card.l0 == (2 if gate == "topk" else 0)


def test_without_a_decoder_bias(tmp_path):
    tensors = {name: tensor for name, tensor in OWN.items() if name != "b_D"}
    opened = open_dictionary(write(tmp_path, tensors, use_decoder_bias=False))
    assert opened.decoder_bias.tolist() == [0.0, 0.0]


def test_the_norm_of_another_hook_is_not_taken(tmp_path):
    tensors = {name: tensor for name, tensor in OWN.items() if HOOK not in name}
    tensors["dataset_average_activation_norm.blocks.9.hook_resid_post"] = NORM
    with pytest.raises(InputError, match=rf"lacks tensor '.*{HOOK}'"):
        open_dictionary(write(tmp_path, tensors))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"sae_type": "clt"}, r"a cross-layer transcoder \(CLT\), no autoencoder"),
        ({"sae_type": "crosscoder"}, "a crosscoder, no autoencoder"),
        ({"sae_type": "lorsa"}, "sparse attention, no autoencoder"),
        ({"hook_point_out": "blocks.4.hook_mlp_out"}, "a transcoder that reads blocks.4.hook_re"),
        ({"use_glu_encoder": True}, "use_glu_encoder makes"),
        ({"norm_activation": "token-wise"}, "'token-wise' scales each input"),
        ({"act_fn": "batchtopk"}, "act_fn 'batchtopk' is not one of .* more than one row"),
        ({"hook_point_in": None}, "lacks hook_point_in"),
        ({"d_model": None}, "d_model is None, expected a whole number"),
    ],
)
def test_what_cannot_be_held_is_refused(tmp_path, changed, expected):
    with pytest.raises(InputError, match=expected):
        open_dictionary(write(tmp_path, OWN, **changed))


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_norm_that_is_none(tmp_path, norm):
    tensors = {**OWN, f"dataset_average_activation_norm.{HOOK}": torch.tensor(norm)}
    with pytest.raises(InputError, match="expected a finite number above 0"):
        open_dictionary(write(tmp_path, tensors))


def test_saelens_own_layout_is_not_taken_for_it(layouts, tmp_path):
    layouts["saelens"].write(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert open_dictionary(tmp_path).card.format == "saelens"


def refusal(folder):
    with pytest.raises(InputError) as caught:
        open_dictionary(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def run_in(folder, expression, monkeypatch):
    """Do in a folder what a message says to do there."""
    monkeypatch.chdir(folder)
    eval(expression, {"torch": torch, "safetensors": safetensors})


def test_weights_of_one_process_are_converted_as_the_message_says(tmp_path, monkeypatch):
    expected = open_dictionary(write(tmp_path, OWN))
    (tmp_path / "sae_weights.safetensors").unlink()
    # As `save_checkpoint` of lm-saes writes them.
    torch.save({"sae": OWN, "version": "1"}, tmp_path / "sae_weights.pt")
    message = refusal(tmp_path)
    assert "sae_weights.pt" in message
    run_in(tmp_path, message[message.index("safetensors.torch.save_file") :], monkeypatch)
    assert torch.equal(open_dictionary(tmp_path)(X), expected(X))


def test_weights_of_several_processes_are_converted_as_the_message_says(tmp_path, monkeypatch):
    expected = open_dictionary(write(tmp_path, OWN))
    (tmp_path / "sae_weights.safetensors").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(dict(OWN), checkpoint_id=tmp_path / "sae_weights.dcp", no_dist=True)
    message = refusal(tmp_path)
    command, _, expression = message.partition("python -m ")[2].partition(", then ")
    subprocess.run([sys.executable, "-m", *command.split()], cwd=tmp_path, check=True)
    run_in(tmp_path, expression, monkeypatch)
    assert torch.equal(open_dictionary(tmp_path)(X), expected(X))
