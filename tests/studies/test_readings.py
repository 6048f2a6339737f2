"""What an audit says of its adapters in words: the reading's own words, on its own texts."""

import pytest

from lorascope.config import digest
from lorascope.reading.carried import read_carriers
from lorascope.reading.result import Read
from lorascope.reading.settings import Reading
from lorascope.report.result import read_results
from lorascope.studies.audit.page import readings
from lorascope.studies.audit.readings import _content, settings_of
from lorascope.studies.audit.sections.opening import IN_WORDS
from lorascope.studies.audit.sections.reading import sentences
from lorascope.studies.audit.sections.terminal import summary_data
from lorascope.studies.audit.study import AuditStudy


@pytest.fixture(scope="module")
def results(finished_run):
    return read_results(finished_run)


def test_every_adapter_is_read_beside_the_study_s_null_adapters(results, finished_run):
    assert list(results.facts["read"]) == ["r2", "r4"]
    for name, told in results.facts["read"].items():
        found = Read.load(finished_run / "read" / name)
        assert found.nulls == (f"{name}~null0", f"{name}~null1")
        assert told["sentences"] == sentences(found)
        assert told["names"] == [phrase.text for phrase in found.named]
        assert told["null_phrases"] == [len(phrases) for phrases in found.null_phrases]
        assert told["example"]["base"] == found.example.base
        assert (finished_run / told["page"]).is_file()


def test_carriers_and_drifting_base_latents_are_stages_of_their_own(results, finished_run):
    assert [(one["adapter"], one["site"]) for one in results.facts["drift"]] == [
        ("r2", "layers.1"),
        ("r4", "layers.1"),
    ]
    for one in results.facts["drift"]:
        assert 0 < one["looked_at"] <= one["latents"] == 64
        assert one["n_nulls"] == 2
        assert len(one["rows"]) == min(40, one["drifting"])
    for name, told in results.facts["read"].items():
        kept = read_carriers(finished_run / "carriers" / name)
        found = Read.load(finished_run / "read" / name)
        assert len(told["carriers"]) == len(kept) + len(found.carriers)
        assert all(one.part in ("delta", "base") for one in kept)
        assert bool(kept) <= bool(found.phrases)


def test_a_reading_s_numbers_are_in_the_table(results, finished_run):
    for name in ("r2", "r4"):
        own = [e for e in results.numbers if e.measure.startswith("reading.")]
        mine = [e for e in own if e.key.adapter == name]
        kept = Read.load(finished_run / "read" / name).estimates
        assert [e.value for e in mine] == [e.value for e in kept]
        assert {e.key.rank for e in mine} == {int(name[1:])}
        assert all(e.rivals for e in mine)


def test_the_first_screen_and_the_terminal_say_it(results, finished_run):
    from lorascope.report.latents import read_latents
    from lorascope.studies.audit.sections.words import words

    said = words(results, read_latents(finished_run))
    titles = [title for title, _ in said.leads]
    assert titles[:2] == ["Adapters", IN_WORDS]
    spoken = dict(said.leads)[IN_WORDS]
    for told in results.facts["read"].values():
        assert told["sentences"][0] in spoken
    found = summary_data(finished_run, finished_run / "report" / "index.html")["found"]
    assert spoken in [one["words"] for one in found]


def test_the_page_shows_it_as_text(results, finished_run):
    page = (finished_run / "report" / "index.html").read_text(encoding="utf-8")
    assert 'href="#words"' in page
    for one in readings(results):
        assert f'href="../{one["page"]}"' in page


def test_a_reading_is_of_the_study_s_texts_unless_it_names_others(settings):
    plain = settings(adapters={"a": "x"})
    study = AuditStudy.parse(plain, "test")
    assert settings_of(study).texts == study.texts.sources
    named = AuditStudy.parse({**plain, "reading": {"texts": ["embedded"], "tokens": 8}}, "test")
    assert settings_of(named).texts == ("embedded",)
    assert settings_of(named).tokens == 8
    without = AuditStudy.parse({**plain, "controls": {"null_adapters": 0}}, "test")
    assert settings_of(without).nulls == 0
    assert AuditStudy.parse({**plain, "reading": None}, "test").reading is None
    assert Reading() == AuditStudy.parse(plain, "test").reading


def test_other_texts_are_read_again(settings, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "w1 w2 w3"}\n', encoding="utf-8")
    reading = Reading(texts=(str(path),))
    first = _content(reading)
    assert _content(reading) == first
    path.write_text('{"text": "w1 w2 w4"}\n', encoding="utf-8")
    assert _content(reading) != first
    assert _content(Reading(texts=(str(path),), documents=0)) == digest([])
