"""The card holds what was found, twice over the same, and nothing of the author's is touched."""

from __future__ import annotations

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from planted_results import facts_for, planted_estimates
from typer.testing import CliRunner

import lorascope as ls
from lorascope.cards import body
from lorascope.cards.card import fill
from lorascope.cli import app
from lorascope.report.result import write_estimates

AUTHOR = """---
license: mit  # as the data
language: [en]
model-index:
- name: r4
  results:
  - task: {type: text-generation}
    dataset: {type: mmlu, name: MMLU}
    metrics:
    - {type: accuracy, value: 0.41}
tags:
- mine
---
# My adapter

Written by hand, with a table:

| a | b |
|---|---|
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    estimates = planted_estimates()
    write_estimates(estimates, folder / "results")
    facts = facts_for(estimates)
    told = {"sentences": ["It says <b>arr</b> | and `more`."], "null_phrases": [0], "cautions": []}
    checks = [{"check": "bits|back", "passed": False, "detail": "3 of 64"}]
    facts |= {"read": {"r4": told}, "sanity_checks": checks}
    for one in facts["adapters"]:
        place = folder / "adapters" / one["name"]
        place.mkdir(parents=True)
        (place / "adapter_config.json").write_text("{}")
    (folder / "results" / "facts.json").write_text(json.dumps(facts))
    return folder


def test_a_new_card_is_one_that_the_hub_reads(run, tmp_path):
    file = fill(run, "r4", tmp_path / "README.md")
    card = ModelCard(file.read_text())
    assert card.data.base_model == "planted/model-192d"
    assert card.data.library_name == "peft"
    results = card.data.eval_results
    read = ls.Estimates.read(run / "results" / "estimates.parquet")
    values = {(e.measure, e.key.site): e for e in read if e.key.adapter == "r4"}
    assert results
    for one in results:
        assert one.metric_args["chance"] is not None
        assert one.metric_args["verdict"]
        assert {"null", "chance_interval"} <= set(one.metric_args)
    by_type = {(r.metric_type, r.metric_args.get("where", "")): r for r in results}
    (measure, place), metric = next((k, r) for k, r in by_type.items() if k[0] == "delta_norm")
    assert metric.metric_value == pytest.approx(values[measure, place].value, rel=1e-5)
    assert metric.metric_args["chance"] == pytest.approx(values[measure, place].chance, rel=1e-5)


def test_what_was_learned_and_checked_is_told_without_markup(run, tmp_path):
    text = fill(run, "r4", tmp_path / "a.md").read_text()
    assert "It says &lt;b&gt;arr&lt;/b&gt; | and \\`more\\`." in text
    assert "| bits\\|back | **no** | 3 of 64 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {4, 8}
    assert "not read in this run" in fill(run, "r16", tmp_path / "b.md").read_text()


def test_the_author_keeps_every_byte(run, tmp_path):
    file = tmp_path / "README.md"
    file.write_text(AUTHOR)
    fill(run, "r4", file)
    text = file.read_text()
    front, rest = text.split("---\n", 2)[1:]
    assert rest.startswith(AUTHOR.split("---\n", 2)[2])
    assert "license: mit  # as the data\nlanguage: [en]\n" in front
    assert "tags:\n- mine\n" in front
    data = yaml.safe_load(front)
    assert data["tags"] == ["mine"]
    (entry,) = data["model-index"]
    assert entry["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.41}]
    assert len(entry["results"]) == 2
    name, found = model_index_to_eval_results(data["model-index"])
    assert name == "r4"
    assert len(found) > 1


def test_twice_is_once(run, tmp_path):
    for number, start in enumerate((None, AUTHOR, "# Mine", AUTHOR.replace("tags:\n- mine\n", ""))):
        file = tmp_path / f"{number}.md"
        if start is not None:
            file.write_text(start)
        once = fill(run, "r4", file).read_text()
        assert fill(run, "r4", file).read_text() == once
        assert once.count(body.BEGIN) == once.count(body.END) == 1


def test_what_stands_after_the_part_stays_there(run, tmp_path):
    file = fill(run, "r4", tmp_path / "README.md")
    once = file.read_text()
    file.write_text(once.replace("### Numbers", "### Old") + "\n## Later\n")
    assert fill(run, "r4", file).read_text() == once + "\n## Later\n"


def test_another_adapter_on_the_same_card_is_beside(run, tmp_path):
    """Each has an entry of its own; the part in the text is the last one's."""
    file = fill(run, "r4", tmp_path / "README.md")
    fill(run, "r16", file)
    data = yaml.safe_load(file.read_text().split("---\n")[1])
    assert [one["name"] for one in data["model-index"]] == ["r16"]


def test_the_command_finds_the_adapters_folder(run):
    done = CliRunner().invoke(app, ["card", str(run), "--adapter", "r4"])
    assert done.exit_code == 0, done.exception
    file = run / "adapters" / "r4" / "README.md"
    assert done.stdout.strip() == str(file)
    assert body.BEGIN in file.read_text()
    file.unlink()


def test_wrong_input_is_refused(run, tmp_path):
    def refused(*arguments):
        done = CliRunner().invoke(app, ["card", *map(str, arguments)])
        assert isinstance(done.exception, ls.InputError), done.exception
        return str(done.exception)

    assert "finished audit" in refused(tmp_path)
    assert "--adapter" in refused(run)
    assert "r99" in refused(run, "--adapter", "r99")
    bad = tmp_path / "bad.md"
    for text, words in (
        ("---\na: [\n---\n", "YAML"),
        ("---\n- a\n---\n", "keys and values"),
        ("---\nmodel-index: 3\n---\n", "model-index"),
        (f"{body.BEGIN}\nlost", "marks"),
    ):
        bad.write_text(text)
        assert words in refused(run, "--adapter", "r4", "--out", bad)
        assert bad.read_text() == text
    bad.write_bytes(b"\xff\xfe")
    assert "UTF-8" in refused(run, "--adapter", "r4", "--out", bad)
