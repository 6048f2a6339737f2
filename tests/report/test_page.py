import base64
import dataclasses
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch

import pytest
from planted_results import OF_STUDIES, planted_null_adapters, without_files

import lorascope.report
from lorascope.errors import InputError
from lorascope.measures.definitions import DEFINITIONS
from lorascope.report.formatting import verdict_words
from lorascope.report.markup import content_policy, embedded_json
from lorascope.report.result import read_results
from lorascope.results import Estimate
from lorascope.studies.audit import page as report_page

MakeRun = Callable[..., Path]
Plant = Callable[..., list[Estimate]]
HOSTILE = "</script><img src=http://evil.example/x onerror=alert(1)><!--\u2028{{ 7*7 }}"


class Elements(HTMLParser):
    """Tags, attributes and visible text of a page, as a browser's parser separates them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if self._raw and self.scripts:
            self.scripts[-1] += data
        elif not self._raw:
            self.text.append(data)


def build(run: Path, files: bool = False) -> str:
    """The page of a run, made anew; without the figures' files unless asked for: they take long."""
    if files:
        return lorascope.report.build(run).read_text(encoding="utf-8")
    with patch.object(report_page, "written_figures", without_files):
        return lorascope.report.build(run).read_text(encoding="utf-8")


def test_the_page_loads_nothing(page: str):
    elements = Elements(page)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:")), (tag, address)
    assert {tag for tag, _ in elements.tags} & {"iframe", "object", "embed", "base"} == set()
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in elements.tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    # The scripts that run are those the policy names; what else stands in script elements is data.
    kinds = [a.get("type") for t, a in elements.tags if t == "script"]
    running = [s for s, kind in zip(elements.scripts, kinds, strict=True) if kind is None]
    assert policy.count("sha256-") == len(running) == 4
    assert content_policy(*running) == policy


def test_the_page_is_small_enough_and_has_each_figure_once(page: str, run_folder: Path):
    assert len(page.encode()) < 4_000_000
    elements = Elements(page)
    places = [a["data-figure"] for _, a in elements.tags if "data-figure" in a]
    specs = json.loads(elements.scripts[0])
    # The summary stands before the topics' own figures.
    assert sorted(places) == sorted(specs)
    assert places[0] == "summary"
    assert {path.stem for path in (run_folder / "report" / "figures").glob("*.svg")} == set(specs)


def test_every_measure_has_its_definition_at_hand(page: str):
    text = " ".join("".join(Elements(page).text).split())
    for measure in OF_STUDIES:
        definition = DEFINITIONS[measure]
        assert measure in text
        assert " ".join(definition.formula.split()) in text


def test_numbers_can_be_taken_away_as_csv(page: str, run_folder: Path):
    links = {a["download"]: a["href"] for t, a in Elements(page).tags if "download" in a}
    address = links["angles.csv"]
    assert address is not None
    text = base64.b64decode(address.split("base64,")[1]).decode()
    assert text == (run_folder / "report" / "tables" / "angles.csv").read_text()


def test_hostile_text_stays_text(make_run: MakeRun, plant: Plant):
    run = make_run(
        plant(adapters={HOSTILE: None}, measures=["delta_norm", "max_cosine.mean"]),
        warnings=[HOSTILE],
        sanity_checks=[{"check": HOSTILE, "passed": False, "detail": HOSTILE}],
        samples=[{"prompt": HOSTILE, "base": HOSTILE, "adapted": {HOSTILE: HOSTILE}}],
        command=HOSTILE,
        settings={"text": HOSTILE},
        model={"id": HOSTILE},
    )
    page = build(run, files=True)
    elements = Elements(page)
    assert "img" not in {tag for tag, _ in elements.tags}
    # The data of figures and of the side-by-side view, Vega, and the page's own three.
    assert len(elements.scripts) == 6
    assert not any("onerror" in attributes for _, attributes in elements.tags)
    assert HOSTILE in "".join(elements.text)
    specs = json.loads(elements.scripts[0])
    assert specs["delta_norm"]["data"]["values"][0]["adapter"] == HOSTILE
    assert "\u2028" not in elements.scripts[0]
    svg = (run / "report" / "figures" / "delta_norm.svg").read_text(encoding="utf-8")
    assert "<img" not in svg
    assert "<script" not in svg


def test_embedded_json_cannot_leave_its_script_element():
    text = embedded_json({"</script>": "<!--\u2028\u2029&"})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"</script>": "<!--\u2028\u2029&"}


def test_a_single_full_fine_tune_at_one_site_has_a_report(make_run: MakeRun, plant: Plant):
    estimates = plant(adapters={"tuned": None}, sites=["layers.2"])
    kept = [e for e in estimates if e.measure != "response_loss"]
    page = build(make_run(kept, adapters=[{"name": "tuned", "rank": None}], samples=[]))
    specs = json.loads(Elements(page).scripts[0])
    assert "max_cosine_intervals" in specs
    assert "max_cosine" not in specs
    assert "response_loss" not in specs
    assert 'id="behaviour"' not in page
    assert 'id="samples"' not in page
    assert "in the one condition" in page


def test_the_least_that_a_run_can_hold_still_makes_a_page(make_run: MakeRun, plant: Plant):
    run = make_run(plant(measures=["delta_rank"]))
    (run / "results" / "facts.json").write_text("{}")
    page = build(run)
    assert "the base model" in page
    assert list(json.loads(Elements(page).scripts[0])) == ["delta_rank_map", "delta_rank"]


def test_a_measure_without_definition_is_shown_among_other_numbers(make_run: MakeRun, plant: Plant):
    novel = [dataclasses.replace(e, measure="novel") for e in plant(measures=["overlap"])]
    page = build(make_run(novel))
    assert 'id="other"' in page
    assert "not defined by this version" in page


def test_numbers_without_chance_level_are_shown_without_verdict(make_run: MakeRun, plant: Plant):
    bare = [dataclasses.replace(e, nulls=()) for e in plant(measures=["overlap", "delta_norm"])]
    page = build(make_run(bare))
    assert "no verdict" in page
    assert "stand apart" not in page


def test_rebuilding_gives_the_same_page(run_folder: Path, page: str):
    assert build(run_folder) == page
    assert not list((run_folder / "report").glob("*.part"))


def test_the_page_prints_what_the_table_holds(page: str, run_folder: Path):
    results = read_results(run_folder)
    rows = re.findall(r'<td class="verdict">(\S+) ([^<]+)</td>', page)
    assert sorted(said for _, said in rows) == sorted(map(verdict_words, results.estimates))


def test_a_folder_without_results_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is empty; give the folder of a finished run"):
        lorascope.report.build(tmp_path)


def test_more_numbers_than_a_page_holds_stand_beside_it(
    make_run: MakeRun, plant: Plant, monkeypatch: pytest.MonkeyPatch
):
    run = make_run(plant(measures=["angle.mean", "overlap"], seeds=(0, 1)))
    estimates = read_results(run).estimates
    rows = len(estimates)
    monkeypatch.setattr(report_page, "PAGE_NUMBERS", rows // 2)
    page = build(run)
    found = re.findall(r"Numbers \((\d+) of (\d+), the first seeds\)", page)
    assert sum(int(whole) for _, whole in found) == rows
    for part, whole in found:
        assert int(part) == math.ceil(int(whole) / 2)
    table = page[page.index('<table class="estimates">') :]
    body = re.findall(r"<tr><th.*?</tr>", table[: table.index("</table>")], re.DOTALL)[1:]
    # Seed 0 alone, in the order of the whole table.
    assert {re.findall(r'<td class="num">(\d*)</td>', row)[1] for row in body} == {"0"}
    links = {a["download"]: a["href"] for t, a in Elements(page).tags if "download" in a}
    assert links["angles.csv"] == "tables/angles.csv"
    whole_table = (run / "report" / "tables" / "angles.csv").read_text().splitlines()
    assert len(whole_table) == 1 + len(estimates.select("angle.mean")) == 55


def test_every_definition_stands_in_the_methods(page: str):
    methods = page[page.index('<section id="methods">') :]
    text = " ".join("".join(Elements(methods).text).split())
    for definition in map(DEFINITIONS.__getitem__, OF_STUDIES):
        assert " ".join(definition.formula.split()) in text
        assert " ".join(definition.chance.split()) in text


def test_null_adapters_stand_in_a_table_of_their_own(make_run: MakeRun, plant: Plant):
    given = plant("found", adapters={"r4": 4}, measures=["overlap", "response_loss"])
    run = make_run([*given, *planted_null_adapters()])
    page = build(run)
    start = page.index('<section id="null-adapters">')
    own = page[start : page.index("</section>", start)]
    # Three draws of each of two numbers and of eight at two sites, one row for all draws.
    assert own.count("<tr><td>") == 18
    assert "null adapters" in own
    rest = page[:start] + page[page.index('<section id="methods">') :]
    rows = re.findall(r'<td class="verdict">', rest)
    assert len(rows) == len(given)
    assert (run / "report" / "tables" / "firing.csv").read_text().count("\n") == 4
    bare = build(make_run(given))
    assert 'id="null-adapters"' not in bare
