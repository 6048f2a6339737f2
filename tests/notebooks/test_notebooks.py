"""The notebooks: what is kept of their runs, and that they still run from first cell to last."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest

import lorascope
from run_notebooks import NOTEBOOKS, execute

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
BYTES = 1_000_000
# `make notebooks` keeps the outputs of all; those without any were never run there.
KEPT = [path for path in PATHS if '"output_type"' in path.read_text("utf-8")]


def outputs(notebook):
    return [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]


def code(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def held(notebook):
    """What any run of a notebook must show: figures as pictures, tables, and no error."""
    found = outputs(notebook)
    assert all(one.output_type != "error" for one in found)
    pictures = [one.data["image/png"] for one in found if "image/png" in one.get("data", {})]
    assert len(pictures) >= 2
    assert all(base64.b64decode(one).startswith(b"\x89PNG") for one in pictures)
    tables = [one.data["text/html"] for one in found if "text/html" in one.get("data", {})]
    assert any("<table" in one and "verdict" in one for one in tables)
    return found


def test_there_are_three():
    assert [path.stem for path in PATHS] == ["adapt", "audit", "latent"]
    assert len(KEPT) >= 2


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_is_kept_is_whole_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    held(notebook)
    assert path.stat().st_size < BYTES
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    # Nothing of the machine it ran on.
    text = path.read_text("utf-8")
    assert str(Path.home()) not in text
    assert "/tmp" not in text


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_uses_public_names(path):
    names = set(re.findall(r"\bls\.(\w+)", code(nbformat.read(path, as_version=4))))
    assert names <= set(lorascope.__all__)
    assert names


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    done = execute(path, tmp_path)
    found = held(done)
    if path in KEPT:
        assert len(found) == len(outputs(nbformat.read(path, as_version=4)))
    assert (tmp_path / "runs" / path.stem / "report" / "index.html").is_file()
