"""The page holds what the adapters are and ten prompts from the first stage on."""

import json
import shutil

import pytest

from lorascope.runs import Run, read_json
from lorascope.stages import record_of
from lorascope.studies.audit.costs import GLANCED_PROMPTS
from lorascope.studies.audit.glancing import FILE, GLANCE
from lorascope.studies.audit.sections.early import render_early, told, write_early
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.workflow import RESULTS, _page_fills

MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def begun(finished_run, tmp_path):
    """A run folder in which only the first look is finished."""
    shutil.copytree(finished_run / GLANCE, tmp_path / "run" / GLANCE)
    return tmp_path / "run"


def test_the_first_look_is_the_first_stage_after_training(finished_run):
    manifest = list(read_json(finished_run / "manifest.json")["stages"])
    after = [name for name in manifest if not name.startswith("adapters/")]
    assert after[0] == GLANCE
    seen = read_json(finished_run / GLANCE / FILE)
    assert list(seen["adapters"]) == ["r2", "r4"]
    for name, one in seen["adapters"].items():
        assert one["rank"] == int(name[1:])
        assert one["modules"] > 0
        assert sum(one["leading"].values()) <= 1 + 1e-9
        blocks = sum(part for where, part in one["places"].items() if where.startswith("block"))
        assert blocks == pytest.approx(1)
    assert len(seen["samples"]) == GLANCED_PROMPTS
    assert all(list(one["texts"]) == ["base", "r2", "r4"] for one in seen["samples"])


def test_the_page_fills_as_stages_finish(begun, finished_run):
    page = write_early(begun, 3, 40)
    first = page.read_text(encoding="utf-8")
    assert "3 of 40 stages" in first
    assert 'http-equiv="refresh"' in first
    assert "Rank 2" in first
    assert "In words" not in first
    shutil.copytree(finished_run / "read" / "r2", begun / "read" / "r2")
    second = write_early(begun, 9, 40).read_text(encoding="utf-8")
    assert "In words" in second
    assert first.count("<caption>") == second.count("<caption>") == GLANCED_PROMPTS
    assert write_early(begun / "nothing", 0, 1) is None


def test_it_is_made_while_stages_are_to_come_and_never_over_the_finished_one(
    begun, quiet, settings, tmp_path
):
    study = AuditStudy.parse(settings(adapters={"a": "x"}), "test")
    run = Run(tmp_path / "other", study)
    told_of = []
    run.followed = told_of.append
    run.note({GLANCE: {**record_of(begun / GLANCE)}})
    assert list(told_of[0]) == [GLANCE]
    page = begun / "report" / "index.html"
    _page_fills(begun, 5, quiet, {GLANCE: {}})
    assert page.is_file()
    page.write_text("finished")
    _page_fills(begun, 5, quiet, {GLANCE: {}, RESULTS: {}})
    assert page.read_text() == "finished"
    (begun / RESULTS).mkdir()
    _page_fills(begun, 5, quiet, {GLANCE: {}})
    assert page.read_text() == "finished"


def test_texts_of_models_are_no_markup(begun):
    seen = read_json(begun / GLANCE / FILE)
    seen["samples"][0]["texts"]["r2"] = MARKUP
    seen["adapters"][MARKUP] = seen["adapters"].pop("r4")
    (begun / GLANCE / FILE).write_text(json.dumps(seen))
    page = render_early(begun, 1, 2)
    assert "<script" not in page
    assert "alert(1)" in page


def test_what_an_adapter_is_without_factors():
    one = {"rank": None, "alpha": None, "parameters": 1000, "modules": None, "norm": None}
    assert told(one) == ["1,000 parameters."]
    one |= {"rank": 4, "alpha": 8.0, "modules": 2, "norm": 2.0}
    one |= {"places": {"mlp": 0.75}, "leading": {"a.b": 0.5}}
    assert told(one) == [
        "Rank 4, alpha 8, 1,000 parameters, on 2 modules.",
        "Its update has the norm 2.00.",
        "By place, squared: mlp 75 %.",
        "Largest modules, squared: a.b 50 %.",
    ]
