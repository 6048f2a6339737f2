"""Gemma Scope 2: `config.json` and `params.safetensors`, by hand and as published."""

import json

import pytest
import torch
from safetensors.torch import save_file

from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.places import site_of
from lorascope.errors import InputError

TENSORS = {
    "w_enc": torch.tensor([[1.0, 0.0, -2.0], [3.0, -1.0, 0.5]]),
    "b_enc": torch.tensor([0.5, 0.0, 1.0]),
    "w_dec": torch.tensor([[1.0, 2.0], [0.0, -4.0], [7.0, 0.25]]),
    "b_dec": torch.tensor([10.0, -20.0]),
    "threshold": torch.tensor([3.25, 1.0, 0.5]),
}
# as in google/gemma-scope-2-1b-it/resid_post/layer_22_width_16k_l0_medium
CONFIG = {
    "hf_hook_point_in": "model.layers.22.output",
    "hf_hook_point_out": "model.layers.22.output",
    "width": 3,
    "model_name": "google/gemma-3-1b-it",
    "architecture": "jump_relu",
    "l0": 60,
    "affine_connection": False,
    "type": "sae",
}


def write(folder, tensors=None, **changed):
    save_file({**TENSORS, **(tensors or {})}, folder / "params.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    return folder


def test_by_hand(tmp_path):
    dictionary = open_dictionary(write(tmp_path))
    x = torch.tensor([[3.0, 0.0], [0.0, -2.0], [0.5, 0.75]])
    # pre [3.5, 0, -5], [-5.5, 2, 0], [3.25, -0.75, 0.375]; the bias [10, -20] is added only
    assert dictionary.encode(x).tolist() == [[3.5, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    assert dictionary(x).tolist() == [[13.5, -13.0], [10.0, -28.0], [10.0, -20.0]]
    card = dictionary.card
    assert (card.site, card.model, card.l0) == ("layers.22", "google/gemma-3-1b-it", 60)


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("model.layers.17.post_feedforward_layernorm.output", None),
        ("model.layers.17.self_attn.o_proj.input", None),
        ("model.layers.0.output", "layers.0"),
    ],
)
def test_other_places_claim_no_residual_site(tmp_path, hook, site):
    folder = write(tmp_path, hf_hook_point_in=hook, hf_hook_point_out=hook)
    assert open_dictionary(folder).card.site == (site or hook)


def test_a_model_without_owner_is_googles(tmp_path):
    folder = write(tmp_path, model_name="gemma-v3-270m-pt")
    assert open_dictionary(folder).card.model == "google/gemma-3-270m-pt"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"type": "transcoder", "hf_hook_point_out": "model.layers.22.mlp.output"},
            "a transcoder that reads model.layers.22.output and writes model.layers.22.mlp.output",
        ),
        ({"type": "crosscoder"}, "a crosscoder that reads"),
        ({"affine_connection": True}, "with an affine connection"),
        ({"architecture": "topk"}, "architecture 'topk' is not jump_relu"),
    ],
)
def test_what_does_not_reconstruct_what_it_reads_is_refused(tmp_path, changed, expected):
    with pytest.raises(InputError, match=expected):
        open_dictionary(write(tmp_path, **changed))


def test_trap_an_affine_skip_the_configuration_keeps_silent_about(tmp_path):
    folder = write(tmp_path, {"affine_skip_connection": torch.eye(2)})
    with pytest.raises(InputError, match=r"a transcoder with an affine .*affine_skip"):
        open_dictionary(folder)


PLACES = [
    (
        "models--google--gemma-scope-2-1b-it/snapshots/1/resid_post/layer_22_width_16k_l0_medium",
        "google/gemma-3-1b-it",
        "layers.22",
    ),
    (
        "gemma-scope-2-270m-pt/resid_post_all/layer_0_width_16k_l0_small",
        "google/gemma-3-270m",
        "layers.0",
    ),
    (
        "gemma-scope-2-4b-pt/mlp_out/layer_7_width_16k_l0_small",
        "google/gemma-3-4b-pt",
        "model.layers.7.post_feedforward_layernorm.output",
    ),
    (
        "gemma-scope-2-4b-pt/attn_out_all/layer_7_width_16k_l0_small",
        "google/gemma-3-4b-pt",
        "model.layers.7.self_attn.o_proj.input",
    ),
]


@pytest.mark.parametrize(("inside", "model", "site"), PLACES)
def test_without_its_configuration_the_place_says_the_same(tmp_path, inside, model, site):
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    write(folder)
    (folder / "config.json").unlink()
    card = open_dictionary(folder).card
    assert (card.model, card.site, card.unplaced) == (model, site, False)
    assert "config.json is missing" in card.note


def test_the_places_are_those_saelens_infers():
    loaders = pytest.importorskip("sae_lens.loading.pretrained_sae_loaders")
    for inside, model, site in PLACES[1:]:
        repo, _, folder = inside.partition("/")
        theirs = loaders._infer_gemma_3_raw_cfg_dict(f"google/{repo}", folder)
        assert theirs["model_name"] in (model, f"{model}-pt")
        assert site_of(theirs["hf_hook_point_in"]) == site


def test_without_its_configuration_and_its_place_it_must_be_said(tmp_path):
    write(tmp_path)
    (tmp_path / "config.json").unlink()
    card = open_dictionary(tmp_path).card
    assert (card.site, card.unplaced) == ("", True)
    assert open_dictionary(f"{tmp_path}?site=layers.3").card.site == "layers.3"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("transcoder/layer_7_width_16k_l0_small", "a transcoder reads"),
        ("transcoder_all/layer_7_width_16k_l0_small_affine", "a transcoder reads"),
        ("clt/layer_7_width_16k", r"a cross-layer transcoder \(CLT\) reads"),
    ],
)
def test_a_transcoder_without_its_configuration(tmp_path, inside, expected):
    folder = tmp_path / "gemma-scope-2-1b-it" / inside
    folder.mkdir(parents=True)
    write(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=expected):
        open_dictionary(folder)
