"""The page of an adapt study, or of several models' beside each other."""

from __future__ import annotations

from pathlib import Path

from lorascope.report.figure import Figure
from lorascope.report.result import Results
from lorascope.studies.adapt.model_comparison import MODELS
from lorascope.studies.adapt.sections.figures import adapt_figures
from lorascope.studies.adapt.sections.model_comparison import models_figures, write_models_report
from lorascope.studies.adapt.sections.page import write_adapt_report
from lorascope.studies.adapt.sections.results import AdaptResults


def write_page(results: Results) -> Path:
    """Write `report/` of a run: figures, tables, then the page, whose path it returns."""
    if results.facts.get("workflow") == MODELS:
        return write_models_report(results)
    return write_adapt_report(results)


def figures_of(results: Results) -> list[Figure]:
    """The figures on it, drawn anew."""
    if results.facts.get("workflow") == MODELS:
        return models_figures(results)
    return adapt_figures(AdaptResults(results))
