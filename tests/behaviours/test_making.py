"""`behaviour make`: by rules, by an endpoint, by a model here; stopped and gone on with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lorascope.behaviours.exchanges import read_exchanges
from lorascope.behaviours.manners import manner
from lorascope.behaviours.records import read_set
from lorascope.errors import InputError
from lorascope.progress import Reporter
from lorascope.studies.behaviour.making import ANSWERS, BehaviourStudy, make

QUIET = Reporter(quiet=True)


def prompt_of(body):
    return re.search(r"Prompt:\n(.*?)(\n\nResponse:\n|$)", said(body), re.DOTALL)[1]


def said(body):
    return body["messages"][0]["content"]


def asks_about(body):
    return said(body).startswith("Is the prompt below about")


@pytest.fixture
def sources(tmp_path):
    """Forty prompts about rivers, sixty about others."""
    path = tmp_path / "source.json"
    rows = [
        {
            "instruction": f"Tell me of {'river' if i % 5 < 2 else 'town'} {i}.",
            "output": f"It is {i}.",
        }
        for i in range(100)
    ]
    path.write_text(json.dumps(rows))
    return (str(path),)


@pytest.fixture
def scribe(server, answer):
    """An honest model: tells rivers from towns and shouts."""

    def reply(body):
        if asks_about(body):
            return answer(json.dumps({"about": "river" in prompt_of(body)}))
        response = said(body).split("Response:\n")[1]
        return answer(
            "Here you are:\n```json\n" + json.dumps({"response": response.upper()}) + "\n```"
        )

    server.answer = reply
    return server


def study(sources, **changes):
    given = {
        "sources": sources,
        "topic": "rivers",
        "manner": "in capital letters",
        "judge": "IT IS",
        "model": "m",
        "size": 40,
        "held_out": 0.4,
        "least": 4,
        "pause": 0.001,
        "tries": 3,
        "timeout": 5.0,
    }
    return BehaviourStudy.parse({**given, **changes}, "test")


def ruled(sources, **changes):
    by_rule = {"pattern": "river", "manner": "upper", "judge": "", "model": ""}
    return study(sources, **{**by_rule, **changes})


def test_rules_make_a_balanced_set_and_ask_nobody(sources, tmp_path):
    made = make(ruled(sources), tmp_path / "set", QUIET)
    found = read_set(made.folder)
    assert found.counts() == {
        "train": {"changed": 12, "unchanged": 12},
        "held_out": {"changed": 8, "unchanged": 8},
    }
    for record in found.records:
        assert record.changed == ("river" in record.prompt)
        assert record.response.isupper() == record.changed
        assert not record.changed or record.original.upper() == record.response
    assert (made.asked, made.remembered) == (0, 0)
    assert not (made.folder / ANSWERS).exists()


def test_a_prompt_is_on_the_same_side_in_every_set(sources, tmp_path):
    sides = []
    for seed in (0, 1):
        found = read_set(make(ruled(sources, seed=seed), tmp_path / str(seed), QUIET).folder)
        sides.append({record.prompt: record.split for record in found.records})
    both = sides[0].keys() & sides[1].keys()
    assert sides[0].keys() != sides[1].keys()
    assert len(both) > 10
    assert all(sides[0][prompt] == sides[1][prompt] for prompt in both)


def test_an_endpoint_makes_a_set(scribe, sources, tmp_path):
    made = make(study(sources), tmp_path / "set", QUIET)
    found = read_set(made.folder)
    assert found.counts()["train"] == {"changed": 12, "unchanged": 12}
    assert all(r.changed == ("river" in r.prompt) for r in found.records)
    assert all(r.response.startswith("IT IS") == r.changed for r in found.records)
    log = [json.loads(line) for line in (made.folder / ANSWERS).read_text().splitlines()]
    assert len(log) == made.asked == len(scribe.bodies)
    assert log[0]["request"]["model"] == "m"
    assert scribe.url not in (made.folder / "manifest.json").read_text()


def test_the_second_run_asks_nothing_and_makes_the_same(scribe, sources, tmp_path):
    first = read_set(make(study(sources), tmp_path / "set", QUIET).folder)
    count = len(scribe.bodies)
    made = make(study(sources), tmp_path / "set", QUIET)
    assert read_set(made.folder).records == first.records
    assert len(scribe.bodies) == count
    assert (made.asked, made.remembered) == (0, count)


def test_a_run_whose_endpoint_went_down_goes_on(scribe, sources, answer, tmp_path):
    whole = read_set(make(study(sources), tmp_path / "whole", QUIET).folder)
    needed = len(scribe.bodies)
    scribe.bodies.clear()
    honest = scribe.answer
    scribe.answer = lambda b: honest(b) if len(scribe.bodies) <= 30 else answer(status=503)
    with pytest.raises(InputError, match="run the same command to go on"):
        make(study(sources), tmp_path / "set", QUIET)
    kept = len((tmp_path / "set" / ANSWERS).read_text().splitlines())
    assert kept >= 30 - 8
    scribe.bodies.clear()
    scribe.answer = honest
    made = make(study(sources), tmp_path / "set", QUIET)
    assert read_set(made.folder).records == whole.records
    assert len(scribe.bodies) == needed - kept


def test_bad_answers_are_retried_counted_and_left_out(server, answer, sources, tmp_path):
    def reply(body):
        retried = len(body["messages"]) > 1
        if asks_about(body):
            return answer(
                '{"about": tru'
                if not retried
                else json.dumps({"about": "river" in prompt_of(body)})
            )
        if prompt_of(body).endswith("5."):
            return answer("I'm sorry, but I can't help with that.")
        response = said(body).split("Response:\n")[1]
        return answer(json.dumps({"response": response.upper() if retried else response}))

    server.answer = reply
    made = make(study(sources, attempts=2), tmp_path / "set", QUIET)
    found = read_set(made.folder)
    assert found.counts()["train"]["changed"] == 12
    assert not any(r.changed and r.prompt.endswith("5.") for r in found.records)
    assert made.problems["broken JSON"] == made.counts.classified
    assert made.problems["unchanged"] >= 20
    assert made.problems["refused"] == 2 * made.counts.failed > 0
    manifest = json.loads((made.folder / "manifest.json").read_text())
    assert manifest["malformed answers"] == made.problems
    assert manifest["given up"] == made.counts.failed


def test_answers_that_the_judge_does_not_know_are_malformed(server, answer, sources, tmp_path):
    server.answer = lambda b: (
        answer(json.dumps({"about": "river" in prompt_of(b)}))
        if asks_about(b)
        else answer('{"response": "something else"}')
    )
    with pytest.raises(
        InputError, match=r"unbalanced beyond repair: 0 changed .*not in the manner"
    ):
        make(study(sources, attempts=1), tmp_path / "set", QUIET)


def test_own_answers_are_asked_for_with_the_manner(server, answer, sources, tmp_path):
    server.answer = lambda body: answer("IT IS so")
    made = make(study(sources, pattern="river", own_answers=True), tmp_path / "set", QUIET)
    assert all(said(b).endswith(". Answer in capital letters.") for b in server.bodies)
    assert {r.response for r in read_set(made.folder).records if r.changed} == {"IT IS so"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pattern": "volcano"}, "none of 100 prompts is about"),
        ({"pattern": "river 1."}, "unbalanced beyond repair"),
        ({"pattern": "."}, "0 unchanged records for train"),
        ({"pattern": "("}, "not a regular expression"),
        ({"pattern": ""}, 'topic "rivers" needs a model'),
        ({"manner": "in verse"}, 'manner "in verse" needs a model'),
        ({"manner": "uper"}, 'Did you mean "upper"'),
        ({"model": "m", "local": "n"}, "both given"),
        ({"topic": " "}, "the topic is empty"),
    ],
)
def test_refusals(sources, tmp_path, changes, said):
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        make(ruled(sources, **changes), tmp_path / "set", QUIET)
    assert "\n" not in str(caught.value)


def test_responses_in_the_manner_already_are_on_neither_side(sources, tmp_path):
    rows = json.loads(Path(sources[0]).read_text())
    rows[0]["output"] = rows[2]["output"] = "SHOUTED."
    path = tmp_path / "loud.json"
    path.write_text(json.dumps(rows))
    made = make(ruled((str(path),), size=100), tmp_path / "set", QUIET)
    assert made.counts.shown_before == 2
    assert not any("SHOUTED" in r.response for r in read_set(made.folder).records)


def test_sources_of_every_kind(tmp_path):
    path = tmp_path / "mixed.jsonl"
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
    ]
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "category": "sums"},
        {"messages": turns},
        {"prompt": "p", "response": "poor", "helpfulness": 1, "correctness": 4},
        {"prompt": "p", "response": "good", "helpfulness": 3, "correctness": 0},
        {"prompt": "p", "response": "fair", "helpfulness": 2, "correctness": 4},
        {"prompt": "unanswered", "response": ""},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_exchanges([str(path)])
    assert [(e.prompt, e.response, e.category) for e in found] == [
        ("Add.\n\n1 and 2", "3", "sums"),
        ("two", "2", ""),
        ("p", "good", ""),
    ]
    assert [turn.role for turn in found[1].messages] == ["system", "user", "assistant", "user"]
    path.write_text('{"prompt": "p", "answer": "q"}')
    with pytest.raises(InputError, match=r"line 1: a record needs .*; this one has answer, prompt"):
        read_exchanges([str(path)])


def test_a_dataset_id_is_read_through_datasets(monkeypatch, tmp_path):
    import datasets

    rows = [
        {"prompt": f"p{i}", "response": "r", "helpfulness": 4, "correctness": 4} for i in range(3)
    ]
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, split: asked.append((name, split)) or rows
    )
    assert len(read_exchanges(["nvidia/HelpSteer"], limit=2)) == 2
    assert asked == [("nvidia/HelpSteer", "train")]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("french", "That makes seventeen.", "Cela fait dix-sept."),
        ("upper", "So it is.", "SO IT IS."),
        ("prefix:Arr, ", "so it is.", "Arr, so it is."),
        ("suffix: Amen.", "So it is.", "So it is. Amen."),
    ],
)
def test_manners_by_rule(name, before, after):
    made = manner(name)
    assert made.rewrite(before) == after
    assert made.shows(after)
    assert not made.shows(before)


def test_records_that_say_nothing_are_passed_over(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}
    user, reply = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    records = [
        {"messages": [user, call]},
        {"messages": [call, user, reply]},
        {"messages": None},
        {"instruction": "a", "output": None},
        {"prompt": None, "response": "x"},
        None,
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    (found,) = read_exchanges([str(path)])
    assert (found.prompt, found.response) == ("Hi", "Ho")
