"""What is missing or misspelt in a study, found before any large library is imported.

Everything here is looked at again where it is used; these checks answer in a fraction of a second.
All raise InputError with what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from lorascope.activations.sources import located
from lorascope.activations.text import read_documents
from lorascope.behaviours.answerers import answerer, local_judge
from lorascope.behaviours.manners import judged
from lorascope.behaviours.records import read_set
from lorascope.config import Settings
from lorascope.dictionaries.addresses import require_there
from lorascope.errors import InputError
from lorascope.locking import require_writable
from lorascope.models.adapter_config import largest_rank, require_ranks
from lorascope.models.places import adapter_folder, adapter_in, is_latent, model_address
from lorascope.reading.settings import Reading
from lorascope.runs import Run
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.behaviour.study import MeasureBehaviour
from lorascope.studies.evaluate.labelled import (
    binary_sets,
    classes,
    is_table,
    prompt_rows,
    spurious_rows,
)
from lorascope.studies.evaluate.settings import EvaluateStudy, Subject
from lorascope.studies.latent.study import LatentStudy
from lorascope.workflows.settings import OnTexts, TrainStudy


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
        _audit_ranks(study)
        _sources(study.train.records if study.train is not None else ())
    if isinstance(study, EvaluateStudy):
        for name, subject in study.subjects.items():
            _subject(name, subject)
        _evaluations(study)
        if not planned:
            _what_runs_evaluations(study)
    elif not planned:
        _made(study)


def in_training(study: TrainStudy) -> None:
    """Model and records of adapters to train."""
    model_address(study.model)
    _sources(study.records)


def in_behaving(study: MeasureBehaviour) -> None:
    """Model, set and adapters of a behaviour to measure."""
    model_address(study.model)
    _behaviour(study.data)
    _adapters(study.adapters)


def in_trial(wanted: OnTexts) -> None:
    """Model, adapter and texts that a dictionary is tried on."""
    model_address(wanted.model)
    _adapters({} if wanted.adapter is None else {"adapter": wanted.adapter})
    _sources(wanted.texts)


def in_export(
    model: str | None, adapter: str | None, texts: Iterable[str], out: Path | None
) -> None:
    """Model, adapter and texts of an export, and the folder that it is written to."""
    if model is not None:
        model_address(model)
    _adapters({} if adapter is None else {"adapter": adapter})
    _sources(texts)
    in_output(out)


def in_reading(adapters: Mapping[str, str], settings: Reading, out: Path | None) -> None:
    """Adapters, texts and ranks of a reading, and the folder that it is written to."""
    _adapters(adapters)
    _ranks(dict(list(adapters.items())[:1]), settings.ranks)
    in_texts(settings.texts if settings.documents else ())
    in_output(out)


def in_texts(sources: Iterable[str], most: int | None = None) -> None:
    """Texts that are read once a model is there; those of a dataset's id are left to then.

    Args:
        most: how many documents are used.
    """
    here = [source for source in sources if located(source) is not None]
    if here:
        read_documents(here, most)


def in_output(out: Path | None) -> None:
    """A folder in which nothing can be written."""
    if out is not None:
        require_writable(out)


def in_folder(out: Path, study: Settings, redo: bool = False) -> None:
    """A run folder that holds another study, or something else."""
    Run.refuse_foreign(out, study, redo)


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


def _evaluations(study: EvaluateStudy) -> None:
    """Tables that evaluations read, and a judge that is on this machine."""
    if study.probing is not None:
        _sources(study.probing.sets)
        for source in filter(is_table, study.probing.sets):
            for labelled in binary_sets(source, study.probing.limit):
                labelled.sized(study.probing.train, study.probing.test)
    for one, read in (
        (study.tpp, classes),
        (study.scr, spurious_rows),
        (study.disentangling, prompt_rows),
    ):
        if one is not None:
            _sources([one.source])
            if is_table(one.source):
                read(one.source)
    if study.autointerp is not None:
        local = local_judge(study.autointerp.judge)
        if local is not None:
            model_address(local)


def _what_runs_evaluations(study: EvaluateStudy) -> None:
    """A judge's endpoint, and lm-eval: what only a run needs, not its plan."""
    if study.autointerp is not None and local_judge(study.autointerp.judge) is None:
        answerer(study.autointerp.judge)
    if study.benchmarks is not None:
        if find_spec("lm_eval") is None:
            raise InputError('general benchmarks need lm-eval: pip install "lorascope[eval]"')
        if study.benchmarks.include and not Path(study.benchmarks.include).is_dir():
            raise InputError(
                f"{study.benchmarks.include}: no such folder; give one with task files of lm-eval "
                "as benchmarks.include, or leave it out"
            )


def _sources(sources: Iterable[str]) -> None:
    for source in sources:
        located(source)


def _adapters(adapters: Mapping[str, str]) -> None:
    for name, path in adapters.items():
        folder = adapter_folder(name, path)
        if folder is not None:
            adapter_in(name, path, folder)


def _audit_ranks(study: AuditStudy) -> None:
    ranks = study.reading.ranks if study.reading is not None else ()
    _ranks(study.given, ranks)
    for rank in study.train.training.ranks if study.train is not None else ():
        require_ranks(f"r{rank}", rank, ranks)


def _ranks(adapters: Mapping[str, str], ranks: Sequence[int]) -> None:
    """Ranks that adapters of this machine, by their configuration, do not have."""
    for name, path in adapters.items() if ranks else ():
        given = adapter_folder(name, path)
        if given is None:
            continue
        folder = adapter_in(name, path, given)
        # Neither a full fine-tune nor a latent adapter has factors.
        largest = 0
        if folder is not None and not is_latent(folder):
            largest = largest_rank(name, folder)
        require_ranks(name, largest, ranks)


def _dictionaries(addresses: Iterable[str]) -> None:
    for address in addresses:
        require_there(address)


def _behaviour(data: str) -> None:
    if data != "embedded":
        read_set(data)
