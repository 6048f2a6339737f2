"""Addresses: a folder, a file in it, or a place on the hub; anything else is one clear line."""

import json
import sys

import huggingface_hub
import pytest
import torch

from lorascope import cli
from lorascope.dictionaries.files import FORMATS, open_dictionary, save
from lorascope.errors import InputError


def test_a_folder_or_a_file_inside_it(random_dictionary, tmp_path):
    dictionary = random_dictionary("relu")
    save(dictionary, tmp_path / "sae")
    for address in (tmp_path / "sae", str(tmp_path / "sae" / "cfg.json")):
        assert torch.equal(open_dictionary(address).directions, dictionary.directions)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_from_its_folder_and_from_its_weights(layouts, tmp_path, name):
    folder = layouts[name].write(tmp_path / "layers.2")
    opened = open_dictionary(folder)
    card = opened.card
    one_of_several = name == "qwen_scope"
    whole = folder / layouts[name].weights if one_of_several else folder
    assert (card.format, card.d_model) == (name, 5)
    assert card.source == str(folder)
    assert (opened.d_model, opened.n_latents) == (5, 9)
    again = open_dictionary(folder / layouts[name].weights)
    assert torch.equal(again.encoder, opened.encoder)
    assert again.card == card.model_copy(update={"source": str(whole)})


def test_the_command_on_every_format(layouts, tmp_path, monkeypatch, capsys):
    for name in FORMATS:
        folder = layouts[name].write(tmp_path / name)
        monkeypatch.setattr(sys, "argv", ["lorascope", "dictionary", str(folder), "--json"])
        cli.main()
        facts = json.loads(capsys.readouterr().out)
        assert (facts["format"], facts["n_latents"], facts["d_model"]) == (name, 9, 5)


@pytest.mark.parametrize("name", FORMATS)
def test_trap_orientation(layouts, tmp_path, name):
    """Latent 4 reads and writes along axis 2, by the names and axes of each format."""
    layout = layouts[name]
    zeros = {n: torch.zeros(shape) for n, shape in layout.shapes.items() if len(shape) == 2}
    for key, matrix in zeros.items():
        # a matrix [9, 5] has a row a latent, a matrix [5, 9] a column
        row, column = (4, 2) if matrix.shape == (9, 5) else (2, 4)
        matrix[row, column] = 2.0 if "enc" in key.lower() else 0.5
    opened = open_dictionary(layout.write(tmp_path, zeros))
    hit = opened.encoder.nonzero().tolist(), opened.directions.nonzero().tolist()
    assert hit == ([[2, 4]], [[4, 2]])


def test_a_missing_folder_is_named_with_its_likeness(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path / "layer-3")
    with pytest.raises(
        InputError, match=r'layer-8: no such folder\. Did you mean ".*layer-3"\?.*hf://owner/repo'
    ):
        open_dictionary(tmp_path / "layer-8")
    with pytest.raises(InputError, match="no such folder"):
        open_dictionary(tmp_path / "nowhere" / "at" / "all")


def test_a_folder_of_something_else_says_what_it_holds(layouts, tmp_path):
    with pytest.raises(InputError, match="the folder holds nothing"):
        open_dictionary(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"x")
    known = ", ".join(FORMATS)
    with pytest.raises(InputError, match=rf"no dictionary .*\({known}\);.* holds model\.pt"):
        open_dictionary(tmp_path)
    layouts["sparsify"].write(tmp_path / "layers.5")
    layouts["llama_scope"].write(tmp_path / "deep" / "L5")
    with pytest.raises(InputError, match=r"Below it: deep/L5, layers\.5\.$"):
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


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose repositories are all one folder; records what is asked of it."""
    asked = {}

    def fetch(repo, **options):
        asked.update(repo=repo, **options)
        return str(tmp_path)

    class Listing:
        def list_repo_files(self, repo, revision=None):
            asked["listed"] = (repo, revision)
            return [str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(huggingface_hub, "HfApi", Listing)
    return asked


def test_only_the_dictionarys_own_files_are_fetched(random_dictionary, tmp_path, hub):
    save(random_dictionary("relu"), tmp_path / "layer_5" / "width_16k")
    opened = open_dictionary("hf://owner/repo/layer_5/width_16k@v2")
    assert opened.card.source == "hf://owner/repo/layer_5/width_16k@v2"
    assert (hub["repo"], hub["revision"]) == ("owner/repo", "v2")
    inside = "layer_5/width_16k"
    assert set(hub["allow_patterns"]) == {
        "config.json",  # what sparsify's runs keep above a hookpoint
        "layer_5/config.json",
        *(
            f"{inside}/{name}"
            for name in (
                "activation_scaler.json",
                "activation_whitening.safetensors",
                "ae.pt",
                "cfg.json",
                "checkpoints/final.safetensors",
                "config.json",
                "hyperparams.json",
                "lorascope.json",
                "params.npz",
                "params.safetensors",
                "runner_cfg.json",
                "sae.safetensors",
                "sae_weights.safetensors",
            )
        ),
    }


def test_a_wildcard_in_an_address_fetches_nothing_more(hub):
    with pytest.raises(InputError):
        open_dictionary("hf://owner/repo/layer_*")
    assert all("[*]" in pattern for pattern in hub["allow_patterns"] if "layer" in pattern)


def test_a_file_on_the_hub_stands_for_its_folder(layouts, tmp_path, hub):
    layouts["gemma_scope"].write(tmp_path / "layer_5")
    layouts["llama_scope"].write(tmp_path / "L5R")
    address = "hf://owner/repo/layer_5/params.npz"
    assert open_dictionary(address).card.source == address
    address = "hf://owner/repo/L5R/checkpoints/final.safetensors"
    assert open_dictionary(address).card.source == address
    layouts["gemma_scope"].write(tmp_path)
    assert open_dictionary("hf://owner/repo").n_latents == 9


def test_what_a_repository_has_instead(layouts, tmp_path, hub):
    for l0 in (9, 22, 37, 118):
        layouts["gemma_scope"].write(tmp_path / "layer_5" / "width_16k" / f"average_l0_{l0}")
    inside = "layer_5/width_16k"
    with pytest.raises(
        InputError,
        match=rf"no dictionary .* in {inside}\. Below it: {inside}/average_l0_118, .* and 1 more\.",
    ):
        open_dictionary(f"hf://owner/repo/{inside}")
    with pytest.raises(InputError, match=rf'Did you mean "{inside}/average_l0_22"\?'):
        open_dictionary(f"hf://owner/repo/{inside}/average_l0_21@main")
    assert hub["listed"] == ("owner/repo", "main")


def test_a_folder_not_in_the_cache_when_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **_: str(tmp_path))
    with pytest.raises(InputError, match="not in the local cache, and the hub cannot be asked"):
        open_dictionary("hf://owner/repo/layer_6")


def test_the_home_folder(random_dictionary, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(random_dictionary("relu"), tmp_path / "saes" / "mine")
    for address in ("~/saes/mine", "~/saes/mine/cfg.json"):
        assert open_dictionary(address).card.source == str(tmp_path / "saes" / "mine")
    with pytest.raises(InputError, match="no such folder"):
        open_dictionary("~/saes/other")
    with pytest.raises(InputError, match="cannot be read as a dictionary"):
        open_dictionary("~nobody-of-this-name/saes")


def test_what_an_address_may_say(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path / "sae")
    opened = open_dictionary(f"{tmp_path}/sae?site=blocks.3.hook_out")
    assert opened.card.site == "layers.3"
    assert open_dictionary(opened.card.source).card == opened.card
    with pytest.raises(InputError, match=r'\?sight= is not known\. Did you mean "site"\?'):
        open_dictionary(f"{tmp_path}/sae?sight=layers.3")
    with pytest.raises(InputError, match="says one thing twice"):
        open_dictionary(f"{tmp_path}/sae?k=1&k=2")
    with pytest.raises(InputError, match="address of a dictionary is empty"):
        open_dictionary("")
    with pytest.raises(InputError, match="site= is empty"):
        open_dictionary(f"{tmp_path}/sae?site=")
    with pytest.raises(InputError, match="k is not known there, and its address says 3"):
        open_dictionary(f"{tmp_path}/sae?k=3")
    save(random_dictionary("topk"), tmp_path / "top")
    assert open_dictionary(f"{tmp_path}/top?k=3").k == 3
    with pytest.raises(InputError, match="k is 3 there, and its address says 4"):
        open_dictionary(f"{tmp_path}/top?k=4")
    for k in ("0", "-1", "two", "1e3", "9" * 30):
        with pytest.raises(InputError, match="expected a whole number of at least 1"):
            open_dictionary(f"{tmp_path}/sae?k={k}")


def test_a_folder_with_such_a_name_is_a_folder(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path / "sae?site=layers.3")
    assert open_dictionary(tmp_path / "sae?site=layers.3").card.site == ""


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("W_enc_0.safetensors", r"a cross-layer transcoder \(CLT\)"),
        ("params_layer_3.safetensors", r"a cross-layer transcoder \(CLT\)"),
        ("layer_7.safetensors", "a set of transcoders"),
    ],
)
def test_transcoders_are_named_as_such(tmp_path, file, expected):
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(InputError, match=f"{expected}, which does not reconstruct"):
        open_dictionary(tmp_path)


def test_one_file_of_a_repository(layouts, tmp_path, hub):
    layouts["qwen_scope"].write(tmp_path)
    opened = open_dictionary("hf://Qwen/repo/layer2.sae.pt?k=3")
    assert hub["allow_patterns"] == ["layer2.sae.pt"]
    assert (opened.k, opened.card.site) == (3, "layers.2")
    assert opened.card.source == "hf://Qwen/repo/layer2.sae.pt?k=3"
    with pytest.raises(InputError, match=r"in layer3\.sae\.pt.*mean \"layer2\.sae\.pt\""):
        open_dictionary("hf://Qwen/repo/layer3.sae.pt")
    layouts["qwen_scope"].write(tmp_path / "deep")
    with pytest.raises(InputError, match=r"Below it: deep/layer2\.sae\.pt"):
        open_dictionary("hf://Qwen/repo/deep")


def test_a_hub_address_does_not_climb(hub):
    with pytest.raises(InputError, match="expected hf://owner/repo/folder"):
        open_dictionary("hf://owner/repo/../../elsewhere")


@pytest.mark.parametrize("name", ["a\nb", "\x1b]0;title\x07", "\u202eevil"])
def test_a_refusal_shows_what_a_terminal_would_act_on(tmp_path, name):
    """Names of foreign files, and addresses copied from anywhere, are printed visibly."""
    with pytest.raises(InputError) as caught:
        open_dictionary(tmp_path / name)
    assert str(caught.value).isprintable()
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="no dictionary of a known format") as caught:
        open_dictionary(tmp_path)
    assert str(caught.value).isprintable()
