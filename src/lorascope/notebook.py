"""Studies from Python: run one, open a finished one, look at its numbers, figures and latents.

`audit`, `adapt`, `latent`, `evaluate` and `compare` take what the commands of these names take, and
return the finished run. Everything is on disk; a run opened again tomorrow is the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorascope.errors import InputError
from lorascope.progress import Reporter
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.compare.study import CompareSettings
from lorascope.studies.compare.workflow import compare as run_compare
from lorascope.studies.evaluate.comparison import compare_evaluations
from lorascope.studies.evaluate.finished import is_evaluation
from lorascope.studies.evaluate.settings import DEFAULT, EvaluateStudy, Evaluation
from lorascope.studies.latent.study import LatentStudy
from lorascope.studies.opening import workflow_of
from lorascope.studies.study_files import Study
from lorascope.study_run import StudyRun

PathLike = str | os.PathLike[str]


def open_run(folder: PathLike) -> StudyRun:
    """Open a finished run of any study: audit, adapt, latent or comparison.

    Raises:
        InputError: it is no run folder, or the run is not finished.

    Examples:
        >>> ls.open_run("runs/mine").facts["model"]["id"]
        'embedded'
    """
    run = StudyRun(Path(folder))
    run.results  # noqa: B018 - an unfinished one is refused here
    return run


def audit(
    model: str,
    adapters: Mapping[str, PathLike | Sequence[PathLike]],
    texts: str | Sequence[str] | Mapping[str, Any],
    sites: Sequence[str],
    *,
    out: PathLike | None = None,
    quiet: bool = False,
    redo: bool = False,
    **settings: Any,
) -> StudyRun:
    """Audit adapters: what they add to the residual stream, beside chance.

    Args:
        model: hub id, folder, or "embedded".
        adapters: {name: folder or hub id, or several that differ in their seed alone}.
        texts: files, folders or dataset ids; or the whole section as a study file has it.
        sites: residual-stream sites, `layers.12` = output of block 12.
        out: run folder; the same one resumes. By default below `runs/`, named by the settings.
        redo: where `out` holds this study with other settings, make again what depends on them.
        settings: further sections of the study, as its file has them: `measures={"rows": 5000}`.

    Raises:
        InputError: anything that has to be mended first.

    Examples:
        >>> run = ls.audit(
        ...     "embedded",
        ...     {"mine": "runs/adapters/adapters/r2", "other": "runs/adapters/adapters/r4"},
        ...     {"sources": ["embedded"], "documents": 90, "held_out": 0.5},
        ...     ["layers.5"],
        ...     out="runs/mine",
        ...     quiet=True,
        ...     dictionaries={
        ...         "architecture": {"n_latents": 64},
        ...         "fitting": {"epochs": 1, "batch": 128},
        ...     },
        ...     controls={"null_adapters": 0, "gaussian_dictionaries": 0},
        ...     measures={"rows": 300, "repeats": 2, "effects": False, "weights": False},
        ...     reading=None,
        ... )
        >>> run.folder.name, "delta_norm" in set(run.estimates.measure)
        ('mine', True)
    """
    named = {
        name: str(where) if isinstance(where, str | os.PathLike) else [str(one) for one in where]
        for name, where in adapters.items()
    }
    plain = {"model": model, "adapters": named, "sites": list(sites), "texts": _texts(texts)}
    plain |= settings
    study = AuditStudy.parse(plain, "audit")
    return _finished(study, out, quiet, redo)


def adapt(
    model: str,
    texts: str | Sequence[str] | Mapping[str, Any],
    dictionaries: Mapping[str, Any],
    *,
    out: PathLike | None = None,
    quiet: bool = False,
    redo: bool = False,
    **settings: Any,
) -> StudyRun:
    """Fit a model around frozen dictionaries: what splicing them costs, what a fit recovers.

    Args:
        model: hub id, folder, or "embedded".
        texts: to train and fit on, and to measure on, told apart by hash; as `audit` takes them.
        dictionaries: section of the study: `{"bring": {"name": {"site": …, "address": …}}}` or
            `{"train": {"sites": […], "n_latents": [4096], "k": [32]}}`.
        out, quiet, redo, settings: as `audit` takes them.

    Raises:
        InputError: anything that has to be mended first.

    Examples:
        >>> run = ls.adapt(
        ...     "embedded",
        ...     {"sources": ["embedded"], "documents": 60, "held_out": 0.3},
        ...     {"train": {"sites": ["layers.3"], "n_latents": [64], "k": [4], "tokens": 1000}},
        ...     out="runs/adapt",
        ...     quiet=True,
        ...     seeds=[0],
        ...     measure_tokens=600,
        ...     context=64,
        ...     fit={"lora": {"rank": 2}, "tokens": 600, "batch": 4, "random_draws": 2},
        ...     experiments={"ranks": [2], "baselines": [], "single_blocks": False},
        ... )
        >>> run.table.select("adapt.loss_spliced")[0].unit
        'nats/token'
    """
    plain = {"model": model, "texts": _texts(texts), "dictionaries": dict(dictionaries)}
    plain |= settings
    study = AdaptStudy.parse(plain, "adapt")
    return _finished(study, out, quiet, redo)


def latent(
    model: str,
    behaviour: PathLike,
    site: str,
    *,
    out: PathLike | None = None,
    quiet: bool = False,
    redo: bool = False,
    **settings: Any,
) -> StudyRun:
    """Learn one behaviour by adapters that read and write latents.

    Args:
        model: hub id, folder, "embedded" or "embedded-it".
        behaviour: a set that `lorascope behaviour make` made, or "embedded".
        site: where the adapters act.
        out, quiet, redo, settings: as `audit` takes them.

    Raises:
        InputError: anything that has to be mended first.

    Examples:
        >>> run = ls.latent(
        ...     "embedded-it",
        ...     "embedded",
        ...     "layers.4",
        ...     out="runs/latent",
        ...     quiet=True,
        ...     seeds=[0],
        ...     context=64,
        ...     train_dictionary={
        ...         "architecture": {"architecture": "topk", "n_latents": 64, "k": 8},
        ...         "documents": 40,
        ...     },
        ...     choices={"dense": {"kind": "dense"}, "few": {"kind": "top_m", "m": 8}},
        ...     training={"steps": 2, "batch": 4},
        ...     lora=None,
        ...     prompting=False,
        ...     measures={"prompts": 8, "sizes": [8], "new_tokens": 2, "draws": 2, "latents": 2},
        ... )
        >>> sorted(set(run.estimates.adapter) & {"dense", "few"})
        ['dense', 'few']
    """
    plain = {"model": model, "behaviour": str(behaviour), "site": site, **settings}
    study = LatentStudy.parse(plain, "latent")
    return _finished(study, out, quiet, redo)


def evaluate(
    model: str,
    texts: str | Sequence[str] | Mapping[str, Any],
    subjects: Mapping[str, Any],
    *,
    only: Sequence[Evaluation] = DEFAULT,
    out: PathLike | None = None,
    quiet: bool = False,
    redo: bool = False,
    **settings: Any,
) -> StudyRun:
    """Evaluate dictionaries, and spliced, adapted and fine-tuned models.

    Args:
        model: hub id, folder, or "embedded".
        texts: as `audit` takes them.
        subjects: {name: what stands in the model}, as the study's file has them:
            `{"mine": {"dictionaries": {"layers.3": "runs/mine"}}}`, with `adapter` or `fitted`.
        only: which evaluations; those that `settings` say something of come in addition.
        out, quiet, redo, settings: as `audit` takes them.

    Raises:
        InputError: anything that has to be mended first.

    Examples:
        >>> run = ls.evaluate(
        ...     "embedded",
        ...     {"sources": ["embedded"], "documents": 60},
        ...     {"itself": {}},
        ...     only=["core"],
        ...     out="runs/evaluate",
        ...     quiet=True,
        ... )
        >>> run.table.select("evaluate.loss")[0].unit
        'nats/token'
    """
    plain: dict[str, Any] = {"model": model, "texts": _texts(texts), "subjects": dict(subjects)}
    for name in (*DEFAULT, *only):
        plain[name] = {} if name in only else None
    plain |= settings
    study = EvaluateStudy.parse(plain, "evaluate")
    return _finished(study, out, quiet, redo)


def compare(
    first: PathLike,
    second: PathLike,
    *,
    out: PathLike | None = None,
    quiet: bool = False,
    **settings: Any,
) -> StudyRun:
    """What two audited adapters of one base model did differently, or two evaluations found.

    Args:
        first, second: RUN, RUN:ADAPTER, or :ADAPTER of the first one's run; of evaluations
            :SUBJECT.
        out: a new folder or an earlier comparison's.
        settings: further fields of `CompareSettings`, of audits alone: `rows`, `sites`, ….

    Raises:
        InputError: the two cannot be compared.

    Examples:
        >>> found = ls.compare("runs/mine:mine", ":other", out="runs/compared", quiet=True)
        >>> "compare.cosine" in set(found.estimates.measure)
        True
    """
    if is_evaluation(str(first)) and is_evaluation(str(second), str(first)):
        if settings:
            raise InputError(f"{', '.join(settings)}: for audits alone; leave it out")
        found = compare_evaluations(str(first), str(second), None if out is None else Path(out))
        return open_run(found.report.parents[1])
    plain = {"first": str(first), "second": str(second), **settings}
    chosen = CompareSettings.parse(plain, "compare")
    compared = run_compare(chosen, None if out is None else Path(out), Reporter(quiet))
    return open_run(compared.report.parents[1])


def _finished(study: Study, out: PathLike | None, quiet: bool, redo: bool) -> StudyRun:
    """Run or resume a study in its folder, and open it."""
    own = Path("runs") / f"{study.name}-{study.digest()[:8]}"
    folder = own if out is None else Path(out)
    workflow = workflow_of(study)
    workflow.run(study, folder, Reporter(quiet), f"lorascope.{workflow.name} in {folder}", redo)
    return open_run(folder)


def _texts(texts: str | Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(texts, Mapping):
        return dict(texts)
    return {"sources": [texts] if isinstance(texts, str) else list(texts)}
