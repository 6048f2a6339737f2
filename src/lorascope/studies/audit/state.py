"""A study under way: model, texts, adapters and finished stages, each read when first asked for.

Every process that makes stages of a run has a state of its own. It reads the study's inputs and the
run folder and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lorascope.activations import matching
from lorascope.activations.matching import Match
from lorascope.activations.shards import Shards
from lorascope.activations.splits import Split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, count_tokens, require_rows, windows
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import NoNullAdapter
from lorascope.latent_adapters.loading import load
from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_files import locate, weights_digest
from lorascope.models.identity import model_identity
from lorascope.models.null_adapters import add_null_adapters, rescale_null_adapter
from lorascope.models.sites import Site, resolve_sites
from lorascope.outputs.scoring import Floor, output_floor
from lorascope.progress import Reporter
from lorascope.runs import read_json
from lorascope.studies.audit import plan as planning
from lorascope.studies.audit.learning import RunDictionaries, bring, wanted
from lorascope.studies.audit.measuring import Audit
from lorascope.studies.audit.study import AuditStudy
from lorascope.studies.audit.variants import Variants
from lorascope.training.adapters import CARD
from lorascope.workflows.adapters import Training, TrainingBase, split_for_training
from lorascope.workflows.run_dictionaries import AuditDictionary
from lorascope.workflows.sizes import SizedModel, base_of
from lorascope.workflows.texts import read_split

MATCHING, SANITY_CHECKS = "matching", "sanity_checks"
PROBE, HELD_OUT = "activations/probe", "activations/held_out"
# Null adapters are matched on the openings of this many documents, up to this many tokens.


@dataclass
class Audited:
    """A study under way, each part made when first asked for.

    Attributes:
        folder: the run folder.
    """

    study: AuditStudy
    folder: Path
    reporter: Reporter
    # Of adapters without null adapters: why. Known once the model is loaded.
    without_null: dict[str, str] = field(default_factory=dict)

    @cached_property
    def shape(self) -> SizedModel:
        """The base model's shape and tokenizer, without a weight of it."""
        return base_of(self.study, estimates=False)

    @cached_property
    def sites(self) -> list[Site]:
        """Where the stream is looked at."""
        return resolve_sites(self.shape.shape.blocks, self.study.sites)

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters."""
        return list(self.study.groups)

    @property
    def nulls(self) -> list[str]:
        """Names of the null adapters asked for; there may be none of some adapters."""
        return [null for name in self.adapters for null in self.nulls_of(name)]

    def nulls_of(self, adapter: str) -> list[str]:
        """Names of the null adapters asked for of one adapter."""
        return [f"{adapter}~null{i}" for i in range(self.study.controls.null_adapters)]

    @property
    def trained(self) -> dict[str, Path]:
        """{name: its stage's folder} of adapters that are trained here."""
        if self.study.train is None:
            return {}
        return {name: self.folder / "adapters" / name for name in self.study.groups}

    @cached_property
    def training(self) -> Training:
        """What the adapters that are trained here are trained on."""
        study = self.study
        assert study.train is not None
        base = TrainingBase(study.model, study.revision, study.dtype, study.device)
        documents = split_for_training(study.train, study.seed)
        return Training(base, documents, study.train.training, study.train.seeds)

    @property
    def paths(self) -> dict[str, str]:
        """{name: where the adapter is}."""
        return {name: str(path) for name, path in self.trained.items()} or self.study.given

    @cached_property
    def model(self) -> AdaptedModel:
        """The model with its adapters, and with null adapters matched as the study asks."""
        for name, match in self.matches.items():
            if self.unmatched.info(name).factor != match.factor:
                rescale_null_adapter(self.unmatched, name, match.factor)
        return self.unmatched

    @cached_property
    def matches(self) -> dict[str, Match]:
        """{null adapter: how it was brought to its adapter's delta norm}; empty without that."""
        if not self.matched_on:
            return {}
        found = read_json(self.folder / MATCHING / "matches.json")
        return {name: Match(**match) for name, match in found.items()}

    @cached_property
    def matched_on(self) -> list[Document]:
        """Documents spread over the probe's, on which null adapters are matched."""
        controls, probe = self.study.controls, self.texts.probe
        if not controls.null_adapters or controls.match == "spectrum":
            return []
        return probe[:: max(1, len(probe) // matching.DOCUMENTS)][: matching.DOCUMENTS]

    def openings(self) -> list[Window]:
        """The first window of each of those documents, as many as the tokens allow."""
        found: list[Window] = []
        for document in self.matched_on:
            first = self._windows([document])[:1]
            if found and sum(len(window.ids) for window in found + first) > matching.TOKENS:
                break
            found += first
        return found

    def require_tokens(self) -> None:
        """Refuse texts that cannot carry the numbers asked.

        Raises:
            InputError: says how many tokens or documents there are and how many are needed.
        """
        tokenizer = self.unmatched.tokenizer
        probe, held_out = (count_tokens(part, tokenizer) for part in (self.probe, self.held_out))
        planning.require_tokens(self.study, probe, held_out, len(self.texts.held_out))

    @cached_property
    def unmatched(self) -> AdaptedModel:
        """The model before its null adapters are matched."""
        study = self.study
        self.reporter.say(f"loading {study.model} with {', '.join(self.paths)}")
        model = load(
            study.model,
            self.paths,
            revision=study.revision,
            dtype=study.dtype,
            device=study.device,
            device_map=study.device_map,
            force=study.force,
        )
        if draws := study.controls.null_adapters:
            for name in self.paths:
                try:
                    add_null_adapters(model, name, draws, study.seed)
                except NoNullAdapter as error:
                    self.without_null[name] = str(error)
        return model

    @cached_property
    def base(self) -> str:
        """What identifies the base model: its content, not its name."""
        return model_identity(self.study.model, self.study.revision)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What identifies each adapter; those trained here are known once they are."""
        return {name: weights_digest(name, path) for name, path in self.paths.items()}

    @cached_property
    def seen(self) -> set[str]:
        """Digests of documents an adapter is known to have been trained on."""
        found: set[str] = set()
        if self.study.train is not None:
            found |= {document.known_as for document in self.training.split[0]}
        for name, path in self.study.given.items():
            folder = locate(name, path)
            if folder is not None and (folder / CARD).exists():
                found |= set(read_json(folder / CARD).get("trained_on", []))
        for source in self.study.texts.seen:
            found |= {document.digest for document in read_documents(source)}
        return found

    @cached_property
    def texts(self) -> Split:
        """Documents to train dictionaries on and to measure on."""
        return read_split(self.study.texts, self.seen, self.study.seed)

    @cached_property
    def probe(self) -> list[Window]:
        """Windows to train dictionaries on."""
        return self._windows(self.texts.probe)

    @cached_property
    def held_out(self) -> list[Window]:
        """Windows to measure on."""
        return self._windows(self.texts.held_out)

    @cached_property
    def output_floor(self) -> Floor:
        """What arithmetic alone changes in the outputs, on the texts that effects are taken on."""
        study = self.study
        return output_floor(
            self.model, self.held_out, capture=study.capture, most=study.measures.effect_tokens
        )

    def identity(self, documents: Sequence[Document]) -> dict[str, Any]:
        """What activations of these documents depend on, beside the stages they are made from."""
        study = self.study
        return {
            "model": [study.model, study.revision, study.dtype, self.base],
            "adapters": {} if study.train else self.hashes,
            "sites": list(study.sites),
            "capture": study.capture.plain(),
            "null_adapters": [study.controls.null_adapters, study.seed],
            "matched_on": digest([d.identity for d in self.matched_on]),
            "documents": digest([d.identity for d in documents]),
        }

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        context = min(self.study.capture.context, self.unmatched.context_length)
        found = windows(documents, self.unmatched.tokenizer, context)
        require_rows(found, self.unmatched.module, self.unmatched.tokenizer)
        return found

    # What finished stages hold.

    @cached_property
    def sanity_checks(self) -> dict[str, Any]:
        """The record of the checks."""
        return dict(read_json(self.folder / SANITY_CHECKS / "sanity_checks.json"))

    @cached_property
    def variants(self) -> Variants:
        """The adapters and the null adapters that there are."""
        return Variants.read(self.sanity_checks)

    @cached_property
    def probe_rows(self) -> Shards:
        """Activations to train dictionaries on."""
        return Shards.open(self.folder / PROBE)

    @cached_property
    def held_out_rows(self) -> Shards:
        """Activations to measure on."""
        return Shards.open(self.folder / HELD_OUT)

    @cached_property
    def brought(self) -> dict[str, Dictionary]:
        """The base dictionaries that the study names, by site."""
        return bring(self.study, self.shape.shape.d_model)

    @cached_property
    def wanted(self) -> list[AuditDictionary]:
        """Every dictionary that the study trains, those of null adapters that may be among them."""
        sites = [site.name for site in self.sites]
        return list(wanted(self.study, sites, self.adapters, self.nulls))

    def audit(self, study: AuditStudy, first_seed: int) -> Audit:
        """What measures read, with the settings that a stage was given."""
        present = {*self.adapters, *self.variants.nulls, ""}
        folders = {
            key: self.folder / "dictionaries" / key.name
            for key in self.wanted
            if key.adapter in present
        }
        return Audit(
            study,
            self.probe_rows,
            self.held_out_rows,
            RunDictionaries(folders, self.brought),
            self.variants,
            self.sanity_checks["noise_floor"],
            first_seed,
        )
