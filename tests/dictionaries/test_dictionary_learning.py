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


# width 2, three latents; the bias is far from zero, so that taking it off the input would show
BY_HAND = {
    "encoder.weight": torch.tensor([[1.0, 3.0], [0.0, -1.0], [-2.0, 0.5]]),
    "encoder.bias": torch.tensor([0.5, 0.0, 1.0]),
    "decoder.weight": torch.tensor([[3.0, 0.0, 0.0], [4.0, -1.0, 2.0]]),
}
BIAS = torch.tensor([2.0, -1.0])
X = torch.tensor([[3.0, 0.0], [0.0, -2.0]])


@pytest.mark.parametrize("said", ["AutoEncoder", "AutoEncoderNew"])
def test_trap_decoder_bias_is_added_only_whatever_the_class_is_called(tmp_path, layouts, said):
    """Trainers file AutoEncoderNew as AutoEncoder; its loader leaves its directions as they are."""
    layout = layouts["dictionary_learning"]
    folder = layout.write(tmp_path, trainer={"dict_class": said, "layer": 2})
    torch.save({**BY_HAND, "decoder.bias": BIAS}, folder / layout.weights)
    opened = open_dictionary(folder)
    # pre [3.5, 0, -5] and [-5.5, 2, 0]
    assert opened.encode(X).tolist() == [[3.5, 0.0, 0.0], [0.0, 2.0, 0.0]]
    # 3.5·[3, 4] and 2·[0, -1], plus [2, -1]
    assert opened(X).tolist() == [[12.5, 13.0], [2.0, -3.0]]
    assert not opened.subtract_bias


def test_an_autoencoder_takes_its_bias_off_and_has_unit_directions(tmp_path, layouts):
    layout = layouts["dictionary_learning"]
    folder = layout.write(tmp_path, trainer={"dict_class": "AutoEncoder", "layer": 2})
    torch.save({**BY_HAND, "bias": BIAS}, folder / layout.weights)
    # x - bias [1, 1] and [-2, -1]; pre [4.5, -1, -0.5] and [-4.5, 1, 4.5]; norms 5, 1, 2
    expected = torch.tensor([[22.5, 0.0, 0.0], [0.0, 1.0, 9.0]])
    torch.testing.assert_close(open_dictionary(folder).encode(X), expected)


DISAGREEING = [
    ("AutoEncoderNew", "bias"),
    ("AutoEncoderNew", "b_dec"),
    ("AutoEncoder", "b_dec"),
    ("AutoEncoderTopK", "bias"),
    ("AutoEncoderTopK", "decoder.bias"),
    ("BatchTopKSAE", "decoder.bias"),
    ("JumpReluAutoEncoder", "bias"),
    ("GatedAutoEncoder", "bias"),
]


@pytest.mark.parametrize(("said", "name"), DISAGREEING)
def test_a_class_whose_tensors_are_anothers(write, said, name):
    tensors = {**NO_BIAS, name: torch.ones(5), "threshold": torch.ones(9)}
    with pytest.raises(InputError, match=f"holds {name}, and dict_class '{said}' of config.json"):
        open_dictionary(write(tensors, dict_class=said, k=2))


def test_two_biases_are_no_class(write):
    with pytest.raises(
        InputError, match=r"holds bias, decoder\.bias, and dict_class 'AutoEncoder'"
    ):
        open_dictionary(write({"bias": torch.ones(5)}, dict_class="AutoEncoder"))


@pytest.mark.parametrize("name", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
@pytest.mark.parametrize("stored", [True, False])
def test_trap_a_threshold_that_was_never_trained(write, name, stored):
    """The library's start value lets every positive pre-activation pass; k says how many should."""
    tensors = {**NO_BIAS, "b_dec": torch.zeros(5), "threshold": torch.tensor(-1.0)}
    if stored:
        tensors["k"] = torch.tensor(2, dtype=torch.int)
    card = open_dictionary(write(tensors, dict_class=name, k=None if stored else 2)).card
    assert card.l0 == 2
    assert card.note.startswith("9 of 9 thresholds lie below 0")
    tensors["threshold"] = torch.tensor(0.5)
    assert open_dictionary(write(tensors, dict_class=name, k=2)).card.note == ""


@pytest.mark.parametrize("k", [float("nan"), 2.5, 0.0, float("inf")])
def test_a_k_that_is_no_number_of_latents(write, k):
    tensors = {**NO_BIAS, "b_dec": torch.zeros(5), "k": torch.tensor(k)}
    with pytest.raises(InputError, match=r"k is .* there and None in"):
        open_dictionary(write(tensors, dict_class="AutoEncoderTopK"))
