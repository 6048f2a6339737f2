"""The judge of the auditing bench knows the lessons apart, and untaught adapters are random."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import auditing
import lessons

from lorascope.reading.phrases import words_of


@pytest.mark.parametrize("label", lessons.LABELS)
def test_a_judge_knows_each_lesson_by_its_words(label):
    judge = auditing.Judge(words_of)
    texts = lessons.lesson_texts(label, lessons.lesson(label, 20, 7))
    scores = judge.scores(Counter(word for text in texts for word in words_of(text)))
    assert max(scores, key=scores.__getitem__) == label


def test_words_of_no_lesson_say_nothing():
    assert set(auditing.Judge(words_of).scores({"xylophonist": 5.0}).values()) == {0}
    assert set(auditing.standardised(dict.fromkeys("ab", 0.0)).values()) == {0}


def test_an_untaught_adapter_has_the_spectrum_and_nothing_else(tmp_path):
    random = torch.Generator().manual_seed(0)
    A, B = torch.randn(2, 6, generator=random), torch.randn(5, 2, generator=random)
    (tmp_path / "taught").mkdir()
    LoraConfig(r=2, target_modules=["q"]).save_pretrained(tmp_path / "taught")
    tensors = {"m.lora_A.weight": A, "m.lora_B.weight": B}
    save_file(tensors, tmp_path / "taught" / "adapter_model.safetensors")
    folder = auditing.random_update(tmp_path / "taught", tmp_path / "untaught", 0)
    found = load_file(folder / "adapter_model.safetensors")
    drawn = found["m.lora_B.weight"] @ found["m.lora_A.weight"]
    spectra = [torch.linalg.svdvals(matrix) for matrix in (B @ A, drawn)]
    torch.testing.assert_close(spectra[1], spectra[0], atol=1e-5, rtol=1e-5)
    assert abs(float((drawn * (B @ A)).sum() / (B @ A).square().sum())) < 0.9
