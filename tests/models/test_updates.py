"""A LoRA update read as factors is the update PEFT applies."""

import shutil

import pytest
import torch
from peft import PeftModel

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.hooks import capture
from lorascope.models.prepared import prepare
from lorascope.models.sites import Site, block_list
from lorascope.models.updates import (
    DenseUpdate,
    LoraUpdate,
    base_weight,
    lora_layers,
    lora_updates,
    stream_gain,
    updated_modules,
    weight_update,
    within_block,
)

CASES = {
    "plain": ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    "rslora": ("llama", {"target_modules": ["v_proj"], "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 40},
        },
    ),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "embedding": ("llama", {"target_modules": ["embed_tokens"]}),
}
DORA = {
    "dora": ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    "dora_conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "dora_embedding": ("llama", {"target_modules": ["embed_tokens"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_updates_are_what_merging_adds(tiny_model, tiny_checkpoint, save_adapter, tmp_path, case):
    architecture, fields = CASES[case]
    folder = save_adapter(tmp_path / "a", architecture, **fields)
    model = load(str(tiny_checkpoint(architecture)), {"a": str(folder)}, device="cpu")
    bare = dict(tiny_model(architecture).named_parameters())
    merged = PeftModel.from_pretrained(tiny_model(architecture), folder).merge_and_unload()
    changed = {
        name.removesuffix(".weight"): weight - bare[name]
        for name, weight in merged.named_parameters()
        if not torch.equal(weight, bare[name])
    }
    updates = {update.module: update for update in lora_updates(model, "a")}
    assert set(updates) == set(changed)
    for module, difference in changed.items():
        update = updates[module]
        # Conv1D and embeddings store their weight as [in, out]
        wanted = difference.T if case in ("conv1d", "embedding") else difference
        assert torch.allclose(update.dense(), wanted, atol=1e-5)
        assert update.norm() == pytest.approx(difference.norm().item(), rel=1e-3)
        spectrum = torch.linalg.svdvals(difference)[: update.rank]
        assert torch.allclose(update.singular_values(), spectrum, rtol=1e-3, atol=1e-4)
    if case == "patterns":
        assert {(u.rank, u.scale) for u in updates.values()} == {(4, 3.0), (4, 10.0), (2, 6.0)}
    if case == "rslora":
        assert {u.scale for u in updates.values()} == {6.0}


def test_delta_of_one_adapted_map_is_scale_b_a_x(tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "a", target_modules=[r"up_proj"])
    model = load(str(tiny_checkpoint("llama")), {"a": str(folder)}, device="cpu")
    update = next(u for u in lora_updates(model, "a") if u.module == "model.layers.1.mlp.up_proj")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    outputs = {}
    for variant in model.variants:
        with model.variant(variant) as module:
            outputs[variant] = module.get_submodule(update.module)(x)
    delta = outputs["a"] - outputs["base"]
    assert delta.norm() > 0.1 * outputs["base"].norm()
    assert torch.allclose(delta, update.scale * x @ update.A.T @ update.B.T, atol=1e-5)


def test_norm_and_spectrum_by_hand():
    B, A = torch.tensor([[3.0], [0.0], [4.0]]), torch.tensor([[0.0, 2.0]])
    update = LoraUpdate("m", B, A, scale=-0.5)
    assert torch.equal(update.dense(), torch.tensor([[0.0, -3.0], [0.0, 0.0], [0.0, -4.0]]))
    assert update.norm() == pytest.approx(5.0)
    assert update.singular_values().tolist() == pytest.approx([5.0])


def test_each_adapter_has_its_own_updates(tiny_checkpoint, save_adapter, tmp_path):
    modules = {"a": ["q_proj"], "b": ["v_proj", "o_proj"]}
    paths = {n: str(save_adapter(tmp_path / n, target_modules=m)) for n, m in modules.items()}
    model = load(str(tiny_checkpoint("llama")), paths, device="cpu")
    for name, targets in modules.items():
        found = lora_updates(model, name)
        assert len(found) == 3 * len(targets)
        assert {u.module.rsplit(".", 1)[1] for u in found} == set(targets)


def test_updates_without_factors_are_refused(tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "d", use_dora=True, target_modules=["q_proj"])
    model = load(str(tiny_checkpoint("llama")), {"d": str(folder)}, device="cpu")
    with pytest.raises(InputError, match="not of low rank"):
        lora_updates(model, "d")
    folder = save_adapter(tmp_path / "b", "gpt2", lora_bias=True, target_modules=["c_attn"])
    model = load(str(tiny_checkpoint("gpt2")), {"b": str(folder)}, device="cpu")
    with pytest.raises(InputError, match=r"is not scale · B · A"):
        lora_updates(model, "b")


@pytest.mark.parametrize("case", [*CASES, *DORA])
def test_any_update_is_what_merging_adds(tiny_model, tiny_checkpoint, save_adapter, tmp_path, case):
    architecture, fields = (CASES | DORA)[case]
    fields = {**fields, "use_dora": case in DORA}
    folder = save_adapter(tmp_path / "a", architecture, **fields)
    model = load(str(tiny_checkpoint(architecture)), {"a": str(folder)}, device="cpu")
    merged = PeftModel.from_pretrained(tiny_model(architecture), folder).merge_and_unload()
    bare, modules = tiny_model(architecture), updated_modules(model, "a")
    assert modules == [
        path
        for path, m in bare.named_modules()
        if isinstance(getattr(m, "weight", None), torch.Tensor)
        and path != "lm_head"  # tied to the embedding in GPT-2
        and not torch.equal(m.weight, merged.get_submodule(path).weight)
    ]
    turned = "conv1d" in case or "embedding" in case
    for path in modules:
        before = bare.get_submodule(path).weight
        difference = merged.get_submodule(path).weight - before
        update = weight_update(model, "a", path)
        assert isinstance(update, DenseUpdate if case in DORA else LoraUpdate)
        assert torch.allclose(update.dense(), difference.T if turned else difference, atol=1e-5)
        assert torch.equal(base_weight(model, path), before.T if turned else before)
        assert update.norm() == pytest.approx(difference.norm().item(), rel=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_update_of_a_full_fine_tune(
    tiny_model, tiny_checkpoint, save_adapter, tmp_path, architecture
):
    paths = {
        "llama": ("model.layers.1.self_attn.v_proj", "model.embed_tokens"),
        "gpt2": ("transformer.h.1.attn.c_attn", "transformer.wte"),
    }
    tuned = tiny_model(architecture)
    for path in paths[architecture]:
        weight = tuned.get_submodule(path).weight
        weight.data[1, 2] += 3.0
    shutil.copytree(tiny_checkpoint(architecture), tmp_path / "full")
    tuned.save_pretrained(tmp_path / "full")
    targets = [path.rsplit(".", 1)[-1] for path in paths[architecture][:1]]
    lora = save_adapter(tmp_path / "a", architecture, target_modules=targets)
    variants = {"a": str(lora), "full": str(tmp_path / "full")}
    model = load(str(tiny_checkpoint(architecture)), variants, device="cpu")
    assert sorted(updated_modules(model, "full")) == sorted(paths[architecture])
    for path, turned in zip(paths[architecture], (architecture == "gpt2", True), strict=True):
        update = weight_update(model, "full", path)
        assert update.rank == min(update.dense().shape)
        wanted = torch.zeros_like(update.dense())
        wanted[(2, 1) if turned else (1, 2)] = 3.0
        assert torch.allclose(update.dense(), wanted, atol=1e-6)
        assert update.norm() == pytest.approx(3.0)
    assert model.current == "base"


def test_places_and_refusals(tiny_checkpoint, save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "a", "gpt_neox", target_modules=["dense_4h_to_h"])
    model = load(str(tiny_checkpoint("gpt_neox")), {"a": str(folder)}, device="cpu")
    inside = "gpt_neox.layers.2.mlp.dense_4h_to_h"
    assert within_block(model, inside) == (2, "mlp.dense_4h_to_h")
    assert within_block(model, "gpt_neox.embed_in") is None
    with pytest.raises(InputError, match=r"adds nothing to .*dense_h_to_4h.*Did you mean"):
        weight_update(model, "a", "gpt_neox.layers.2.mlp.dense_h_to_4h")
    with pytest.raises(InputError, match="no module"):
        base_weight(model, "gpt_neox.layers.9.mlp")
    with pytest.raises(InputError, match="no plain weight matrix"):
        base_weight(model, "gpt_neox.layers.1.input_layernorm")


WRITERS = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "gemma2": ("self_attn.o_proj", "mlp.down_proj"),
    "qwen3": ("self_attn.o_proj", "mlp.down_proj"),
}


@pytest.mark.parametrize("architecture", WRITERS)
def test_gain_is_how_an_output_reaches_the_stream(tiny_checkpoint, architecture):
    model = load(str(tiny_checkpoint(architecture)), device="cpu")
    with model.variant("base") as module:
        blocks = block_list(module)
        prefix = next(path for path, m in module.named_modules() if m is blocks)
        embedding = next(p for p, m in module.named_modules() if m is module.get_input_embeddings())
        found = {path for path, _ in module.named_modules() if stream_gain(model, path) is not None}
    inside = {f"{prefix}.{block}.{path}" for block in range(3) for path in WRITERS[architecture]}
    assert found == inside | {embedding}
    attention, mlp = (f"{prefix}.2.{path}" for path in WRITERS[architecture])
    # Without the MLP's own output, what attention writes goes straight to the stream.
    silent = module.get_submodule(mlp)
    kept = [p.data for p in silent.parameters()]
    assert _written(model, mlp)
    for parameter in silent.parameters():
        parameter.data = torch.zeros_like(parameter)
    assert _written(model, attention)
    for parameter, data in zip(silent.parameters(), kept, strict=True):
        parameter.data = data


def _written(model, path):
    """Whether a small change of the module's output changes the stream by gain · change.

    Where a norm stands between, up to the token's own factor, and to a multiple of what is there.
    """
    random = torch.Generator().manual_seed(0)
    step, tokens = torch.randn(32, generator=random) * 1e-3, torch.arange(3, 9)[None]
    seen = {}

    def change(size):
        def hook(layer, inputs, output):
            seen["output"] = output
            return output + size * step

        with model.variant("base") as module, torch.no_grad():
            handle = module.get_submodule(path).register_forward_hook(hook)
            site = Site(2)
            with capture(module, [site]) as streams:
                module(tokens)
            handle.remove()
            return streams[site][0, -1].double()

    moved = (change(1.0) - change(-1.0)) / 2
    gain = stream_gain(model, path).double()
    directions = torch.stack([gain * step, gain * seen["output"][0, -1].double()], 1)
    if not any("post_feedforward" in name for name, _ in model.module.named_modules()):
        assert torch.equal(gain, torch.ones(32).double())
        directions = directions[:, :1]
    factors = torch.linalg.lstsq(directions, moved[:, None]).solution
    return bool((directions @ factors - moved[:, None]).norm() < 1e-3 * moved.norm())


def test_layers_of_an_adapter_that_comes_later_are_found(tiny_checkpoint, save_adapter, tmp_path):
    base = str(tiny_checkpoint("llama"))
    first, second = (
        save_adapter(tmp_path / name, target_modules=[target])
        for name, target in (("a", "q_proj"), ("b", "down_proj"))
    )
    model = load(base, {"a": str(first)}, device="cpu")
    before = [path for path, _ in lora_layers(model)]
    assert before
    assert all(path.endswith("q_proj") for path in before)
    (ready,) = prepare(base, {"b": second})
    model.add_adapter(ready.files)
    after = [path for path, _ in lora_layers(model)]
    assert {path for path in after if path.endswith("down_proj")}
    assert set(before) < set(after)
