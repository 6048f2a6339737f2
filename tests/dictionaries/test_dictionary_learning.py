"""dictionary_learning's folders: what the configuration says, and older spellings."""

import pytest
import torch

from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError


@pytest.fixture
def write(layouts, tmp_path):
    """`write(tensors, buffer=None, **trainer)`: a folder with that trainer's configuration."""

    def build(tensors=None, buffer=None, **trainer):
        layout = layouts["dictionary_learning"]
        settings = {"trainer": {**layout.settings["trainer"], **trainer}, "buffer": buffer}
        return layout.write(tmp_path / "trainer_0", tensors, **settings)

    return build


@pytest.mark.parametrize(
    ("trainer", "io", "site"),
    [
        ({"layer": 3}, "out", "layers.3"),
        ({"layer": 3, "submodule_name": "resid_post_layer_3"}, "out", "layers.3"),
        ({"layer": 3, "submodule_name": "resid_post"}, "out", "layers.3"),
        ({"layer": 3}, "in", "layers.2"),
        ({"layer": 3, "submodule_name": "mlp_out_layer_3"}, "out", "mlp_out_layer_3"),
        ({"layer": 3, "submodule_name": "attn"}, "out", "attn_layer_3"),
        ({"layer": None}, "out", ""),
    ],
)
def test_site_and_model(write, trainer, io, site):
    card = open_dictionary(write(buffer={"io": io}, lm_name="org/small", **trainer)).card
    assert (card.site, card.model) == (site, "org/small")


TOP_K = {"dict_class": "AutoEncoderTopK", "k": 2}
NO_BIAS = {"decoder.bias": None}


def test_trap_topk_does_not_use_the_threshold_it_stores(write):
    tensors = {**NO_BIAS, "b_dec": torch.zeros(5), "threshold": torch.tensor(1e6)}
    folder = write({**tensors, "k": torch.tensor(2, dtype=torch.int)}, **TOP_K)
    z = open_dictionary(folder).encode(torch.ones(4, 5))
    assert (z > 0).sum(1).tolist() == [2, 2, 2, 2]


def test_older_topk_files_keep_k_in_the_configuration_alone(write):
    assert open_dictionary(write({**NO_BIAS, "b_dec": torch.zeros(5)}, **TOP_K)).k == 2


def test_trap_an_autoencoder_of_norm_one_is_left_as_it_stands(write):
    random = torch.Generator().manual_seed(1)
    decoder = torch.nn.functional.normalize(torch.randn(5, 9, generator=random), dim=0)
    tensors = {**NO_BIAS, "bias": torch.ones(5), "decoder.weight": decoder}
    opened = open_dictionary(write(tensors, dict_class="AutoEncoder"))
    assert torch.equal(opened.directions, decoder.T)
    longer = open_dictionary(
        write({**tensors, "decoder.weight": 3 * decoder}, dict_class="AutoEncoder")
    )
    torch.testing.assert_close(longer.directions, decoder.T)
    torch.testing.assert_close(longer.encoder, 3 * opened.encoder)


@pytest.mark.parametrize(
    ("trainer", "tensors", "expected"),
    [
        (
            {"dict_class": "BatchTopK"},
            {},
            r"dict_class 'BatchTopK' is not one of .*Did you mean \"BatchTopKSAE\"\?",
        ),
        ({"dict_class": "CrossCoder"}, {}, "dict_class 'CrossCoder' is not one of AutoEncoder,"),
        (
            {**TOP_K},
            {**NO_BIAS, "b_dec": torch.zeros(5), "k": torch.tensor(4)},
            r"k is 4 there and 2 in config\.json",
        ),
        (
            {"dict_class": "BatchTopKSAE"},
            {**NO_BIAS, "b_dec": torch.zeros(5)},
            "lacks tensor 'threshold'",
        ),
        ({}, {"gain": torch.ones(9)}, "holds gain, which this format's dictionaries do not have"),
    ],
)
def test_what_is_not_known_is_refused(write, trainer, tensors, expected):
    with pytest.raises(InputError, match=expected):
        open_dictionary(write(tensors, **trainer))


def test_a_transcoder_is_refused(write):
    with pytest.raises(InputError, match="trained with io 'in_and_out', a transcoder"):
        open_dictionary(write(buffer={"io": "in_and_out"}))


def test_a_folder_training_did_not_write(layouts, tmp_path):
    folder = layouts["dictionary_learning"].write(tmp_path, trainer=None)
    with pytest.raises(InputError, match="lacks trainer; give a folder that training wrote"):
        open_dictionary(folder)
