"""Files as people have them: read as streams, with what is empty or broken told apart."""

import gzip
import json
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lorascope.activations import sources
from lorascope.activations.sources import RecordTally, read_records
from lorascope.activations.text import read_documents
from lorascope.errors import InputError

CALL = [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}]


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read(path, **given):
    tally = RecordTally()
    return [d.text for d in read_documents(str(path), tally=tally, **given)], tally


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path):
    records = [{"text": "plain"}, {"text": "cut \ud83d off"}, {"text": "whole \U0001f600"}]
    (tmp_path / "a.jsonl").write_text(lines(*records))
    (tmp_path / "b.json").write_text(json.dumps({"data": records}))
    for name in ("a.jsonl", "b.json"):
        texts, tally = read(tmp_path / name)
        assert texts == ["plain", "cut \ufffd off", "whole \U0001f600"]
        assert tally == RecordTally(records=3, repaired=1)


@pytest.mark.parametrize(
    "empty",
    [
        {"text": None},
        {"text": ""},
        {"text": "\u200b\u2060\ufeff \u3164"},
        {"messages": None},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": CALL}]},
        {"instruction": None, "output": "x"},
        {"instruction": "x", "output": None},
        {"instruction": " ", "input": "y", "output": ""},
        None,
    ],
)
def test_what_is_empty_is_left_out_and_counted(tmp_path, empty):
    (tmp_path / "a.jsonl").write_text(lines({"text": "seen"}, empty, {"text": "seen"}))
    texts, tally = read(tmp_path / "a.jsonl")
    assert texts == ["seen"]
    assert (tally.records, tally.empty, tally.duplicates) == (3, 1, 1)


def test_null_in_a_table_is_left_out(tmp_path):
    parquet.write_table(pa.table({"text": ["one", None, "two"]}), tmp_path / "a.parquet")
    texts, tally = read(tmp_path / "a.parquet")
    assert texts == ["one", "two"]
    assert tally.empty == 1


@pytest.mark.parametrize("silent", [{"content": None}, {}, {"content": ""}, {"content": []}])
def test_turns_that_say_nothing_are_left_out_of_their_chat(tmp_path, silent):
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": CALL, **silent},
        {"role": "tool", "content": "dry"},
        {"role": "assistant", "content": "It stays dry."},
    ]
    (tmp_path / "a.jsonl").write_text(lines({"messages": messages}))
    texts, tally = read(tmp_path / "a.jsonl")
    assert texts == ["### User:\nWeather?\n\n### Tool:\ndry\n\n### Assistant:\nIt stays dry."]
    assert tally == RecordTally(records=1, turns=1)


def test_a_content_of_parts_is_its_text(tmp_path):
    picture = {"type": "image_url", "image_url": {"url": "x"}}
    parts = [{"type": "text", "text": "What "}, picture, {"type": "text", "text": "is it?"}]
    record = {
        "messages": [{"role": "user", "content": parts}, {"role": "user", "content": [picture]}]
    }
    (tmp_path / "a.jsonl").write_text(lines(record))
    texts, tally = read(tmp_path / "a.jsonl")
    assert texts == ["### User:\nWhat is it?"]
    assert tally.turns == 1


def test_no_plain_file_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(InputError, match=r"a\.jsonl: is a pipe"):
        read_documents(str(tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match=r"a\.jsonl: is a pipe"):
        read_documents(str(tmp_path))
    with pytest.raises(InputError, match=r"b\.json: no readable files in it"):
        read_documents(str(tmp_path / "b.json"))
    with pytest.raises(InputError, match="is a device"):
        read_documents("/dev/zero")


def test_home_may_be_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text(lines({"text": "at home"}))
    assert read("~/a.jsonl")[0] == ["at home"]
    with pytest.raises(InputError, match=r"~/b\.jsonl: no such file or folder"):
        read_documents("~/b.jsonl")


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_json_is_the_same_in_any_pieces(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    items = [{"text": 'a "b" \\ \u00e9 {[,]}', "n": [1, -2.5e-3, True, None]}, "bare", 123456, []]
    for data, expected in [
        (items, items),
        ({"version": 12345, "rows": items, "note": "x"}, items),
        ({"text": "one", "tags": [1, 2]}, [{"text": "one", "tags": [1, 2]}]),
        ({"messages": [{"role": "user"}]}, [{"messages": [{"role": "user"}]}]),
        ({"a": [], "b": []}, [{"a": [], "b": []}]),
        ([], []),
    ]:
        (tmp_path / "a.json").write_text(json.dumps(data, indent=1))
        found = [record for _, record in read_records(str(tmp_path / "a.json"))]
        wanted = [{"text": item} if isinstance(item, str) else item for item in expected]
        assert found == wanted


@pytest.mark.parametrize(
    "text",
    [
        '[{"text": "x"}',
        '[{"text": "x"} 1]',
        "[1,]",
        '{"a" 1}',
        "[1] 2",
        '["x',
        "",
        "[tru]",
        "{1: 2}",
    ],
)
def test_json_that_is_broken_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: (cannot be read|expected a list)"):
        list(read_records(str(tmp_path / "a.json")))


def test_depth_and_length_have_limits(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text("[" * 3000 + "]" * 3000)
    (tmp_path / "a.json").write_text("[" * 3000 + "]" * 3000)
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: .*nested too deeply"):
        list(read_records(str(tmp_path / "a.jsonl")))
    with pytest.raises(InputError, match=r"a\.json: .*nested too deeply"):
        list(read_records(str(tmp_path / "a.json")))
    monkeypatch.setattr(sources, "LONGEST_RECORD", 100)
    monkeypatch.setattr(sources, "LONGEST_TEXT", 100)
    monkeypatch.setattr(sources, "_CHUNK", 64)
    (tmp_path / "b.jsonl").write_text(lines({"text": "x" * 200}))
    (tmp_path / "b.json").write_text(json.dumps([{"text": "x" * 600}]))
    (tmp_path / "b.txt").write_text("x" * 101)
    for name in ("b.jsonl", "b.json", "b.txt"):
        with pytest.raises(InputError, match="more than 100 characters"):
            list(read_records(str(tmp_path / name)))


def written(folder, rows):
    """The same rows as every kind of file."""
    made = [{"text": f"{i} " + "words of no weight " * 20} for i in range(rows)]
    (folder / "a.jsonl").write_text(lines(*made))
    (folder / "a.json").write_text(json.dumps(made))
    (folder / "b.json").write_text(json.dumps({"rows": made}))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines(*made).encode(), 1))
    table = pa.Table.from_pylist(made)
    parquet.write_table(table, folder / "a.parquet", compression="none", use_dictionary=False)
    return ["a.jsonl", "a.json", "b.json", "a.jsonl.gz", "a.parquet"]


def test_memory_is_that_of_the_documents_used(tmp_path):
    names = written(tmp_path, 20000)  # 8 MB each
    for name in names:
        tracemalloc.start()
        found = read_documents(str(tmp_path / name), limit=50)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found) == 50
        assert peak < 3e6, f"{name}: {peak / 1e6:.1f} MB"
    tracemalloc.start()
    # All rows are gone through; none is kept.
    count = sum(1 for _ in read_records(str(tmp_path / "b.json")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20000
    assert peak < 3e6
