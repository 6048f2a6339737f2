"""A base under another name is the same model if its weights are, and else another one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.errors import InputError
from lorascope.models import adapted, same_weights
from lorascope.models.prepared import prepare
from lorascope.models.same_weights import compare, files_of

GOLDEN = Path(__file__).parents[1] / "reference" / "golden" / "bitsandbytes"
MATRIX = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def original(tiny_checkpoint):
    return tiny_checkpoint("llama")


@pytest.fixture
def copied(original, tmp_path):
    """`copied(change)`: a copy under another name, its {name: tensor} changed by a function."""

    def make(change, name="re-upload"):
        folder = shutil.copytree(original, tmp_path / name)
        weights = change(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def cast(dtype):
    return lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()}


def one_number(name):
    def change(weights):
        weights[name].view(-1)[1] += 0.02
        return weights

    return change


def longer_vocabulary(weights):
    more = torch.ones(1, 32)
    named = ("model.embed_tokens.weight", "lm_head.weight")
    return {k: torch.cat([t, more]) if k in named else t for k, t in weights.items()}


@pytest.mark.parametrize(
    "change",
    [lambda w: w, cast(torch.bfloat16), cast(torch.float16), longer_vocabulary],
    ids=["copy", "bfloat16", "float16", "vocabulary"],
)
def test_a_copy_in_another_form_is_the_same(original, copied, change):
    found = compare(original, copied(change))
    assert found.same
    assert "blocks 0, 1, 2" in found.about


def test_two_halves_of_one_float32(copied):
    """float16 and bfloat16 of the same numbers share bfloat16's precision."""
    halves = copied(cast(torch.float16), "half"), copied(cast(torch.bfloat16), "brain")
    assert compare(*halves).same


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
        "model.norm.weight",
        "model.embed_tokens.weight",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_number_is_enough_to_tell_models_apart(original, copied, name, dtype):
    folder = copied(lambda w: cast(dtype)(one_number(name)(w)))
    if dtype == torch.bfloat16:
        # Where the step is above the coarser dtype's precision.
        assert abs(0.02 / load_file(original / "model.safetensors")[name].view(-1)[1]) > 0.01
    found = compare(original, folder)
    assert (found.same, found.about) == (False, f"{name} differs")


def test_other_shapes_are_another_model(original, copied):
    name = "model.layers.0.mlp.up_proj.weight"
    found = compare(original, copied(lambda w: {**w, name: w[name][:-1].clone()}))
    assert (found.same, found.about) == (False, f"{name} differs")


@pytest.mark.parametrize("kind", ["nf4", "nf4-nested", "fp4", "fp4-nested"])
def test_four_bit_copies_of_bitsandbytes(kind, tmp_path):
    """Codes that bitsandbytes made of a matrix, held against that matrix."""
    plain, packed = GOLDEN / "plain", GOLDEN / kind
    for pair in ((plain, packed), (packed, plain)):
        found = compare(*pair)
        assert found.same
        assert "1 of them by their 4-bit codes" in found.about
    weights = load_file(plain / "model.safetensors")
    # A fine-tune: every number changes by some five per cent, fewer than most steps between codes.
    noise = torch.randn(weights[MATRIX].shape, generator=torch.Generator().manual_seed(1))
    weights[MATRIX] = (weights[MATRIX].float() * (1 + 0.05 * noise)).bfloat16()
    save_file(weights, tmp_path / "model.safetensors")
    found = compare(tmp_path, packed)
    assert (found.same, found.about) == (False, f"{MATRIX} differs")


def test_matrices_that_cannot_be_compared_decide_nothing(tmp_path):
    """Equal norms are no proof: a merged adapter leaves them as they were."""
    weights = load_file(GOLDEN / "plain" / "model.safetensors")
    eight = {**weights, MATRIX: weights[MATRIX].to(torch.int8), f"{MATRIX}.SCB": torch.ones(24)}
    save_file(eight, tmp_path / "model.safetensors")
    assert compare(GOLDEN / "plain", tmp_path) is None
    other = {f"language_model.{name}": tensor for name, tensor in weights.items()}
    save_file(other, tmp_path / "model.safetensors")
    assert compare(GOLDEN / "plain", tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert compare(GOLDEN / "plain", tmp_path) is None


@pytest.fixture
def adapter_for(save_adapter, tmp_path):
    """`adapter_for(base)`: the folder of an adapter whose configuration names that base."""

    def make(base):
        folder = save_adapter(tmp_path / "adapter", target_modules=["q_proj"])
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
        return folder

    return make


def test_a_re_upload_is_accepted_and_said(original, copied, adapter_for):
    folder = adapter_for(copied(cast(torch.bfloat16), "org-model-bf16"))
    model = adapted.load(str(original), {"a": str(folder)}, device="cpu")
    said = model.info("a").base_compared
    assert "org-model-bf16" in said
    assert str(original) in said
    assert "agree" in said


def test_another_model_is_refused_though_its_folder_has_the_same_name(
    original, copied, adapter_for, tmp_path
):
    made = copied(one_number("model.layers.0.mlp.up_proj.weight"))
    named = tmp_path / "elsewhere" / original.name
    shutil.copytree(made, named)
    folder = str(adapter_for(named))
    with pytest.raises(InputError, match=r"not the same \(model.layers.0.mlp.up_proj.*--force"):
        prepare(str(original), {"a": folder})
    (forced,) = prepare(str(original), {"a": folder}, force=True)
    assert forced.files.info.base_compared == ""
    # Where those weights are gone, the name is all there is.
    shutil.rmtree(named)
    (by_name,) = prepare(str(original), {"a": folder})
    assert by_name.files.info.base_compared == ""


def test_without_its_files_only_names_are_compared(original, adapter_for):
    folder = str(adapter_for("unsloth/tiny-llama-unsloth-bnb-4bit"))
    with pytest.raises(InputError, match="only the names were compared, its weights are not on"):
        prepare(str(original), {"a": folder})


def test_where_files_of_a_hub_id_lie(original, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    asked = []

    def cached(model, file, revision=None):
        asked.append((model, file, revision))
        return str(snapshot / file)

    monkeypatch.setattr(same_weights, "try_to_load_from_cache", cached)
    assert files_of("org/name", "branch") is None  # a configuration without weights
    shutil.copy(original / "model.safetensors", snapshot)
    assert files_of("org/name", "branch") == snapshot
    assert asked == [("org/name", "config.json", "branch")] * 2
    assert files_of(str(original)) == original
    assert files_of("embedded") != files_of("embedded-it")
    assert not compare(files_of("embedded"), files_of("embedded-it")).same
