"""Which dictionaries an audit trains, each a stage of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lorascope.activations.mixing import Rows, TensorRows
from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError, did_you_mean
from lorascope.geometry.chance import columns_shuffled, gaussian_rows
from lorascope.randomness import derived_seed, generator
from lorascope.runs import read_json, versions, write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.study import AuditStudy
from lorascope.training.architectures import Architecture
from lorascope.training.dictionaries import HELD_OUT_ERROR, Job, fit_many
from lorascope.training.loop import History
from lorascope.training.settings import Fitting
from lorascope.workflows.run_dictionaries import (
    CHECKPOINTS,
    DICTIONARIES,
    AuditDictionary,
    brought_at,
    note_brought,
)
from lorascope.workflows.settings import Control
from lorascope.workflows.tracking import trackers

CONTROL_ROWS = 262144
# Held-out rows that the error is followed on while a dictionary is trained.
CURVE_ROWS = 2048
_PARENTS = ("activations/probe", "activations/held_out")


def wanted(
    study: AuditStudy, sites: list[str], adapters: list[str], nulls: Sequence[str] = ()
) -> Iterator[AuditDictionary]:
    """Every dictionary the study trains, base dictionaries first at each site.

    Args:
        nulls: null adapters; each gets one dictionary a site, with the first seed.
    """
    settings, gaussian = study.dictionaries, study.controls.gaussian_dictionaries
    for site in sites:
        if site not in settings.base:
            for seed in settings.seeds:
                yield AuditDictionary("base", site, "", seed)
        for adapter in adapters:
            for seed in settings.seeds:
                yield AuditDictionary("delta", site, adapter, seed)
            for control in settings.controls:
                yield AuditDictionary(control, site, adapter, settings.seeds[0])
            for draw in range(gaussian):
                yield AuditDictionary("gaussian", site, adapter, settings.seeds[0], draw=draw)
        for null in nulls:
            yield AuditDictionary("delta", site, null, settings.seeds[0])
    yield from ablated(study, sites, adapters)


def ablated(study: AuditStudy, sites: list[str], adapters: list[str]) -> list[AuditDictionary]:
    """The dictionaries of the study's ablation, if it has one.

    Raises:
        InputError: it names a site or adapter that the study lacks.
    """
    if (ablation := study.ablation) is None:
        return []
    site, adapter = ablation.site or sites[0], ablation.adapter or adapters[0]
    for name, known in ((site, sites), (adapter, adapters)):
        if name not in known:
            raise InputError(
                f"ablation: {name} is none of the study's {', '.join(known)}."
                f"{did_you_mean(name, known)} Name one of them"
            )
    seed = study.dictionaries.seeds[0]
    return [AuditDictionary("delta", site, adapter, seed, study.label(v)) for v in ablation.values]


@dataclass(frozen=True)
class RunDictionaries:
    """The dictionaries of a run: trained ones by what they are, brought ones by site."""

    folders: dict[AuditDictionary, Path]
    brought: dict[str, Dictionary]

    def base(self, site: str, seed: int) -> Dictionary:
        """The base dictionary of a site and seed; a brought one serves every seed."""
        return self.brought.get(site) or self.open(AuditDictionary("base", site, "", seed))

    def delta(self, site: str, adapter: str, seed: int) -> Dictionary:
        """The delta dictionary of an adapter, site and seed."""
        return self.open(AuditDictionary("delta", site, adapter, seed))

    def controls(self, site: str, adapter: str) -> dict[Control, Dictionary]:
        """The dictionaries trained on what was made from a delta, by what was made."""
        found: dict[Control, Dictionary] = {}
        for key in self.folders:
            here = (key.site, key.adapter) == (site, adapter)
            if here and key.target not in ("base", "delta", "gaussian"):
                found[cast(Control, key.target)] = self.open(key)
        return found

    def gaussian(self, site: str, adapter: str) -> list[Dictionary]:
        """The dictionaries trained on Gaussian rows of a delta's mean and covariance, by draw."""
        return [
            self.open(key)
            for key in self.folders
            if (key.target, key.site, key.adapter) == ("gaussian", site, adapter)
        ]

    def ablation(self, site: str, adapter: str) -> dict[str, Dictionary]:
        """The dictionaries of the ablation there, by setting."""
        return {
            key.setting: self.open(key)
            for key in self.folders
            if key.setting and (key.site, key.adapter) == (site, adapter)
        }

    def open(self, key: AuditDictionary) -> Dictionary:
        """One dictionary that was trained here."""
        return open_dictionary(self.folders[key])

    def facts(self) -> list[dict[str, Any]]:
        """One record a trained dictionary, as its stage left it."""
        return [read_json(folder / "training.json") for folder in self.folders.values()]


def _source(key: AuditDictionary) -> tuple[str, str, str, int, bool]:
    """What decides the rows a dictionary is trained on, and for how long."""
    draw = -1 if key.draw is None else key.draw
    return key.site, key.target, key.adapter, draw, bool(key.setting)


def bring(study: AuditStudy, d_model: int) -> dict[str, Dictionary]:
    """The base dictionaries the study names, by site, each made for this model and site.

    Raises:
        InputError: one cannot be opened, or belongs to another model, site or width.
    """
    return {site: _bring(study, site, d_model) for site in study.dictionaries.base}


def _bring(study: AuditStudy, site: str, d_model: int) -> Dictionary:
    address = study.dictionaries.base[site]
    opened = open_dictionary(address)
    opened.card.require(model=study.model, site=site, force=study.force)
    if opened.d_model != d_model:
        raise InputError(
            f"dictionary {address}: reads a stream of width {opened.d_model}, the model's is "
            f"{d_model}; give one made for this model"
        )
    return opened


@stage(version=1, title="training dictionaries", together=True)
def train(works: Sequence[Work]) -> None:
    """Train the dictionaries of one group: those that read the same rows, at once.

    A null adapter that there is not has no dictionary; its stage stays empty.
    """
    first = works[0]
    state, run, arguments = first.state, first.run, [work.stage.arguments for work in works]
    key: AuditDictionary = arguments[0]["wanted"]
    probe, held_out = state.probe_rows, state.held_out_rows
    if key.adapter and key.adapter not in [*probe.adapters, *probe.nulls]:
        return
    checkpoints = run / CHECKPOINTS
    fitting = batched(arguments[0]["fitting"], probe)
    with ExitStack() as tracked:
        jobs = [
            Job(
                one["architecture"],
                # Dictionaries that start from the same directions end alike, whatever they are
                # trained on.
                derived_seed(one["wanted"].seed, replace(one["wanted"], setting="").name),
                _card(state, one["wanted"]),
                checkpoints / f"{one['wanted'].name}.pt",
                tracked.enter_context(trackers(work)),
            )
            for work, one in zip(works, arguments, strict=True)
        ]
        trained = fit_many(
            jobs,
            rows_for(key, probe),
            fitting,
            held_out=held_out.load(key.site, key.adapter or BASE, CURVE_ROWS),
            device=_device(state.study.device),
        )
    for work, (dictionary, history) in zip(works, trained, strict=True):
        _save(work, dictionary, history)
    if checkpoints.exists() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()


def stages(
    study: AuditStudy, keys: Sequence[AuditDictionary], marks: Mapping[str, str]
) -> Iterator[Stage]:
    """One stage a dictionary: trained, in groups that read the same rows, or brought along.

    Args:
        keys: those to train.
        marks: {site: what the dictionary brought there computes with}.
    """
    for site, content in marks.items():
        brought = {"site": site, "address": study.dictionaries.base[site], "content": content}
        yield Stage(brought_at(site), note_brought, brought)
    for key in keys:
        arguments = {
            "wanted": key,
            "architecture": architecture_of(study, key),
            "fitting": fitting_of(study, key),
        }
        group = "-".join(str(part) for part in _source(key))
        yield Stage(
            f"{DICTIONARIES}/{key.name}", train, arguments, _PARENTS, f"dictionaries {group}"
        )


def architecture_of(study: AuditStudy, key: AuditDictionary) -> Architecture:
    """Settings of one dictionary."""
    return study.varied(key.setting) if key.setting else study.dictionaries.architecture


def fitting_of(study: AuditStudy, key: AuditDictionary) -> Fitting:
    """How one dictionary is trained."""
    fitting, ablation = study.dictionaries.fitting, study.ablation
    if key.setting and ablation is not None and ablation.epochs is not None:
        return fitting.model_copy(update={"epochs": ablation.epochs})
    return fitting


def batched(fitting: Fitting, probe: Shards) -> Fitting:
    """How dictionaries are trained on these rows; tokens masked as outliers count, as in a plan."""
    return fitting.within(probe.manifest["rows"])


def _card(state: Any, key: AuditDictionary) -> Card:
    study = state.study
    return Card(
        target=key.target,
        site=key.site,
        model=study.model,
        revision=study.revision,
        adapter=key.adapter,
        adapter_sha256=state.hashes.get(key.adapter, ""),
        activations=state.probe_rows.manifest["identity"],
        versions=versions(),
    )


def _save(work: Work, dictionary: Dictionary, history: History) -> None:
    key: AuditDictionary = work.stage.arguments["wanted"]
    save(dictionary, work.folder)
    fact = {
        "id": key.name,
        **asdict(key),
        "architecture": dictionary.architecture,
        "trained_as": work.stage.arguments["architecture"].architecture,
        "n_latents": dictionary.n_latents,
        "l0": history.tail_mean("l0"),
        "scale": dictionary.card.scale,
        "steps": len(history.records),
        "epochs": work.stage.arguments["fitting"].epochs,
        "held_out_error": [
            {"step": step, "error": error} for step, error in history.points(HELD_OUT_ERROR)
        ],
    }
    if "l1" in history.records[0]:
        fact["l1"] = history.tail_mean("l1")
    write_json(work.folder / "training.json", fact)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def rows_for(key: AuditDictionary, probe: Shards) -> Rows:
    """What a dictionary is trained on; controls hold at most `CONTROL_ROWS`, made anew."""
    if key.target in ("base", "delta"):
        return probe.source(key.site, key.adapter or BASE)
    random = generator(key.seed, key.target, key.site, key.adapter, key.draw)
    if key.target == "gaussian":
        mean, covariance = probe.moments(key.site, key.adapter)
        count = min(len(probe), CONTROL_ROWS)
        drawn: Tensor = gaussian_rows(count, mean, covariance, random)
        return TensorRows(drawn)
    rows = probe.load(key.site, key.adapter, CONTROL_ROWS)
    if key.target == "permuted":
        return TensorRows(rows[:, permutation(key, rows.shape[1])])
    return TensorRows(columns_shuffled(rows, random))


def permutation(key: AuditDictionary, d_model: int) -> Tensor:
    """The order of dimensions that a permuted control is trained in."""
    random = generator(key.seed, key.target, key.site, key.adapter, key.draw)
    return torch.randperm(d_model, generator=random)
