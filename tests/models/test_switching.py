"""Switching without PEFT's own loop leaves everything as PEFT's own switching would."""

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from lorascope.models.adapted import load
from lorascope.models.freezing import gradients_kept
from lorascope.models.switching import show


def theirs(base, peft, name):
    with gradients_kept(base):
        if name is None:
            peft.base_model.disable_adapter_layers()
        else:
            peft.base_model.enable_adapter_layers()
            peft.set_adapter(name)


def state(base, peft):
    layers = [m for m in base.modules() if isinstance(m, BaseTunerLayer)]
    flags = [p.requires_grad for p in base.parameters()]
    shown = [(m.disable_adapters, tuple(m.active_adapters)) for m in layers]
    return shown, flags, peft.active_adapter, tuple(peft.base_model.active_adapters)


@pytest.fixture
def model(tiny_checkpoint, save_adapter, tmp_path):
    paths = {
        name: str(save_adapter(tmp_path / name, seed=seed, target_modules=["q_proj", "up_proj"]))
        for seed, name in enumerate("ab")
    }
    return load(str(tiny_checkpoint("llama")), paths, device="cpu")


def test_every_layer_flag_and_output_is_what_peft_leaves(model):
    base, peft = model._base, model._peft
    next(iter(base.parameters())).requires_grad_(True)
    ids = torch.tensor([[0, 5, 9, 11]])
    names = [model.peft_name("a"), None, model.peft_name("b"), None, model.peft_name("a")]
    seen = []
    for name in names:
        outcomes = []
        for way in (show, theirs):
            way(base, peft, name)
            with torch.no_grad():
                outcomes.append((state(base, peft), base(ids).logits))
        assert outcomes[0][0] == outcomes[1][0]
        assert torch.equal(outcomes[0][1], outcomes[1][1])
        seen.append(outcomes[0][1])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[0], seen[4])


def test_modules_saved_whole_are_switched_too(tiny_checkpoint, save_adapter, tmp_path):
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    path = save_adapter(tmp_path / "whole", **fields)
    model = load(str(tiny_checkpoint("llama")), {"whole": str(path)}, device="cpu")
    wrapper = next(m for m in model._base.modules() if hasattr(m, "modules_to_save"))
    x = torch.ones(1, 32)
    before = wrapper(x)
    with model.face("whole"):
        during = wrapper(x)
    assert not torch.equal(before, during)
    assert torch.equal(before, wrapper(x))
