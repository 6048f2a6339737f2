"""Options that several commands share, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from lorascope.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from lorascope.runners import Runner
    from lorascope.studies.audit.study import AuditStudy

Workflow = Literal["audit", "adapt", "latent", "evaluate"]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder; the same one resumes.")]
BaseDictionary = Annotated[
    list[str] | None,
    typer.Option(
        "--dictionary",
        help="Base dictionary to bring along instead of training one: site=address. Repeatable.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Only check this command and print what it would cost.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, no progress.")]
Workers = Annotated[
    int,
    typer.Option("--workers", min=1, help="Make stages in so many processes at once."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads of each; the cores shared out by default."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Make stages on a Ray cluster: auto, or its address."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting of the study: key.subkey=value. Repeatable."),
]
DTypeOf = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Of the model's weights: auto, float32, bfloat16, float16, nf4 or int8.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Branch, tag or commit of the model on the hub."),
]
Adapter = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="Folder or hub id, or name=folder. Repeatable."),
]


def known_dtype(dtype: str | None) -> str:
    """--dtype of a command without settings of the model; "auto" where it is left out.

    Raises:
        InputError: there is no such type.
    """
    from lorascope.config import DType

    known = get_args(DType)
    if dtype is not None and dtype not in known:
        hint = did_you_mean(dtype, known)
        raise InputError(f"--dtype {dtype}: unknown.{hint} There are: {', '.join(known)}")
    return dtype or "auto"


def of_base(changes: Sequence[str] | None, dtype: str | None, revision: str | None) -> list[str]:
    """The options --dtype and --revision as changes of settings, before those of --set."""
    given = {"dtype": dtype, "revision": revision}
    # Quoted, so that a commit of digits alone stays text.
    found = [f"{key}='{value}'" for key, value in given.items() if value is not None]
    return [*found, *(changes or [])]


def audit_study(
    study: Path | None,
    model: str | None,
    adapter: Sequence[str] | None,
    sites: str | None,
    texts: Sequence[str] | None,
    dictionaries: Sequence[str] | None,
    changes: Sequence[str] | None,
    force: bool,
) -> AuditStudy:
    """The study that a file and options say together; options win.

    A folder in the file's place is an adapter. Without a file the base model is the one that the
    adapters name, sites are three depths, and texts those of the package.
    """
    from lorascope.config import override, read_yaml
    from lorascope.studies.audit.defaults import completed, named_adapters
    from lorascope.studies.audit.study import AuditStudy

    if study is not None and study.is_dir():
        study, adapter = None, [str(study), *(adapter or [])]
    data: dict[str, Any] = read_yaml(study) if study is not None else {}
    require_workflow(study, "audit")
    data.pop("workflow", None)
    if model is not None:
        data["model"] = model
    if adapter:
        data["adapters"] = named_adapters(adapter)
        data.pop("train", None)
    if sites is not None:
        data["sites"] = [site.strip() for site in sites.split(",") if site.strip()]
    if texts:
        before = data.get("texts")
        kept = before if isinstance(before, dict) else {}
        data["texts"] = {**kept, "sources": list(texts)}
    if dictionaries:
        before = data.get("dictionaries")
        brought = pairs("--dictionary", dictionaries, "layers.5=runs/mine")
        data["dictionaries"] = {**(before if isinstance(before, dict) else {}), "base": brought}
    if force:
        data["force"] = True
    data = override(data, changes or [])
    if study is None:
        if not data.get("adapters"):
            raise InputError("give a study file, an adapter's folder, or --adapter")
        data = completed(data)
    return AuditStudy.parse(data, str(study or "options"))


def workflow_of(study: Path | None) -> str:
    """Which workflow a study file is of; an audit does not say what it is.

    Raises:
        InputError: it names a workflow that there is not.
    """
    from lorascope.config import read_yaml

    if study is None or study.is_dir():
        return "audit"
    known, found = get_args(Workflow), str(read_yaml(study).get("workflow", "audit"))
    if found not in known:
        hint = did_you_mean(found, known)
        raise InputError(f'{study}: no workflow "{found}".{hint} There are: {", ".join(known)}')
    return found


def require_workflow(study: Path | None, wanted: Workflow) -> None:
    """Refuse a study file of another workflow.

    Raises:
        InputError: says which it is of, and the command for it.
    """
    if study is not None and (found := workflow_of(study)) != wanted:
        raise InputError(f"{study}: holds a study of {found}; run lorascope {found} {study}")


@dataclass(frozen=True)
class StagePlace:
    """Where a study's stages are made, as options say.

    Attributes:
        workers, threads, ray: as the options of these names.
    """

    workers: int = 1
    threads: int | None = None
    ray: str | None = None

    def runner(self) -> Runner:
        """What makes the stages there.

        Raises:
            InputError: two places are named, or Ray is not installed.
        """
        from lorascope.runners.local import run_here
        from lorascope.runners.pool import in_pool
        from lorascope.studies.opening import open_study

        if self.ray is not None:
            from lorascope.runners.on_ray import on_ray

            if self.workers > 1:
                raise InputError("give --workers or --ray, not both")
            return on_ray(open_study, self.ray, self.threads)
        if self.workers > 1:
            return in_pool(open_study, self.workers, self.threads)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return run_here


def pairs(option: str, given: Sequence[str], example: str) -> dict[str, str]:
    """{name: path} of a repeated name=path option."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise InputError(f"{option} {text}: expected name=path, as in {option} {example}")
        if name in found:
            raise InputError(f"{option} {text}: the name {name} is given twice")
        found[name] = path
    return found


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers between commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: expected whole numbers, as in {option} 4,8") from None
