"""sparsify's folders: names are hookpoints, and only TopK autoencoders are opened."""

import json

import pytest
import torch

from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("layers.7", "layers.7"),
        ("model.layers.7", "layers.7"),
        ("transformer.h.7", "layers.7"),
        ("layers.7/seed1", "layers.7"),
        ("layer_7", "layers.7"),
        ("layers.7.mlp", "layers.7.mlp"),
        ("layers.0.attention", "layers.0.attention"),
        ("embed_tokens", "embeddings"),
        ("renamed", ""),
    ],
)
def test_the_folders_name_is_the_hookpoint(layouts, tmp_path, name, site):
    card = open_dictionary(layouts["sparsify"].write(tmp_path / name)).card
    assert (card.site, card.l0) == (site, 3)


@pytest.mark.parametrize("name", ["layers.7", "layers.7/seed1"])
def test_the_run_above_names_the_model(layouts, tmp_path, name):
    folder = layouts["sparsify"].write(tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"model": "org/small", "batch_size": 8}))
    assert open_dictionary(folder).card.model == "org/small"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"transcode": True}, r"a transcoder \(transcode is set\)"),
        ({"skip_connection": True}, "skip_connection is set"),
        ({"activation": "relu"}, "activation 'relu' is not topk or groupmax"),
        ({"activation": "groupmax", "k": 4}, "k is 4, expected a divisor of 9 latents"),
        ({"signed": True}, "activation 'signed topk' is not topk"),
        ({"k": None}, "k is None, expected a whole number"),
        ({"k": 10}, "k is 10, expected 1 to 9, the number of latents"),
    ],
)
def test_what_is_no_topk_autoencoder_is_refused(layouts, tmp_path, settings, expected):
    with pytest.raises(InputError, match=expected):
        open_dictionary(layouts["sparsify"].write(tmp_path, **settings))


def test_trap_a_skip_connection_the_configuration_keeps_silent_about(layouts, tmp_path):
    folder = layouts["sparsify"].write(tmp_path, {"W_skip": torch.eye(5)})
    with pytest.raises(InputError, match="holds W_skip, which this format's dictionaries do not"):
        open_dictionary(folder)


def test_groupmax_by_hand(tmp_path, layouts):
    """Of each of the k groups of neighbouring latents the largest, where it is positive."""
    layout = layouts["sparsify"]
    eye = torch.cat([torch.eye(4), -torch.eye(4)[:2]])
    shapes = {
        "encoder.weight": eye,
        "encoder.bias": torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
        "W_dec": 2 * eye,
        "b_dec": torch.tensor([1.0, 0.0, 0.0, 0.0]),
    }
    settings = {"activation": "groupmax", "k": 3, "d_in": 4, "num_latents": 6}
    opened = open_dictionary(layout.write(tmp_path / "layers.2", shapes, **settings))
    x = torch.tensor([[4.0, 2.0, -1.0, -5.0], [-2.0, 7.0, 1.0, 9.0]])
    # less [1, 0, 0, 0]: pre [3, 2 | -1, -5 | -2, -2] and [-3, 7 | 1, 9 | 4, -7]
    z = [[3.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 7.0, 0.0, 9.0, 4.0, 0.0]]
    assert opened.encode(x).tolist() == z
    assert opened(x).tolist() == [[7.0, 0.0, 0.0, 0.0], [-7.0, 14.0, 0.0, 18.0]]
    assert (opened.architecture, opened.k, opened.card.l0) == ("groupmax", 3, 3)
    save(opened, tmp_path / "again")
    again = open_dictionary(tmp_path / "again")
    assert (again.architecture, again.encode(x).tolist()) == ("groupmax", z)
    turned = opened.rotated(torch.eye(4)[[1, 0, 2, 3]])
    assert turned.encode(x[:, [1, 0, 2, 3]]).tolist() == z
