"""Figures for a paper: widths, captions, and what LaTeX makes of hostile text."""

import csv
import re

import pytest

from lorascope.report.figure_files import DOUBLE, SINGLE, narrowed, write_figures
from lorascope.report.latex import escaped, figure, long_table
from lorascope.studies.audit.sections.figures import figures

WIDTH = re.compile(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)" viewBox="0 0 ([\d.]+) ([\d.]+)"')


def size(path):
    """Width and height of an SVG, then those of what is drawn in it."""
    return map(float, WIDTH.search(path.read_text()).groups())


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    (folder / "gone.svg").write_text("of before")
    drawn = [f for f in figures(results) if f.key in ("delta_norm", "max_cosine_intervals")]
    assert len(drawn) == 2
    write_figures(drawn, folder)
    return folder, drawn


def test_every_figure_is_there_in_both_widths(written):
    folder, drawn = written
    keys = {figure_.key for figure_ in drawn}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    wide = {f"{key}.{kind}" for key in keys for kind in ("svg", "png", "pdf")}
    narrow = {f"single/{key}.{kind}" for key in keys for kind in ("svg", "pdf")}
    assert names == wide | narrow | {"captions.csv", "figures.tex"}
    for place, most in ((folder, DOUBLE), (folder / "single", SINGLE)):
        for path in place.glob("*.svg"):
            width, height, inner_width, inner_height = size(path)
            assert width <= most
            assert width / height == pytest.approx(inner_width / inner_height, rel=0.01)
            box = re.search(rb"MediaBox ?\[ ?0 0 ([\d.]+)", path.with_suffix(".pdf").read_bytes())
            assert float(box[1]) == pytest.approx(width, abs=1)
    # One point of text stays readable: three panels are not squeezed into one column.
    width, _, inner_width, inner_height = size(folder / "single" / "max_cosine_intervals.svg")
    assert inner_height > inner_width
    assert width / inner_width > 0.6


def test_captions_say_what_the_page_says(written):
    folder, drawn = written
    with (folder / "captions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["figure"], r["title"], r["caption"]) for r in rows] == [
        (f.key, f.title, f.caption) for f in drawn
    ]
    text = (folder / "figures.tex").read_text(encoding="utf-8")
    for each in drawn:
        assert rf"\includegraphics{{figures/single/{each.key}.pdf}}" in text
        assert rf"\includegraphics{{figures/{each.key}.pdf}}" in text
    assert text.count(r"\begin{figure*}") == text.count(r"\end{figure*}") == 2


def test_a_narrow_figure_stays_as_it_is():
    svg = '<svg class="marks" width="200" height="100" viewBox="0 0 200 100"></svg>'
    assert narrowed(svg, 252) == svg
    assert 'width="100" height="50.0" viewBox="0 0 200 100"' in narrowed(svg, 100)


def test_text_stays_text_in_latex():
    hostile = "\\input{/etc/passwd}%$#&_~^\n"
    assert escaped(hostile) == (
        r"\textbackslash{}input\{/etc/passwd\}\%\$\#\&\_\textasciitilde{}\textasciicircum{} "
    )
    for text in (
        figure("figures/x.pdf", hostile, "x", wide=False),
        long_table(hostile, ["a"], [[hostile]]),
    ):
        assert r"\input" not in text
        assert escaped(hostile) in text


def test_panels_in_one_column_have_no_title(written):
    folder, drawn = written
    for each in drawn:
        assert each.title in (folder / f"{each.key}.svg").read_text()
    assert drawn[1].title not in (folder / "single" / f"{drawn[1].key}.svg").read_text()
