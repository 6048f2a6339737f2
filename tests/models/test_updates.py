"""A LoRA update read as factors is the update PEFT applies."""

import pytest
import torch
from peft import PeftModel

from lorascope.errors import InputError
from lorascope.models.adapted import load
from lorascope.models.updates import LoraUpdate, lora_updates

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
    for face in model.faces:
        with model.face(face) as module:
            outputs[face] = module.get_submodule(update.module)(x)
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
