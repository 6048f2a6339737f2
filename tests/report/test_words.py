import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from planted_results import planted_null_adapters

from lorascope.report.conditions import VerdictTally, against_reference, measured
from lorascope.report.formatting import (
    interval,
    number,
    plural,
    share,
    shown_passage,
    shown_token,
    span,
)
from lorascope.report.latents import Browsed
from lorascope.report.result import read_results
from lorascope.results import Estimate, Key, Null
from lorascope.results.labels import BASE_SEEDS, DELTA_VS_BASE, Of
from lorascope.studies.audit.sections.tables import verdict_matrix
from lorascope.studies.audit.sections.topics import TOPICS
from lorascope.studies.audit.sections.words import Words, words

MakeRun = Callable[..., Path]
Plant = Callable[..., list[Estimate]]


def said_of(make_run: MakeRun, estimates: Sequence[Estimate], **facts: object) -> Words:
    return words(read_results(make_run(estimates, **facts)))


def lead(said: Words, title: str) -> str:
    """The first sentence of a topic."""
    key = next(topic.key for topic in TOPICS if topic.title == title)
    return said.by_topic[key][0]


def test_words_say_when_nothing_stands_apart(make_run: MakeRun, plant: Plant):
    said = said_of(make_run, plant("chance"))
    assert "0 of 26 for r4" in said.overall
    assert dict(said.leads)["r4"].startswith("Nothing was found")
    assert "in none of the 12 conditions" in lead(said, "Directions")
    assert "for none of the 4 adapters" in lead(said, "Behaviour")
    assert "lowest" not in lead(said, "Behaviour")


def test_words_say_when_everything_was_found(make_run: MakeRun, plant: Plant):
    said = said_of(make_run, plant("found"))
    # Eight questions at each of three sites, and two of the adapter as a whole.
    assert "26 of 26 for r4" in said.overall
    assert "Behaviour, Size of the change at 3 of 3 sites" in dict(said.leads)["r4"]
    for title in ("Size of the change", "Reconstruction", "Directions", "Subspaces"):
        assert "in all 12 conditions" in lead(said, title)
    assert "for all 4 adapters" in lead(said, "Behaviour")


def test_words_say_when_chance_is_beaten_the_wrong_way(make_run: MakeRun, plant: Plant):
    said = said_of(make_run, plant("opposite"))
    assert "in none of the 12 conditions, on the other side of chance in 12" in lead(
        said, "Directions"
    )


def test_counts_and_ranges_are_those_of_the_numbers(make_run: MakeRun):
    def cosine(adapter: str, value: float, of: Of = DELTA_VS_BASE) -> Estimate:
        chance = Null("covariance-matched", 0.40, 0.38, 0.42, rival=True)
        place = Key(adapter, None, "layers.2", 0, **of._asdict())
        bounds = (value - 0.01, value + 0.01)
        return Estimate("max_cosine.mean", value, bounds, 99, "cosine", (chance,), place)

    rows = [cosine("a", 0.61), cosine("b", 0.45), cosine("c", 0.41), cosine("d", 0.30)]
    said = said_of(make_run, [*rows, cosine("", 0.47, BASE_SEEDS)])
    assert said.by_topic["cosine"] == [
        "Delta directions lie closer to the base dictionary than chance in 2 of 4 conditions, on "
        "the other side of chance in 1: mean max cosine 0.300–0.610 against chance 0.400 "
        "(covariance-matched).",
        "Two base dictionaries that differ only in their seed give 0.470; delta against base is "
        "closer in 1 and farther in 2 of 4 conditions that have this yardstick.",
    ]


def test_each_seed_counts_and_the_scope_says_so(make_run: MakeRun, plant: Plant):
    said = said_of(make_run, plant("found", seeds=(0, 1)))
    assert said.scope.endswith("read at 3 sites of the residual stream, 2 seeds.")
    assert "in all 24 conditions" in lead(said, "Directions")


def test_failed_gates_come_before_warnings(make_run: MakeRun, plant: Plant):
    checks = [{"check": "noise floor", "passed": False, "detail": "below it at layers.1"}]
    said = said_of(make_run, plant(), sanity_checks=checks, warnings=["few tokens"])
    assert said.cautions[:2] == [
        "Sanity check failed: noise floor. below it at layers.1",
        "few tokens",
    ]


def test_matrix_cells_count_sites_on_each_side(make_run: MakeRun, plant: Plant):
    found, opposite = plant("found"), plant("opposite")
    mixed = [
        turned if kept.key.adapter == "r8" and kept.key.site == "layers.3" else kept
        for kept, turned in zip(found, opposite, strict=True)
    ]
    rows = verdict_matrix(read_results(make_run(mixed)))
    angle = next(row for row in rows if row.measure == "angle.mean")
    r4, r8, *_ = angle.cells
    assert (r4.text, r4.found, r4.opposite) == ("▼ 3", 3, 0)
    assert (r8.text, r8.found, r8.opposite) == ("▲ 1  ▼ 2", 2, 1)
    assert {row.dictionary for row in rows if row.measure == "angle.mean"} == {"delta vs base"}


def test_the_first_setting_speaks_for_a_number(make_run: MakeRun):
    place = Key("a", 4, "layers.1", 0, **DELTA_VS_BASE._asdict(), k=48)
    first = Estimate("angle.mean", 43.0, (42.0, 44.0), 48, "degrees", (), place)
    second = dataclasses.replace(first, value=50.0, key=dataclasses.replace(place, k=64))
    results = read_results(make_run([first, second]))
    assert [e.key.k for e in measured(results, "angle.mean")] == [48]
    assert len(results.numbers) == 2


def test_a_reference_is_compared_interval_to_interval():
    def at(value: float, site: str) -> Estimate:
        place = Key("a", 1, site, 0)
        return Estimate("angle.mean", value, (value - 2, value + 2), 10, "degrees", (), place)

    tally = against_reference([at(30, "x"), at(33, "x"), at(40, "x"), at(30, "y")], [at(35, "x")])
    assert tally == VerdictTally(above=1, equal=0, below=1, without=1, unsettled=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0123456, "0.0123"),
        (-0.5, "−0.500"),
        (12.345, "12.3"),
        (168405.0, "168,405"),
        (0.00012, "1.2e-04"),
        (float("nan"), "–"),
    ],
)
def test_numbers_keep_three_digits(value: float, text: str):
    assert number(value) == text


def test_ranges_and_shares_read_well():
    assert span([0.3, 0.1, float("nan")]) == "0.100–0.300"
    assert span([-0.1, 0.2]) == "−0.100 to 0.200"
    assert span([0.2001, 0.2002]) == "0.200"
    assert interval(float("nan"), 1.0) == ""
    assert share(1, 1) == "the one condition"
    assert share(0, 3, "adapter") == "none of the 3 adapters"


def test_the_opening_says_what_one_minute_should_leave(make_run: MakeRun, plant: Plant):
    checks: list[dict[str, object]] = [
        {"id": "live", "adapter": f"r{r}", "check": "alive", "passed": True} for r in (4, 8, 16, 32)
    ]
    checks.append({"id": "restored", "check": "back as it was", "passed": True})
    mixed = [*plant("found", measures=["angle.mean"]), *plant("chance", measures=["overlap"])]
    mixed += plant("found", measures=["delta_norm", "recovery.kl", "improvement"])
    said = said_of(make_run, mixed, sanity_checks=checks)
    leads = dict(said.leads)
    assert list(leads) == [
        *("Adapters", "r4", "r8", "r16", "r32", "By single intervals"),
        *("Size of the change", "Reconstruction", "Effect on the outputs"),
    ]
    assert leads["Adapters"].startswith("r4 (rank 4), r8 (rank 8), r16 (rank 16) and r32 (rank 32)")
    assert "are live" in leads["Adapters"]
    assert "bit for bit" in leads["Adapters"]
    assert leads["r16"] == (
        "Found at a false discovery rate of 5 %: Reconstruction at 3 of 3 sites, Subspaces at 3 of "
        "3 sites and Effect on the outputs at 3 of 3 sites. Not found: Latents that fire."
    )


def test_an_adapter_that_is_not_live_is_named_first(make_run: MakeRun, plant: Plant):
    checks = [{"id": "live", "adapter": name, "passed": name != "r8"} for name in ("r4", "r8")]
    said = said_of(make_run, plant(measures=["delta_norm"]), sanity_checks=checks)
    assert said.leads[0] == (
        "Adapters",
        "Not live: r8. Their numbers say nothing about an adapter.",
    )


def test_the_strongest_latents_are_told_in_tokens(make_run: MakeRun, plant: Plant, tmp_path: Path):
    results = read_results(make_run(plant(measures=["delta_norm"])))
    norms = {(e.key.adapter, e.key.site): e.value for e in results.numbers}
    browsed = []
    for site, adapter, share_ in (
        ("layers.1", "r4", 0.1),
        ("layers.3", "r4", 0.2),
        ("layers.1", "r8", 0.5),
    ):
        columns = {
            "latent": [7, 8],
            "written": [share_ * norms[adapter, site], 0.0],
            "fires": [[" river", "\n"], []],
            "promotes": [["\u202e"], []],
        }
        browsed.append(Browsed(tmp_path, {"site": site, "adapter": adapter}, columns))
    told = dict(words(results, browsed).leads)["Strongest latents"]
    assert told == (
        "r4: latent 7 at layers.3 writes 20.0 % of the delta's norm, fires on “␣river” and “↵” "
        "and promotes “⟨U+202E⟩”; r8: latent 7 at layers.1 writes 50.0 % of the delta's norm, "
        "fires on “␣river” and “↵” and promotes “⟨U+202E⟩”."
    )


def test_dead_latents_and_few_data_are_cautioned_of(make_run: MakeRun):
    def of(measure: str, value: float, half: float, adapter: str) -> Estimate:
        chance = Null("null", 0.2, 0.15, 0.25, rival=True)
        place = Key(adapter, 4, "layers.1", 0, "delta")
        return Estimate(measure, value, (value - half, value + half), 9, "share", (chance,), place)

    rows = [of("dead_share", 0.3, 0.01, "a"), of("dead_share", 0.05, 0.01, "b")]
    rows += [of("improvement", 0.4, 0.3, "a"), of("improvement", 0.6, 0.1, "b")]
    unsettled, dead = said_of(make_run, rows).cautions
    assert unsettled.startswith("1 of 2 headline numbers")
    assert dead == (
        "Dead latents: more than 10 % of the delta dictionary never fires in 1 condition: a at "
        "layers.1 (30.0 %)."
    )


def test_failed_yardsticks_and_what_was_left_out_are_cautioned_of(make_run: MakeRun, plant: Plant):
    yardsticks = [
        {"dictionary": "base", "site": "layers.1", "adapter": "", "seed": 0, "passed": False}
        | {"reason": "39 of 1,024 latents live", "draw": None},
        {"dictionary": "delta", "site": "layers.1", "adapter": "r4", "seed": 0, "passed": True},
    ]
    left_out = [
        {"what": "documents", "used": 80, "of": 100, "reason": "seen by the adapters"},
        {"what": "tokens", "used": 95, "of": 100, "reason": "special"},
    ]
    said = said_of(
        make_run, plant(measures=["delta_norm"]), yardsticks=yardsticks, left_out=left_out
    )
    first, second = said.cautions
    assert "base dictionary at layers.1, seed 0" in first
    assert "39 of 1,024" in first
    assert "20.0 % of the documents" in second


def test_without_rivals_nothing_is_counted_and_the_screen_says_how_to_get_them(
    make_run: MakeRun, plant: Plant
):
    bare = [
        dataclasses.replace(
            e, nulls=tuple(Null("isotropic", c.level, c.low, c.high) for c in e.nulls)
        )
        for e in plant("found", measures=["max_cosine.mean", "angle.mean"])
    ]
    results = read_results(make_run(bare))
    said = words(results)
    assert "controls.null_adapters" in said.overall
    assert said.leads == []
    assert "nothing is claimed" in lead(said, "Directions")
    assert all(cell.found == 0 for row in verdict_matrix(results) for cell in row.cells)


def test_the_first_screen_says_what_a_null_adapter_yields_in_this_run(
    make_run: MakeRun, plant: Plant
):
    rows = [*plant("found", adapters={"r4": 4}), *planted_null_adapters()]
    results = read_results(make_run(rows))
    said = words(results)
    assert "26 of 26 for r4" in said.overall
    # One finding of the first of three null adapters; each has two numbers and eight at two sites.
    assert "yields 0.333 of 18" in said.overall
    assert "0 to 1" in said.overall
    assert results.adapters == ["r4"]
    assert said.scope.startswith("1 adapter (r4)")


def test_counted_nouns():
    told = [plural(2, noun) for noun in ("site", "dictionary", "key")]
    assert told == ["2 sites", "2 dictionaries", "2 keys"]
    assert plural(1, "dictionary") == "1 dictionary"


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("river", "river"),
        (" river", "␣river"),
        ("a b ", "a b␣"),
        ("   ", "␣␣␣"),
        ("\n            ", "↵␣×12"),
        ("\n", "↵"),
        ("\n  x", "↵  x"),
        ("\t\r", "⇥␍"),
        ("\x14", "⟨0x14⟩"),
        ("\xa0", "⟨0xA0⟩"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("", "⟨empty⟩"),
        ("é▁", "é▁"),
    ],
)
def test_tokens_are_readable_whatever_they_are(token: str, shown: str):
    assert shown_token(token) == shown
    assert shown_token(token).isprintable()


def test_passages_keep_their_spaces():
    assert shown_passage([" a", "\x00", "\n"]) == [" a", "⟨0x00⟩", "↵"]


def test_what_is_found_and_what_single_intervals_say_are_told_apart(make_run: MakeRun):
    # Four sites whose intervals just leave the null (p = 0.04 each), beside 28 numbers that do
    # not: by Benjamini and Hochberg none of them is found.
    def at(measure: str, site: int, value: float) -> Estimate:
        null = Null("null adapters", 0.5, 0.5, 0.5, rival=True)
        half = 0.1 * 1.96 / 2.0537
        of = DELTA_VS_BASE if measure == "angle.mean" else Of("delta")
        place = Key("a", 4, f"layers.{site}", 0, **of._asdict())
        bounds = (value - half, value + half)
        return Estimate(measure, value, bounds, 99, "share", (null,), place)

    rows = [at("improvement", site, 0.6) for site in range(4)]
    rows += [at("angle.mean", site, 0.5) for site in range(28)]
    assert {round(e.p_value, 2) for e in rows} == {0.04, 1.0}
    assert {e.verdict for e in rows[:4]} == {"above"}
    said = said_of(make_run, rows)
    leads = dict(said.leads)
    assert leads["a"].startswith("Nothing was found at a false discovery rate of 5 %")
    assert "in all 4 conditions" in leads["Reconstruction"]
    # The second count is no finding, and both screens say by which rule it is made.
    assert leads["Reconstruction"].startswith("By single intervals: ")
    assert list(leads).index("By single intervals") < list(leads).index("Reconstruction")


def test_a_change_that_does_not_leave_null_adapters_is_not_called_the_base(make_run: MakeRun):
    null = Null("null adapters", 1.2, 1.0, 1.4, rival=True)
    floor = Null("numeric noise floor", 1e-6, 0.0, 1e-5)
    rows = [
        Estimate(measure, 1.25, (1.24, 1.26), 99, unit, (null, floor), Key("a", 4))
        for measure, unit in (("output_change.kl", "nats/token"), ("output_change.greedy", "share"))
    ]
    said = " ".join(said_of(make_run, rows).by_topic["effects"])
    assert "null adapters" in said
    assert "base" not in said
