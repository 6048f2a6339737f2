"""The report of a run: words, tables, figures and one page, from its results alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.report.drawn import Figure
    from lorascope.report.result import Results

from lorascope.errors import InputError


def build(run: Path) -> Path:
    """Read a finished run folder and write `report/`; returns the path of `report/index.html`.

    Also writes `report/figures/*.{svg,png,pdf}` and `report/tables/*.{csv,tex}`. Needs only
    `results/`, and `features/` for the browser; InputError if a results file is missing or damaged.
    The facts say which workflow's page it is.
    """
    for name in ("estimates.parquet", "facts.json"):
        path = Path(run) / "results" / name
        if not path.is_file():
            raise InputError(f"{path} is missing: finish the run first, then make its report")
    # Imported here: the figures need Altair, which `import lorascope` should not wait for.
    from lorascope.report.adapt.models import write_models_report
    from lorascope.report.adapt.page import write_adapt_report
    from lorascope.report.comparison import rewrite_comparison
    from lorascope.report.evaluate import write_evaluation_report
    from lorascope.report.latent import write_latent_report
    from lorascope.report.page import write_report
    from lorascope.report.result import read_results

    results = read_results(run)
    makers: dict[str, Callable[[Results], Path]] = {
        "adapt": write_adapt_report,
        "adapt models": write_models_report,
        "compare": rewrite_comparison,
        "evaluate": write_evaluation_report,
        "latent": write_latent_report,
    }
    return makers.get(str(results.facts.get("workflow")), write_report)(results)


def figures_of(results: Results) -> list[Figure]:
    """The figures of a run's report, drawn anew."""
    from lorascope.report.adapt.figures import adapt_figures
    from lorascope.report.adapt.found import Found
    from lorascope.report.adapt.models import models_figures
    from lorascope.report.comparison import comparison_figures
    from lorascope.report.evaluate import evaluation_figures
    from lorascope.report.figures import figures
    from lorascope.report.latent import latent_figures

    makers: dict[str, Callable[[Results], list[Figure]]] = {
        "adapt": lambda found: adapt_figures(Found(found)),
        "adapt models": models_figures,
        "compare": comparison_figures,
        "evaluate": evaluation_figures,
        "latent": latent_figures,
    }
    return makers.get(str(results.facts.get("workflow")), figures)(results)
