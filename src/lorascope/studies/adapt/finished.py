"""Finished adapt studies, recognised before any large library is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorascope.config import read_yaml
from lorascope.errors import InputError


def in_studies(runs: Sequence[Path]) -> None:
    """Results of adapt studies to hold against each other."""
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise InputError("give two different runs of lorascope adapt, or more")
    for run in runs:
        if not (run / "results" / "facts.json").is_file():
            raise InputError(
                f"{run}: the study is not finished; run lorascope adapt again with the same --out"
            )


def is_adapt(address: str) -> bool:
    """Whether an address is the run folder of an adapt study."""
    study = Path(address) / "study.yaml"
    return study.is_file() and read_yaml(study).get("workflow") == "adapt"
