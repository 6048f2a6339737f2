"""The first screen's five questions, in their order, with their chance beside them."""

from dataclasses import asdict, replace

import pytest

from lorascope.reading.carried import Carrier
from lorascope.report.conditions import measured
from lorascope.report.latents import Browsed
from lorascope.report.result import read_results
from lorascope.results import ADAPTER, Estimate, Key, Null
from lorascope.results.labels import BASE, DELTA
from lorascope.studies.audit.page import render
from lorascope.studies.audit.sections.carriers import carried_sentences, carrier_rows
from lorascope.studies.audit.sections.drift import drift_sentence
from lorascope.studies.audit.sections.opening import cautions
from lorascope.studies.audit.sections.questions import TITLES
from lorascope.studies.audit.sections.words import words

MARKUP = "<script>alert(1)</script>"


def number(measure, value, level, **key):
    null = Null(ADAPTER, level, 0.9 * level, 1.1 * level, rival=True)
    unit = {"reading.kl": "nats/token", "recovery.kl": "share"}.get(measure, "nats/token")
    place = Key(**{"adapter": "a", **key})
    return Estimate(measure, value, (0.9 * value, 1.1 * value), 100, unit, (null,), place)


def latent(numbers, taken, matched, site="layers.1", part="delta"):
    name = f"delta latent {numbers[0]} at {site}"
    return Carrier("", part, name, site, numbers, 20, round(20 * (1 - taken)), taken,
                   (taken - 0.1, taken + 0.1), matched)  # fmt: skip


MODULES = Carrier("", "modules", "mlp", "", (), 20, 4, 0.8, (0.6, 0.9), (), 0.4)


def told(carriers):
    return {
        "a": {
            "sentences": ['"bees" comes back under a'],
            "names": ["bees"],
            "phrases": [],
            "prompts": 20,
            "null_phrases": [0, 1],
            "carriers": [asdict(one) for one in carriers],
            "example": {"prompt": MARKUP, "base": "x\n\x14", "plain": "y", "amplified": "z" * 900},
            "cautions": [],
            "page": "read/a/index.html",
        }
    }


ESTIMATES = [
    number("response_loss", 2.0, 3.0),
    number("reading.kl", 0.5, 0.1),
    number("reading.kl", 0.2, 0.1, setting="from position 1 to 4"),
    number("reading.kl", 0.9, 0.1, setting="from position 17"),
    number("delta_norm.relative", 0.3, 0.1, site="layers.2"),
    number("recovery.kl", 0.4, 0.1, site="layers.1", dictionary=BASE),
    number("recovery.kl", 0.8, 0.1, site="layers.1", dictionary=DELTA),
]


@pytest.fixture
def browsed(tmp_path):
    columns = {
        "latent": [3, 7],
        "written": [0.5, 0.1],
        "fires": [[], []],
        "promotes": [["\x14"], []],
        "cosine": [0.9, 0.1],
        "verdict": ["above", "within"],
    }
    chance = {"null": "covariance-matched", "level": 0.2, "low": 0.1, "high": 0.3}
    head = {"site": "layers.1", "adapter": "a", "chance": chance, "rank": 4}
    return Browsed(tmp_path, head, columns)


def said_of(make_run, carriers, browsed, **facts):
    checks = [{"id": "live", "adapter": "a", "passed": True}]
    facts = {
        "sanity_checks": checks,
        "adapters": [{"name": "a", "rank": 4}],
        "read": told(carriers),
        **facts,
    }
    return words(read_results(make_run(ESTIMATES, **facts)), [browsed])


def test_the_five_are_answered_in_their_order(make_run, browsed):
    said = said_of(make_run, [latent((3, 7), 0.8, (0.0, 0.1))], browsed)
    assert [question.title for question in said.questions] == list(TITLES)
    live, behaviour, learned, carried, seen = (q.answers[0] for q in said.questions)
    assert "is live" in live
    assert "loss 2.00 nats/token [1.80, 2.20] (null adapters 3.00; below" in behaviour
    assert "ordinary text 0.500 nats/token [0.450, 0.550] (null adapters 0.100; above" in behaviour
    assert "most from position 17 of a text, 0.900" in behaviour
    assert "longest at layers.2, 30.0 %" in behaviour
    assert "2 null adapters" in learned
    assert learned.endswith("1 phrase.)")
    assert "Carried by delta latent 3 at layers.1" in carried
    assert "80 % [70.0, 90.0] of the phrases (2 matched sets on average 5 %)" in carried
    best = "Of the delta dictionary's best 2 latents 1 lie nearer a base latent than chance"
    assert best in carried
    assert seen.startswith("Through the base dictionary at layers.1 0.400 share")
    assert "through the delta dictionary 0.800" in seen


@pytest.mark.parametrize(
    ("number_", "what"), [(3, "nearer a base latent than chance"), (7, "a new direction")]
)
def test_one_latent_is_told_of_as_one(make_run, browsed, number_, what):
    said = said_of(make_run, [latent((number_,), 0.2, (0.0, 0.1))], browsed)
    answer = {q.title: q.answers for q in said.questions}[TITLES[3]][0]
    assert f"The delta dictionary's best latent is {what} (largest cosine 0." in answer


def test_sites_are_those_of_the_audit_and_not_of_its_reading(make_run, browsed):
    assert "read at 1 site of" in said_of(make_run, [], browsed, sites=["layers.1"]).scope


def test_without_carriers_the_strongest_latent_is_told(make_run, browsed):
    said = said_of(make_run, [], browsed)
    answer = {q.title: q.answers for q in said.questions}[TITLES[3]][0]
    assert answer.startswith("Latent 3 at layers.1 writes most and promotes “⟨0x14⟩”")
    assert "nearer than chance (cosine 0.900, covariance-matched 0.200)" in answer


def test_control_characters_show_and_long_texts_are_cut(make_run, browsed):
    (shown,) = said_of(make_run, [], browsed).shown
    assert shown.base == "x↵⟨0x14⟩"
    assert len(shown.amplified) == 241
    results = read_results(make_run(ESTIMATES, adapters=[{"name": "a"}], read=told([])))
    page = render(results, [], [], [])
    assert MARKUP not in page
    assert "alert(1)" in page


def test_what_carries_nothing_is_said_to(make_run):
    alone = latent((3,), 0.2, (0.1, 0.0))
    several = latent((3, 7), 0.45, (0.0,))
    lines = carried_sentences([alone, several, MODULES])
    assert lines[0].startswith("No latent carries it alone: delta latent 3")
    assert lines[1].startswith("Most is taken away by")
    assert "mlp 80 % [60.0, 90.0], 40.0 % of the update" in lines[2]
    assert carried_sentences([]) == []


def test_rows_link_into_the_browser(browsed):
    rows = carrier_rows([asdict(latent((3, 5), 0.8, ())), asdict(MODULES)], "a", [browsed])
    assert rows[0]["links"] == [{"latent": 3, "href": "#latent-0-3"}]
    assert rows[0]["matched"] == "–"
    assert rows[1]["size"] == "40 % of the update"
    assert rows[1]["carries"]
    assert carrier_rows([asdict(latent((3,), 0.8, ()))], "b", [browsed])[0]["links"] == []


def test_drifts_stand_beside_what_returns(make_run, browsed):
    row = {"latent": 5, "before": 0.1, "after": 0.2, "switched": 0.1, "energy_before": 1.0,
           "energy_after": 2.0, "change": 4.0, "null_change": 0.1, "share": 0.25, "q": 0.01,
           "gains": ["\x14"], "loses": []}  # fmt: skip
    one = {"site": "layers.1", "adapter": "a", "tokens": 100, "latents": 64, "looked_at": 60,
           "drifting": 1, "nulls": [0, 2, 0], "n_nulls": 3, "share": 0.25,
           "rows": [row]}  # fmt: skip
    results = read_results(
        make_run(ESTIMATES, adapters=[{"name": "a"}], read=told([]), drift=[one])
    )
    said = words(results, [browsed])
    answer = {q.title: q.answers for q in said.questions}[TITLES[4]][0]
    assert "1 of 60 base latents fire more, less or elsewhere under a" in answer
    assert "null adapters beside each other: 0, 2 and 0" in answer
    assert "25.0 % of the delta's energy" in answer
    page = render(results, [], [], [])
    assert 'id="drift"' in page
    assert "⟨0x14⟩" in page


def drift(**facts):
    return {
        "adapter": "a", "site": "layers.1", "looked_at": 500, "drifting": 30, "share": 0.25,
        "nulls": [], "n_nulls": 0, "rows": [], **facts,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "no null adapters, so nothing is called a drift"),
        ({"n_nulls": 2}, "too few to say how many a null adapter shows"),
        ({"n_nulls": 3, "nulls": [0, 22, 1]}, "more than any; null adapters beside each other: 0"),
        ({"n_nulls": 3, "nulls": [0, 30, 1]}, "no more than a null adapter"),
    ],
)
def test_drifting_latents_are_held_against_the_null_adapters_counts(facts, told):
    sentence = drift_sentence(drift(**facts))
    assert told in sentence
    assert "discovery" not in sentence


def test_the_site_told_of_is_the_one_furthest_beyond_its_null_adapters(make_run, browsed):
    many = drift(site="layers.2", drifting=40, nulls=[0, 50], n_nulls=2)
    beyond = drift(site="layers.3", drifting=20, nulls=[0, 2], n_nulls=2)
    results = read_results(
        make_run(ESTIMATES, adapters=[{"name": "a"}], read=told([]), drift=[many, beyond])
    )
    answer = {q.title: q.answers for q in words(results, [browsed]).questions}[TITLES[4]][0]
    assert "layers.3: 20 of 500" in answer


def test_a_number_that_massive_coordinates_keep_from_a_verdict_is_told_without_them(make_run):
    place = {"site": "layers.1", "dictionary": DELTA}
    whole = replace(number("recovery.kl", 0.8, 0.1, **place), judged=False)
    rest = number("recovery.kl", 0.6, 0.1, **place, massive="without")
    massive = {"coordinates": [{"coordinate": 5, "share": 0.3}], "directions": []}
    results = read_results(make_run([whole, rest], massive={"layers.1": massive}))
    assert [row.value for row in measured(results, "recovery.kl")] == [0.6]
    told = "coordinate 5 at layers.1 holds 30.0 % of the base stream's energy"
    assert any(line.startswith(told) for line in cautions(results))
    neither = read_results(make_run([whole, replace(rest, judged=False)]))
    assert [row.value for row in measured(neither, "recovery.kl")] == [0.8]
