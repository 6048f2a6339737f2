"""SAELens layout: what is written is read back equal, and what cannot be read says so."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError

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
)


@pytest.mark.parametrize("architecture", ["relu", "jumprelu"])
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
    assert opened.card == CARD.model_copy(update={"source": str(tmp_path / "saved")})


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


def test_without_a_card_of_ours_the_site_is_read_from_the_hook(random_dictionary, tmp_path):
    save(random_dictionary("relu"), tmp_path)
    (tmp_path / "lorascope.json").unlink()
    config = json.loads((tmp_path / "cfg.json").read_text())

    def card(**changed):
        (tmp_path / "cfg.json").write_text(json.dumps({**config, **changed}))
        return open_dictionary(tmp_path).card

    nested = card(metadata={"hook_name": "blocks.7.hook_resid_post", "model_name": "gpt2"})
    assert (nested.site, nested.model, nested.target) == ("layers.7", "gpt2", "unknown")
    flat = card(metadata=None, hook_name="blocks.2.hook_resid_post", model_name="gemma-2-2b")
    assert (flat.site, flat.model) == ("layers.2", "gemma-2-2b")
    # an input of block 7 is not an output of block 7
    assert card(metadata={"hook_name": "blocks.7.hook_resid_pre"}).site == ""


def edit(folder, fault):
    weights, config = folder / "sae_weights.safetensors", folder / "cfg.json"
    tensors, settings = load_file(weights), json.loads(config.read_text())
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-20])
        return
    if fault.startswith("no "):
        del tensors[fault.removeprefix("no ")]
    elif fault == "turned":
        tensors["W_enc"] = tensors["W_enc"].T.contiguous()
    elif fault == "list":
        settings = [settings]
    elif fault == "not json":
        config.write_text("{")
        return
    else:
        key, _, value = fault.partition("=")
        settings[key] = value
    save_file(tensors, weights)
    config.write_text(json.dumps(settings))


FAULTS = {
    "truncated": r"sae_weights\.safetensors: cannot be read",
    "no W_dec": r"lacks tensor 'W_dec'",
    "no threshold": r"lacks tensor 'threshold'",
    "turned": r"encoder has shape \(9, 5\), expected \(5, 9\)",
    "list": r"cfg\.json: expected keys and values",
    "not json": r"cfg\.json: not readable as JSON",
    "architecture=gated": r"architecture 'gated' with relu is not one of standard, jumprelu",
    "activation_fn_str=topk": r"architecture 'jumprelu' with topk is not one of",
    "activation_fn=tanh-relu": r"architecture 'jumprelu' with tanh-relu is not one of",
    "normalize_activations=layer_norm": r"'layer_norm' changes the input at run time",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_says_so_in_one_line(random_dictionary, tmp_path, fault):
    save(random_dictionary("jumprelu"), tmp_path)
    edit(tmp_path, fault)
    with pytest.raises(InputError, match=FAULTS[fault]) as caught:
        open_dictionary(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("normalised", [None, False, True, "expected_average_only_in"])
def test_older_spellings_of_a_scale_that_is_already_folded(random_dictionary, tmp_path, normalised):
    dictionary = random_dictionary("relu")
    save(dictionary, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["normalize_activations"] = normalised
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    assert torch.equal(open_dictionary(tmp_path).encoder, dictionary.encoder)


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

        def _with(self, changed):
            raise NotImplementedError

    parts = dict(random_dictionary("relu").named_buffers())
    with pytest.raises(TypeError, match="Linear has no SAELens layout"):
        save(Linear(**parts), tmp_path)
