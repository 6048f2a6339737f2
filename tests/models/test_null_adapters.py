"""A null adapter has its adapter's spectrum, other directions, and leaves all else as it was."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch.linalg import svdvals
from transformers import AutoModelForCausalLM, MixtralConfig

import lorascope
from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import load
from lorascope.models.freezing import fingerprint
from lorascope.models.null_adapters import add_null_adapters, null_adapters_in_turn
from lorascope.models.sanity_checks import verify_live
from lorascope.models.updates import lora_updates, weight_update

IDS = torch.arange(24).reshape(2, 12) + 3
CASES = {
    "plain": ("llama", {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "rslora": ("llama", {"target_modules": ["v_proj"], "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 40},
        },
    ),
    "wide_rank": ("llama", {"target_modules": ["v_proj"], "r": 24}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "o_proj"]}),
    "all": ("llama", {"target_modules": "all-linear"}),
    "lora_bias": ("gpt2", {"target_modules": ["c_attn"], "lora_bias": True}),
    "dora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "dora_conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "use_dora": True}),
    "dora_embedding": ("llama", {"target_modules": ["embed_tokens", "v_proj"], "use_dora": True}),
    "norms": ("llama", {"target_modules": ["v_proj"], "modules_to_save": ["input_layernorm"]}),
    "head": ("llama", {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}),
    "mlp": ("llama", {"target_modules": ["k_proj"], "modules_to_save": ["mlp"]}),
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


def assert_same_spectrum(found, wanted):
    """Within 1e-5 of the largest singular value, and each of the leading ones to 1e-5."""
    theirs, ours = spectrum(found), spectrum(wanted)
    largest = ours.max(dim=-1, keepdim=True).values
    assert ((theirs - ours).abs() <= 1e-5 * largest).all()
    leading = ours > 0.1 * largest
    assert torch.allclose(theirs[leading], ours[leading], rtol=1e-5)
    assert (found - wanted).norm() > 0.5 * wanted.norm()


@pytest.mark.parametrize("case", CASES)
def test_spectra_stay_and_all_else_too(dense, tiny_checkpoint, save_adapter, tmp_path, case):
    architecture, fields = CASES[case]
    folder = save_adapter(tmp_path / "a", architecture, **fields)
    model = opened(tiny_checkpoint, architecture, {"a": str(folder)})
    base, own = logits(model, "base"), logits(model, "a")
    state = torch.get_rng_state()
    assert add_null_adapters(model, "a", 2, seed=5) == ("a~null0", "a~null1")
    assert torch.equal(torch.get_rng_state(), state)
    wanted = dense(model, "a")
    assert len(wanted) >= 2
    for name in model.null_adapters:
        found = dense(model, name)
        assert found.keys() == wanted.keys()
        for path in wanted:
            assert_same_spectrum(found[path], wanted[path])
        # a null changes what the model computes, and leaves nothing behind
        null = logits(model, name)
        assert (null - base).abs().max() > 1e-2
        assert (null - own).abs().max() > 1e-2
        assert torch.equal(logits(model, "base"), base)
        assert torch.equal(logits(model, "a"), own)
        assert torch.equal(logits(model, name), null)
    assert (logits(model, "a~null0") - logits(model, "a~null1")).abs().max() > 1e-2
    assert not any(p.requires_grad for p in model.module.parameters())
    assert not any(m.training for m in model.module.modules())


def test_nulls_are_told_apart(tiny_checkpoint, save_adapter, tmp_path):
    folders = {n: str(save_adapter(tmp_path / n, target_modules=["q_proj"])) for n in ("a", "b.1")}
    model = opened(tiny_checkpoint, "llama", folders)
    add_null_adapters(model, "b.1", 2, seed=0)
    add_null_adapters(model, "a", 1, seed=0)
    assert model.adapters == ("a", "b.1")
    assert model.null_adapters == ("b.1~null0", "b.1~null1", "a~null0")
    assert model.variants == ("base", "a", "b.1", *model.null_adapters)
    assert model.nulls_of("b.1") == ("b.1~null0", "b.1~null1")
    assert model.nulls_of("a") == ("a~null0",)
    null, own = model.info("b.1~null1"), model.info("b.1")
    assert (null.name, null.null_of, null.draw) == ("b.1~null1", "b.1", 1)
    assert (own.null_of, own.draw) == ("", None)
    assert (null.path, null.sha256 == own.sha256) == ("", False)
    assert (null.rank, null.alpha, null.target_modules) == (own.rank, own.alpha, ("q_proj",))
    assert model.has_weights("a~null0")
    # the rest of the package reads a null's own weights by its name
    assert [u.norm() for u in lora_updates(model, "a~null0")] == pytest.approx(
        [u.norm() for u in lora_updates(model, "a")], rel=1e-5
    )
    assert verify_live(model, "a~null0", IDS).delta_norm > 0.1
    for wrong in ("a~null0", "base", "c"):
        with pytest.raises(InputError, match="no adapter named"):
            add_null_adapters(model, wrong, 1, seed=0)
    with pytest.raises(InputError, match="already"):
        add_null_adapters(model, "a", 3, seed=0)
    with pytest.raises(InputError, match="1 or more"):
        add_null_adapters(model, "a", 0, seed=0)


def test_what_trains_goes_on_training(tiny_checkpoint, save_adapter, tmp_path):
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    model = opened(tiny_checkpoint, "llama", {"a": str(save_adapter(tmp_path / "a", **fields))})
    wanted = [p for n, p in model.module.named_parameters() if model.peft_name("a") in n]
    for parameter in wanted:
        parameter.requires_grad_(True)
    add_null_adapters(model, "a", 1, seed=0)
    with model.variant("a~null0") as module:
        assert {id(p) for p in module.parameters() if p.requires_grad} == {id(p) for p in wanted}
    assert len(wanted) == 3 * 2 + 1


def test_a_draw_depends_on_seed_and_adapter_and_on_nothing_else(
    dense, tiny_checkpoint, save_adapter, tmp_path
):
    modules = {"target_modules": ["q_proj", "up_proj"]}
    one = str(save_adapter(tmp_path / "one", seed=1, **modules))
    two = str(save_adapter(tmp_path / "two", seed=2, **modules))
    first = opened(tiny_checkpoint, "llama", {"x": one})
    add_null_adapters(first, "x", 2, seed=7)
    second = opened(tiny_checkpoint, "llama", {"two": two, "one": one})
    for name in ("two", "one"):
        add_null_adapters(second, name, 3, seed=7)
    third = opened(tiny_checkpoint, "llama", {"x": one})
    add_null_adapters(third, "x", 1, seed=8)
    drawn = dense(first, "x~null0")
    for path, update in drawn.items():
        assert torch.equal(dense(second, "one~null0")[path], update)
        others = [(first, "x~null1"), (second, "two~null0"), (third, "x~null0")]
        for model, name in others:
            assert (dense(model, name)[path] - update).norm() > 0.5 * update.norm()
    digests = {
        (id(m), n): m.info(n).sha256 for m in (first, second, third) for n in m.null_adapters
    }
    assert digests[id(first), "x~null0"] == digests[id(second), "one~null0"]
    assert digests[id(first), "x~null1"] == digests[id(second), "one~null1"]
    assert len(set(digests.values())) == 3 + 3 + 1
    assert torch.equal(logits(first, "x~null0"), logits(second, "one~null0"))
    assert torch.equal(logits(first, "x~null1"), logits(second, "one~null1"))
    # modules have draws of their own
    paths = [path for path in drawn if path.endswith("q_proj")]
    U = [torch.linalg.svd(drawn[path])[0][:, :4] for path in paths]
    assert (U[0].T @ U[1]).square().sum() / 4 < 0.5


@pytest.mark.parametrize("case", [*CASES, "bias"])
def test_draws_in_turn_are_those_put_on_together(tiny_checkpoint, save_adapter, tmp_path, case):
    biased = ("gpt2", {"bias": "all", "target_modules": ["c_attn"]})
    architecture, fields = biased if case == "bias" else CASES[case]
    folder = str(save_adapter(tmp_path / "a", architecture, **fields))
    together = opened(tiny_checkpoint, architecture, {"a": folder})
    names = add_null_adapters(together, "a", 3, seed=5)
    wanted = [logits(together, name) for name in names]
    model = opened(tiny_checkpoint, architecture, {"a": folder})
    own, base = logits(model, "a"), logits(model, "base")
    found = [logits(model, name) for name in null_adapters_in_turn(model, "a", 3, seed=5)]
    assert [torch.equal(one, other) for one, other in zip(found, wanted, strict=True)] == [True] * 3
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert torch.equal(logits(model, "a"), own)
    assert torch.equal(logits(model, "base"), base)
    assert len(model.null_adapters) == (3 if case == "bias" else 1)


def test_singular_vectors_are_random(tiny_checkpoint, save_adapter, tmp_path):
    """The mean squared cosine between two random 4-dimensional subspaces of 32 is 4/32."""
    folder = save_adapter(tmp_path / "a", target_modules=["q_proj", "o_proj"])
    model = opened(tiny_checkpoint, "llama", {"a": str(folder)})
    names = add_null_adapters(model, "a", 12, seed=0)
    own = {u.module: u.svd() for u in lora_updates(model, "a")}
    for side in ("U", "V"):
        overlaps = [
            float((getattr(own[u.module], side).T @ getattr(u.svd(), side)).square().sum()) / 4
            for name in names
            for u in lora_updates(model, name)
        ]
        # 72 overlaps, each of spread 0.04
        assert len(overlaps) == 72
        assert sum(overlaps) / 72 == pytest.approx(4 / 32, abs=0.025)


@pytest.mark.parametrize("case", ["dora", "dora_conv1d", "dora_embedding"])
def test_dora_keeps_its_relative_magnitudes(dense, tiny_checkpoint, save_adapter, tmp_path, case):
    architecture, fields = CASES[case]
    folder = save_adapter(tmp_path / "a", architecture, **fields)
    model = opened(tiny_checkpoint, architecture, {"a": str(folder)})
    add_null_adapters(model, "a", 2, seed=0)
    originals, updates = model.base_parameters, {n: dense(model, n) for n in model.variants[1:]}
    for path, own in updates["a"].items():
        magnitudes = model.module.get_submodule(path).lora_magnitude_vector
        # Conv1D and embeddings hold [in, out]
        turn = case == "dora_conv1d" or path.endswith("embed_tokens")
        assert own.shape == originals[f"{path}.weight"].shape
        gains = {}
        for name, dense_updates in updates.items():
            adapted = originals[f"{path}.weight"] + dense_updates[path]
            norms = (adapted.T if turn else adapted).norm(dim=1)
            gains[name] = magnitudes[model.peft_name(name)].weight / norms
        assert gains["a"].std() > 1e-3
        for name in model.null_adapters:
            assert torch.allclose(gains[name].sort()[0], gains["a"].sort()[0], rtol=1e-5)
            assert not torch.allclose(gains[name], gains["a"], rtol=1e-3)
            update = weight_update(model, name, path).dense()
            W = originals[f"{path}.weight"] + updates[name][path]
            W, bare = ((w.T if turn else w) for w in (W, originals[f"{path}.weight"]))
            assert torch.allclose(update, gains[name][:, None] * W - bare, atol=1e-5)
    assert not torch.allclose(gains["a~null0"], gains["a~null1"], rtol=1e-3)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_get_a_random_direction(tiny_checkpoint, save_adapter, tmp_path, bias):
    folder = save_adapter(tmp_path / "a", "gpt2", bias=bias, target_modules=["c_attn"])
    model = opened(tiny_checkpoint, "gpt2", {"a": str(folder)})
    before, base, own = fingerprint(model.module), logits(model, "base"), logits(model, "a")
    ours = {key: value.clone() for key, value in model.base_parameters.items()}
    with model.variant("a"):
        # added under another variant than the base: its biases are not the base's
        add_null_adapters(model, "a", 1, seed=0)
        assert torch.equal(model.module(input_ids=IDS).logits, own)
    changed = model.trained_biases("a")
    assert len(changed) >= 3
    assert model.trained_biases("a~null0").keys() == changed.keys()
    with model.variant("a~null0"):
        null = {key: value.clone() for key, value in model.base_parameters.items()}
    for key, value in changed.items():
        wanted, found = value - ours[key], null[key] - ours[key]
        assert torch.allclose(found.norm(), wanted.norm(), rtol=1e-5)
        assert abs(float(found @ wanted / wanted.norm() ** 2)) < 0.7
    assert (logits(model, "a~null0") - base).abs().max() > 1e-2
    assert torch.equal(logits(model, "base"), base)
    assert torch.equal(logits(model, "a"), own)
    assert before != fingerprint(model.module)  # PEFT holds the null's layers in the model
    assert all(torch.equal(model.base_parameters[key], ours[key]) for key in ours)


def test_lora_bias_keeps_its_norm(tiny_checkpoint, save_adapter, tmp_path):
    architecture, fields = CASES["lora_bias"]
    folder = save_adapter(tmp_path / "a", architecture, **fields)
    model = opened(tiny_checkpoint, architecture, {"a": str(folder)})
    add_null_adapters(model, "a", 1, seed=0)
    for module in model.module.modules():
        if isinstance(module, LoraLayer):
            wanted, found = (module.lora_B[model.peft_name(n)].bias for n in ("a", "a~null0"))
            assert wanted.norm() > 0.1
            assert torch.allclose(found.norm(), wanted.norm(), rtol=1e-5)
            assert abs(float(found @ wanted / wanted.norm() ** 2)) < 0.7


@torch.no_grad()
def test_each_expert_keeps_its_spectrum(dense, tiny_checkpoint, tmp_path):
    config = MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bare = AutoModelForCausalLM.from_config(config)
        bare.save_pretrained(tmp_path / "m")
        experts = ["experts.gate_up_proj", "experts.down_proj"]
        settings = LoraConfig(
            r=2, lora_alpha=6, target_modules=["q_proj"], target_parameters=experts
        )
        wrapped = get_peft_model(bare, settings)
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
        wrapped.save_pretrained(tmp_path / "a")
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}))
    model = load(str(tmp_path / "m"), {"a": str(tmp_path / "a")}, device="cpu")
    base, own = logits(model, "base"), logits(model, "a")
    add_null_adapters(model, "a", 2, seed=0)
    wanted, found = dense(model, "a"), dense(model, "a~null0")
    shapes = {tuple(update.shape) for update in wanted.values()}
    assert shapes == {(32, 32), (3, 96, 32), (3, 32, 48)}
    for path in wanted:
        assert_same_spectrum(found[path], wanted[path])
    assert (logits(model, "a~null0") - own).abs().max() > 1e-3
    assert torch.equal(logits(model, "base"), base)
    assert torch.equal(logits(model, "a"), own)
    # each expert has vectors of its own
    U = torch.linalg.svd(next(u for p, u in found.items() if u.shape == (3, 96, 32)))[0][..., :2]
    assert (U[0].T @ U[1]).square().sum() / 2 < 0.5


def test_bfloat16_models_take_null_adapters(dense, tiny_checkpoint, save_adapter, tmp_path):
    cases = {"plain": CASES["plain"][1], "head": CASES["head"][1], "dora": CASES["dora"][1]}
    folders = {n: str(save_adapter(tmp_path / n, **fields)) for n, fields in cases.items()}
    model = opened(tiny_checkpoint, "llama", folders, dtype="bfloat16")
    own = {name: logits(model, name) for name in model.variants}
    for name in cases:
        add_null_adapters(model, name, 1, seed=0)
        for path, wanted in dense(model, name).items():
            found = dense(model, f"{name}~null0")[path]
            assert torch.allclose(
                spectrum(found.float())[0], spectrum(wanted.float())[0], rtol=0.02
            )
        assert (logits(model, f"{name}~null0") - own["base"]).abs().max() > 1e-2
    assert all(torch.equal(logits(model, name), value) for name, value in own.items())


def test_what_peft_cannot_hold_twice_is_refused(dense, tiny_model, tiny_checkpoint, tmp_path):
    tiny_model("llama", tie_word_embeddings=True).save_pretrained(tmp_path / "m")
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        (tmp_path / "m" / file.name).write_bytes(file.read_bytes())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tied = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
        settings = LoraConfig(r=2, init_lora_weights=False, **tied)
        bare = tiny_model("llama", tie_word_embeddings=True)
        get_peft_model(bare, settings).save_pretrained(tmp_path / "a", save_embedding_layers=False)
    model = load(str(tmp_path / "m"), {"a": str(tmp_path / "a")}, device="cpu")
    own = logits(model, "a")
    assert len(dense(model, "a")) == 2
    with pytest.raises(NoNullAdapter, match="ensure_weight_tying"):
        add_null_adapters(model, "a", 1, seed=0)
    assert model.variants == ("base", "a")
    assert torch.equal(logits(model, "a"), own)


def test_a_failure_inside_peft_leaves_nothing(tiny_checkpoint, save_adapter, tmp_path, monkeypatch):
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
    model = opened(tiny_checkpoint, "llama", {"a": str(save_adapter(tmp_path / "a", **fields))})
    before = {variant: logits(model, variant) for variant in model.variants}
    add = PeftModel.add_adapter

    def failing(*arguments):
        add(*arguments)
        raise ValueError("no second adapter")

    whole = fingerprint(model.module)
    monkeypatch.setattr(PeftModel, "add_adapter", failing)
    with pytest.raises(NoNullAdapter, match="no second adapter"):
        add_null_adapters(model, "a", 2, seed=0)
    monkeypatch.undo()
    assert fingerprint(model.module) == whole
    assert model.variants == ("base", "a")
    assert all(torch.equal(logits(model, variant), value) for variant, value in before.items())
    assert len(add_null_adapters(model, "a", 2, seed=0)) == 2
    assert all(torch.equal(logits(model, variant), value) for variant, value in before.items())


def test_what_acts_by_hooks_has_none(tiny_checkpoint, save_latent_adapter, tmp_path):
    folder = save_latent_adapter(tmp_path)
    model = lorascope.load(str(tiny_checkpoint("llama")), {"latent": folder}, device="cpu")
    with pytest.raises(NoNullAdapter, match="hooks"):
        add_null_adapters(model, "latent", 1, seed=0)
    assert model.variants == ("base", "latent")
