"""Check one adapter: its files, its spectra beside chance, and with a model what it does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lorascope.checking.effect import Effect
from lorascope.checking.findings import Finding, listed
from lorascope.checking.folders import SAFE
from lorascope.checking.gating import Gate, judge
from lorascope.checking.numbers import KindOutlier, estimates, outlier_estimates, outliers
from lorascope.checking.reading import FilesRead, read_adapter
from lorascope.checking.reference import Reference, held_against, of_folder, shipped
from lorascope.checking.reference import findings as of_reference
from lorascope.checking.settings import CheckSettings
from lorascope.errors import InputError, require_kind
from lorascope.progress import Reporter
from lorascope.results import Estimate, Estimates

if TYPE_CHECKING:
    import pandas as pd

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Check:
    """What was found of an adapter.

    Attributes:
        read: its files.
        outliers: of every kind of module, the one whose norm is farthest from the others'.
        reference: ordinary adapters that it is held against.
        effect: what it does to its base model; None without one.
        gates: those that were set.
        settings: what was asked for.
    """

    read: FilesRead
    outliers: tuple[KindOutlier, ...]
    reference: Reference
    effect: Effect | None
    gates: tuple[Gate, ...]
    settings: CheckSettings

    @cached_property
    def estimates(self) -> Estimates:
        """Every number beside its chance level: of modules, kinds, all modules, and the model."""
        name = self.read.name
        found: list[Estimate] = [
            *estimates(name, self.read.modules),
            *outlier_estimates(name, self.outliers),
            *self.beside_ordinary,
            *(self.effect.estimates if self.effect is not None else ()),
        ]
        return Estimates(found)

    @cached_property
    def beside_ordinary(self) -> list[Estimate]:
        """Numbers that depend on neither base nor size, beside ordinary adapters'."""
        return held_against(self.read, self.reference)

    @property
    def findings(self) -> list[Finding]:
        """Errors first, then warnings, then notes."""
        found = [*self.read.findings, *_of_outliers(self.outliers)]
        # The table that ships is of small adapters of one model: most others lie beyond it.
        if self.settings.reference is not None:
            found += of_reference(self.beside_ordinary, self.reference)
        found += self.effect.findings if self.effect is not None else []
        order = ("error", "warning", "note")
        return sorted(found, key=lambda finding: order.index(finding.level))

    @property
    def missed(self) -> list[Gate]:
        """Gates that the adapter did not come up to."""
        return [gate for gate in self.gates if not gate.passed]

    def to_frame(self) -> pd.DataFrame:
        """The estimates as one table."""
        return self.estimates.to_frame()

    def plain(self) -> dict[str, Any]:
        """Everything as plain data; `schemas/check-1.json` describes it."""
        from lorascope.checking.formats import plain

        return plain(self)

    def __repr__(self) -> str:
        errors = sum(finding.level == "error" for finding in self.findings)
        missed = f", {len(self.missed)} gates missed" if self.gates else ""
        modules = f"{len(self.read.modules)} modules, {self.read.parameters:,} parameters"
        return f"<Check of {self.read.path}: {self.read.kind}, {modules}, {errors} errors{missed}>"


def check_adapter(path: str, settings: CheckSettings, reporter: Reporter | None = None) -> Check:
    """Look at an adapter's files and, where the settings name a model, try it on that.

    Raises:
        InputError: there is no adapter, its files are damaged, or the model does not fit.
    """
    reporter = reporter or Reporter(quiet=True)
    read = read_adapter(path, reporter)
    given = settings.reference
    reference = shipped() if given is None else of_folder(given, read.folder)
    found = tuple(outliers(read.modules))
    effect = None
    if settings.model is not None:
        effect = _tried(read, settings, reporter)
    gates = judge(settings.gates, read, found, effect)
    return Check(read, found, reference, effect, tuple(gates), settings)


def _tried(read: FilesRead, settings: CheckSettings, reporter: Reporter) -> Effect:
    """What the adapter does, or why that cannot be seen."""
    errors = [finding for finding in read.findings if finding.level == "error"]
    if not errors and (read.folder / SAFE).is_file():
        # Loads PEFT and transformers.
        from lorascope.checking.trying import try_on

        return try_on(read.name, read.folder, read.modules, settings, reporter)
    found = Effect(live=False)
    reasons = ", ".join(sorted({error.rule for error in errors})) or "pickled"
    message = f"the model was not tried: the files have errors ({reasons})"
    found.findings.append(Finding("not-measured", "warning", message))
    return found


def _of_outliers(found: tuple[KindOutlier, ...]) -> list[Finding]:
    result = []
    for one in found:
        if one.named:
            names = [f"{path} (z = {z:+.1f})" for path, z in one.named]
            message = (
                f"norms stand out among {one.modules} modules of {one.kind} "
                f"(adjusted p = {one.adjusted:.2g}): {listed(names)}"
            )
            where = tuple(path for path, _ in one.named)
            result.append(Finding("kind-outlier", "warning", message, SAFE, where))
    return result


def check(
    adapter: PathLike, model: PathLike | None = None, *, quiet: bool = True, **settings: Any
) -> Check:
    """Whether an adapter is whole, live and larger than chance; seconds.

    Args:
        adapter: folder of a PEFT adapter, or an id of the hub.
        model: its base model: hub id, folder or "embedded"; without it the files alone.
        quiet: whether to show no progress.
        settings: further fields of `CheckSettings`: `texts`, `draws`, `gates={"max_kl": 0.5}`.

    Raises:
        InputError: there is no adapter, its files are damaged, or the model does not fit.

    Examples:
        >>> found = ls.check("runs/adapters/adapters/r2")
        >>> [finding.message for finding in found.findings if finding.level == "error"]
        []
    """
    wanted = "the folder of an adapter, or its id on the hub"
    require_kind(adapter, (str, os.PathLike), "the adapter", wanted)
    require_kind(model, (str, os.PathLike, type(None)), "the model", "a folder or an id, or None")
    named = None if model is None else os.fspath(model)
    parsed = CheckSettings.parse({**settings, "model": named}, "check")
    if parsed.model is not None and not parsed.model:
        raise InputError("the model is empty: give a folder or an id")
    return check_adapter(os.fspath(adapter), parsed, Reporter(quiet))
