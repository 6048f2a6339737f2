"""Whatever bytes stand in a file, a person gets one line, and at once."""

import json
import os
import socket

import pytest

from lorascope.config import read_yaml
from lorascope.errors import InputError
from lorascope.foreign import (
    local_path,
    one_line,
    parse_json,
    parse_yaml,
    read_bytes,
    repair,
    repaired,
    require_plain,
)
from lorascope.runs import read_json


def test_halves_of_a_pair_are_joined_and_lone_ones_replaced():
    assert repaired("a\ud83d b") == "a\ufffd b"
    assert repaired("\ud83d\ude00") == "\U0001f600"
    whole = "nothing to do \U0001f600"
    assert repaired(whole) is whole
    data = {"k\udc00": ["x", "\ude00", 3, None], "l": {"m": "\ud83d"}}
    assert repair(data) == ({"k\ufffd": ["x", "\ufffd", 3, None], "l": {"m": "\ufffd"}}, 2)


def test_json_is_repaired_and_its_faults_are_one_line():
    assert parse_json(r'{"a": "\ud83d!"}', "x") == {"a": "\ufffd!"}
    for text, reason in [
        ("{", "not readable as JSON"),
        ("[" * 2000 + "]" * 2000, "nested too deeply"),
        ("7" * 5000, "not readable as JSON"),
        (b"\xff{}", "not readable as JSON"),
    ]:
        with pytest.raises(InputError, match=f"^x: .*{reason}") as caught:
            parse_json(text, "x")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 80 + "]" * 80, "nested too deeply"),
        ("- " * 200 + "x", "nested too deeply"),
        ("b: 2\na: [1", "line 2"),
        ("when: 2020-13-45", "month must be in 1..12"),
        ("? [a, b]\n: 1", "unhashable"),
        ("a: &x [*x]", "alias x stands for nothing before it"),
        ("!!python/tuple [1]", "could not determine a constructor"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a:\n  b: {}\n  b: {x: 1}", r'line 3: not valid YAML \("b" stands twice\)'),
    ],
)
def test_yaml_that_no_settings_file_holds(text, reason):
    with pytest.raises(InputError, match=f"not valid YAML.*{reason}|{reason}") as caught:
        parse_yaml(text, "study.yaml")
    assert "\n" not in str(caught.value)
    assert "study.yaml" in str(caught.value)


def test_aliases_are_counted_as_they_are_written_out():
    assert parse_yaml("a: &x [1, 2]\nb: [*x, *x]", "f") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    # A key that is merged in may be set again.
    merged = parse_yaml("a: &x {b: 1}\nc: {<<: *x, b: 2}", "f")
    assert merged["c"] == {"b": 2}
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    # A hundred thousand values in six lines: small enough to build, too many for settings.
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    with pytest.raises(InputError, match="more than 100,000 values with its aliases written out"):
        parse_yaml("\n".join(lines), "f")


def test_keys_that_yaml_reads_as_something_else_are_text(tmp_path):
    (tmp_path / "a.yaml").write_text("2020-01-01: 1\n3: {yes: 2}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"2020-01-01": 1, "3": {"True": 2}}


def test_only_plain_files_are_read_and_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "s"))
    for name, kind in [("pipe", "a pipe"), ("folder", "a folder"), ("s", "a socket")]:
        for read in (require_plain, read_yaml, read_json):
            with pytest.raises(InputError, match=f"{name}: is {kind}; give a plain file"):
                read(tmp_path / name)
    bound.close()
    with pytest.raises(InputError, match="is a device"):
        read_yaml(local_path("/dev/zero"))
    require_plain(tmp_path / "missing")


def test_a_file_larger_than_its_kind_can_be_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="has 11 bytes, at most 10 are read"):
        read_bytes(tmp_path / "a", 10)
    assert read_bytes(tmp_path / "a", 11) == b"x" * 11


def test_anything_raised_while_reading_is_one_line():
    for error in (RecursionError("deep"), MemoryError(), OverflowError("big\nbig"), KeyError("k")):
        with pytest.raises(InputError, match=r"^f: cannot be read") as caught, one_line("f"):
            raise error
        assert "\n" not in str(caught.value)


def test_home_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/a") == tmp_path / "a"
    assert str(local_path("~nobody-by-this-name/a")) == "~nobody-by-this-name/a"
    (tmp_path / "s.yaml").write_text(json.dumps({"a": 1}))
    assert read_yaml(local_path("~/s.yaml")) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        '["x\\ud83d"]',
        '["x\\uD83D"]',
        '["x\ud83d"]',
        b'["x\\ud83d"]',
        b'["x\xed\xa0\xbd"]',
        '["x\ud83d"]'.encode("utf-16", "surrogatepass"),
        '["x\\ud83d"]'.encode("utf-32"),
    ],
)
def test_halves_are_found_however_they_are_written(text):
    assert parse_json(text, "here") == ["x\ufffd"]
