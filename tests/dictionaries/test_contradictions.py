"""Configurations and cards that contradict the tensors, or hold values of another kind."""

import json

import pytest
import torch

from lorascope.dictionaries.card import Card
from lorascope.dictionaries.fields import Fields, shown
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError


def refusal(folder, expected):
    with pytest.raises(InputError, match=expected) as caught:
        open_dictionary(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


TRAINER = {"dict_class": "AutoEncoderNew", "layer": 2}
SIZES = {
    "saelens": [{"d_in": 6}, {"d_sae": 10}, {"d_in": 9, "d_sae": 5}],
    "gemma_scope_2": [{"width": 10}],
    "llama_scope": [{"d_model": 6}, {"d_sae": 10}],
    "llamascopium": [{"d_model": 6}, {"expansion_factor": 2}],
    "sparsify": [{"d_in": 6}, {"num_latents": 10}],
    "dictionary_learning": [
        {"trainer": {**TRAINER, "activation_dim": 6}},
        {"trainer": {**TRAINER, "dict_size": 10}},
    ],
}
RIGHT = {
    "saelens": {"d_in": 5, "d_sae": 9},
    "gemma_scope_2": {"width": 9},
    "llama_scope": {"d_model": 5, "d_sae": 9},
    "llamascopium": {"d_model": 5, "expansion_factor": 1.8},
    "sparsify": {"d_in": 5, "num_latents": 9},
    "dictionary_learning": {"trainer": {**TRAINER, "activation_dim": 5, "dict_size": 9}},
}


@pytest.mark.parametrize(
    ("name", "sizes"), [(name, sizes) for name, cases in SIZES.items() for sizes in cases]
)
def test_sizes_that_the_tensors_contradict(layouts, tmp_path, name, sizes):
    assert open_dictionary(layouts[name].write(tmp_path, **RIGHT[name])).n_latents == 9
    refusal(layouts[name].write(tmp_path, **sizes), r"tensors (beside it )?have \d+|for a width")


@pytest.mark.parametrize("latents", [0, None])
def test_sparsify_may_leave_the_number_of_latents_to_the_expansion(layouts, tmp_path, latents):
    folder = layouts["sparsify"].write(tmp_path, num_latents=latents, expansion_factor=32)
    assert open_dictionary(folder).n_latents == 9


WRONG = [
    ("saelens", {"normalize_activations": 0}, "true or false"),
    ("saelens", {"normalize_activations": 1.0}, "true or false"),
    ("saelens", {"hook_name": "blocks.1\x1b[2J"}, "a text of one line"),
    ("saelens", {"model_name": "m" * 301}, "at most 300 characters"),
    ("saelens", {"apply_b_dec_to_input": "false"}, "true or false"),
    ("saelens", {"apply_b_dec_to_input": 0}, "true or false"),
    ("saelens", {"architecture": "topk", "k": True}, "whole number"),
    ("saelens", {"architecture": "topk", "k": "3"}, "whole number"),
    ("saelens", {"architecture": "topk", "k": 3.0}, "whole number"),
    ("saelens", {"architecture": "topk", "k": 0}, "at least 1"),
    (
        "saelens",
        {"architecture": "topk", "k": 2, "rescale_acts_by_decoder_norm": "no"},
        "true or false",
    ),
    ("saelens", {"finetuning_scaling_factor": "off"}, "true or false"),
    ("saelens", {"architecture": ["standard"]}, "a text"),
    ("saelens", {"activation_fn_kwargs": 3}, "keys and values"),
    ("gemma_scope_2", {"affine_connection": "false"}, "true or false"),
    ("gemma_scope_2", {"l0": float("inf")}, "finite number"),
    ("gemma_scope_2", {"l0": True}, "finite number"),
    ("llama_scope", {"sparsity_include_decoder_norm": "true"}, "true or false"),
    ("llama_scope", {"use_decoder_bias": 1}, "true or false"),
    ("llama_scope", {"jump_relu_threshold": float("inf")}, "finite number"),
    ("llama_scope", {"jump_relu_threshold": "0.5"}, "finite number"),
    ("llama_scope", {"dataset_average_activation_norm": {"in": float("nan")}}, "finite number"),
    ("llama_scope", {"top_k": True}, "whole number"),
    ("llamascopium", {"d_model": True}, "whole number"),
    ("llamascopium", {"use_glu_encoder": "no"}, "true or false"),
    ("sparsify", {"k": True}, "whole number"),
    ("sparsify", {"transcode": "false"}, "true or false"),
    ("dictionary_learning", {"trainer": {**TRAINER, "layer": -1}}, "at least 0"),
    ("dictionary_learning", {"trainer": {**TRAINER, "layer": True}}, "whole number"),
    ("dictionary_learning", {"trainer": {**TRAINER, "lm_name": 7}}, "a text"),
]


@pytest.mark.parametrize(("name", "changed", "expected"), WRONG)
def test_values_of_another_kind_than_meant(layouts, tmp_path, name, changed, expected):
    layout = layouts[name]
    refusal(layout.write(tmp_path, **changed), rf"{layout.config}.*expected .*{expected}")


def test_a_scale_of_inputs_that_is_infinite(layouts, tmp_path):
    layouts["saelens"].write(tmp_path, normalize_activations="expected_average_only_in")
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 1e999}')
    refusal(tmp_path, "scaling_factor is inf, expected a finite number above 0")


CARDS = [
    ({"d_model": 6}, "card says d_model 6, and its tensors are 5 wide"),
    ({"d_model": "5"}, "d_model"),
    ({"d_model": True}, "d_model"),
    ({"d_model": -5}, "d_model"),
    ({"tokens": -1}, "tokens"),
    ({"scale": 0.0}, "scale"),
    ({"scale": float("inf")}, "scale"),
    ({"scale": "50"}, "scale"),
    ({"l0": float("nan")}, "l0"),
    ({"seed": True}, "seed"),
    ({"site": 3}, "site"),
    ({"site": "layers.1\x1b]0;title\x07"}, "site holds control characters"),
    ({"note": "one\ntwo"}, "note holds control characters"),
    ({"unplaced": "no"}, "unplaced"),
    ({"settings": {"l1": float("inf")}}, "settings"),
    ({"settings": {"deep": [{"rate": float("nan")}]}}, "settings"),
    ({"target": "dela"}, "target"),
]


@pytest.mark.parametrize(("changed", "expected"), CARDS)
def test_a_card_is_read_as_strictly(random_dictionary, tmp_path, changed, expected):
    save(random_dictionary("relu", card=Card(scale=50.0, tokens=7)), tmp_path)
    path = tmp_path / "lorascope.json"
    whole = json.loads(path.read_text())
    assert open_dictionary(tmp_path).card.scale == 50
    path.write_text(json.dumps({**whole, **changed}))
    refusal(tmp_path, expected)


def test_whole_numbers_stand_for_numbers(random_dictionary, tmp_path):
    save(random_dictionary("relu", card=Card(scale=50.0)), tmp_path)
    path = tmp_path / "lorascope.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scale": 50, "l0": 3}))
    card = open_dictionary(tmp_path).card
    assert (card.scale, card.l0) == (50.0, 3.0)


def test_fields_by_hand():
    fields = Fields({"none": None, "k": 3, "x": 2.5, "big": 10**400, "on": False}, "f.json")
    assert "none" not in fields
    assert "k" in fields
    assert (fields.whole("k"), fields.whole("none")) == (3, None)
    assert (fields.number("x"), fields.number("k"), fields.number("none")) == (2.5, 3.0, None)
    assert fields.flag("on", True) is False
    assert fields.flag("none", True) is True
    with pytest.raises(InputError, match=r"f\.json: big is .*expected a finite number"):
        fields.number("big")
    with pytest.raises(InputError, match="expected a finite number above 3"):
        fields.number("k", above=3)
    with pytest.raises(InputError, match=r"f\.json, on: "):
        Fields({"on": {"k": "a"}}, "f.json").inner("on").whole("k")
    assert fields.over({"x": 1}, {"k": "m"}).everything()["m"] == 3


def test_a_foreign_value_is_shown_cut():
    assert shown("a" * 1000) == "'" + "a" * 56 + "..."
    assert shown(10**5000) == "a int too long to show"


def test_negative_thresholds_are_noted(random_dictionary, tmp_path):
    kept = random_dictionary("jumprelu")
    save(kept, tmp_path / "above")
    assert open_dictionary(tmp_path / "above").card.note == ""
    below = kept.with_tensors({"threshold": torch.tensor([-1.0] * 2 + [0.0] * 7)})
    save(below, tmp_path / "below")
    opened = open_dictionary(tmp_path / "below")
    assert opened.card.note.startswith("2 of 9 thresholds lie below 0")
    save(opened, tmp_path / "again")
    assert open_dictionary(tmp_path / "again").card.note == opened.card.note
