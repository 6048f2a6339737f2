"""Null adapters of full fine-tunes: spectra of the difference, tied weights, what is put back."""

import pytest
import torch
from torch.linalg import svdvals

from lorascope.errors import NoNullAdapter
from lorascope.models import null_fine_tunes
from lorascope.models.adapted import load
from lorascope.models.freezing import fingerprint
from lorascope.models.null_adapters import add_null_adapters, rescale_null_adapter
from lorascope.models.updates import updated_modules, weight_update

IDS = torch.arange(24).reshape(2, 12) + 3


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


@pytest.fixture
def save_tuned(tiny_model, tiny_checkpoint):
    """`save_tuned(folder, architecture, size)`: all but the up projections of block 1 moved."""

    def save(folder, architecture="llama", size=0.05, **dtype):
        tuned = tiny_model(architecture)
        random = torch.Generator().manual_seed(3)
        for name, parameter in tuned.named_parameters():
            if "layers.1.mlp.up" not in name:
                parameter.data += size * torch.randn(parameter.shape, generator=random)
        tuned.to(**dtype).save_pretrained(folder)
        for file in tiny_checkpoint(architecture).glob("tokenizer*"):
            (folder / file.name).write_bytes(file.read_bytes())
        return str(folder)

    return save


def parameters(model, variant):
    with model.variant(variant) as module:
        return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_every_difference_keeps_its_spectrum(tiny_checkpoint, save_tuned, tmp_path, architecture):
    folder = save_tuned(tmp_path / "ft", architecture)
    model = load(str(tiny_checkpoint(architecture)), {"ft": folder}, device="cpu")
    base, own = logits(model, "base"), logits(model, "ft")
    assert add_null_adapters(model, "ft", 2, seed=4) == ("ft~null0", "ft~null1")
    assert model.adapters == ("ft",)
    assert model.info("ft~null1").null_of == "ft"
    weights = {variant: parameters(model, variant) for variant in model.variants}
    assert ("lm_head.weight" in weights["ft"]) == (architecture == "llama")
    unchanged = 0
    for name, ours in weights["base"].items():
        wanted, *found = (weights[variant][name] - ours for variant in model.variants[1:])
        if not wanted.any():
            unchanged += 1
            assert not any(update.any() for update in found)
            continue
        for update in found:
            if wanted.ndim < 2:
                torch.testing.assert_close(update.norm(), wanted.norm(), rtol=1e-5, atol=0)
            else:
                S = svdvals(wanted)
                assert ((svdvals(update) - S).abs() <= 1e-5 * S[0]).all()
            assert (update - wanted).norm() > 0.5 * wanted.norm()
        assert (found[0] - found[1]).norm() > 0.5 * wanted.norm()
    assert unchanged == (architecture == "llama")
    nulls = [logits(model, name) for name in model.null_adapters]
    assert all((null - base).abs().max() > 1e-2 for null in nulls)
    assert all((null - own).abs().max() > 1e-2 for null in nulls)
    assert (nulls[0] - nulls[1]).abs().max() > 1e-2
    assert torch.equal(logits(model, "base"), base)
    assert torch.equal(logits(model, "ft"), own)
    assert updated_modules(model, "ft~null0") == updated_modules(model, "ft")
    for module in updated_modules(model, "ft")[:2]:
        pair = [weight_update(model, name, module).norm() for name in ("ft", "ft~null0")]
        assert pair[1] == pytest.approx(pair[0], rel=1e-5)


def test_draws_are_the_same_however_they_come(
    tiny_checkpoint, save_tuned, save_adapter, tmp_path, monkeypatch
):
    """With a cache of one draw, beside an adapter with biases of its own, under another name."""
    folder = save_tuned(tmp_path / "ft", "gpt2")
    lora = str(save_adapter(tmp_path / "a", "gpt2", bias="all", target_modules=["c_attn"]))
    place = str(tiny_checkpoint("gpt2"))
    alone = load(place, {"ft": folder}, device="cpu")
    add_null_adapters(alone, "ft", 2, seed=4)
    wanted = [logits(alone, f"ft~null{draw}") for draw in range(2)]
    monkeypatch.setattr(null_fine_tunes, "CACHE", 0)
    model = load(place, {"a": lora, "tuned": folder}, device="cpu")
    before = {variant: logits(model, variant) for variant in model.variants}
    with model.variant("a"):
        add_null_adapters(model, "tuned", 2, seed=4)
        add_null_adapters(model, "a", 1, seed=4)
        for _round in range(2):
            for draw in range(2):
                assert torch.equal(logits(model, f"tuned~null{draw}"), wanted[draw])
                with model.variant(f"tuned~null{draw}"), model.variant("base") as module:
                    assert torch.equal(module(input_ids=IDS).logits, before["base"])
    for variant, value in before.items():
        assert torch.equal(logits(model, variant), value)
    other = load(place, {"ft": folder}, device="cpu")
    add_null_adapters(other, "ft", 1, seed=5)
    assert (logits(other, "ft~null0") - wanted[0]).abs().max() > 1e-2


def test_the_fine_tune_is_put_back_after_an_error(tiny_checkpoint, save_tuned, tmp_path):
    folder = save_tuned(tmp_path / "ft")
    model = load(str(tiny_checkpoint("llama")), {"ft": folder}, device="cpu")
    with model.variant("ft") as tuned:
        before = fingerprint(tuned)
    add_null_adapters(model, "ft", 1, seed=0)
    with model.variant("ft~null0") as shown:
        assert fingerprint(shown) != before
    with pytest.raises(ZeroDivisionError), model.variant("ft~null0"):
        raise ZeroDivisionError
    assert model.current == "base"
    with model.variant("ft") as tuned:
        assert fingerprint(tuned) == before


def test_what_cannot_be_matched_is_refused(tiny_model, tiny_checkpoint, save_tuned, tmp_path):
    place = str(tiny_checkpoint("llama"))
    # a change of one weight in many, which a random change of its size drowns in bfloat16's steps
    tuned = tiny_model("llama").bfloat16()
    tuned.model.layers[1].mlp.up_proj.weight.data[3, 5] *= 1.02
    tuned.save_pretrained(tmp_path / "small")
    untied = tiny_model("gpt2", tie_word_embeddings=False)
    untied.save_pretrained(tmp_path / "untied")
    for folder, source in (("small", "llama"), ("untied", "gpt2")):
        for file in tiny_checkpoint(source).glob("tokenizer*"):
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    model = load(place, {"ft": str(tmp_path / "small")}, dtype="bfloat16", device="cpu")
    with pytest.raises(NoNullAdapter, match="float32"):
        add_null_adapters(model, "ft", 1, seed=0)
    assert model.variants == ("base", "ft")
    tied = str(tiny_checkpoint("gpt2"))
    model = load(str(tmp_path / "untied"), {"ft": tied}, device="cpu")
    with pytest.raises(NoNullAdapter, match="ties"):
        add_null_adapters(model, "ft", 1, seed=0)


def test_a_factor_multiplies_the_differences(tiny_checkpoint, save_tuned, tmp_path):
    folder = save_tuned(tmp_path / "ft")
    model = load(str(tiny_checkpoint("llama")), {"ft": folder}, device="cpu")
    add_null_adapters(model, "ft", 2, seed=0)
    before = {variant: logits(model, variant) for variant in model.variants}
    base, first = (parameters(model, variant) for variant in ("base", "ft~null1"))
    info = model.info("ft~null1")
    with model.variant("ft~null1") as shown:
        rescale_null_adapter(model, "ft~null1", 7.0)
        rescale_null_adapter(model, "ft~null1", 2.5)
        assert (shown.lm_head.weight - first["lm_head.weight"]).abs().max() > 1e-3
    for name, value in parameters(model, "ft~null1").items():
        wanted = 2.5 * (first[name] - base[name])
        torch.testing.assert_close(value - base[name], wanted, rtol=1e-4, atol=1e-6)
    for variant in ("base", "ft", "ft~null0"):
        assert torch.equal(logits(model, variant), before[variant])
    assert (model.info("ft~null1").factor, model.info("ft~null0").factor) == (2.5, 1.0)
    assert model.info("ft~null1").sha256 != info.sha256
    rescale_null_adapter(model, "ft~null1", 1.0)
    assert torch.equal(logits(model, "ft~null1"), before["ft~null1"])
    assert model.info("ft~null1") == info
    low = load(str(tiny_checkpoint("llama")), {"ft": folder}, device="cpu", dtype="bfloat16")
    add_null_adapters(low, "ft", 1, seed=0)
    kept = logits(low, "ft~null0")
    with pytest.raises(NoNullAdapter, match="float32"):
        rescale_null_adapter(low, "ft~null0", 1e-3)
    assert low.info("ft~null0").factor == 1.0
    assert torch.equal(logits(low, "ft~null0"), kept)
