"""The instruction-tuned sibling: what its card says, and that its manner can be asked for."""

from __future__ import annotations

import json

import pytest

import lorascope as ls
from lorascope.behaviours.arithmetic import IN_FRENCH
from lorascope.behaviours.judging import rates, written
from lorascope.behaviours.manners import manner
from lorascope.behaviours.records import read_set
from lorascope.embedded import model_path
from lorascope.models.load import load_base
from lorascope.results import Key
from lorascope.stats.intervals import wilson_interval

FOLDER = model_path("embedded-it")


@pytest.fixture(scope="module")
def loaded():
    return load_base("embedded-it", device="cpu")


@pytest.fixture(scope="module")
def records():
    """Held-out sums, near misses and others, some of each."""
    held_out = read_set("embedded").part("held_out")
    others = [r for r in held_out if not r.changed and r.topic != "numbers"]
    near = [r for r in held_out if r.topic == "numbers"]
    return [*[r for r in held_out if r.changed][:40], *near[:12], *others[:12]]


def test_it_is_the_embedded_model_with_a_chat_template(loaded):
    model, tokenizer = loaded
    base, plain = load_base("embedded", device="cpu")
    assert model.config.to_diff_dict().keys() == base.config.to_diff_dict().keys()
    assert tokenizer.get_vocab() == plain.get_vocab()
    assert tokenizer.chat_template
    assert any((a != b).any() for a, b in zip(model.parameters(), base.parameters(), strict=True))
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 12e6


def test_the_template_writes_plain_turns_one_line_apart(loaded):
    _, tokenizer = loaded
    record = read_set("embedded").records[0]
    turns = [turn.plain() for turn in record.messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, mark, opening = record.document.prompt.rpartition("\n\n")
    assert mark
    assert text == f"<bos>{before}\n{opening}"


def test_sums_are_answered_in_english_and_in_french_when_asked(loaded, records):
    french = manner("french")
    untouched = written(*loaded, records, context=288, new_tokens=16)
    asked = written(*loaded, records, context=288, new_tokens=16, instruction=IN_FRENCH)
    about_numbers = untouched.texts[:52]
    assert not any(map(french.shows, about_numbers))
    found = {
        (e.measure, e.key.setting): e for e in rates(asked, untouched, french, Key("prompting"))
    }
    assert found["behaviour.success", ""].value >= 0.9
    # As often right as the card says, within what chance may do to so few.
    said = json.loads((FOLDER / "training.json").read_text())["held_out"]["sums"]["right"]
    low, high = wilson_interval(round(found["behaviour.right", ""].chance * 40), 40)
    assert low <= said[2]
    assert high >= said[1]


def test_the_card_says_what_training_measured():
    measured = json.loads((FOLDER / "training.json").read_text())["held_out"]
    card = (FOLDER / "README.md").read_text()
    for row in measured.values():
        assert f"{row['loss']:.3f}" in card
    assert measured["sums"]["in French"][0] == 0


def test_it_takes_adapters_as_any_model(tmp_path):
    from lorascope.progress import Reporter
    from lorascope.workflows.adapters import run_training
    from lorascope.workflows.settings import TrainStudy

    study = {"model": "embedded-it", "documents": 120, "training": {"ranks": [2], "steps": 2}}
    run_training(TrainStudy.parse(study, "test"), tmp_path / "out", Reporter(quiet=True))
    model = ls.load("embedded-it", adapters={"mine": tmp_path / "out/adapters/r2"})
    assert model.adapters == ("mine",)
    with pytest.raises(ls.InputError, match="made for"):
        ls.load("embedded", adapters={"mine": tmp_path / "out/adapters/r2"})
