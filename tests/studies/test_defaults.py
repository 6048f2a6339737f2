"""What an audit is taken to mean where little is said."""

import json

import pytest

from lorascope.errors import InputError
from lorascope.studies.audit.defaults import (
    base_of_adapters,
    completed,
    named_adapters,
    usual_sites,
)


def test_adapters_are_named_by_their_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my lora").mkdir()
    (tmp_path / "deep" / "my lora").mkdir(parents=True)
    given = ["./my lora", "deep/my lora/", "org/some-lora", "r4=runs/r=4", "."]
    assert named_adapters(given) == {
        "my-lora": "./my lora",
        "my-lora-2": "deep/my lora/",
        "some-lora": "org/some-lora",
        "r4": "runs/r=4",
        tmp_path.name: ".",
    }
    with pytest.raises(InputError, match="the name a is given twice"):
        named_adapters(["a=x", "a=y"])
    with pytest.raises(InputError, match="--adapter a=: expected"):
        named_adapters(["a="])


def rename(folder, base):
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config))


def test_the_base_is_the_one_all_adapters_name(save_adapter, tmp_path):
    folders = {name: str(save_adapter(tmp_path / name, seed=i)) for i, name in enumerate("ab")}
    for name in "ab":
        rename(tmp_path / name, "org/base")
    assert base_of_adapters(folders) == "org/base"
    rename(tmp_path / "b", "org/other")
    with pytest.raises(InputError, match=r"a: org/base, b: org/other\); give --model"):
        base_of_adapters(folders)
    rename(tmp_path / "b", None)
    with pytest.raises(InputError, match=r"b: none\); give --model"):
        base_of_adapters(folders)
    with pytest.raises(InputError, match="name no base model; give --model"):
        base_of_adapters({"b": folders["b"]})


def test_sites_are_three_depths_of_the_model(tiny_checkpoint):
    # Eight blocks: the outputs of the second, the fourth and the sixth.
    assert usual_sites("embedded", None) == ["layers.1", "layers.3", "layers.5"]
    # Of two blocks a quarter is the first, three quarters the last.
    assert usual_sites(str(tiny_checkpoint("llama")), None) == ["layers.0", "layers.1"]


def test_only_what_is_left_out_is_filled_in(save_adapter, tiny_checkpoint, tmp_path):
    model = str(tiny_checkpoint("llama"))
    folder = save_adapter(tmp_path / "a")
    rename(folder, model)
    alone = completed({"adapters": {"a": str(folder)}})
    assert alone == {
        "adapters": {"a": str(folder)},
        "model": model,
        "sites": ["layers.0", "layers.1"],
        "texts": {"sources": ["embedded"], "documents": 400},
        "dictionaries": {"architecture": {"n_latents": 1024}},
    }
    given = {
        "adapters": {"a": "nowhere"},
        "model": "m",
        "sites": ["layers.9"],
        "texts": {"documents": 9, "sources": ["t"]},
    }
    assert completed(given) == given
