"""Mutated files at every border where text, settings and records come in: one line, or a result."""

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.activations.text import read_documents
from lorascope.behaviours.exchanges import read_exchanges
from lorascope.behaviours.records import read_set
from lorascope.config import override, read_yaml
from lorascope.errors import InputError
from lorascope.studies.audit.study import AuditStudy

RECORDS = [
    {"text": "one \ud83d two", "category": "a"},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]},
    {"instruction": "Say", "input": "", "output": "it"},
    {"prompt": "a", "response": "b", "helpfulness": 3, "correctness": 4},
]
TURNS = [
    {
        "prompt": str(i),
        "response": "x",
        "changed": i % 2 == 0,
        "split": ("train", "held_out")[i < 2],
    }
    for i in range(4)
]
STUDY = """
model: embedded
adapters: &a {r4: runs/r4}
sites: [layers.1, layers.3]
texts: {sources: [embedded], documents: 100}
dictionaries: {architecture: {architecture: relu, n_latents: 64, l1: 0.1}, seeds: [0, 1]}
measures: {rows: 1000, pursuit: false}
dtype: float32
"""


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table():
    rows = [{"text": f"row {i}", "category": None if i % 3 else "b"} for i in range(30)]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink, compression="none")
    return sink.getvalue().to_pybytes()


def a_study(path):
    data = override(read_yaml(path), ["seed=1"])
    return AuditStudy.parse(data, str(path)).digest()


SEEDS = {
    "a.jsonl": (lines(RECORDS[:3]), lambda p: read_documents(str(p))),
    "a.json": (json.dumps({"rows": RECORDS[:3]}).encode(), lambda p: read_documents(str(p))),
    "a.jsonl.gz": (gzip.compress(lines(RECORDS[:3])), lambda p: read_documents(str(p))),
    "a.parquet": (table(), lambda p: read_documents(str(p))),
    "b.jsonl": (lines(RECORDS[1:]), lambda p: read_exchanges([str(p)])),
    "set.jsonl": (lines(TURNS), read_set),
    "study.yaml": (STUDY.encode(), a_study),
}
# What a mutation may put in: pieces that mean something to one of the parsers.
PIECES = [
    *(
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
        b"1e999",
        b"-1",
        b"0x10",
        b"[]",
        b"{}",
        b'""',
        b"[",
        b"}",
    ),
    *(
        rb"\ud800",
        rb"\u0000",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\r",
        b"\xe2\x80\xa8",
        b"&a ",
        b"*a",
    ),
    *(b"!!python/tuple ", b"!!set", b"<<: ", b"? ", b"2001-01-01", b"---\n", b"%YAML 9\n"),
    *(b"9" * 400, b"[" * 200, b"- " * 90, b'{"text":' * 200),
]
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2000), st.integers(0, 12), st.sampled_from(PIECES) | st.binary(max_size=4)
    ),
    min_size=1,
    max_size=4,
)


def refusal(read, path):
    """What is said of a file; empty where it is taken."""
    try:
        read(path)
    except InputError as error:
        return str(error)
    return ""


def fuzz(name, examples):
    whole, read = SEEDS[name]

    @settings(
        max_examples=examples,
        deadline=5000,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CHANGES)
    def one(changes):
        data = bytearray(whole)
        for place, cut, put in changes:
            at = place % (len(data) + 1)
            data[at : at + cut] = put
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(data)
            said = refusal(read, path)
            assert "\n" not in said
            said.encode()

    one()


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_give_one_line_or_a_result(name):
    read = SEEDS[name][1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(SEEDS[name][0])
        assert read(path)
    fuzz(name, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_many_mutated_files_give_one_line_or_a_result(name):
    fuzz(name, 1500)
