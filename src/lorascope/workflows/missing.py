"""What is missing or misspelt in a study, told before any library is loaded.

Everything here is looked at again where it is used; these checks answer in a fraction of a second.
All raise InputError with what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lorascope.activations.sources import located
from lorascope.behaviours.manners import judged
from lorascope.behaviours.records import read_set
from lorascope.config import Settings, read_yaml
from lorascope.dictionaries.addresses import require_there
from lorascope.errors import InputError
from lorascope.evaluating.settings import EvaluateStudy, Subject
from lorascope.models.places import adapter_folder, adapter_in, model_address
from lorascope.runs import Run, read_json
from lorascope.workflows.adapt.study import AdaptStudy
from lorascope.workflows.latent.study import LatentStudy
from lorascope.workflows.settings import BehavingStudy, OnTexts, TrainStudy
from lorascope.workflows.study import AuditStudy

# Stages that others read of a finished audit.
_STAGES = ("gates", "activations/held_out", "results")


def in_study(
    study: AuditStudy | AdaptStudy | LatentStudy | EvaluateStudy, *, planned: bool = False
) -> None:
    """Model, adapters, texts, dictionaries and behaviour of a study.

    Args:
        planned: it is only planned: dictionaries and a behaviour set may yet be made.
    """
    model_address(study.model)
    if isinstance(study, LatentStudy):
        judged(study.manner, study.judge)
        _sources(() if study.dictionary else study.train_dictionary.texts)
    else:
        texts = study.texts
        _sources((*texts.sources, *texts.measure_on, *texts.seen))
    if isinstance(study, AuditStudy):
        _adapters(study.given)
        _sources(study.train.records if study.train is not None else ())
    if isinstance(study, EvaluateStudy):
        for name, subject in study.subjects.items():
            _subject(name, subject)
    elif not planned:
        _made(study)


def in_training(study: TrainStudy) -> None:
    """Model and records of adapters to train."""
    model_address(study.model)
    _sources(study.records)


def in_behaving(study: BehavingStudy) -> None:
    """Model, set and adapters of a behaviour to measure."""
    model_address(study.model)
    _behaviour(study.data)
    _adapters(study.adapters)


def in_trial(wanted: OnTexts) -> None:
    """Model, adapter and texts that a dictionary is tried on."""
    model_address(wanted.model)
    _adapters({} if wanted.adapter is None else {"adapter": wanted.adapter})
    _sources(wanted.texts)


def in_folder(out: Path, study: Settings, redo: bool = False) -> None:
    """A run folder that holds another study, or something else."""
    Run.refuse_foreign(out, study, redo)


def in_compared(first: str, second: str) -> None:
    """The run folders of two audits to compare."""
    folder, _ = addressed(first)
    other, _ = addressed(second, folder)
    for each in dict.fromkeys((folder, other)):
        in_finished(each)


def in_studies(runs: Sequence[Path]) -> None:
    """Results of adapt studies to hold against each other."""
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise InputError("give two different runs of lorascope adapt, or more")
    for run in runs:
        if not (run / "results" / "facts.json").is_file():
            raise InputError(
                f"{run}: the study is not finished; run lorascope adapt again with the same --out"
            )


def in_finished(folder: Path) -> AuditStudy:
    """Parts of a finished audit's folder; returns its study."""
    if not (folder / "study.yaml").is_file() or not (folder / "manifest.json").is_file():
        raise InputError(
            f"{folder}: not a run folder; give the folder of a finished audit, or FOLDER:ADAPTER"
        )
    try:
        study = AuditStudy.parse(read_yaml(folder / "study.yaml"), "study.yaml")
    except InputError as error:
        raise InputError(f"{folder}: not an audit of this version ({error})") from None
    stages = read_json(folder / "manifest.json").get("stages", {})
    for stage in _STAGES:
        if stage not in stages:
            raise InputError(
                f"{folder}: the audit is not finished ({stage} is missing); run lorascope "
                "audit again with the same --out"
            )
    if not (folder / "activations" / "held_out" / "manifest.json").is_file():
        raise InputError(
            f"{folder}: its held-out activations have been removed; run lorascope audit again "
            "with the same --out to capture them"
        )
    return study


def addressed(address: str, default: Path | None = None) -> tuple[Path, str]:
    """The run folder and the adapter of RUN, RUN:ADAPTER, or :ADAPTER of the default run."""
    if Path(address).is_dir():
        return Path(address), ""
    folder, sign, name = address.rpartition(":")
    if not sign:
        folder, name = address, ""
    if not folder:
        if default is None:
            raise InputError(f"{address}: name the run first, as in runs/mine{address}")
        return default, name
    return Path(folder), name


def is_adapt(address: str) -> bool:
    """Whether an address is the run folder of an adapt study."""
    study = Path(address) / "study.yaml"
    return study.is_file() and read_yaml(study).get("workflow") == "adapt"


def _made(study: AuditStudy | AdaptStudy | LatentStudy) -> None:
    """What another command makes: dictionaries, a behaviour set."""
    if isinstance(study, AuditStudy):
        _dictionaries(study.dictionaries.base.values())
    elif isinstance(study, AdaptStudy):
        _dictionaries(one.address for one in study.dictionaries.bring.values())
    else:
        _behaviour(study.behaviour)
        _dictionaries([study.dictionary] if study.dictionary is not None else [])


def _subject(name: str, subject: Subject) -> None:
    """What an evaluation of one subject reads."""
    _adapters({name: subject.adapter} if subject.adapter else {})
    _dictionaries((*subject.dictionaries.values(), *subject.reseeded.values()))
    if subject.fitted and not (Path(subject.fitted) / "lorascope.json").is_file():
        raise InputError(
            f"subject {name}: {subject.fitted} holds no lorascope.json; give the folder of a fit "
            "that lorascope adapt made, below fits/ of its run"
        )


def _sources(sources: Iterable[str]) -> None:
    for source in sources:
        located(source)


def _adapters(adapters: Mapping[str, str]) -> None:
    for name, path in adapters.items():
        folder = adapter_folder(name, path)
        if folder is not None:
            adapter_in(name, path, folder)


def _dictionaries(addresses: Iterable[str]) -> None:
    for address in addresses:
        require_there(address)


def _behaviour(data: str) -> None:
    if data != "embedded":
        read_set(data)
