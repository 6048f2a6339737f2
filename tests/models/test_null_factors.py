"""A null adapter times a factor: everything it draws, from the first draw, and nothing else."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch.linalg import svdvals

from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import load
from lorascope.models.null_adapters import add_null_adapters, rescale_null_adapter

IDS = torch.arange(24).reshape(2, 12) + 3
CASES = {
    "plain": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "o_proj"]}),
    "lora_bias": ("gpt2", {"target_modules": ["c_attn"], "lora_bias": True}),
    "dora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "norms": ("llama", {"target_modules": ["v_proj"], "modules_to_save": ["input_layernorm"]}),
    "head": ("llama", {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    "tokens": ("llama", {"target_modules": ["o_proj"], "trainable_token_indices": [4, 9, 11]}),
}


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


def opened(checkpoint, architecture, folders, **options):
    return load(str(checkpoint(architecture)), folders, device="cpu", **options)


def spectrum(update):
    return update.norm()[None] if update.ndim < 2 else svdvals(update)


@pytest.mark.parametrize("case", CASES)
def test_a_factor_multiplies_what_is_drawn(dense, tiny_checkpoint, save_adapter, tmp_path, case):
    """By a power of two, so that rounding plays no part in what is low-rank."""
    architecture, fields = CASES[case]
    folder = save_adapter(tmp_path / "a", architecture, **fields)
    model = opened(tiny_checkpoint, architecture, {"a": str(folder)})
    add_null_adapters(model, "a", 2, seed=5)
    before = {variant: logits(model, variant) for variant in model.variants}
    first, infos = dense(model, "a~null1"), {n: model.info(n) for n in model.null_adapters}
    with model.variant("a~null1"):
        # while it is shown; the factor is of the first draw, not of the one before
        for factor in (0.3, 4.0, 4.0):
            rescale_null_adapter(model, "a~null1", factor)
        assert model.current == "a~null1"
    for path, update in dense(model, "a~null1").items():
        # differences of tensors replaced whole have the weights' rounding, factors have none
        torch.testing.assert_close(update, 4 * first[path], rtol=1e-5, atol=1e-6)
        S = spectrum(first[path])
        assert ((spectrum(update) - 4 * S).abs() <= 1e-5 * S.max()).all()
    assert (logits(model, "a~null1") - before["a~null1"]).abs().max() > 1e-2
    others = [variant for variant in model.variants if variant != "a~null1"]
    assert all(torch.equal(logits(model, variant), before[variant]) for variant in others)
    scaled = model.info("a~null1")
    assert (scaled.factor, scaled.draw, scaled.null_of) == (4.0, 1, "a")
    assert scaled.sha256 not in {model.info(variant).sha256 for variant in others[1:]} | {
        infos["a~null1"].sha256
    }
    rescale_null_adapter(model, "a~null1", 1)
    assert torch.equal(logits(model, "a~null1"), before["a~null1"])
    assert model.info("a~null1") == infos["a~null1"]
    assert not any(p.requires_grad for p in model.module.parameters())


def test_a_factor_reaches_biases_and_relative_magnitudes_stay(
    dense, tiny_checkpoint, save_adapter, tmp_path
):
    fields = {"bias": "all", "lora_bias": True, "target_modules": ["c_attn"]}
    folder = save_adapter(tmp_path / "b", "gpt2", **fields)
    model = opened(tiny_checkpoint, "gpt2", {"b": str(folder)})
    add_null_adapters(model, "b", 1, seed=0)
    base = logits(model, "base")
    ours = {key: value.clone() for key, value in model.base_parameters.items()}
    first = {key: value.clone() for key, value in model.trained_biases("b~null0").items()}
    layers = [m for m in model.module.modules() if isinstance(m, LoraLayer)]
    trained = [m.lora_B[model.peft_name("b~null0")].bias.clone() for m in layers]
    rescale_null_adapter(model, "b~null0", 3.0)
    for key, value in model.trained_biases("b~null0").items():
        torch.testing.assert_close(value - ours[key], 3 * (first[key] - ours[key]))
    for layer, bias in zip(layers, trained, strict=True):
        assert bias.norm() > 0.1
        torch.testing.assert_close(layer.lora_B[model.peft_name("b~null0")].bias, 3 * bias)
    assert torch.equal(logits(model, "base"), base)

    folder = save_adapter(tmp_path / "d", "llama", use_dora=True, target_modules=["q_proj"])
    model = opened(tiny_checkpoint, "llama", {"d": str(folder)})
    add_null_adapters(model, "d", 1, seed=0)

    def gains():
        """m / ‖W₀ + scale · B · A‖ of block 0."""
        path, update = next(iter(dense(model, "d~null0").items()))
        magnitude = model.module.get_submodule(path).lora_magnitude_vector
        adapted = model.base_parameters[f"{path}.weight"] + update
        return magnitude[model.peft_name("d~null0")].weight / adapted.norm(dim=1)

    one = gains().clone()
    rescale_null_adapter(model, "d~null0", 5.0)
    assert one.std() > 1e-3
    torch.testing.assert_close(gains(), one, rtol=1e-5, atol=0)


def test_factors_that_mean_nothing_are_refused(tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj"])
    model = opened(tiny_checkpoint, "llama", {"a": str(folder)})
    add_null_adapters(model, "a", 1, seed=0)
    for factor in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="positive"):
            rescale_null_adapter(model, "a~null0", factor)
    for name in ("a", "base", "a~null1"):
        with pytest.raises(InputError, match="no adapter named"):
            rescale_null_adapter(model, name, 2.0)


def test_a_factor_the_dtype_cannot_hold_changes_nothing(tiny_checkpoint, save_adapter, tmp_path):
    fields = CASES["head"][1]
    folder = save_adapter(tmp_path / "a", **fields)
    model = opened(tiny_checkpoint, "llama", {"a": str(folder)}, dtype="bfloat16")
    add_null_adapters(model, "a", 1, seed=0)
    rescale_null_adapter(model, "a~null0", 2.0)
    before = logits(model, "a~null0")
    with pytest.raises(NoNullAdapter, match="float32"):
        rescale_null_adapter(model, "a~null0", 1e-5)
    assert model.info("a~null0").factor == 2.0
    assert torch.equal(logits(model, "a~null0"), before)
