"""Files that are broken, incomplete or hostile: one clear line, nothing executed, every format."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from lorascope.dictionaries.files import FORMATS, open_dictionary
from lorascope.errors import InputError

# Two formats are weights alone.
CONFIGURED = [name for name in FORMATS if name not in ("gemma_scope", "qwen_scope")]


def refusal(folder, expected):
    with pytest.raises(InputError, match=expected) as caught:
        open_dictionary(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_whole_files_open(layouts, tmp_path, name):
    assert open_dictionary(layouts[name].write(tmp_path)).n_latents == 9


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0, 7, 0.5, -8])
def test_truncated(layouts, tmp_path, name, kept):
    layout = layouts[name]
    path = layout.write(tmp_path) / layout.weights
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if kept == 0.5 else kept])
    refusal(tmp_path, rf"{path.name}: cannot be read .*fetch it again")


@pytest.mark.parametrize("name", FORMATS)
def test_missing_tensor(layouts, tmp_path, name):
    layout = layouts[name]
    for missing in layout.shapes:
        refusal(layout.write(tmp_path, {missing: None}), r"lacks tensor '.*; fetch it again")


@pytest.mark.parametrize("name", FORMATS)
def test_wrong_shape(layouts, tmp_path, name):
    layout = layouts[name]
    for tensor, shape in ((t, s) for t, s in layout.shapes.items() if s):
        longer = torch.ones(shape[0] + 1, *shape[1:])
        refusal(layout.write(tmp_path, {tensor: longer}), r"has shape \(.*; fetch it again")
        deeper = torch.ones(*shape, 1)
        refusal(layout.write(tmp_path, {tensor: deeper}), r"has shape \(.* ax[ei]s; fetch it")


@pytest.mark.parametrize("name", FORMATS)
def test_turned_matrix(layouts, tmp_path, name):
    layout = layouts[name]
    for tensor in (n for n, shape in layout.shapes.items() if len(shape) == 2):
        turned = layout.read(layout.write(tmp_path))[tensor].T.contiguous()
        refusal(layout.write(tmp_path, {tensor: turned}), r"has shape \(.*; fetch it again")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite(layouts, tmp_path, name, value):
    layout = layouts[name]
    for tensor in layout.shapes:
        broken = layout.read(layout.write(tmp_path))[tensor].clone()
        broken.view(-1)[-1] = value
        refusal(layout.write(tmp_path, {tensor: broken}), r"NaN or infinite|expected a finite")


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_of_another_kind(layouts, tmp_path, name):
    layout = layouts[name]
    whole = {layout.encoder: torch.ones(layout.shapes[layout.encoder], dtype=torch.int32)}
    refusal(layout.write(tmp_path, whole), "holds int32, expected floating-point numbers")


@pytest.mark.parametrize("name", CONFIGURED)
@pytest.mark.parametrize("text", ["", "{", "[1]", '"words"'])
def test_broken_configuration(layouts, tmp_path, name, text):
    layout = layouts[name]
    layout.write(tmp_path)
    (tmp_path / layout.config).write_text(text)
    refusal(tmp_path, rf"{layout.config}: (not readable as JSON|expected keys and values)")


WRONG_KINDS = {
    "saelens": {"metadata": "words"},
    "gemma_scope_2": {"l0": "many"},
    "llama_scope": {"dataset_average_activation_norm": {"in": "a", "out": "b"}},
    "sparsify": {"k": "many"},
    "dictionary_learning": {"trainer": {"dict_class": "AutoEncoderTopK", "k": "many"}},
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_configuration_of_the_wrong_kind(layouts, tmp_path, name):
    layouts[name].write(tmp_path, **WRONG_KINDS[name])
    refusal(tmp_path, "; fetch (it|both) again")


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.fixture
def mark(tmp_path):
    """A file that must not come to be."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("name", FORMATS)
def test_trap_a_pickle_in_place_of_the_weights(layouts, tmp_path, name, mark):
    layout = layouts[name]
    path = layout.write(tmp_path / "sae") / layout.weights
    path.write_bytes(pickle.dumps(Bomb(mark)))
    refusal(tmp_path / "sae", rf"{path.name}: cannot be read .*fetch it again")


def test_trap_a_pytorch_file_with_more_than_tensors(layouts, tmp_path, mark):
    layout = layouts["dictionary_learning"]
    folder = layout.write(tmp_path / "sae")
    torch.save({**layout.read(folder), "note": Bomb(mark)}, folder / layout.weights)
    refusal(folder, r"ae\.pt: cannot be read \(it holds more than tensors, or is no PyTorch file")
    # the old format, without a zip around it, too
    torch.save(Bomb(mark), folder / layout.weights, _use_new_zipfile_serialization=False)
    refusal(folder, "is no PyTorch file of version .* or holds more than tensors")
    torch.save([torch.ones(3)], folder / layout.weights)
    refusal(folder, r"cannot be read \(expected tensors by name\)")


def test_trap_an_archive_with_pickled_objects(layouts, tmp_path, mark):
    layout = layouts["gemma_scope"]
    folder = layout.write(tmp_path / "sae")
    arrays = {name: tensor.numpy() for name, tensor in layout.read(folder).items()}
    arrays["W_dec"] = np.array([Bomb(mark)], dtype=object)
    np.savez(folder / layout.weights, **arrays)
    refusal(folder, r"params\.npz: cannot be read")


def test_the_bomb_would_go_off(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark"))).close()
    assert (tmp_path / "mark").exists()


def test_archives_of_something_else(layouts, tmp_path):
    layout = layouts["gemma_scope"]
    path = layout.write(tmp_path) / layout.weights
    arrays = {name: tensor.numpy() for name, tensor in layout.read(tmp_path).items()}
    with path.open("wb") as file:
        np.save(file, arrays["W_enc"])
    refusal(tmp_path, r"params\.npz: cannot be read")
    np.savez(path, **{**arrays, "b_dec": np.array(["a", "b"])})
    refusal(tmp_path, r"params\.npz: lacks tensor 'b_dec'")
    np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("W_dec.npy").header_offset + 60
    whole = bytearray(path.read_bytes())
    whole[start : start + 20] = b"\xff" * 20
    path.write_bytes(bytes(whole))
    refusal(tmp_path, r"params\.npz: cannot be read")
