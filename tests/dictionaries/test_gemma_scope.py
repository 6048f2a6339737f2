"""Gemma Scope's params.npz: read as it is meant, and placed where it belongs."""

import numpy as np
import pytest
import torch

from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError

# width 2, three latents; b_dec is far from zero so that taking it off the input would show
BY_HAND = {
    "W_enc": np.array([[1.0, 0.0, -2.0], [3.0, -1.0, 0.5]], np.float32),
    "b_enc": np.array([0.5, 0.0, 1.0], np.float32),
    "W_dec": np.array([[1.0, 2.0], [0.0, -4.0], [7.0, 0.25]], np.float32),
    "b_dec": np.array([10.0, -20.0], np.float32),
    "threshold": np.array([3.25, 1.0, 0.5], np.float32),
}
X = torch.tensor([[3.0, 0.0], [0.0, -2.0], [1.0, 1.0], [0.5, 0.75]])


@pytest.mark.parametrize("upper", [True, False])
def test_trap_the_decoder_bias_is_not_subtracted_by_hand(tmp_path, upper):
    stored = BY_HAND if upper else {name.lower(): array for name, array in BY_HAND.items()}
    np.savez(tmp_path / "params.npz", **stored)
    dictionary = open_dictionary(tmp_path)
    # pre [3.5, 0, -5], [-5.5, 2, 0], [4.5, -1, -0.5], [3.25, -0.75, 0.375]; thresholds 3.25, 1,
    # 0.5, and 3.25 is not above 3.25
    z = [[3.5, 0.0, 0.0], [0.0, 2.0, 0.0], [4.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert dictionary.encode(X).tolist() == z
    # 3.5·[1, 2], 2·[0, -4], 4.5·[1, 2], nothing; plus [10, -20]
    assert dictionary(X).tolist() == [[13.5, -13.0], [10.0, -28.0], [14.5, -11.0], [10.0, -20.0]]
    assert not dictionary.subtract_bias


CACHE = "models--google--gemma-scope-9b-pt-res/snapshots/1/layer_18/width_16k/average_l0_118"


@pytest.mark.parametrize(
    ("inside", "model", "site", "l0"),
    [
        (CACHE, "google/gemma-2-9b", "layers.18", 118),
        (
            "gemma-scope-9b-it-res/layer_9/width_131k/average_l0_22",
            "google/gemma-2-9b-it",
            "layers.9",
            22,
        ),
        (
            "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6",
            "google/gemma-2-2b",
            "embeddings",
            6,
        ),
        (
            "gemma-scope-2b-pt-mlp/layer_5/width_16k/average_l0_9",
            "google/gemma-2-2b",
            "blocks.5.hook_mlp_out",
            9,
        ),
        (
            "gemma-scope-2b-pt-att/layer_5/width_16k/average_l0_9",
            "google/gemma-2-2b",
            "blocks.5.attn.hook_z",
            9,
        ),
        ("layer_5/average_l0_9", "", "", 9),
        ("somewhere", "", "", 0),
    ],
)
def test_place_on_the_hub_names_model_and_site(tmp_path, inside, model, site, l0):
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **BY_HAND)
    card = open_dictionary(folder / "params.npz").card
    assert (card.model, card.site, card.l0) == (model, site, l0)
    assert ("embeddings" in card.note) == (site == "embeddings")


@pytest.mark.parametrize(
    "inside", ["layer_5/width_16k/average_l0_9", "gemma-scope-2b-pt-res-own/layer_5", "saes"]
)
def test_trap_an_unknown_place_is_no_residual_stream(tmp_path, inside):
    """Transcoders and MLP outputs have the same tensors; a download to a folder loses the name."""
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **BY_HAND)
    card = open_dictionary(folder).card
    assert (card.site, card.unplaced) == ("", True)
    assert "transcoders have the same tensors" in card.note
    with pytest.raises(InputError, match=r"does not say what it reads.*\?site=layers\.5"):
        card.require(model="any", site="layers.5")
    card.require(model="any", site="layers.5", force=True)


@pytest.mark.parametrize(
    ("said", "site"),
    [
        ("layers.5", "layers.5"),
        ("blocks.5.hook_resid_post", "layers.5"),
        ("blocks.5.hook_mlp_out", "blocks.5.hook_mlp_out"),
    ],
)
def test_its_user_says_what_it_reads(tmp_path, said, site):
    np.savez(tmp_path / "params.npz", **BY_HAND)
    opened = open_dictionary(f"{tmp_path}?site={said}")
    assert (opened.card.site, opened.card.unplaced) == (site, False)
    assert opened.card.source == f"{tmp_path}?site={said}"
    assert open_dictionary(opened.card.source).card == opened.card
    assert open_dictionary(tmp_path, site=said).card.site == site
    if site == "layers.5":
        opened.card.require(model="any", site="layers.5")


def test_what_is_said_must_not_contradict_the_place(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-res" / "layer_5"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **BY_HAND)
    assert open_dictionary(f"{folder}?site=model.layers.5").card.site == "layers.5"
    with pytest.raises(InputError, match=r"made for layers\.5, and its address says layers\.6"):
        open_dictionary(f"{folder}?site=layers.6")
    # an option that says where to try it is refused where it is tried
    assert open_dictionary(folder, site="layers.6").card.site == "layers.5"


def test_a_transcoder_is_refused(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_5" / "width_16k"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **BY_HAND)
    with pytest.raises(InputError, match="a transcoder reads one place and writes another"):
        open_dictionary(folder)


def test_words_in_the_file_do_not_matter_and_other_numbers_do(tmp_path):
    np.savez(tmp_path / "params.npz", **BY_HAND, note=np.array(["words"]))
    assert open_dictionary(tmp_path).n_latents == 3
    np.savez(tmp_path / "params.npz", **BY_HAND, gain=np.ones(3, np.float32))
    with pytest.raises(InputError, match="holds gain, which this format's dictionaries do not"):
        open_dictionary(tmp_path)
