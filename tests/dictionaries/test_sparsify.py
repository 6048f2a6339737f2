"""sparsify's folders: names are hookpoints, and only TopK autoencoders are opened."""

import json

import pytest
import torch

from lorascope.dictionaries.files import open_dictionary
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
