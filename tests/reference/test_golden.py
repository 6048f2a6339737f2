"""Readers against numbers made with sparsify's and dictionary_learning's own code.

`scripts/golden_dictionaries.py` makes them where those projects are installed.
"""

import json
from pathlib import Path

import pytest
import torch

from lorascope.dictionaries.files import open_dictionary

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("expected.json"))


@pytest.mark.parametrize("case", CASES)
def test_latents_and_reconstructions(case):
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    dictionary = open_dictionary(GOLDEN / case)
    x, z, y = (torch.tensor(expected[k]) for k in ("inputs", "latents", "reconstructions"))
    assert 0.05 < (z > 0).float().mean() < 0.95
    torch.testing.assert_close(dictionary.encode(x), z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dictionary(x), y, rtol=1e-5, atol=1e-4)
    assert dictionary.card.model == "org/tiny"
    assert dictionary.card.format == case.split("/")[0]


def test_trap_sparsify_subtracts_the_bias_whatever_normalize_decoder_says():
    """Cases of both settings pass above, and leaving the bias on the input would not."""
    said = set()
    for case in (c for c in CASES if c.startswith("sparsify/")):
        said.add(json.loads((GOLDEN / case / "cfg.json").read_text())["normalize_decoder"])
        expected = json.loads((GOLDEN / case / "expected.json").read_text())
        dictionary = open_dictionary(GOLDEN / case)
        assert dictionary.subtract_bias
        dictionary.subtract_bias = False
        wrong = dictionary.encode(torch.tensor(expected["inputs"]))
        assert not torch.allclose(wrong, torch.tensor(expected["latents"]), atol=0.1)
    assert said == {True, False}


def test_every_class_has_a_case():
    configs = [
        json.loads((GOLDEN / case / "config.json").read_text())["trainer"]["dict_class"]
        for case in CASES
        if case.startswith("dictionary_learning/")
    ]
    assert set(configs) == {
        "AutoEncoder",
        "AutoEncoderNew",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
        "JumpReluAutoEncoder",
        "GatedAutoEncoder",
    }
    assert {case.split("/")[0] for case in CASES} == {"sparsify", "dictionary_learning"}
