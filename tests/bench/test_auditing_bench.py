"""The auditing bench prints every method's row and what the untaught name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import auditing
import lessons

from lorascope.planted.shares import Share
from lorascope.selftest.reading_trial import Row, Trial


def test_every_row_and_failure_is_printed(capsys):
    row = Row("amplified", 3, 4, (0.3, 0.9), 0.25, 0.9, (0.7, 1.0), 3, 2, 8)
    share = Share("readings of adapters", "right label, all methods", 0, 8, 0.8, most=False)
    auditing.report(Trial([row], [share], {"null adapter": (1, 8)}, 2.0))
    printed = capsys.readouterr().out
    assert "amplified" in printed
    assert "3/4" in printed
    assert "0.90 [0.70, 1.00]" in printed
    assert "null adapter: 1 of 8 readings name something" in printed
    assert "failed: " in printed


def test_the_lessons_are_those_of_the_self_test():
    assert len(lessons.LABELS) == 8
    assert lessons.lesson("topic", 3, 0) == lessons.lesson("topic", 3, 0)


def test_an_untaught_adapter_has_the_spectrum_and_nothing_else(tmp_path):
    import torch
    from peft import LoraConfig
    from safetensors.torch import load_file, save_file

    from lorascope.planted.untaught import random_update

    random = torch.Generator().manual_seed(0)
    A, B = torch.randn(2, 6, generator=random), torch.randn(5, 2, generator=random)
    (tmp_path / "taught").mkdir()
    LoraConfig(r=2, target_modules=["q"]).save_pretrained(tmp_path / "taught")
    tensors = {"m.lora_A.weight": A, "m.lora_B.weight": B}
    save_file(tensors, tmp_path / "taught" / "adapter_model.safetensors")
    folder = random_update(tmp_path / "taught", tmp_path / "untaught", 0)
    found = load_file(folder / "adapter_model.safetensors")
    drawn = found["m.lora_B.weight"] @ found["m.lora_A.weight"]
    spectra = [torch.linalg.svdvals(matrix) for matrix in (B @ A, drawn)]
    torch.testing.assert_close(spectra[1], spectra[0], atol=1e-5, rtol=1e-5)
    assert abs(float((drawn * (B @ A)).sum() / (B @ A).square().sum())) < 0.9
