"""`lorascope dictionary` on a file of every format."""

import json

import pytest
from typer.testing import CliRunner

from lorascope.cli import app

# What the drawn files of `layouts` are.
EXPECTED = {
    "saelens": ("relu", ""),
    "gemma_scope": ("jumprelu", ""),
    "gemma_scope_2": ("jumprelu", "layers.2"),
    "llama_scope": ("jumprelu", "layers.2"),
    "sparsify": ("topk", "layers.2"),
    "dictionary_learning": ("relu", "layers.2"),
    "llamascopium": ("jumprelu", "layers.2"),
    "qwen_scope": ("topk", "layers.2"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_of_every_format_is_described(layouts, tmp_path, name):
    assert set(EXPECTED) == set(layouts)
    folder = layouts[name].write(tmp_path / "layers.2")
    done = CliRunner().invoke(app, ["dictionary", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    architecture, site = EXPECTED[name]
    assert (found["format"], found["architecture"]) == (name, architecture)
    assert (found["n_latents"], found["d_model"]) == (9, 5)
    assert (found["site"] or "") == site
    table = CliRunner().invoke(app, ["dictionary", str(folder)])
    assert table.exit_code == 0
    assert architecture in table.stdout
