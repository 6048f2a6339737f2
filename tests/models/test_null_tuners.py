"""Null adapters of PEFT's other tuner types: spectra of what each linear map computes."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.linalg import svdvals

import write_peft_table as script
from lorascope.errors import NoNullAdapter
from lorascope.models.adapted import load
from lorascope.models.null_adapters import add_null_adapters, rescale_null_adapter
from lorascope.models.tuner_kinds import known_kinds, refusal
from lorascope.models.updates import updated_modules, weight_update

IDS = torch.arange(24).reshape(2, 12) + 3
# Products of few numbers, rotations, rows and columns rescaled, sparse and spectral updates, norms
# and biases alone, rows of tokens.
FEW = (
    *("LOHA", "LOKR", "VERA", "OFT", "BOFT", "IA3", "FOURIERFT", "RANDLORA", "HRA", "ADALORA"),
    *("LN_TUNING", "BEFT", "TRAINABLE_TOKENS"),
)
# What they do is no matrix.
NONE = ("LILY", "ADAPTION_PROMPT")


@pytest.fixture
def opened(base, tmp_path):
    """`opened(kind, dtype="float32", **fields)`: a model with one adapter of a type, named "a"."""

    def build(kind, dtype="float32", **fields):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = script.save_adapter(kind, base, tmp_path / kind, **fields)
        return load(str(base), {"a": folder}, device="cpu", force=True, dtype=dtype)

    return build


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


def parameters(model, variant):
    with model.variant(variant) as module:
        found = module.named_parameters(remove_duplicate=False)
        return {name: value.detach().clone() for name, value in found}


def same_spectra(model, variant, factor=1.0):
    """Hold every map of a null adapter to the adapter's update; how many there are."""
    ours, drawn = parameters(model, "base"), parameters(model, variant)
    compared = set()
    for path in updated_modules(model, "a"):
        key = f"{path}.weight"
        update = weight_update(model, "a", path).dense().double()
        found = (drawn[key] - ours[key]).double()
        if "embed" in path:
            found = found.T
        wanted = factor * svdvals(update)
        torch.testing.assert_close(svdvals(found), wanted, rtol=1e-3, atol=1e-5)
        # The vectors are others: the matrices hardly overlap.
        assert abs(float((found * update).sum())) < 0.5 * float(found.norm() * update.norm())
        assert torch.equal(found.any(dim=0), update.any(dim=0)) or "embed" not in path
        compared.add(key)
    others = {k for k, v in drawn.items() if k not in compared and not _same(ours.get(k), v)}
    return len(compared), others


def _same(ours, theirs):
    return ours is not None and torch.equal(ours, theirs)


def check(model, kind):
    before = {variant: logits(model, variant) for variant in ("base", "a")}
    assert add_null_adapters(model, "a", draws=2, seed=3) == ("a~null0", "a~null1")
    assert model.adapters == ("a",)
    assert model.null_adapters == model.nulls_of("a") == ("a~null0", "a~null1")
    assert [model.info(n).null_of for n in model.null_adapters] == ["a", "a"]
    assert len({model.info(n).sha256 for n in model.variants[1:]}) == 3
    after = {variant: logits(model, variant) for variant in model.variants}
    for variant in ("base", "a"):
        assert torch.equal(after[variant], before[variant])
    for i, variant in enumerate(model.variants):
        for other in model.variants[:i]:
            assert not torch.allclose(after[variant], after[other], atol=1e-5), (
                kind,
                variant,
                other,
            )
    for null in model.null_adapters:
        maps, others = same_spectra(model, null)
        assert maps + len(others) > 0
    return others


@pytest.mark.parametrize("kind", FEW)
def test_every_update_keeps_its_spectrum(opened, kind):
    others = check(opened(kind), kind)
    expected = {
        "LN_TUNING": {f"model.layers.{i}.input_layernorm.weight" for i in (0, 1)},
        "BEFT": {f"model.layers.{i}.{m}.bias" for i in (0, 1) for m in MAPS},
    }
    assert others == expected.get(kind, set())


MAPS = ("self_attn.q_proj", "mlp.down_proj")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in known_kinds() if k not in FEW and not refusal(k)])
def test_every_type_has_null_adapters_or_a_reason(opened, kind):
    try:
        model = opened(kind)
    except Exception as error:
        pytest.skip(f"no variant: {error}")
    if kind not in NONE:
        check(model, kind)
        return
    with pytest.raises(NoNullAdapter, match="no linear map"):
        add_null_adapters(model, "a", draws=1, seed=0)


def test_what_is_no_matrix_has_no_null_adapter_and_leaves_no_variant(opened):
    model = opened("LILY")
    with pytest.raises(NoNullAdapter, match="an update that is no linear map of its input"):
        add_null_adapters(model, "a", draws=1, seed=0)
    assert model.variants == ("base", "a")


def test_norms_and_biases_keep_their_norm(opened):
    for kind in ("LN_TUNING", "BEFT"):
        model = opened(kind)
        add_null_adapters(model, "a", draws=1, seed=0)
        ours, drawn = parameters(model, "base"), parameters(model, "a~null0")
        keys = [k for k in drawn if not _same(ours.get(k), drawn[k])]
        with model.variant("a") as tuned:
            for key in keys:
                module = tuned.get_submodule(key.rpartition(".")[0])
                if kind == "LN_TUNING":
                    theirs = module.ln_tuning_layers["variant"].weight - ours[key]
                else:
                    theirs = module(torch.zeros(1, module.in_features))[0].detach()
                found = drawn[key] - ours.get(key, torch.zeros(()))
                assert float(found.norm()) == pytest.approx(float(theirs.norm()), rel=1e-4)
                assert not torch.allclose(found, theirs, atol=1e-4)


def test_a_module_saved_whole_beside_maps(opened):
    model = opened("IA3", modules_to_save=["norm", "lm_head"], target_modules=["q_proj"],
                   feedforward_modules=[])  # fmt: skip
    others = check(model, "IA3")
    assert "model.norm.weight" in others


def test_a_factor_multiplies_every_update(opened):
    model = opened("LOHA")
    add_null_adapters(model, "a", draws=2, seed=0)
    before = {variant: logits(model, variant) for variant in model.variants}
    rescale_null_adapter(model, "a~null1", 2.5)
    assert same_spectra(model, "a~null1", 2.5)[0] == 4
    assert model.info("a~null1").factor == 2.5
    for variant in ("base", "a", "a~null0"):
        assert torch.equal(logits(model, variant), before[variant])
    rescale_null_adapter(model, "a~null1", 1.0)
    assert torch.equal(logits(model, "a~null1"), before["a~null1"])


def test_a_change_below_the_steps_of_the_weights_is_refused(opened, base):
    file = Path(opened("LOHA").info("a").path) / "adapter_model.safetensors"
    small = {k: t * (1e-3 if "w1_a" in k else 1) for k, t in load_file(file).items()}
    save_file(small, file)
    model = load(str(base), {"a": file.parent}, device="cpu", force=True, dtype="bfloat16")
    with pytest.raises(NoNullAdapter, match="float32"):
        add_null_adapters(model, "a", draws=1, seed=0)
    assert model.variants == ("base", "a")


def test_draws_depend_on_the_seed_alone(opened, base, tmp_path):
    first = opened("LOKR")
    place = first.info("a").path
    again = load(str(base), {"other": place}, device="cpu", force=True)
    add_null_adapters(first, "a", draws=1, seed=5)
    add_null_adapters(again, "other", draws=1, seed=5)
    assert torch.equal(logits(first, "a~null0"), logits(again, "other~null0"))
    another = load(str(base), {"a": place}, device="cpu", force=True)
    add_null_adapters(another, "a", draws=1, seed=6)
    assert not torch.equal(logits(first, "a~null0"), logits(another, "a~null0"))
