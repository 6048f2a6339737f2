"""Which dictionaries an audit trains, each a stage of the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorascope.activations.mixing import Rows, TensorRows
from lorascope.activations.scaling import mean_and_covariance
from lorascope.activations.shards import BASE, Shards
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.geometry.chance import gaussian_rows
from lorascope.randomness import derived_seed, generator
from lorascope.runs import Run, read_json, versions, write_atomically
from lorascope.training.dictionaries import Job, fit_many
from lorascope.training.loop import History
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy

GAUSSIAN_ROWS = 262144


@dataclass(frozen=True)
class Wanted:
    """One dictionary to train: on the base stream, on a delta, or on Gaussian rows like it."""

    target: Literal["base", "delta", "gaussian"]
    site: str
    adapter: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder below `dictionaries/`."""
        parts = [self.site, self.target, self.adapter, f"seed{self.seed}"]
        return "-".join(part for part in parts if part)


def wanted(study: AuditStudy, sites: list[str], adapters: list[str]) -> Iterator[Wanted]:
    """Every dictionary the study trains, base dictionaries first."""
    settings = study.dictionaries
    for site in sites:
        if site not in settings.base:
            for seed in settings.seeds:
                yield Wanted("base", site, "", seed)
        for adapter in adapters:
            for seed in settings.seeds:
                yield Wanted("delta", site, adapter, seed)
            if settings.gaussian_control:
                yield Wanted("gaussian", site, adapter, settings.seeds[0])


@dataclass(frozen=True)
class Learned:
    """The dictionaries of a run: trained ones by what they are, brought ones by site."""

    folders: dict[Wanted, Path]
    brought: dict[str, Dictionary]

    def base(self, site: str, seed: int) -> Dictionary | None:
        """The base dictionary of a site and seed; a brought one serves every seed."""
        return self.brought.get(site) or self._open(Wanted("base", site, "", seed))

    def delta(self, site: str, adapter: str, seed: int) -> Dictionary:
        """The delta dictionary of an adapter, site and seed."""
        return open_dictionary(self.folders[Wanted("delta", site, adapter, seed)])

    def gaussian(self, site: str, adapter: str, seed: int) -> Dictionary | None:
        """The dictionary trained on Gaussian rows like the delta, if there is one."""
        return self._open(Wanted("gaussian", site, adapter, seed))

    def facts(self) -> list[dict[str, Any]]:
        """One record a trained dictionary, as its stage left it."""
        return [read_json(folder / "training.json") for folder in self.folders.values()]

    def _open(self, key: Wanted) -> Dictionary | None:
        return open_dictionary(self.folders[key]) if key in self.folders else None


def learn(
    run: Run,
    study: AuditStudy,
    probe: Shards,
    brought: dict[str, Dictionary],
    hashes: dict[str, str],
    reporter: Reporter,
) -> Learned:
    """Train, or find finished, every dictionary of the study.

    Args:
        probe: activations to train on.
        brought: base dictionaries the study names, by site.
        hashes: SHA-256 of each adapter, for the cards.
    """
    todo = list(wanted(study, probe.sites, probe.adapters))
    folders: dict[Wanted, Path] = {}
    with reporter.bar("training dictionaries", len(todo), "dictionaries") as advance:
        for _, keys in groupby(sorted(todo, key=_source), key=_source):
            together = _Together(run, study, list(keys), probe, hashes)
            for key in together.keys:
                folders[key] = together.stage(key)
                advance(1)
    return Learned({key: folders[key] for key in todo}, brought)


def _source(key: Wanted) -> tuple[str, str, str]:
    """What decides the rows a dictionary is trained on."""
    return key.site, key.target, key.adapter


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
        probe: Shards,
        hashes: dict[str, str],
    ) -> None:
        self.keys = keys
        self._run, self._study, self._probe, self._hashes = run, study, probe, hashes
        self._trained: dict[Wanted, tuple[Dictionary, History]] = {}

    def stage(self, key: Wanted) -> Path:
        """The folder of a finished dictionary."""

        def make(folder: Path) -> None:
            if key not in self._trained:
                self._train()
            self._save(key, folder)

        return self._run.stage(*self._what(key), make, "activations/probe")

    def _what(self, key: Wanted) -> tuple[str, list[object]]:
        settings = self._study.dictionaries
        depends_on: list[object] = [
            settings.architecture.plain(),
            settings.fitting.plain(),
            key.__dict__,
        ]
        return f"dictionaries/{key.name}", depends_on

    def _train(self) -> None:
        settings, checkpoints = self._study.dictionaries, self._run.folder / "checkpoints"
        todo = [k for k in self.keys if not self._run.current(*self._what(k), "activations/probe")]
        jobs = [
            Job(
                settings.architecture,
                # Dictionaries that start from the same directions end alike, whatever they are
                # trained on.
                derived_seed(key.seed, key.name),
                self._card(key),
                checkpoints / f"{key.name}.pt",
            )
            for key in todo
        ]
        rows = _rows(self.keys[0], self._probe)
        trained = fit_many(jobs, rows, settings.fitting, device=_device(self._study.device))
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
            **key.__dict__,
            "architecture": dictionary.architecture,
            "trained_as": self._study.dictionaries.architecture.architecture,
            "n_latents": dictionary.n_latents,
            "l0": history.tail_mean("l0"),
            "scale": dictionary.card.scale,
            "steps": len(history.records),
        }
        if "l1" in history.records[0]:
            fact["l1"] = history.tail_mean("l1")
        write_atomically(folder / "training.json", json.dumps(fact, indent=1) + "\n")


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _rows(key: Wanted, probe: Shards) -> Rows:
    if key.target != "gaussian":
        return probe.source(key.site, key.adapter or BASE)
    mean, covariance = mean_and_covariance(probe.chunks(key.site, key.adapter))
    random = generator(key.seed, "gaussian", key.site, key.adapter)
    count = min(len(probe), GAUSSIAN_ROWS)
    drawn: Tensor = gaussian_rows(count, mean, covariance, random)
    return TensorRows(drawn)
