"""Run folders with known numbers, and their reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from planted_results import facts_for, planted_estimates

import lorascope.report
from lorascope.report.result import Results, read_results, write_estimates
from lorascope.results import Estimate

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Write a run folder from estimates and, where given, changed facts."""

    def write(estimates: Sequence[Estimate], **changed: object) -> Path:
        run = tmp_path_factory.mktemp("run")
        write_estimates(estimates, run / "results")
        facts = facts_for(estimates) | changed
        (run / "results" / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        return run

    return write


@pytest.fixture(scope="session")
def plant() -> Callable[..., list[Estimate]]:
    """`planted_estimates`, for tests."""
    return planted_estimates


@pytest.fixture(scope="session")
def run_folder(make_run: MakeRun) -> Path:
    """A finished run with its report: every measure found, four adapters, three sites."""
    run = make_run(planted_estimates())
    lorascope.report.build(run)
    return run


@pytest.fixture(scope="session")
def results(run_folder: Path) -> Results:
    """The same run's results."""
    return read_results(run_folder)


@pytest.fixture(scope="session")
def page(run_folder: Path) -> str:
    """The same run's page."""
    return (run_folder / "report" / "index.html").read_text(encoding="utf-8")
