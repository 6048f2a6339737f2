"""Before a byte is unpacked: plain files only, sizes from the header, limits that hold."""

import io
import json
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lorascope.dictionaries import limits
from lorascope.dictionaries.files import FORMATS, open_dictionary
from lorascope.errors import InputError


def refusal(address, expected):
    with pytest.raises(InputError, match=expected) as caught:
        open_dictionary(address)
    assert "\n" not in str(caught.value)


def place(path, kind):
    """Put a pipe, a socket, a folder or a link to a device where a file is expected."""
    path = Path(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))


@pytest.fixture
def short(tmp_path_factory):
    """A folder with a short name, as sockets need one."""
    return tmp_path_factory.mktemp("s")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
def test_what_is_no_plain_file_is_never_waited_for(layouts, tmp_path, monkeypatch, name, kind):
    layout = layouts[name]
    for file in filter(None, (layout.weights, layout.config)):
        folder = layout.write(tmp_path)
        # From within the folder: the name of a socket must be short.
        monkeypatch.chdir((folder / file).parent)
        place(Path(file).name, kind)
        refusal(folder, rf"{file}: is a {kind}.*, not a file")
        made = Path(Path(file).name)
        made.rmdir() if kind == "folder" else made.unlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_an_address_that_is_no_file(short, kind):
    place(short / "sae", kind)
    refusal(short / "sae", f"sae: is a {kind}.*; give a folder")


def test_a_card_that_is_a_pipe(layouts, tmp_path):
    layouts["saelens"].write(tmp_path)
    os.mkfifo(tmp_path / "lorascope.json")
    refusal(tmp_path, r"lorascope\.json: is a pipe")


@pytest.mark.parametrize("name", FORMATS)
def test_more_than_memory_holds_is_refused_from_the_header(layouts, tmp_path, monkeypatch, name):
    layouts[name].write(tmp_path)
    monkeypatch.setattr(limits, "available_memory", lambda: 100)

    def allocates(*_, **__):
        raise AssertionError("unpacked before it was refused")

    monkeypatch.setattr("lorascope.dictionaries.stored.load_file", allocates)
    monkeypatch.setattr("lorascope.dictionaries.stored.np.load", allocates)
    monkeypatch.setattr("lorascope.dictionaries.stored.torch.load", allocates)
    refusal(tmp_path, r"its tensors take 0\.0 GB, and 0\.0 GB of memory are free")


def test_memory_is_what_the_system_says():
    assert 10**8 < limits.available_memory() < 10**14


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("axis", [0, 1])
def test_no_latents_or_no_width(layouts, tmp_path, name, axis):
    layout = layouts[name]
    shape = list(layout.shapes[layout.encoder])
    shape[axis] = 0
    layout.write(tmp_path, {layout.encoder: torch.zeros(shape)})
    refusal(tmp_path, r"has shape \(.*so no entries")


def array(shape, data, version=(1, 0)):
    """An .npy file whose header says a shape, before other data."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    write = {(1, 0): np.lib.format.write_array_header_1_0}.get(
        version, np.lib.format.write_array_header_2_0
    )
    write(file, header)
    return file.getvalue() + data


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_archive_that_declares_more_than_it_has(layouts, tmp_path, version):
    layouts["gemma_scope"].write(tmp_path)
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("W_enc.npy", array((10**6, 10**6), b"\0" * 8, version))
    refusal(tmp_path, r"W_enc\.npy declares 4,000,000,000,000 bytes and has 8")


def test_an_archive_with_an_array_twice(layouts, tmp_path):
    layouts["gemma_scope"].write(tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "params.npz", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("W_enc.npy", array((5, 9), b"\0" * 180))
    refusal(tmp_path, "two arrays of one name")


def test_a_view_larger_than_its_data(layouts, tmp_path):
    """One number that stands for a whole matrix is no matrix."""
    layout = layouts["dictionary_learning"]
    folder = layout.write(tmp_path)
    repeated = torch.ones(1, 1).expand(9, 5)
    assert repeated.stride() == (0, 0)
    torch.save({**layout.read(folder), "encoder.weight": repeated}, folder / layout.weights)
    refusal(folder, r"encoder\.weight has shape \(9, 5\) and fewer numbers stored")
    # A transposed view of all its data is one that people do save.
    turned = torch.rand(5, 9).T
    layout.write(tmp_path)
    torch.save({**layout.read(folder), "encoder.weight": turned}, folder / layout.weights)
    assert torch.equal(open_dictionary(folder).encoder, turned.T)


def test_a_sparse_tensor(layouts, tmp_path):
    layout = layouts["dictionary_learning"]
    folder = layout.write(tmp_path)
    sparse = torch.eye(9, 5).to_sparse()
    torch.save({**layout.read(folder), "encoder.weight": sparse}, folder / layout.weights)
    refusal(folder, r"encoder\.weight is sparse")


def test_a_compressed_pytorch_file(layouts, tmp_path):
    """PyTorch does not compress; a file that unpacks to more than it holds is something else."""
    layout = layouts["qwen_scope"]
    zeros = {name: torch.zeros(shape) for name, shape in layout.shapes.items()}
    path = layout.write(tmp_path, {**zeros, "W_enc": torch.zeros(900, 5)}) / layout.weights
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as squeezed:
        for name, data in parts.items():
            squeezed.writestr(name, data)
    refusal(path, "declares more data than it has")


CONFIGURED = [name for name in FORMATS if name not in ("gemma_scope", "qwen_scope")]


@pytest.mark.parametrize("name", CONFIGURED)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"k": ' + "9" * 5000 + "}",
        '{"k": "\ud800"}'.encode("utf-8", "surrogatepass"),
        b"\xff\xfe",
    ],
    ids=["deep list", "deep mapping", "long number", "surrogate", "no text"],
)
def test_configurations_nobody_writes(layouts, tmp_path, name, text):
    layout = layouts[name]
    layout.write(tmp_path)
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / layout.config).write_bytes(data)
    refusal(tmp_path, rf"{layout.config}: not readable as JSON \(.*fetch it again")


def test_a_configuration_too_long_to_be_one(layouts, tmp_path, monkeypatch):
    monkeypatch.setattr("lorascope.dictionaries.fields.LONGEST_TEXT", 10)
    refusal(layouts["saelens"].write(tmp_path), "bytes are no configuration")


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep\nstack"), OverflowError()])
def test_whatever_a_reader_raises_is_one_line(layouts, tmp_path, monkeypatch, error):
    layouts["saelens"].write(tmp_path)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("lorascope.dictionaries.stored.load_file", fail)
    refusal(tmp_path, r"sae_weights\.safetensors: cannot be read \(.*\); fetch it again")


def test_sizes_a_header_says_and_the_file_does_not_have(layouts, tmp_path):
    """safetensors refuses these itself, from the header; so nothing is allocated."""
    layout = layouts["saelens"]
    folder = layout.write(tmp_path)
    path = folder / layout.weights
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["W_enc"]["shape"] = [10**6, 10**6]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    refusal(folder, "cannot be read")


def test_an_integer_matrix_of_another_file_is_not_unpacked(tmp_path, layouts):
    folder = layouts["saelens"].write(tmp_path)
    save_file({"W_enc": torch.zeros(5, 9, dtype=torch.int8)}, folder / "sae_weights.safetensors")
    refusal(folder, "holds int8, expected floating-point")
