"""Readers against numbers made with sparsify's, dictionary_learning's and Llamascopium's own code.

`scripts/golden_dictionaries.py` makes them where those projects are installed.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lorascope.dictionaries.files import open_dictionary

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("expected.json"))


@pytest.mark.parametrize("case", CASES)
def test_latents_and_reconstructions(case):
    expected = json.loads((GOLDEN / case / "expected.json").read_text())
    dictionary = open_dictionary(GOLDEN / case)
    x, z, y = (torch.tensor(expected[k]) for k in ("inputs", "latents", "reconstructions"))
    assert 0.05 < (z > 0).float().mean() < 0.95
    latents = z * torch.tensor(expected.get("units", 1.0))
    torch.testing.assert_close(dictionary.encode(x), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dictionary(x), y, rtol=1e-5, atol=1e-4)
    # Llamascopium's files do not say the model.
    assert dictionary.card.model == ("" if case.startswith("llamascopium") else "org/tiny")
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
    assert {case.split("/")[0] for case in CASES} == {
        "sparsify",
        "dictionary_learning",
        "llamascopium",
    }
    filed = GOLDEN / "dictionary_learning" / "new_as_filed" / "trainer_0" / "config.json"
    assert json.loads(filed.read_text())["trainer"]["dict_class"] == "AutoEncoder"


def test_trap_folding_in_llamascopium_leaves_jumprelu_thresholds():
    """In scaled units they are brought into the stream's; of a folded file read as they stand."""
    norm, root = 4.0, math.sqrt(6)
    for case, factor in (("jumprelu", norm / root), ("jumprelu_folded", 1.0)):
        folder = GOLDEN / "llamascopium" / case
        stored = load_file(folder / "sae_weights.safetensors")
        threshold = stored["activation_function.log_jumprelu_threshold"].exp()
        torch.testing.assert_close(open_dictionary(folder).threshold, threshold * factor)
