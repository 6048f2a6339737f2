"""A pass in finer arithmetic without a finer copy of the model."""

import copy

import pytest
import torch
from torch import nn

from lorascope.models.finer_arithmetic import in_finer_arithmetic
from lorascope.models.freezing import fingerprint

IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 9, 1, 2, 3, 0]])


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize(("held", "finer"), [("float32", "float64"), ("bfloat16", "float32")])
def test_the_numbers_are_those_of_a_whole_copy(architecture, held, finer, tiny_model):
    model = tiny_model(architecture).to(getattr(torch, held))
    dtype = getattr(torch, finer)
    before, plain = fingerprint(model), model(input_ids=IDS).logits
    whole = copy.deepcopy(model).to(dtype)(input_ids=IDS, output_hidden_states=True)
    with in_finer_arithmetic(model, dtype):
        ours = model(input_ids=IDS, output_hidden_states=True)
    assert ours.logits.dtype == dtype
    assert torch.equal(ours.logits, whole.logits)
    for mine, theirs in zip(ours.hidden_states, whole.hidden_states, strict=True):
        assert torch.equal(mine, theirs)
    # The model is as it was, and computes what it did; what it computed was less exact.
    assert fingerprint(model) == before
    assert torch.equal(model(input_ids=IDS).logits, plain)
    assert not torch.equal(plain.to(dtype), ours.logits)
    assert not any("forward" in vars(module) for module in model.modules())


@torch.no_grad()
def test_an_output_matrix_in_parts_gives_the_same_logits(tiny_model, monkeypatch):
    model = tiny_model("llama")
    whole = copy.deepcopy(model).double()(input_ids=IDS).logits
    monkeypatch.setattr("lorascope.models.finer_arithmetic._PART", 32 * 5)
    with in_finer_arithmetic(model, torch.float64):
        assert torch.allclose(model(input_ids=IDS).logits, whole, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_hooks_run_once_and_the_model_is_restored_after_an_error(tiny_model):
    model, seen = tiny_model("llama"), []
    block = model.model.layers[1]
    handle = block.register_forward_hook(lambda *_: seen.append(1))
    with in_finer_arithmetic(model, torch.float64):
        model(input_ids=IDS)
    handle.remove()
    assert seen == [1]

    def fails(*_args):
        raise RuntimeError("stop here")

    def run():
        with in_finer_arithmetic(model, torch.float64):
            model(input_ids=IDS)

    handle = block.register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="stop here"):
        run()
    handle.remove()
    assert model(input_ids=IDS).logits.dtype == torch.float32
    assert isinstance(block, nn.Module)
    assert "forward" not in vars(block)
