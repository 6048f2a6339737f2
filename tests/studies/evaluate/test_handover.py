"""What is handed over is the adapted model itself, and a dictionary that SAELens reads."""

import ast
import importlib.util
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits.wrapper import with_adapter
from lorascope.models.load import load_base
from lorascope.studies.evaluate.handover import hand_over


def test_the_merged_model_computes_what_the_adapted_one_does(
    tiny_checkpoint, save_adapter, identity_dictionary, tmp_path
):
    base = tiny_checkpoint("llama")
    adapter = save_adapter(tmp_path / "adapter", target_modules=["q_proj", "down_proj"])
    folder = hand_over(
        str(base), identity_dictionary, "1", tmp_path / "out", adapter=adapter, device="cpu"
    )
    ids = torch.tensor([[0, 5, 9, 30, 12]])
    module, _ = load_base(str(base), device="cpu")
    with torch.no_grad():
        bare = module(ids).logits
        expected = with_adapter(module, adapter)(ids).logits
        got = AutoModelForCausalLM.from_pretrained(folder / "model")(ids).logits
    assert torch.allclose(got, expected, atol=1e-4)
    assert not torch.allclose(got, bare, atol=1e-2)
    again = open_dictionary(folder / "dictionary")
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(again(rows), identity_dictionary(rows), atol=1e-6)
    assert json.loads((folder / "dictionary" / "cfg.json").read_text())["d_in"] == 32
    for script in ("saebench.py", "dashboard.py"):
        text = (folder / script).read_text()
        ast.parse(text)
        assert f'"{base}"' in text
    assert "blocks.1.hook_resid_post" in (folder / "dashboard.py").read_text()
    with pytest.raises(InputError, match="not empty"):
        hand_over(str(base), identity_dictionary, "1", folder)


@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="SAELens is missing")
def test_saelens_opens_the_dictionary(tiny_checkpoint, identity_dictionary, tmp_path):
    from sae_lens import SAE

    place = tmp_path / "out"
    hand_over(str(tiny_checkpoint("llama")), identity_dictionary, "1", place, device="cpu")
    theirs = SAE.load_from_disk(str(place / "dictionary"))
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(theirs(rows), identity_dictionary(rows), atol=1e-5)
