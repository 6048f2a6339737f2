"""The report of a run: words, tables, figures and one page, from its results alone.

What stands here knows no study. Each study's page is made by its own module `page`, found by the
study's name, which is in the facts.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from lorascope.report.figure import Figure
    from lorascope.report.result import Results

from lorascope.errors import InputError
from lorascope.folder_contents import require_finished
from lorascope.machine import require_files
from lorascope.stages import changed_since

# Files that drawing takes at once.
FILES = 16


class StudyPage(Protocol):
    """A study's module `page`."""

    def write_page(self, results: Results) -> Path:
        """Write `report/` of a run; returns the path of `report/index.html`."""

    def figures_of(self, results: Results) -> list[Figure]:
        """The figures on it, drawn anew."""


def build(run: Path) -> Path:
    """Read a finished run folder and write `report/`; returns the path of `report/index.html`.

    Also writes `report/figures/*.{svg,png,pdf}`, `report/tables/*.{csv,tex}` and
    `report/results.json`, and notes digests of it and of the page in the manifest. Needs only
    `results/`, and `features/` for the browser; InputError if a results file is missing or damaged.
    The facts say which study's page it is.
    """
    require_finished(Path(run))
    for name in ("estimates.parquet", "facts.json"):
        path = Path(run) / "results" / name
        if not path.is_file():
            raise InputError(f"{path} is missing: finish the run first, then make its report")
    require_files(FILES)
    # Imported here: the figures need Altair, which `import lorascope` should not wait for.
    from lorascope.report.machine import write
    from lorascope.report.result import read_results

    results = read_results(run)
    try:
        page = _page_of(results).write_page(results)
        write(results, page)
    except (InputError, OSError):
        raise
    except Exception as error:
        # A page trusts what a run wrote; where that has been changed by hand, this is no fault.
        changed = changed_since(Path(run) / "results")
        if not changed:
            raise
        raise InputError(
            f"{Path(run) / 'results' / changed[0]}: changed since it was made, so no page can be "
            "made of it; remove the results folder and run the study again"
        ) from error
    return page


def figures_of(results: Results) -> list[Figure]:
    """The figures of a run's report, drawn anew."""
    return _page_of(results).figures_of(results)


def _page_of(results: Results) -> StudyPage:
    # An audit's facts name no study; those of several models' runs say "adapt models".
    study = str(results.facts.get("workflow", "audit")).partition(" ")[0]
    try:
        return cast(StudyPage, import_module(f"lorascope.studies.{study}.page"))
    except ModuleNotFoundError:
        raise InputError(f"{results.run}: a run of {study}, which has no page") from None
