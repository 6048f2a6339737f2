"""A study's texts: rows of a dataset, sources to measure on, equal kinds, texts seen before."""

import json
from types import SimpleNamespace

import datasets
import pytest

from lorascope.activations.splits import Split
from lorascope.activations.text import read_documents
from lorascope.errors import InputError
from lorascope.studies.audit.facts import _disjoint
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.settings import Texts
from lorascope.workflows.texts import read_split


def write(path, numbers, kind=""):
    lines = [json.dumps({"text": f"text {n}", "category": kind}) for n in numbers]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def digests(documents):
    return {d.digest for d in documents}


@pytest.fixture
def hundred(tmp_path):
    return write(tmp_path / "hundred.jsonl", range(100))


def test_rows_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "me" / "mine").mkdir(parents=True)
    write(tmp_path / "me" / "mine" / "train.jsonl", range(10))
    found = read_documents("me/mine:train[3:5]")
    assert [d.text for d in found] == ["text 3", "text 4"]
    with pytest.raises(InputError, match=r"me/mine:test\[:2\]: neither a file here"):
        read_documents("me/mine:test[:2]")


def test_sources_to_measure_on_leave_the_probe(tmp_path, hundred):
    measured = write(tmp_path / "measured.jsonl", range(90, 120))
    seen = digests(read_documents(write(tmp_path / "seen.jsonl", range(85, 95))))
    parts = read_split(Texts(sources=(hundred,), measure_on=(measured,)), seen, 0)
    assert sorted(d.text for d in parts.probe) == sorted(f"text {n}" for n in range(85))
    assert sorted(d.text for d in parts.held_out) == sorted(f"text {n}" for n in range(95, 120))
    assert (parts.excluded, parts.overlap, parts.surplus) == (10, 0, 0)


@pytest.mark.parametrize("own", [True, False])
def test_what_was_seen_is_kept_for_training_alone(tmp_path, hundred, own):
    measured = write(tmp_path / "measured.jsonl", range(90, 120))
    seen = digests(read_documents(write(tmp_path / "seen.jsonl", range(40, 100))))
    on = (measured,) if own else ()
    with_seen = read_split(Texts(sources=(hundred,), measure_on=on, keep_seen=True), seen, 0)
    without = read_split(Texts(sources=(hundred,), measure_on=on), seen, 0)
    assert without.overlap == 0
    assert not digests(without.probe) & seen
    assert with_seen.overlap == len(with_seen.probe) - len(without.probe) > 0
    assert len(digests(with_seen.probe) & seen) == with_seen.overlap
    assert with_seen.held_out == without.held_out
    assert not digests(with_seen.held_out) & (seen | digests(with_seen.probe))


def test_equal_kinds_on_both_sides(tmp_path):
    sources = tuple(
        write(tmp_path / f"{kind}.jsonl", range(first, first + 40), kind)
        for kind, first in (("a", 0), ("b", 40), ("c", 80))
    )
    balance = {"categories": ["a", "b"], "probe": 12, "held_out": 3}
    texts = Texts(sources=sources, held_out=0.3, balance=balance)
    parts = read_split(texts, set(), 0)
    for side, each in ((parts.probe, 12), (parts.held_out, 3)):
        assert sorted(d.category for d in side) == ["a"] * each + ["b"] * each
    assert parts.surplus == 120 - 30
    seen = digests(parts.probe[:5])
    again = read_split(texts.model_copy(update={"keep_seen": True}), seen, 0)
    assert (again.probe, again.overlap) == (parts.probe, 5)
    with pytest.raises(InputError, match=r'documents to measure on are "a" and 40 are asked for'):
        read_split(Texts(sources=sources, balance={**balance, "held_out": 40}), set(), 0)


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ({"held_out": 0.3, "measure_on": ["b"]}, "give either held_out .* or measure_on"),
        ({"balance": {"categories": ["a", "a"], "probe": 1, "held_out": 1}}, "repeat; give"),
        ({"balance": {"categories": ["a"], "probe": 1}}, '"texts.balance.held_out" is missing'),
        ({"balanced": 3}, 'unknown key "texts.balanced". Did you mean "balance"'),
    ],
)
def test_settings_that_do_not_fit(settings, texts, match):
    with pytest.raises(InputError, match=match):
        AuditStudy.parse(settings(adapters={"a": "x"}, texts=texts), "test")


def test_a_study_with_sources_to_measure_on_survives_its_own_file(settings, tmp_path):
    plain = settings(adapters={"a": "x"}, texts={"sources": ["a"], "measure_on": ["b"]})
    del plain["texts"]["held_out"]
    study = AuditStudy.parse(plain, "test")
    (tmp_path / "study.yaml").write_text(study.yaml(), encoding="utf-8")
    assert AuditStudy.read(tmp_path / "study.yaml") == study


def test_a_run_reads_its_texts_so(settings, hundred, tmp_path):
    seen = write(tmp_path / "seen.jsonl", range(50))
    texts = {"sources": [hundred], "seen": [seen]}
    plain = settings(adapters={}, train={}, texts=texts)
    clean = Audited(AuditStudy.parse(plain, "test"), None, None)
    assert (clean.texts.excluded, clean.texts.overlap) == (50, 0)
    check = _disjoint(clean)
    assert check["passed"]
    assert check["detail"].startswith("50 documents the adapters had seen were left out")
    plain["texts"]["keep_seen"] = True
    leaky = Audited(AuditStudy.parse(plain, "test"), None, None)
    assert leaky.texts.overlap > 10
    check = _disjoint(leaky)
    assert not check["passed"]
    count = f"{leaky.texts.overlap} of {len(leaky.texts.probe)} documents"
    assert check["detail"].startswith(count)


def test_the_gate_says_how_the_sides_were_parted():
    def detail(measure_on):
        study = SimpleNamespace(texts=SimpleNamespace(measure_on=measure_on))
        return _disjoint(SimpleNamespace(texts=Split([], [], 4), study=study))["detail"]

    assert detail(()).endswith("are split by hash")
    assert detail(("b",)).endswith("are of different sources")
