"""One adapter of many is shown as PEFT itself would show it, without touching what trains."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from lorascope.models import switching
from lorascope.models.adapted import load
from lorascope.models.null_adapters import add_null_adapters

IDS = torch.arange(24).reshape(2, 12) + 3
PLAIN = {
    "plain": {"target_modules": ["q_proj", "up_proj"]},
    "dora": {"use_dora": True, "target_modules": ["q_proj", "down_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "o_proj"]},
    "bias": {"target_modules": ["v_proj"], "lora_bias": True},
}
WRAPPED = {
    "plain": PLAIN["plain"],
    "whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture
def opened(save_adapter, tiny_checkpoint, tmp_path):
    """`opened(variants)`: the tiny Llama with these adapters and their null adapters."""

    def build(variants):
        paths = {
            name: str(save_adapter(tmp_path / name, seed=seed, **fields))
            for seed, (name, fields) in enumerate(variants.items())
        }
        model = load(str(tiny_checkpoint("llama")), paths, device="cpu")
        for name in paths:
            add_null_adapters(model, name, 1, seed=0)
        return model

    return build


def seen(model, variant):
    """Logits under a variant, and what every layer says of itself."""
    with model.variant(variant) as module, torch.no_grad():
        layers = [part for part in module.modules() if isinstance(part, LoraLayer)]
        said = [(part.disable_adapters, tuple(part.active_adapters)) for part in layers]
        active = model._peft.active_adapter if variant != "base" else None
        return module(input_ids=IDS).logits, said, active


@pytest.mark.parametrize("variants", [PLAIN, WRAPPED])
def test_faces_are_those_that_peft_shows(opened, monkeypatch, variants):
    model, taken = opened(variants), []
    by_peft = switching._by_peft
    monkeypatch.setattr(switching, "_by_peft", lambda *given: taken.append(1) or by_peft(*given))
    fast = {variant: seen(model, variant) for variant in model.variants}
    assert bool(taken) == (variants is WRAPPED)
    monkeypatch.setattr(switching, "_layers", lambda _peft: None)
    slow = {variant: seen(model, variant) for variant in model.variants}
    assert taken
    for variant, (logits, said, active) in fast.items():
        assert torch.equal(logits, slow[variant][0])
        # A layer that is switched off computes alike whatever adapter it would show.
        off = [disabled for disabled, _ in said]
        assert (
            off == [disabled for disabled, _ in slow[variant][1]] == [variant == "base"] * len(off)
        )
        if variant != "base":
            assert (said, active) == slow[variant][1:]
            assert (logits - fast["base"][0]).abs().max() > 1e-3


def test_flags_stay_and_modules_of_a_later_adapter_are_switched_too(opened):
    model = opened({"plain": PLAIN["plain"]})
    seen(model, "plain")
    chosen = [p for n, p in model.module.named_parameters() if "up_proj.lora_B" in n]
    for parameter in chosen:
        parameter.requires_grad_(True)
    seen(model, "plain~null0")
    trains = {id(p) for p in model.module.parameters() if p.requires_grad}
    assert trains == {id(p) for p in chosen}
    # PEFT wraps further modules: they are known by the time they are asked for.
    peft = model._peft
    peft.add_adapter("late", LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False))
    switching.show(peft, "late")
    late = [part for part in model.module.modules() if isinstance(part, LoraLayer)]
    assert len(late) == 9
    assert {tuple(part.active_adapters) for part in late} == {("late",)}
    assert not any(part.disable_adapters for part in late)
    switching.show(peft, None)
    assert all(part.disable_adapters for part in late)


def test_what_the_layers_do_not_confirm_is_left_to_peft(opened, monkeypatch):
    """Another version may keep its state elsewhere: then nothing may be shown wrongly."""
    model, taken = opened({"plain": PLAIN["plain"]}), []
    expected, base = seen(model, "plain")[0], seen(model, "base")[0]
    by_peft = switching._by_peft
    monkeypatch.setattr(switching, "_by_peft", lambda *given: taken.append(1) or by_peft(*given))
    monkeypatch.setattr(
        LoraLayer, "active_adapters", property(lambda self: self._active_adapter[:0])
    )
    switching.show(model._peft, model.peft_name("plain"))
    assert taken == [1]
    monkeypatch.undo()
    with torch.no_grad():
        assert torch.equal(model.module(input_ids=IDS).logits, expected)
    assert not torch.equal(expected, base)
