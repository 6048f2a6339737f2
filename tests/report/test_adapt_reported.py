"""Where the paper's figures lie, on the page of a study."""

from lorascope.report.figure import Figure
from lorascope.studies.adapt.sections.reported import CLOSED, REPORTED, marked, not_asked
from lorascope.studies.adapt.sections.words import SECTIONS


def test_every_section_has_the_papers_figure_and_the_setting_that_asks_for_it():
    assert list(REPORTED) == [section.key for section in SECTIONS]
    from lorascope.studies.adapt.study import Experiments

    for key, one in REPORTED.items():
        section, _, name = one.asked.partition(".")
        assert section == "experiments"
        assert name in Experiments.model_fields
        assert not_asked(key).endswith(f"{one.asked} does.")


def test_a_band_and_a_line():
    spec = {"layer": [{"mark": "point"}]}
    figure = Figure("k", "t", "title", "caption", spec)
    band, point, words = marked(figure, *CLOSED, "paper", "share").spec["layer"]
    assert point == {"mark": "point"}
    assert band["mark"]["type"] == "rect"
    assert band["data"]["values"] == [{"paper_low": 0.3, "paper_high": 0.55, "label": "paper"}]
    assert words["encoding"]["y"]["title"] == "share"
    line, *_ = marked(figure, 0.4, 0.4, "paper", "share").spec["layer"]
    assert line["mark"]["type"] == "rule"
    assert figure.spec == spec == {"layer": [{"mark": "point"}]}
    panels = Figure("k", "t", "title", "caption", {"facet": {}})
    assert marked(panels, *CLOSED, "paper", "share") is panels
