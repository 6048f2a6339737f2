"""Mixtures of experts: old adapters on single experts, new ones on experts held together."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, Qwen3MoeConfig

from lorascope.errors import InputError
from lorascope.measures.weights import WeightSettings, weights_view
from lorascope.models import adapted, held_maps
from lorascope.models.adapted import load
from lorascope.models.other_changes import other_changes, summed_up
from lorascope.models.updates import base_weight, lora_updates, updated_modules, weight_update
from lorascope.results.labels import ALL_MODULES

IDS = torch.arange(24).reshape(2, 12) + 3
EXPERTS, RANK, ALPHA = 4, 3, 12
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
}
CONFIGS = {
    "mixtral": lambda: MixtralConfig(**SIZES, num_local_experts=EXPERTS),
    "qwen": lambda: Qwen3MoeConfig(
        **SIZES, num_experts=EXPERTS, moe_intermediate_size=16, head_dim=8
    ),
    "gpt_oss": lambda: GptOssConfig(**SIZES, num_local_experts=EXPERTS, head_dim=8),
}


def build(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[kind]())
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


@pytest.fixture
def base(tiny_checkpoint, tmp_path):
    """`base(kind)`: the folder of such a model."""

    def save(kind):
        build(kind).save_pretrained(tmp_path / kind)
        for file in tiny_checkpoint("llama").glob("tokenizer*"):
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
        return tmp_path / kind

    return save


def old_factors():
    """{(block, expert, map): (B, A)} as an adapter on single experts of a Mixtral has them."""
    random = torch.Generator().manual_seed(1)
    sizes = {"w1": (16, 32), "w3": (16, 32), "w2": (32, 16)}
    return {
        (block, expert, name): (
            torch.randn(out, RANK, generator=random) * 0.2,
            torch.randn(RANK, inner, generator=random) * 0.2,
        )
        for block in range(2)
        for expert in range(EXPERTS)
        for name, (out, inner) in sizes.items()
    }


@pytest.fixture
def old(tmp_path):
    """`old(**fields)`: the folder of an adapter on single experts."""

    def save(**fields):
        folder = tmp_path / "old"
        folder.mkdir(exist_ok=True)
        weights = {}
        for (block, expert, name), (B, A) in old_factors().items():
            path = f"base_model.model.model.layers.{block}.block_sparse_moe.experts.{expert}.{name}"
            weights |= {f"{path}.lora_A.weight": A, f"{path}.lora_B.weight": B}
        save_file(weights, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **fields}
        config.setdefault("target_modules", ["w1", "w2", "w3"])
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return save


@torch.no_grad()
def logits(model, variant):
    with model.variant(variant) as module:
        return module(input_ids=IDS).logits


def test_an_old_adapter_has_the_scale_it_was_trained_with(base, old):
    model = load(str(base("mixtral")), {"a": str(old())}, device="cpu")
    merged = build("mixtral")
    for (block, expert, name), (B, A) in old_factors().items():
        experts = merged.model.layers[block].mlp.experts
        update = ALPHA / RANK * (B @ A)
        if name == "w2":
            experts.down_proj.data[expert] += update
        else:
            rows = slice(0, 16) if name == "w1" else slice(16, 32)
            experts.gate_up_proj.data[expert][rows] += update
    with torch.no_grad():
        expected = merged(input_ids=IDS).logits
    assert (expected - logits(model, "base")).abs().max() > 1e-2
    assert torch.allclose(logits(model, "a"), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"use_rslora": True}, "rank-stabilised.*gate_up_proj hold them together.*another scale"),
        ({"alpha_pattern": {"w1": 99}}, "an alpha_pattern.*another scale"),
        ({"alpha_pattern": {"w2": 99}}, "an alpha_pattern.*another scale"),
        ({"target_modules": "all-linear", "use_rslora": True}, "rank-stabilised"),
    ],
)
def test_scales_that_peft_would_get_wrong_are_refused(base, old, monkeypatch, fields, match):
    folder = base("mixtral")
    monkeypatch.setattr(adapted, "load_base", None)
    with pytest.raises(InputError, match=match):
        load(str(folder), {"a": str(old(**fields))}, device="cpu")


@pytest.fixture
def fused(base, tmp_path):
    """`fused(kind, targets, **fields)`: an adapter trained on experts as they are held together.

    The model with it, and {parameter: adapted minus base}, as PEFT merges it.
    """

    def save(kind, targets=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"), **fields):
        config = LoraConfig(r=2, target_parameters=targets, task_type="CAUSAL_LM", **fields)
        wrapped = get_peft_model(build(kind), config)
        torch.manual_seed(1)
        for path, parameter in wrapped.named_parameters():
            if "lora_B" in path:
                torch.nn.init.normal_(parameter, std=0.1)
        wrapped.save_pretrained(tmp_path / "fused")
        before = dict(build(kind).named_parameters())
        merged = dict(wrapped.merge_and_unload().named_parameters())
        changed = {name: merged[name].detach() - before[name] for name in before}
        model = load(str(base(kind)), {"a": str(tmp_path / "fused")}, device="cpu")
        return model, {name: change for name, change in changed.items() if change.any()}

    return save


@pytest.mark.parametrize(
    ("kind", "fields"), [("qwen", {"use_rslora": True}), ("mixtral", {}), ("gpt_oss", {})]
)
def test_every_expert_held_in_one_tensor_counts(fused, kind, fields):
    """GPT-OSS stores its experts' maps the other way round."""
    model, changed = fused(kind, target_modules=["q_proj"], **fields)
    experts = {name: change for name, change in changed.items() if change.ndim == 3}
    assert len(experts) == 4
    labels = {f"{name}[{i}]" for name in experts for i in range(EXPERTS)}
    maps = [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]
    assert set(updated_modules(model, "a")) == {*labels, *maps}
    assert other_changes(model, "a") == {}
    turned = kind == "gpt_oss"
    for name, change in experts.items():
        for i in range(EXPERTS):
            update = weight_update(model, "a", f"{name}[{i}]")
            expected = change[i].T if turned else change[i]
            torch.testing.assert_close(update.dense(), expected, rtol=1e-4, atol=1e-6)
            assert update.rank == 2
            assert base_weight(model, f"{name}[{i}]").shape == expected.shape
    factored = {update.module: update.dense() for update in lora_updates(model, "a")}
    assert set(factored) == {*labels, *maps}
    view = weights_view(model, settings=WeightSettings(repeats=2))
    whole = next(
        e.value
        for e in view.estimates
        if (e.measure, e.key.module) == ("weights.norm", ALL_MODULES)
    )
    together = sum(float(change.square().sum()) for change in changed.values()) ** 0.5
    assert whole == pytest.approx(together, rel=1e-4)
    assert view.left_out == {"a": {}}
    # Of each expert's map its own spectrum.
    name = next(iter(experts))
    label = f"layers.{name.removeprefix('model.layers.')}[2]"
    rows = view.spectra[view.spectra["module"] == label]["update"].dropna()
    found = torch.linalg.svdvals(experts[name][2])[:2]
    assert rows.tolist() == pytest.approx(found.tolist(), rel=1e-3)


def test_one_matrix_held_by_a_parameter_counts(fused):
    model, changed = fused("qwen", targets=["mlp.gate.weight", "self_attn.q_proj.weight"])
    assert len(changed) == 4
    for name, change in changed.items():
        label = name.removesuffix(".weight") if "q_proj" in name else name
        update = weight_update(model, "a", label)
        torch.testing.assert_close(update.dense(), change, rtol=1e-4, atol=1e-6)
    assert other_changes(model, "a") == {}


def test_parameters_that_hold_no_known_map_are_named(fused, monkeypatch):
    model, _ = fused("qwen", target_modules=["q_proj"])
    monkeypatch.setattr(held_maps, "maps_in", lambda *_: [])
    assert updated_modules(model, "a") == [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]
    found = other_changes(model, "a")
    assert {path.split(".", 3)[3] for path in found} == {"mlp.experts", "mlp.experts.base_layer"}
    line = summed_up(found)
    assert "model.layers.*.mlp.experts (2): a parameter that holds no map known here" in line
    with pytest.raises(InputError, match="is not scale"):
        weight_update(model, "a", "model.layers.0.mlp.experts")


def test_a_bias_beside_b_is_named_and_the_matrix_looked_at(save_adapter, tiny_checkpoint, tmp_path):
    folder = save_adapter(tmp_path / "b", "gpt2", lora_bias=True, target_modules=["c_attn"])
    model = load(str(tiny_checkpoint("gpt2")), {"a": str(folder)}, device="cpu")
    modules = updated_modules(model, "a")
    assert len(modules) == 3
    layer = model.module.get_submodule(modules[1])
    B, A = layer.lora_B["variant_0"].weight, layer.lora_A["variant_0"].weight
    assert torch.allclose(weight_update(model, "a", modules[1]).dense(), 12 / 4 * B @ A)
    assert set(other_changes(model, "a")) == {f"{path}.bias" for path in modules}
    with pytest.raises(InputError, match="bias on B"):
        lora_updates(model, "a")


def test_whatever_else_an_adapter_changes_is_named(save_adapter, tiny_checkpoint, tmp_path):
    folder = save_adapter(
        tmp_path / "a",
        "gpt2",
        target_modules=["c_attn"],
        modules_to_save=["ln_f"],
        bias="lora_only",
        trainable_token_indices=[3],
    )
    model = load(str(tiny_checkpoint("gpt2")), {"a": str(folder)}, device="cpu")
    found = other_changes(model, "a")
    assert found.pop("transformer.ln_f.weight") == "a tensor saved whole"
    assert found.pop("transformer.ln_f.bias", "") in ("", "a tensor saved whole")
    # Rows of tokens are a change of a linear map; a tied head is not counted a second time.
    assert updated_modules(model, "a")[3:] == ["transformer.wte"]
    rows = weight_update(model, "a", "transformer.wte").dense()
    assert rows.any(0).nonzero().flatten().tolist() == [3]
    assert set(found.values()) == {"a trained bias"}
    assert set(found) == {f"transformer.h.{i}.attn.c_attn.bias" for i in range(3)}


def test_changed_tensors_of_a_full_fine_tune_count_or_are_named(base, tiny_checkpoint, tmp_path):
    tuned = build("qwen")
    tuned.model.layers[1].mlp.experts.down_proj.data[2:] += 0.1
    tuned.model.layers[0].mlp.experts.gate_up_proj.data[0, 3, 5] += 2.0
    tuned.model.layers[0].mlp.gate.weight.data[1] += 0.3
    tuned.model.norm.weight.data += 0.1
    tuned.model.layers[0].self_attn.q_proj.weight.data += 0.1
    tuned.save_pretrained(tmp_path / "tuned")
    for file in tiny_checkpoint("llama").glob("tokenizer*"):
        (tmp_path / "tuned" / file.name).write_bytes(file.read_bytes())
    model = load(str(base("qwen")), {"a": str(tmp_path / "tuned")}, device="cpu")
    assert set(updated_modules(model, "a")) == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.gate.weight",
        "model.layers.0.mlp.experts.gate_up_proj[0]",
        "model.layers.1.mlp.experts.down_proj[2]",
        "model.layers.1.mlp.experts.down_proj[3]",
    }
    assert set(other_changes(model, "a")) == {"model.norm.weight"}
    # [out, in], as the experts are applied: the entry in row 3 and column 5.
    one = weight_update(model, "a", "model.layers.0.mlp.experts.gate_up_proj[0]").dense()
    assert one.shape == (32, 32)
    assert one.nonzero().tolist() == [[3, 5]]
    assert one[3, 5] == pytest.approx(2.0)
    view = weights_view(model, settings=WeightSettings(repeats=2))
    whole = next(
        e.value
        for e in view.estimates
        if (e.measure, e.key.module) == ("weights.norm", ALL_MODULES)
    )
    q, router, experts = 32 * 32 * 0.01, 32 * 0.09, 2 * 32 * 16 * 0.01 + 4.0
    assert whole == pytest.approx((q + router + experts) ** 0.5, rel=1e-4)
    modules = {e.key.module for e in view.estimates}
    assert "layers.1.mlp.experts.down_proj[3]" in modules


def test_modules_an_adapter_saves_whole_count(base, tmp_path):
    saved = {"modules_to_save": ["mlp", "lm_head"], "target_modules": ["q_proj"]}
    wrapped = get_peft_model(build("qwen"), LoraConfig(r=2, task_type="CAUSAL_LM", **saved))
    wrapped.base_model.model.lm_head.modules_to_save["default"].weight.data[4] += 0.5
    mlp = wrapped.base_model.model.model.layers[1].mlp.modules_to_save["default"]
    mlp.experts.down_proj.data[1] += 0.25
    wrapped.save_pretrained(tmp_path / "a")
    model = load(str(base("qwen")), {"a": str(tmp_path / "a")}, device="cpu")
    down = "model.layers.1.mlp.experts.down_proj[1]"
    assert {"lm_head", down} < set(updated_modules(model, "a"))
    assert weight_update(model, "a", down).norm() == pytest.approx(0.25 * (32 * 16) ** 0.5)
    head = weight_update(model, "a", "lm_head").dense()
    assert head[4].tolist() == pytest.approx([0.5] * 32, rel=1e-5)
    assert not head[:4].any()
    assert not head[5:].any()
    assert other_changes(model, "a") == {}
