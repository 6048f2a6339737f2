"""A model is known by what its files hold: any overwrite shows, moving and renaming do not."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.models import identity
from lorascope.models.adapter_files import weights_digest
from lorascope.models.identity import folder_identity, model_identity


@pytest.fixture(params=["whole", "sampled"])
def checkpoint(tiny_checkpoint, tmp_path, request, monkeypatch):
    """A copy of a checkpoint whose weights are read whole, or by samples as large ones are."""
    if request.param == "sampled":
        monkeypatch.setattr(identity, "_WHOLE", 4000)
        monkeypatch.setattr(identity, "_SAMPLE", 16)
        monkeypatch.setattr(identity, "_SAMPLES", 2)
    identity._content.cache_clear()
    yield shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    identity._content.cache_clear()


def test_every_tensor_counts_and_the_place_does_not(checkpoint, tmp_path):
    before = model_identity(str(checkpoint))
    moved = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    assert model_identity(str(moved)) == before
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    assert len(weights) > 10
    found = {before}
    for name, tensor in weights.items():
        changed = {**weights, name: tensor * 1.001 + 1e-4}
        save_file(changed, file, metadata={"format": "pt"})
        found.add(model_identity(str(checkpoint)))
    assert len(found) == len(weights) + 1
    save_file(weights, file, metadata={"format": "pt"})
    assert model_identity(str(checkpoint)) == before


def test_configuration_and_tokenizer_count_and_notes_do_not(checkpoint):
    before = folder_identity(checkpoint)
    (checkpoint / "README.md").write_text("notes")
    (checkpoint / "trainer_state.json").write_text("{}")
    assert folder_identity(checkpoint) == before
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        kept = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(kept + b" ")
        assert folder_identity(checkpoint) != before
        (checkpoint / name).write_bytes(kept)
    assert folder_identity(checkpoint) == before


def test_a_full_fine_tune_is_known_by_content(checkpoint):
    before = weights_digest("full", str(checkpoint))
    file = checkpoint / "model.safetensors"
    seen = file.stat()
    weights = {name: tensor + 0.5 for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    assert file.stat().st_size == seen.st_size
    assert weights_digest("full", str(checkpoint)) != before


def test_names_on_the_hub_and_inside_the_package(tmp_path, monkeypatch):
    assert model_identity("embedded") != model_identity("embedded-it")
    assert model_identity("nobody/nothing") == "hub nobody/nothing"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr(
        identity, "try_to_load_from_cache", lambda *_a, **_k: str(snapshot / "config.json")
    )
    assert model_identity("a/b") == "commit 0123abc"


def test_an_adapter_is_known_whatever_order_its_names_are_written_in(save_adapter, tmp_path):
    folder = save_adapter(tmp_path / "a", "llama", target_modules=["q_proj", "v_proj"])
    file = folder / "adapter_config.json"
    before = weights_digest("a", str(folder))
    config = json.loads(file.read_text())
    assert len(config["target_modules"]) == 2
    config["target_modules"].reverse()
    file.write_text(json.dumps(dict(reversed(config.items()))))
    assert weights_digest("a", str(folder)) == before
    file.write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] + 1}))
    assert weights_digest("a", str(folder)) != before


def test_a_broken_header_is_left_to_whoever_loads_it(checkpoint, monkeypatch):
    monkeypatch.setattr(identity, "_WHOLE", 100)
    file = checkpoint / "model.safetensors"
    whole = file.read_bytes()
    for broken in (whole[:200], b"\xff" * 500, whole[:8] + b"[" * (len(whole) - 8)):
        file.write_bytes(broken)
        os.utime(file, ns=(0, len(broken)))
        assert len(folder_identity(checkpoint)) == 64


def test_tensors_of_one_size_changed_in_the_middle_show(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_WHOLE", 1000)
    tensors = {"a": torch.zeros(5000), "b": torch.ones(5000)}
    save_file(tensors, tmp_path / "m.safetensors")
    before = folder_identity(tmp_path)
    tensors["b"][2400:2600] += 1
    save_file(tensors, tmp_path / "m.safetensors")
    assert folder_identity(tmp_path) != before
