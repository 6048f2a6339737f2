"""The page of an adapt study: what it says of planted numbers, and hostile strings in it."""

from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser

import pytest
from planted_adapt import planted_adapt_run

import lorascope.report
from lorascope.report.result import read_results, write_estimates
from lorascope.stats.hierarchical import pooled_interval
from lorascope.studies.adapt.sections.figures import adapt_figures
from lorascope.studies.adapt.sections.results import AdaptResults, axis
from lorascope.studies.adapt.sections.tables import adapt_tables
from lorascope.studies.adapt.sections.words import verdict

HOSTILE = "</script><img src=http://evil.example/x onerror=alert(1)><!--\u2028{{ 7*7 }}"


@pytest.fixture
def run(tmp_path):
    """`run(name, model, ...)`: a run folder with planted results of three seeds."""
    return partial(planted_adapt_run, tmp_path)


def test_the_verdict_comes_first_and_says_what_the_numbers_say(run):
    said = verdict(AdaptResults(read_results(run())))
    assert said[0].startswith("Splicing b costs 0.600 ")
    assert "LoRA everywhere, rank 16 recovers 40 %" in said[1]
    assert "a random change of equal size 0 % (more than nothing fitted" in said[1]
    assert "KL fine-tune 30 %" in said[2]
    assert "affine 25 %" in said[2]
    assert said[3] == "Most comes back with LoRA everywhere, rank 16 + affine."
    assert said[4].endswith("its general loss is unchanged within 0.0200 nats/token.")


def test_a_general_loss_is_unchanged_only_where_its_whole_interval_is_small(run):
    folder = run()
    wide = [
        replace(e, interval=(-0.05, 0.05)) if e.measure == "adapt.general_loss" else e
        for e in read_results(folder).numbers
    ]
    write_estimates(wide, folder / "results")
    said = verdict(AdaptResults(read_results(folder)))
    assert said[4].endswith("is not settled by this many tokens.")


def test_seeds_add_to_what_documents_leave_open(run):
    found = AdaptResults(read_results(run()))
    share = found.number(found.main, "adapt.share_closed")
    assert share.value == pytest.approx(0.4)
    expected = pooled_interval([0.39, 0.4, 0.41], (0.02, 0.02))
    assert expected[0] < 0.4 - 0.02
    assert share.interval == pytest.approx(expected)
    # The same in every seed; its interval over documents is ± 0.02.
    cost = found.number(found.main, "adapt.cost_spliced")
    assert cost.interval == pytest.approx((0.58, 0.62))


def test_seeds_keep_paired_differences_and_margins(run):
    folder = run()
    measured = []
    for one in read_results(folder).numbers:
        gaps = [one.value - null.level for null in one.nulls]
        ends = [(gap - 0.1, gap + 0.3) for gap in gaps]
        nulls = tuple(
            replace(null, difference=end) for null, end in zip(one.nulls, ends, strict=True)
        )
        measured.append(replace(one, nulls=nulls, margin=0.01 + 0.01 * one.key.seed))
    write_estimates(measured, folder / "results")
    cost = (found := AdaptResults(read_results(folder))).number(found.main, "adapt.cost_spliced")
    assert cost.margin == 0.01
    assert cost.difference(cost.nulls[0]) == pytest.approx((0.5, 0.9))


def test_dictionaries_along_one_axis(run):
    found = AdaptResults(read_results(run()))
    along = axis(found, found.conditions("scaling"), "l0")
    assert [(value, c.around) for value, c in along] == [(8, "a"), (16, "b"), (32, "c")]
    assert axis(found, found.conditions("scaling"), "n_latents") == []


def test_figures_hold_the_numbers_and_their_chance_levels(run):
    found = AdaptResults(read_results(run()))
    drawn = {figure.key: figure for figure in adapt_figures(found)}
    assert {"baselines_share", "scaling_l0_share", "scaling_l0_cost", "tokens"} <= set(drawn)
    rows = drawn["scaling_l0_cost"].spec["data"]["values"]
    assert {(row["label"], round(row["chance"], 6)) for row in rows} == {
        ("8", 0.9),
        ("16", 0.6),
        ("32", 0.3),
    }
    tokens = drawn["tokens"].spec["data"]["values"]
    assert sum(row["count"] for row in tokens) == 80


def test_tables_as_csv_and_latex(run):
    folder = run()
    lorascope.report.build(folder)
    rows = (folder / "report" / "tables" / "baselines.csv").read_text().splitlines()
    assert rows[0].startswith("Fitted,Share closed,")
    assert [row.partition(",")[0] for row in rows[1:3]] == ["nothing", '"LoRA everywhere']
    assert "\\toprule" in (folder / "report" / "tables" / "scaling.tex").read_text()
    tables = adapt_tables(AdaptResults(read_results(folder)))
    assert list(tables) == ["baselines", "scaling"]


def test_hostile_strings_stay_text(run):
    folder = run(name=HOSTILE, model=HOSTILE, command=HOSTILE, warnings=[HOSTILE])
    page = lorascope.report.build(folder).read_text(encoding="utf-8")
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(page)
    assert "img" not in tags
    assert tags.count("script") == 4
    assert "{{ 7*7 }}" in page
    assert "default-src 'none'" in unescape(page)


def test_without_a_share_the_page_says_so(run):
    folder = run()
    table = read_results(folder)
    kept = [e for e in table.numbers if e.measure != "adapt.share_closed"]
    write_estimates(kept, folder / "results")
    said = verdict(AdaptResults(read_results(folder)))
    assert said[1] == "That is no cost that this text shows: there is no share to recover."
    lorascope.report.build(folder)
