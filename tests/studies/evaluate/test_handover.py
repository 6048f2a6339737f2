"""What is handed over is the adapted model itself, and a dictionary that SAELens reads."""

import ast
import copy
import importlib.util
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from lorascope.cli import app
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.fits.wrapper import with_adapter
from lorascope.models.adapter_files import sha256_of
from lorascope.models.load import load_base
from lorascope.studies.evaluate.dashboards import CHECK, EXPORT, ShownTexts
from lorascope.studies.evaluate.handover import hand_over


@pytest.fixture
def long_texts(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    for i in range(6):
        (place / f"{i}.txt").write_text(" ".join(f"w{(7 * i + j) % 60}" for j in range(30 + i)))
    (place / "short.txt").write_text("w1 w2")
    return str(place)


def test_the_merged_model_computes_what_the_adapted_one_does(
    tiny_checkpoint, save_adapter, identity_dictionary, long_texts, tmp_path
):
    base = tiny_checkpoint("llama")
    adapter = save_adapter(tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    given = {"adapter": adapter, "texts": ShownTexts((long_texts,), tokens=8), "device": "cpu"}
    folder = hand_over(str(base), identity_dictionary, "1", tmp_path / "out", **given)
    ids = torch.tensor([[0, 5, 9, 30, 12]])
    module, _ = load_base(str(base), device="cpu")
    with torch.no_grad():
        bare = module(ids).logits
        expected = with_adapter(module, adapter)(ids).logits
        got = AutoModelForCausalLM.from_pretrained(folder / "model")(ids).logits
    assert torch.allclose(got, expected, atol=1e-4)
    assert not torch.allclose(got, bare, atol=1e-2)
    again = open_dictionary(folder / "dictionary")
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(again(rows), identity_dictionary(rows), atol=1e-6)
    assert json.loads((folder / "dictionary" / "cfg.json").read_text())["d_in"] == 32
    for script in ("saebench.py", "dashboard.py"):
        ast.parse((folder / script).read_text())
    assert f'"{base}"' in (folder / "saebench.py").read_text()
    with pytest.raises(InputError, match="not empty"):
        hand_over(str(base), identity_dictionary, "1", folder)


def test_what_a_dictionary_of_deltas_reads_is_written(
    tiny_checkpoint, save_adapter, identity_dictionary, long_texts, tmp_path
):
    """Against transformers' own hidden states of both models, position by position."""
    base = tiny_checkpoint("llama")
    adapter = save_adapter(tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    card = identity_dictionary.card.model_copy(update={"target": "delta"})
    dictionary = copy.copy(identity_dictionary)
    dictionary.card = card
    shown = ShownTexts((long_texts,), sequences=5, tokens=12, features=4)
    with pytest.raises(InputError, match="adapted minus base"):
        hand_over(str(base), dictionary, "1", tmp_path / "out", texts=shown, device="cpu")
    assert not (tmp_path / "out").exists()
    folder = hand_over(
        str(base), dictionary, "1", tmp_path / "out", adapter=adapter, texts=shown, device="cpu"
    )
    told, tensors = json.loads((folder / EXPORT).read_text()), load_file(folder / CHECK)
    assert told["models"] == ["model", "base"]
    assert told["reads"] == "adapted minus base"
    assert not (folder / "saebench.py").exists()
    ids = tensors["tokens"]
    assert ids.shape == (5, 12)
    states = []
    for name in told["models"]:
        module = AutoModelForCausalLM.from_pretrained(folder / name)
        assert f"{told['block']}." in " ".join(n for n, _ in module.named_modules())
        with torch.no_grad():
            # Entry 0 is the embedding.
            found = module(ids, output_hidden_states=True).hidden_states
        states.append(found[told["layer"] + 1])
    rows = states[0] - states[1]
    assert float(rows.norm()) > 0.01
    assert torch.allclose(tensors["rows"], rows[: len(tensors["rows"])], atol=1e-4)
    counted = ~torch.isin(ids, torch.tensor(told["ignored"]))
    codes = dictionary.encode(rows) * counted[..., None]
    live = (codes > 0).any(0).any(0).nonzero().squeeze(1).tolist()
    assert told["features"] == live[:4]
    assert torch.allclose(tensors["largest"], codes.amax((0, 1))[live[:4]], atol=1e-4)
    compared = codes[: len(tensors["codes"])][..., live[:4]]
    assert torch.allclose(tensors["codes"], compared, atol=1e-4)


def test_a_dictionary_of_deltas_takes_the_adapter_it_was_made_of(
    tiny_checkpoint, save_adapter, identity_dictionary, long_texts, tmp_path
):
    ours = save_adapter(tmp_path / "ours", target_modules=["q_proj"], seed=0)
    other = save_adapter(tmp_path / "other", target_modules=["q_proj"], seed=1)
    weights = ours / "adapter_model.safetensors"
    assert weights.read_bytes() != (other / weights.name).read_bytes()
    made_of = {"target": "delta", "adapter": "ours", "adapter_sha256": sha256_of(weights)}
    dictionary = copy.copy(identity_dictionary)
    dictionary.card = identity_dictionary.card.model_copy(update=made_of)
    given = {"texts": ShownTexts((long_texts,), sequences=2, tokens=8), "device": "cpu"}
    base, out = str(tiny_checkpoint("llama")), tmp_path / "out"
    with pytest.raises(InputError, match="made of adapter ours"):
        hand_over(base, dictionary, "1", out, adapter=other, **given)
    assert not out.exists()
    assert hand_over(base, dictionary, "1", out, adapter=ours, **given) == out


def test_older_transformers_find_the_rotary_base(
    tiny_checkpoint, identity_dictionary, long_texts, tmp_path
):
    """They look for it at the top, and would take 10,000 without a word."""
    place = tmp_path / "base"
    shutil.copytree(tiny_checkpoint("llama"), place)
    config = json.loads((place / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": 123456.0, "rope_type": "default"}
    (place / "config.json").write_text(json.dumps(config))
    shown = ShownTexts((long_texts,), sequences=2, tokens=8)
    folder = hand_over(
        str(place), identity_dictionary, "1", tmp_path / "out", texts=shown, device="cpu"
    )
    assert json.loads((folder / "model" / "config.json").read_text())["rope_theta"] == 123456.0


def test_the_command_says_what_is_missing(
    tiny_checkpoint, save_adapter, identity_dictionary, long_texts, tmp_path
):
    place, out = tmp_path / "dictionary", tmp_path / "out"
    save(identity_dictionary, place)
    base = str(tiny_checkpoint("llama"))
    other = save_adapter(tmp_path / "other", architecture="gpt2", target_modules=["c_attn"])

    def refused(*options, of=place):
        given = ["export", str(of), "--out", str(out), *options]
        found = CliRunner().invoke(app, given).exception
        assert isinstance(found, InputError), found
        assert not out.exists()
        return str(found)

    whole = ["--model", base, "--site", "1", "--texts", long_texts]
    if not identity_dictionary.card.model:
        assert "--model" in refused("--site", "1")
    assert "--tokens" in refused(*whole, "--tokens", "500")
    assert "nope" in refused("--site", "nope")
    elsewhere = copy.copy(identity_dictionary)
    elsewhere.card = identity_dictionary.card.model_copy(update={"site": "layers.0"})
    save(elsewhere, tmp_path / "elsewhere")
    message = refused(*whole, of=tmp_path / "elsewhere")
    assert "made for layers.0, not for layers.1" in message
    assert "--force" not in message
    assert "adapter" in refused(*whole, "--tokens", "8", "--adapter", str(other))
    done = CliRunner().invoke(
        app, ["export", str(place), "--out", str(out), *whole, "--tokens", "8"]
    )
    assert done.exit_code == 0, done.exception
    again = CliRunner().invoke(app, ["export", str(place), "--out", str(out), *whole])
    assert "holds something" in str(again.exception)


@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="SAELens is missing")
def test_saelens_opens_the_dictionary(tiny_checkpoint, identity_dictionary, long_texts, tmp_path):
    from sae_lens import SAE

    place = tmp_path / "out"
    given = {"texts": ShownTexts((long_texts,), tokens=8), "device": "cpu"}
    hand_over(str(tiny_checkpoint("llama")), identity_dictionary, "1", place, **given)
    theirs = SAE.load_from_disk(str(place / "dictionary"))
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(theirs(rows), identity_dictionary(rows), atol=1e-5)
