"""Gemma Scope's params.npz: read as it is meant, and never executed."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError

D, N = 4, 6


def arrays(upper=True):
    random = np.random.default_rng(0)
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
    made = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["threshold"] = random.uniform(0.1, 1, size=N).astype(np.float32)
    return made if upper else {name.lower(): array for name, array in made.items()}


@pytest.mark.parametrize("upper", [True, False])
def test_read_against_numpy(tmp_path, upper):
    stored = arrays()
    np.savez(tmp_path / "params.npz", **arrays(upper))
    dictionary = open_dictionary(tmp_path)
    x = np.random.default_rng(1).normal(size=(50, D)).astype(np.float32) * 3
    # the decoder's bias is not taken off the input
    pre = x @ stored["W_enc"] + stored["b_enc"]
    z = np.where(pre > stored["threshold"], pre, 0)
    assert ((pre > 0) & (z == 0)).any()
    np.testing.assert_allclose(dictionary.encode(torch.from_numpy(x)), z, atol=1e-5)
    expected = z @ stored["W_dec"] + stored["b_dec"]
    np.testing.assert_allclose(dictionary(torch.from_numpy(x)), expected, atol=1e-5)


def test_the_threshold_itself_is_silent(tmp_path):
    stored = {**arrays(), "b_enc": np.zeros(N, np.float32), "W_enc": np.eye(D, N, dtype=np.float32)}
    stored["threshold"] = np.array([0.5, 0.25, 1, 1, 1, 1], np.float32)
    np.savez(tmp_path / "params.npz", **stored)
    dictionary = open_dictionary(tmp_path)
    x = torch.tensor([0.5, 0.2500001, 0.9, 1.5])
    assert dictionary.encode(x)[:4].tolist() == [0.0, x[1].item(), 0.0, 1.5]


@pytest.mark.parametrize(
    ("inside", "model", "site"),
    [
        (
            "models--google--gemma-scope-9b-pt-res/snapshots/1/layer_18/width_16k/average_l0_118",
            "google/gemma-2-9b",
            "layers.18",
        ),
        (
            "gemma-scope-9b-it-res/layer_9/width_131k/average_l0_22",
            "google/gemma-2-9b-it",
            "layers.9",
        ),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "google/gemma-2-2b", ""),
        ("layer_5", "", "layers.5"),
        ("somewhere", "", ""),
    ],
)
def test_place_on_the_hub_names_model_and_site(tmp_path, inside, model, site):
    folder = tmp_path / inside
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays())
    card = open_dictionary(folder / "params.npz").card
    assert (card.model, card.site) == (model, site)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def write_faulty(path, fault, mark):
    stored = arrays()
    if fault == "pickle":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    elif fault == "object array":
        np.savez(path, **{**stored, "W_dec": np.array([Bomb(mark)], dtype=object)})
    elif fault == "npy":
        with path.open("wb") as file:
            np.save(file, stored["W_enc"])
    elif fault == "words":
        np.savez(path, **{**stored, "b_dec": np.array(["a", "b"])})
    elif fault == "truncated":
        np.savez(path, **stored)
        path.write_bytes(path.read_bytes()[:-200])
    elif fault == "corrupt":
        np.savez_compressed(path, **stored)
        with zipfile.ZipFile(path) as file:
            start = file.getinfo("W_dec.npy").header_offset + 60
        whole = bytearray(path.read_bytes())
        whole[start : start + 20] = b"\xff" * 20
        path.write_bytes(bytes(whole))
    elif fault == "no threshold":
        del stored["threshold"]
        np.savez(path, **stored)
    else:
        np.savez(path, **{**stored, "W_dec": stored["W_dec"].T})


FAULTS = {
    "pickle": "cannot be read",
    "object array": "cannot be read",
    "npy": "cannot be read",
    "words": "cannot be read",
    "truncated": "cannot be read",
    "corrupt": "cannot be read",
    "no threshold": "lacks tensor 'threshold'",
    "turned": r"encoder has shape \(4, 6\), expected \(6, 4\)",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_says_so_and_runs_nothing(tmp_path, fault):
    mark = tmp_path / "mark"
    (tmp_path / "sae").mkdir()
    write_faulty(tmp_path / "sae" / "params.npz", fault, mark)
    with pytest.raises(InputError, match=rf"params\.npz: {FAULTS[fault]}") as caught:
        open_dictionary(tmp_path / "sae")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_bomb_would_go_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark"))).close()
    assert (tmp_path / "mark").exists()


def test_other_arrays_in_the_file_do_not_matter(tmp_path):
    np.savez(tmp_path / "params.npz", **arrays(), note=np.array(["words"]))
    assert open_dictionary(tmp_path).n_latents == N
