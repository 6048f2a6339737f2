"""Which dictionaries an audit trains, each a stage of the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from lorascope.activations.mixing import Rows, TensorRows
from lorascope.activations.shards import BASE, Shards
from lorascope.adapt.wrapper import identity
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError, did_you_mean
from lorascope.geometry.chance import columns_shuffled, gaussian_rows
from lorascope.randomness import derived_seed, generator
from lorascope.runs import Run, read_json, versions, write_atomically
from lorascope.training.architectures import Architecture
from lorascope.training.dictionaries import HELD_OUT_ERROR, Fitting, Job, fit_many
from lorascope.training.loop import History
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy, Control

CONTROL_ROWS = 262144
# Held-out rows that the error is followed on while a dictionary is trained.
CURVE_ROWS = 2048
_PARENTS = ("activations/probe", "activations/held_out")


@dataclass(frozen=True)
class Wanted:
    """One dictionary to train.

    Attributes:
        target: what it is trained on: the base stream, a delta, or a control made from that delta.
        adapter: whose delta; a null adapter's too.
        draw: which draw of Gaussian rows.
        setting: what is unlike the study's own settings, `l1=0.05` for one of an ablation.
    """

    target: Literal["base", "delta", "gaussian"] | Control
    site: str
    adapter: str
    seed: int
    setting: str = ""
    draw: int | None = None

    @property
    def name(self) -> str:
        """Its folder below `dictionaries/`."""
        drawn = "" if self.draw is None else f"draw{self.draw}"
        parts = [self.site, self.target, self.adapter, f"seed{self.seed}", drawn, self.setting]
        return "-".join(part for part in parts if part)


def wanted(
    study: AuditStudy, sites: list[str], adapters: list[str], nulls: Sequence[str] = ()
) -> Iterator[Wanted]:
    """Every dictionary the study trains, base dictionaries first at each site.

    Args:
        nulls: null adapters; each gets one dictionary a site, with the first seed.
    """
    settings, gaussian = study.dictionaries, study.controls.gaussian_dictionaries
    for site in sites:
        if site not in settings.base:
            for seed in settings.seeds:
                yield Wanted("base", site, "", seed)
        for adapter in adapters:
            for seed in settings.seeds:
                yield Wanted("delta", site, adapter, seed)
            for control in settings.controls:
                yield Wanted(control, site, adapter, settings.seeds[0])
            for draw in range(gaussian):
                yield Wanted("gaussian", site, adapter, settings.seeds[0], draw=draw)
        for null in nulls:
            yield Wanted("delta", site, null, settings.seeds[0])
    yield from ablated(study, sites, adapters)


def ablated(study: AuditStudy, sites: list[str], adapters: list[str]) -> list[Wanted]:
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
    return [Wanted("delta", site, adapter, seed, study.label(v)) for v in ablation.values]


@dataclass(frozen=True)
class Learned:
    """The dictionaries of a run: trained ones by what they are, brought ones by site."""

    folders: dict[Wanted, Path]
    brought: dict[str, Dictionary]

    @cached_property
    def marks(self) -> dict[str, str]:
        """What each brought dictionary computes with, by site: known by content, not by address."""
        return {site: identity(dictionary) for site, dictionary in self.brought.items()}

    def base(self, site: str, seed: int) -> Dictionary:
        """The base dictionary of a site and seed; a brought one serves every seed."""
        return self.brought.get(site) or self.open(Wanted("base", site, "", seed))

    def delta(self, site: str, adapter: str, seed: int) -> Dictionary:
        """The delta dictionary of an adapter, site and seed."""
        return self.open(Wanted("delta", site, adapter, seed))

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

    def open(self, key: Wanted) -> Dictionary:
        """One dictionary that was trained here."""
        return open_dictionary(self.folders[key])

    def facts(self) -> list[dict[str, Any]]:
        """One record a trained dictionary, as its stage left it."""
        return [read_json(folder / "training.json") for folder in self.folders.values()]


def learn(
    run: Run,
    study: AuditStudy,
    probe: Shards,
    held_out: Shards,
    brought: dict[str, Dictionary],
    hashes: dict[str, str],
    reporter: Reporter,
) -> Learned:
    """Train, or find finished, every dictionary of the study.

    Args:
        probe: activations to train on.
        held_out: those to follow the error on.
        brought: base dictionaries the study names, by site.
        hashes: SHA-256 of each adapter, for the cards.
    """
    todo = list(wanted(study, probe.sites, probe.adapters, probe.nulls))
    folders: dict[Wanted, Path] = {}
    with reporter.bar("training dictionaries", len(todo), "dictionaries") as advance:
        for _, keys in groupby(sorted(todo, key=_source), key=_source):
            together = _Together(run, study, list(keys), (probe, held_out), hashes)
            for key in together.keys:
                folders[key] = together.stage(key)
                advance(1)
    return Learned({key: folders[key] for key in todo}, brought)


def _source(key: Wanted) -> tuple[str, str, str, int, bool]:
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


class _Together:
    """Dictionaries that read the same rows: trained at once when the first of them is asked for."""

    def __init__(
        self,
        run: Run,
        study: AuditStudy,
        keys: list[Wanted],
        activations: tuple[Shards, Shards],
        hashes: dict[str, str],
    ) -> None:
        self.keys = keys
        self._run, self._study, self._hashes = run, study, hashes
        self._probe, self._held_out = activations
        self._trained: dict[Wanted, tuple[Dictionary, History]] = {}

    def stage(self, key: Wanted) -> Path:
        """The folder of a finished dictionary."""

        def make(folder: Path) -> None:
            if key not in self._trained:
                self._train()
            self._save(key, folder)

        return self._run.stage(*self._what(key), make, *_PARENTS)

    def _what(self, key: Wanted) -> tuple[str, list[object]]:
        settings: list[object] = [self._architecture(key).plain(), self._fitting.plain()]
        settings.append(asdict(key))
        return f"dictionaries/{key.name}", settings

    def _architecture(self, key: Wanted) -> Architecture:
        study = self._study
        return study.varied(key.setting) if key.setting else study.dictionaries.architecture

    @property
    def _fitting(self) -> Fitting:
        fitting, ablation = self._study.dictionaries.fitting, self._study.ablation
        if self.keys[0].setting and ablation is not None and ablation.epochs is not None:
            return fitting.model_copy(update={"epochs": ablation.epochs})
        return fitting

    def _train(self) -> None:
        checkpoints = self._run.folder / "checkpoints"
        todo = [k for k in self.keys if not self._run.current(*self._what(k), *_PARENTS)]
        jobs = [
            Job(
                self._architecture(key),
                # Dictionaries that start from the same directions end alike, whatever they are
                # trained on.
                derived_seed(key.seed, replace(key, setting="").name),
                self._card(key),
                checkpoints / f"{key.name}.pt",
            )
            for key in todo
        ]
        first = self.keys[0]
        trained = fit_many(
            jobs,
            rows_for(first, self._probe),
            self._fitting,
            held_out=self._held_out.load(first.site, first.adapter or BASE, CURVE_ROWS),
            device=_device(self._study.device),
        )
        self._trained = dict(zip(todo, trained, strict=True))
        if checkpoints.exists() and not any(checkpoints.iterdir()):
            checkpoints.rmdir()

    def _card(self, key: Wanted) -> Card:
        study = self._study
        return Card(
            target=key.target,
            site=key.site,
            model=study.model,
            revision=study.revision,
            adapter=key.adapter,
            adapter_sha256=self._hashes.get(key.adapter, ""),
            activations=self._probe.manifest["identity"],
            versions=versions(),
        )

    def _save(self, key: Wanted, folder: Path) -> None:
        dictionary, history = self._trained[key]
        save(dictionary, folder)
        fact = {
            "id": key.name,
            **asdict(key),
            "architecture": dictionary.architecture,
            "trained_as": self._study.dictionaries.architecture.architecture,
            "n_latents": dictionary.n_latents,
            "l0": history.tail_mean("l0"),
            "scale": dictionary.card.scale,
            "steps": len(history.records),
            "epochs": self._fitting.epochs,
            "held_out_error": [
                {"step": step, "error": error} for step, error in history.points(HELD_OUT_ERROR)
            ],
        }
        if "l1" in history.records[0]:
            fact["l1"] = history.tail_mean("l1")
        write_atomically(folder / "training.json", json.dumps(fact, indent=1) + "\n")


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def rows_for(key: Wanted, probe: Shards) -> Rows:
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


def permutation(key: Wanted, d_model: int) -> Tensor:
    """The order of dimensions that a permuted control is trained in."""
    random = generator(key.seed, key.target, key.site, key.adapter, key.draw)
    return torch.randperm(d_model, generator=random)
