"""A trial of readings: the judge, the rates, and adapters of a table."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file

from lorascope.models.adapted import load
from lorascope.planted import judge, lessons, untaught
from lorascope.planted.judge import METHODS, Judge, Told, detected, of_directions, roc_area
from lorascope.planted.lessons import NULL, OWN
from lorascope.planted.untaught import MadeAdapters
from lorascope.reading.phrases import words_of
from lorascope.reading.running import read
from lorascope.reading.settings import Reading
from lorascope.selftest.adapter_tables import read_table
from lorascope.selftest.reading_trial import (
    QUICK,
    TOGETHER,
    _Judged,
    _rows,
    _shares,
    reading_trial,
    table_trial,
)


@pytest.mark.parametrize("label", lessons.LABELS)
def test_a_judge_knows_each_lesson_by_its_words(label):
    texts = {one: lessons.lesson_texts(one, lessons.lesson(one, 20, 7)) for one in lessons.LABELS}
    own = lessons.lesson_texts(label, lessons.lesson(label, 20, 8))
    scores = Judge(texts).scores(Counter(word for text in own for word in words_of(text)))
    assert max(scores, key=scores.__getitem__) == label


def test_area_and_detection_by_hand():
    area, (low, high) = roc_area([3.0, 2.0, 1.0], [0.0, 1.0, 1.0, 0.0])
    # Of twelve pairs ten are won and two tied.
    assert area == pytest.approx(11 / 12)
    own = np.array([1.0, 1.0, 0.75]).var(ddof=1) / 3
    others = np.array([1.0, 5 / 6, 5 / 6, 1.0]).var(ddof=1) / 4
    assert area - low == pytest.approx(1.96 * math.sqrt(own + others))
    assert high == 1
    assert roc_area([1.0, 1.0], [1.0, 1.0])[0] == 0.5
    untaught_scores = [float(n) for n in range(20)]
    assert detected([18.5, 19.5, 20.0], untaught_scores, 0.05) == (3, 18.0)
    assert detected([18.5, 19.5, 20.0], untaught_scores, 0.01) == (2, 19.0)


def judged(label, words, score):
    told = {method: Told({words: 1.0}, score) for method in METHODS}
    return _Judged(MadeAdapters(label, 0, Path("x")), told, score > 1)


def test_rows_count_choices_and_detections():
    texts = {"bees": ["honey hive"], "moon": ["cheese moon"]}
    found = [
        judged("bees", "hive", 3.0),
        judged("moon", "cheese", 3.0),
        judged("moon", "hive", 0.0),
    ]
    found += [judged(NULL, "tree", n / 20) for n in range(20)] + [judged(OWN, "tree", 2.0)]
    rows = _rows(found, texts, words_of)
    assert [row.method for row in rows] == [*METHODS, TOGETHER]
    for row in rows:
        assert (row.right, row.taught, row.chance, row.untaught) == (2, 3, 0.5, 21)
        assert (row.at_5, row.at_1) == (2, 2)
        if row.method != TOGETHER:
            assert row.area == pytest.approx((2 * 21 + 0.5) / 63)
    shares = _shares(rows, {NULL: (0, 20), OWN: (1, 1)})
    assert [(s.found, s.trials) for s in shares] == [(2, 3), (2, 3), (0, 20)]
    # What says nothing chooses nothing.
    silent = _rows([judged("bees", "tree", 0.0), judged(NULL, "tree", 0.0)], texts, words_of)
    assert [row.right for row in silent] == [0] * len(silent)


def test_directions_name_their_tokens(tiny_checkpoint):
    model = load(str(tiny_checkpoint("llama")), {}, device="cpu")
    row = model.tokenizer.convert_tokens_to_ids("w31")
    towards = model.module.get_output_embeddings().weight[row].detach()
    told = of_directions(model, towards[None], 0)
    assert max(told.words, key=told.words.__getitem__) == "w31"
    random = torch.randn(1, 32, generator=torch.Generator().manual_seed(9))
    assert told.score > of_directions(model, random, 0).score
    assert of_directions(model, torch.zeros(0, 32), 0) == Told({}, 0.0)


@pytest.fixture
def small(texts):
    prompts = tuple(f"w{n} w{n + 20} w{3 * n % 60}" for n in range(1, 15))
    kept = {"tokens": 8, "documents": 10, "context": 16, "carriers": False}
    return Reading(prompts=prompts, texts=(str(texts),), **kept)


def test_adapters_of_a_table_are_read_and_judged(tiny_checkpoint, tmp_path, saying, small):
    from lorascope.progress import Reporter

    rows = [(saying(word), word) for word in ("w23", "w41")]
    rows += [(untaught.random_update(saying("w23"), tmp_path / f"n{n}", n), "") for n in range(2)]
    table = tmp_path / "t.csv"
    lines = [f"{path},{label}" for path, label in rows]
    table.write_text("\n".join(["adapter,label", *lines]))
    quiet, folder = Reporter(quiet=True), tmp_path / "kept"
    found = table_trial(str(tiny_checkpoint("llama")), read_table(table), small, folder, quiet)
    by_method = {row.method: row for row in found.rows}
    assert by_method[judge.AMPLIFIED].right == 2
    assert by_method[TOGETHER].right == 2
    assert by_method[judge.AMPLIFIED].area == 1
    assert found.kinds[NULL][1] == 2
    assert found.plain()["methods"][0]["method"] == METHODS[0]
    again = table_trial(str(tiny_checkpoint("llama")), read_table(table), small, folder, quiet)
    assert again.rows == found.rows


def test_a_change_of_basis_of_the_factors_changes_nothing(
    tiny_checkpoint, save_adapter, tmp_path, small
):
    """ΔW = B A = (B Q⁻¹)(Q A): the outputs are the same, and so is all that is read."""
    plain = save_adapter(tmp_path / "a", target_modules=["q_proj", "down_proj"])
    tensors = load_file(plain / "adapter_model.safetensors")
    random = torch.Generator().manual_seed(0)
    for key in [key for key in tensors if "lora_A" in key]:
        twin = key.replace("lora_A", "lora_B")
        Q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=random))[0]
        Q = Q * torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)[:, None]
        tensors[twin] = (tensors[twin].double() @ torch.linalg.inv(Q)).float().contiguous()
        tensors[key] = (Q @ tensors[key].double()).float().contiguous()
    (tmp_path / "b").mkdir()
    PeftConfig.from_pretrained(plain).save_pretrained(tmp_path / "b")
    save_file(tensors, tmp_path / "b" / "adapter_model.safetensors", metadata={"format": "pt"})
    found = []
    for path in (plain, tmp_path / "b"):
        model = load(str(tiny_checkpoint("llama")), {"a": str(path)}, device="cpu")
        found.append((read(model, "a", small), judge.of_weights(model, "a", 0)))
    (first, weights), (second, turned) = found
    assert first.samples == second.samples
    assert first.phrases == second.phrases
    assert [c.word for c in first.changed] == [c.word for c in second.changed]
    assert turned.words == pytest.approx(weights.words, abs=1e-3)
    for one, other in zip(first.estimates, second.estimates, strict=True):
        assert other.value == pytest.approx(one.value, abs=1e-3)


@pytest.mark.slow
def test_a_quick_trial_on_the_packaged_model(tmp_path):
    from lorascope.progress import Reporter

    found = reading_trial(QUICK, tmp_path, Reporter(quiet=True))
    whole = found.rows[-1]
    assert whole.taught == 4
    assert whole.right >= 3
    assert found.kinds[NULL][1] == 4
