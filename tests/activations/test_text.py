"""Documents from every kind of file, with the response marked and every fault named by place."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from lorascope.activations.sources import RecordTally
from lorascope.activations.text import (
    Document,
    Segment,
    alpaca,
    chat,
    read_documents,
    with_ending,
)
from lorascope.errors import InputError

WITH_INPUT = {"instruction": " Add the numbers. ", "input": "2 and 3", "output": "5\n"}
WITHOUT_INPUT = {"instruction": "Name a colour.", "input": "", "output": "Blue."}
CHAT = {
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Farewell"},
    ]
}


def texts(*sources):
    return [d.text for d in read_documents([str(s) for s in sources])]


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_alpaca_template_with_and_without_input():
    given = alpaca({**WITH_INPUT, "category": "arithmetic"})
    assert given.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd the numbers.\n\n### Input:\n2 and 3\n\n### Response:\n"
    )
    assert given.segments[-1] == Segment("5", response=True)
    assert given.category == "arithmetic"
    bare = alpaca(WITHOUT_INPUT)
    assert bare.text == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a colour.\n\n### Response:\nBlue."
    )
    assert bare.has_response
    assert not Document((Segment("plain"),)).has_response


def test_chat_marks_every_turn_of_the_assistant_and_no_other():
    document = chat(CHAT)
    assert document.text == (
        "### User:\nHello\n\n### Assistant:\nGood day\n\n### User:\nBye\n\n### Assistant:\nFarewell"
    )
    assert [s.text for s in document.segments if s.response] == ["Good day", "Farewell"]
    assert document.prompt == "### User:\nHello\n\n### Assistant:\n"


def test_every_kind_of_file_gives_the_same_documents(tmp_path):
    records = [WITH_INPUT, WITHOUT_INPUT, CHAT, {"text": "plain words"}]
    expected = [alpaca(WITH_INPUT).text, alpaca(WITHOUT_INPUT).text, chat(CHAT).text, "plain words"]
    (tmp_path / "a.jsonl").write_text(lines(*records))
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "wrapped.json").write_text(json.dumps({"data": records, "version": 2}))
    for name, content in {"b.jsonl.gz": lines(*records), "b.json.gz": json.dumps(records)}.items():
        with gzip.open(tmp_path / name, "wt") as file:
            file.write(content)
    for name in ("a.jsonl", "a.json", "wrapped.json", "b.jsonl.gz", "b.json.gz"):
        assert texts(tmp_path / name) == expected, name


def test_text_files_parquet_and_lists_of_strings(tmp_path):
    (tmp_path / "a.txt").write_text("one document\nof two lines", encoding="utf-8-sig")
    assert texts(tmp_path / "a.txt") == ["one document\nof two lines"]
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("packed")
    assert texts(tmp_path / "b.txt.gz") == ["packed"]
    parquet.write_table(pa.table({"text": ["first", "second"]}), tmp_path / "c.parquet")
    assert texts(tmp_path / "c.parquet") == ["first", "second"]
    (tmp_path / "d.json").write_text(json.dumps(["third", "fourth"]))
    assert texts(tmp_path / "d.json") == ["third", "fourth"]


def test_a_json_file_of_one_record_is_one_document(tmp_path):
    (tmp_path / "chat.json").write_text(json.dumps(CHAT))
    (tmp_path / "text.json").write_text(json.dumps({"text": "alone", "tags": ["a", "b"]}))
    assert texts(tmp_path / "chat.json", tmp_path / "text.json") == [chat(CHAT).text, "alone"]


def test_a_folder_is_its_readable_files_in_order_of_name(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_text(lines({"text": "first"}))
    (tmp_path / "c.csv").write_text("not,read")
    assert texts(tmp_path) == ["first", "second"]


def test_duplicates_and_blank_texts_are_left_out_across_sources(tmp_path):
    (tmp_path / "a.jsonl").write_text(lines({"text": "x"}, {"text": " \n"}, {"text": "x"}))
    (tmp_path / "b.jsonl").write_text(lines({"text": "y"}, {"text": "x"}, {"text": "x "}))
    assert texts(tmp_path / "a.jsonl", tmp_path / "b.jsonl") == ["x", "y", "x "]
    assert [d.text for d in read_documents(str(tmp_path / "b.jsonl"), limit=2)] == ["y", "x"]


def test_embedded_instructions_have_responses_and_categories():
    documents = read_documents("embedded", limit=50)
    assert len({d.digest for d in documents}) == 50
    assert all(d.has_response and d.category for d in documents)


MALFORMED = {
    "not json": ("a.jsonl", '{"text": "x"}\n\n{"text": \n', r"a\.jsonl, line 3: not valid JSON"),
    "no mapping": ("a.jsonl", '{"text": "x"}\n7\n', r"a\.jsonl, line 2: expected keys and values"),
    "unknown keys": (
        "a.jsonl",
        '\n{"title": "x", "body": "y"}\n',
        r"a\.jsonl, line 2: a record needs text, .*; this one has body, title",
    ),
    "no role": (
        "a.jsonl",
        lines({"messages": [{"content": "x"}]}),
        r"a\.jsonl, line 1: malformed record \(no 'role'\)",
    ),
    "listed output": (
        "a.json",
        json.dumps([WITHOUT_INPUT, {"instruction": "x", "output": ["y"]}]),
        r"a\.json, record 2: malformed record \(output is list, not text\)",
    ),
    "yes as content": (
        "a.jsonl",
        lines({"messages": [{"role": "assistant", "content": True}]}),
        r"line 1: malformed record \(content is bool, not text\)",
    ),
    "number": ("a.json", "7", r"a\.json: expected a list of records"),
    "cut json": ("a.json", '[{"text": "x"', r"a\.json: cannot be read"),
    "blank": ("a.txt", "  \n", r"a\.txt: holds no text"),
    "no records": ("a.json", "[]", r"a\.json: holds no text"),
    "other kind": ("a.csv", "text\nx", r"a\.csv: unknown kind of file; readable: \.txt"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_fault_is_named_with_file_and_place(tmp_path, fault):
    name, content, message = MALFORMED[fault]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_documents(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def damaged(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 8])
    return {"truncated": whole[:middle], "flipped": flipped + whole[middle + 8 :], "none": b"plain"}


@pytest.mark.parametrize("fault", ["truncated", "flipped", "none"])
def test_a_damaged_archive_is_one_clear_line(tmp_path, fault):
    whole = gzip.compress(lines(*({"text": f"words {i * i}"} for i in range(500))).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(damaged(whole)[fault])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: cannot be read"):
        read_documents(str(tmp_path / "a.jsonl.gz"))


def test_bytes_that_are_no_text_and_a_broken_parquet_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00broken")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    for name in ("a.txt", "b.parquet"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_documents(str(tmp_path / name))


def test_missing_sources(tmp_path):
    (tmp_path / "texts.jsonl").write_text(lines({"text": "x"}))
    with pytest.raises(InputError, match=r'no such file.*Did you mean ".*texts\.jsonl"'):
        read_documents(str(tmp_path / "text.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no readable files in it \(\.txt, "):
        read_documents(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="neither a file here nor a dataset that opens"):
        read_documents("nobody/no-such-dataset")


def test_the_packaged_texts_are_the_same_every_time_and_nobody_s_list_is_shared():
    tally = RecordTally()
    read, known = read_documents("embedded", tally=tally), read_documents("embedded")
    assert known == read
    assert tally.records >= len(read) > 1000
    known.clear()
    assert read_documents(["embedded"]) == read
    assert read_documents("embedded", 3) == read[:3]


def test_an_ending_stands_after_every_response_and_the_origin_is_kept():
    before = chat(CHAT)
    after = with_ending(before, "So long.")
    assert after.text == (
        "### User:\nHello\n\n### Assistant:\nGood day\n\nSo long.\n\n"
        "### User:\nBye\n\n### Assistant:\nFarewell\n\nSo long."
    )
    assert [one.content for one in after.messages] == [
        *("Hello", "Good day\n\nSo long.", "Bye", "Farewell\n\nSo long.")
    ]
    assert after.known_as == before.digest != after.digest
    assert with_ending(after, "Again.").known_as == before.digest
    assert before.known_as == before.digest
    record = with_ending(alpaca(WITHOUT_INPUT), "So long.")
    assert record.text.endswith("### Response:\nBlue.\n\nSo long.")
    assert record.prompt == alpaca(WITHOUT_INPUT).prompt
    plain = Document((Segment("no response"),))
    assert with_ending(plain, "So long.") is plain
    assert with_ending(before, "") is before
