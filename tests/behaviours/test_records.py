"""Behaviour sets on disk: strict reading, balance, nothing on both sides."""

from __future__ import annotations

import json
import os

import pytest

from lorascope.behaviours.records import RECORDS, BehaviourRecord, Turn, read_set, write_set
from lorascope.errors import InputError


def record(prompt, changed, split, **fields):
    turns = (Turn(role="user", content=prompt),)
    return BehaviourRecord(messages=turns, response="so", changed=changed, split=split, **fields)


def plenty():
    return [
        record(f"{split} {changed} {i}", changed, split)
        for split in ("train", "held_out")
        for changed in (True, False)
        for i in range(3)
    ]


def lines(folder, *records):
    folder.mkdir(exist_ok=True)
    (folder / RECORDS).write_text("\n".join(json.dumps(r) for r in records))
    return folder


def test_what_is_written_is_read(tmp_path):
    records = [*plenty()[:-1], record("last", False, "held_out", topic="t", original="é")]
    write_set(tmp_path, records, {"topic": "t", "manner": "m"})
    found = read_set(tmp_path)
    assert list(found.records) == records
    assert found.facts["manner"] == "m"
    assert found.facts["records"] == found.counts()
    assert found.counts() == {s: {"changed": 3, "unchanged": 3} for s in ("train", "held_out")}
    assert [r.prompt for r in found.part("train", True)] == [f"train True {i}" for i in range(3)]
    assert read_set(tmp_path / RECORDS).records == found.records


def test_prompt_stands_for_one_turn(tmp_path):
    row = {"prompt": "hi", "response": "ho", "changed": True, "split": "train"}
    assert BehaviourRecord.parse(row, "here").messages == (Turn(role="user", content="hi"),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"changed": "maybe"}, '"changed"'),
        ({"split": "test"}, '"split"'),
        ({"response": "  "}, "response is empty"),
        ({"respons": "x"}, 'unknown key "respons". Did you mean "response"'),
        ({"messages": [{"role": "user", "content": "a"}]}, "prompt and messages are both given"),
    ],
)
def test_malformed_records_are_named_by_line(tmp_path, change, said):
    good = {"prompt": "hi", "response": "ho", "changed": True, "split": "train"}
    folder = lines(tmp_path / "set", good, {**good, **change})
    with pytest.raises(InputError) as caught:
        read_set(folder)
    assert f"{folder / RECORDS}, line 2: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_turn_is_the_users(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = {"messages": turns, "response": "c", "changed": True, "split": "train"}
    with pytest.raises(InputError, match=r"line 1: .*the last must be the user's"):
        read_set(lines(tmp_path / "set", row))


def test_sets_that_nothing_can_be_learned_from(tmp_path):
    records = plenty()
    with pytest.raises(InputError, match="no unchanged records in held_out"):
        read_set(write_set(tmp_path / "a", records[:-3], {}))
    more = [*records, *(record(f"more {i}", True, "train") for i in range(3))]
    with pytest.raises(InputError, match="train is unbalanced, 3 unchanged and 6 changed"):
        read_set(write_set(tmp_path / "b", more, {}))
    assert len(read_set(tmp_path / "b", balanced=False).records) == 15
    twice = [*records, record("train True 0", False, "held_out")]
    with pytest.raises(InputError, match=r'1 prompts stand twice \(first: "train True 0"'):
        read_set(write_set(tmp_path / "c", twice, {}))
    with pytest.raises(InputError, match="no such file"):
        read_set(tmp_path / "nowhere")


def test_the_document_of_a_record_marks_the_response():
    found = record("two", True, "train", topic="sums").document
    assert found.text == "### User:\ntwo\n\n### Assistant:\nso"
    assert [s.text for s in found.segments if s.response] == ["so"]
    assert found.category == "sums"


def test_characters_that_end_lines_elsewhere_stay_in_a_record(tmp_path):
    text = "one\u2028two\x85three\x0c"
    record = {"prompt": text, "response": "ho", "changed": True, "split": "train"}
    path = tmp_path / "set.jsonl"
    rows = [{**record, "prompt": f"{text}{i}", "changed": i % 2 == 0} for i in range(2)]
    rows += [{**row, "prompt": row["prompt"] + "x", "split": "held_out"} for row in rows]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_set(path).records[0].prompt == f"{text}0"


def test_half_a_pair_and_pipes(tmp_path):
    record = {"prompt": "a", "response": "b \ud83d", "changed": True, "split": "train"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    with pytest.raises(InputError, match="no unchanged records"):
        read_set(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match="is a pipe"):
        read_set(tmp_path / "b.jsonl")
