"""SAELens layout: what is written is read back equal, and what cannot be read says so."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError

ARCHITECTURES = ["relu", "topk", "jumprelu", "gated"]
CARD = Card(
    target="delta",
    site="layers.3",
    model="embedded",
    adapter="r4",
    adapter_sha256="ab" * 32,
    scale=51.5,
    tokens=1000,
    seed=3,
    settings={"l1": 0.15},
    neuronpedia="embedded/3-delta",
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("subtract_bias", [True, False])
def test_round_trip(random_dictionary, rows, tmp_path, architecture, subtract_bias):
    dictionary = random_dictionary(architecture, subtract_bias, CARD)
    save(dictionary, tmp_path / "saved")
    opened = open_dictionary(tmp_path / "saved")
    assert type(opened) is type(dictionary)
    assert opened.subtract_bias is subtract_bias
    for name, tensor in dictionary.named_buffers():
        assert torch.equal(tensor, opened.get_buffer(name)), name
    assert torch.equal(opened(rows), dictionary(rows))
    assert torch.equal(opened.encode(rows), dictionary.encode(rows))
    found = {"source": str(tmp_path / "saved"), "format": "saelens", "d_model": 5}
    assert opened.card == CARD.model_copy(update=found)


def test_tensors_are_stored_as_saelens_names_and_turns_them(random_dictionary, tmp_path):
    dictionary = random_dictionary("jumprelu", card=CARD)
    save(dictionary, tmp_path)
    stored = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: tuple(t.shape) for name, t in stored.items()} == {
        "W_enc": (5, 9),
        "W_dec": (9, 5),
        "b_enc": (9,),
        "b_dec": (5,),
        "threshold": (9,),
    }
    assert torch.equal(stored["W_dec"], dictionary.directions)
    metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
    assert metadata["hook_name"] == "blocks.3.hook_resid_post"
    assert metadata["lorascope_target"] == "delta"
    assert metadata["neuronpedia_id"] == "embedded/3-delta"


def test_another_place_keeps_its_name(random_dictionary, tmp_path):
    save(random_dictionary("topk", card=Card(site="blocks.3.hook_mlp_out")), tmp_path)
    (tmp_path / "lorascope.json").unlink()
    assert open_dictionary(tmp_path).card.site == "blocks.3.hook_mlp_out"


def test_nothing_is_left_behind_and_weights_come_last(random_dictionary, tmp_path, monkeypatch):
    save(random_dictionary("gated"), tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == ["cfg.json", "lorascope.json", "sae_weights.safetensors"]

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("lorascope.dictionaries.formats.saelens_layout.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        save(random_dictionary("gated"), tmp_path / "cut")
    assert not (tmp_path / "cut" / "sae_weights.safetensors").exists()


def test_without_a_card_of_ours_the_place_is_read_from_the_hook(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path)
    (tmp_path / "lorascope.json").unlink()
    config = json.loads((tmp_path / "cfg.json").read_text())

    def card(**changed):
        (tmp_path / "cfg.json").write_text(json.dumps({**config, **changed}))
        return open_dictionary(tmp_path).card

    said = {
        "hook_name": "blocks.7.hook_resid_post",
        "model_name": "gpt2",
        "neuronpedia_id": "a/7-b",
    }
    nested = card(metadata=said)
    assert (nested.site, nested.model, nested.target) == ("layers.7", "gpt2", "unknown")
    assert nested.neuronpedia == "a/7-b"
    flat = card(metadata=None, hook_point="blocks.2.hook_resid_post", model_name="gemma-2-2b")
    assert (flat.site, flat.model) == ("layers.2", "gemma-2-2b")
    # the input of block 7 is the output of block 6
    assert card(metadata={"hook_name": "blocks.7.hook_resid_pre"}).site == "layers.6"
    heads = card(metadata={"hook_name": "blocks.7.attn.hook_z"}, reshape_activations="hook_z")
    assert heads.site == "blocks.7.attn.hook_z"


FAULTS = {
    "architecture=transcoder": r"a transcoder \('transcoder'\), which reads one place",
    "architecture=temporal": r"architecture 'temporal' with relu is not one of",
    "activation_fn=tanh-relu": r"architecture 'standard' with tanh-relu is not one of",
    "architecture=topk": r"cfg\.json: k is None, expected a whole number",
    "architecture=jumprelu": r"lacks tensor 'threshold'",
    "architecture=gated": r"lacks tensor 'b_gate'",
    "normalize_activations=layer_norm": r"'layer_norm' changes the input at run time",
    "normalize_activations=constant_norm_rescale": r"'constant_norm_rescale' changes the input",
    "normalize_activations=covariance_whitening": r"whitening\.safetensors: no such file",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_no_weights_can_hold_says_so_in_one_line(layouts, tmp_path, fault):
    key, _, value = fault.partition("=")
    layouts["saelens"].write(tmp_path, **{key: value})
    with pytest.raises(InputError, match=FAULTS[fault]) as caught:
        open_dictionary(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [None, False, "none"])
def test_no_normalisation_in_every_spelling(layouts, tmp_path, said):
    layouts["saelens"].write(tmp_path, normalize_activations=said)
    assert open_dictionary(tmp_path).card.note == ""


@pytest.mark.parametrize("said", [True, "expected_average_only_in"])
def test_trap_a_scale_the_file_does_not_hold_is_noted(layouts, tmp_path, said):
    """Folded by some versions and not by others, with the same configuration."""
    plain = open_dictionary(layouts["saelens"].write(tmp_path / "plain"))
    layouts["saelens"].write(tmp_path / "scaled", normalize_activations=said)
    scaled = open_dictionary(tmp_path / "scaled")
    assert torch.equal(scaled.encoder, plain.encoder)
    assert "holds no scale" in scaled.card.note
    assert "FVU" in scaled.card.note


@pytest.mark.parametrize("factor", ["much", 0, -2.0])
def test_a_scale_that_is_none(layouts, tmp_path, factor):
    layouts["saelens"].write(tmp_path, normalize_activations="expected_average_only_in")
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    with pytest.raises(InputError, match=r"activation_scaler\.json: scaling_factor is"):
        open_dictionary(tmp_path)


def test_finetuned_gains_by_hand(layouts, rows, tmp_path):
    """z·gain W_dec + b_dec, which older versions applied when decoding."""
    gains = torch.linspace(0.5, 3.0, 9)
    layout = layouts["saelens"]
    plain = open_dictionary(layout.write(tmp_path / "plain"))
    layout.write(tmp_path / "tuned", {"scaling_factor": gains}, finetuning_scaling_factor=True)
    tuned = open_dictionary(tmp_path / "tuned")
    assert torch.equal(tuned.encode(rows), plain.encode(rows))
    torch.testing.assert_close(tuned(rows), plain.decode(plain.encode(rows) * gains))
    # ones were stored for a while whether they meant anything or not; others say what they mean
    layout.write(tmp_path / "ones", {"scaling_factor": torch.ones(9)})
    assert torch.equal(open_dictionary(tmp_path / "ones").directions, plain.directions)
    layout.write(tmp_path / "off", {"scaling_factor": gains})
    with pytest.raises(InputError, match="scaling_factor is stored, but finetuning_scaling_factor"):
        open_dictionary(tmp_path / "off")
    layout.write(tmp_path / "few", {"scaling_factor": gains[:4]}, finetuning_scaling_factor=True)
    with pytest.raises(InputError, match=r"scaling_factor has shape \(4,\), expected one a latent"):
        open_dictionary(tmp_path / "few")


def test_an_unknown_tensor_is_not_passed_over(layouts, tmp_path):
    layouts["saelens"].write(tmp_path, {"W_skip": torch.eye(5)})
    with pytest.raises(InputError, match="holds W_skip, which this format's dictionaries do not"):
        open_dictionary(tmp_path)


def test_weights_of_another_project_without_our_configuration(layouts, tmp_path):
    layout = replace(layouts["saelens"], config="config.json")
    with pytest.raises(InputError, match=r"config\.json: lacks hook_point_in.*cfg\.json"):
        open_dictionary(layout.write(tmp_path))


def test_a_card_with_an_unknown_key_is_refused(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path)
    card = json.loads((tmp_path / "lorascope.json").read_text())
    (tmp_path / "lorascope.json").write_text(json.dumps({**card, "sight": "layers.3"}))
    with pytest.raises(InputError, match=r'unknown key "sight"\. Did you mean "site"\?'):
        open_dictionary(tmp_path)


def test_an_architecture_without_a_layout_is_not_written(random_dictionary, tmp_path):
    class Linear(Dictionary):
        def activate(self, pre):
            return pre

    parts = dict(random_dictionary("relu").named_buffers())
    with pytest.raises(TypeError, match="Linear has no SAELens layout"):
        save(Linear(**parts), tmp_path)
