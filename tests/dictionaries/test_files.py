"""Addresses: a folder, a file in it, or a place on the hub; anything else is one clear line."""

import huggingface_hub
import pytest
import torch

from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError


def test_a_folder_or_a_file_inside_it(random_dictionary, tmp_path):
    dictionary = random_dictionary("relu")
    save(dictionary, tmp_path / "sae")
    for address in (tmp_path / "sae", str(tmp_path / "sae" / "cfg.json")):
        assert torch.equal(open_dictionary(address).directions, dictionary.directions)


def test_a_missing_folder_is_named_with_its_likeness(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path / "layer-3")
    with pytest.raises(
        InputError, match=r'layer-8: no such folder\. Did you mean ".*layer-3"\?.*hf://owner/repo'
    ):
        open_dictionary(tmp_path / "layer-8")
    with pytest.raises(InputError, match="no such folder"):
        open_dictionary(tmp_path / "nowhere" / "at" / "all")


def test_a_folder_of_something_else_says_what_it_holds(tmp_path):
    with pytest.raises(InputError, match="the folder holds nothing"):
        open_dictionary(tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"no dictionary of a known format \(saelens, gemma_scope\).* holds ae\.pt"
    ):
        open_dictionary(tmp_path)


def test_hub_addresses_offline():
    with pytest.raises(
        InputError, match=r"hf://gemma: expected hf://owner/repo/folder\[@revision\]"
    ):
        open_dictionary("hf://gemma")
    with pytest.raises(
        InputError, match=r"hf://nobody/no-such-repo/x: cannot be fetched .*network"
    ):
        open_dictionary("hf://nobody/no-such-repo/x")


def test_only_the_dictionarys_own_files_are_fetched(random_dictionary, tmp_path, monkeypatch):
    save(random_dictionary("relu"), tmp_path / "layer_5" / "width_16k")
    asked = {}

    def fetch(repo, **options):
        asked.update(repo=repo, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    open_dictionary("hf://owner/repo/layer_5/width_16k@v2")
    assert (asked["repo"], asked["revision"]) == ("owner/repo", "v2")
    assert sorted(asked["allow_patterns"]) == [
        "layer_5/width_16k/cfg.json",
        "layer_5/width_16k/lorascope.json",
        "layer_5/width_16k/params.npz",
        "layer_5/width_16k/sae_weights.safetensors",
    ]
    with pytest.raises(InputError, match=r"owner/repo has no folder layer_6; check the path"):
        open_dictionary("hf://owner/repo/layer_6")
    assert asked["revision"] is None
    with pytest.raises(InputError, match="no dictionary of a known format"):
        open_dictionary("hf://owner/repo")
    assert "params.npz" in asked["allow_patterns"]
