"""A study under way: model, texts and adapters, each made when a stage first asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lorascope.activations.matching import Match, match_delta_norms
from lorascope.activations.splits import Split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, count_tokens, require_rows, windows
from lorascope.config import digest
from lorascope.errors import NoNullAdapter
from lorascope.latent_adapters.loading import load
from lorascope.measures import outputs
from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_files import locate, weights_digest
from lorascope.models.identity import model_identity
from lorascope.models.null_adapters import add_null_adapters, rescale_null_adapter
from lorascope.models.sites import resolve_sites
from lorascope.runs import Run, read_json, write_atomically
from lorascope.training.adapters import CARD
from lorascope.workflows import plan as planning
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy
from lorascope.workflows.texts import read_split

# Null adapters are matched on the openings of this many documents, up to this many tokens.
_MATCH_DOCUMENTS = 16
_MATCH_TOKENS = 2048


@dataclass
class Audited:
    """A study under way: what has been found so far, each part made when first asked for."""

    study: AuditStudy
    run: Run
    reporter: Reporter
    paths: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Path] = field(default_factory=dict)
    # Of adapters without null adapters: why. Known once the model is loaded.
    without_null: dict[str, str] = field(default_factory=dict)

    @cached_property
    def model(self) -> AdaptedModel:
        """The model with its adapters, loaded only if a stage needs it.

        Null adapters are on it too, matched as the study asks.
        """
        for name, match in self.matches.items():
            if self._loaded.info(name).factor != match.factor:
                rescale_null_adapter(self._loaded, name, match.factor)
        return self._loaded

    @cached_property
    def matches(self) -> dict[str, Match]:
        """{null adapter: how it was brought to its adapter's delta norm}, kept as a stage.

        Empty where the study matches spectra alone.
        """
        if not self._matched_on:
            return {}

        def make(folder: Path) -> None:
            self.require_tokens()
            model, found = self._loaded, self._openings()
            sites, capture = resolve_sites(model.n_blocks, self.study.sites), self.study.capture
            matches: dict[str, Match] = {}
            with self.reporter.bar(
                "matching null adapters", len(model.null_adapters), "adapters"
            ) as advance:
                for name in model.adapters:
                    matches |= match_delta_norms(model, name, found, sites, capture, advance)
            record = {name: asdict(match) for name, match in matches.items()}
            write_atomically(folder / "matches.json", json.dumps(record, indent=1) + "\n")

        folder = self.run.stage("matching", self.identity(self._matched_on), make)
        found = read_json(folder / "matches.json")
        return {name: Match(**match) for name, match in found.items()}

    @cached_property
    def _matched_on(self) -> list[Document]:
        """Documents spread over the probe's, on which null adapters are matched."""
        controls, probe = self.study.controls, self.texts.probe
        if not controls.null_adapters or controls.match == "spectrum":
            return []
        return probe[:: max(1, len(probe) // _MATCH_DOCUMENTS)][:_MATCH_DOCUMENTS]

    def _openings(self) -> list[Window]:
        """The first window of each of those documents, as many as the tokens allow."""
        found: list[Window] = []
        for document in self._matched_on:
            first = self._windows([document])[:1]
            if found and sum(len(window.ids) for window in found + first) > _MATCH_TOKENS:
                break
            found += first
        return found

    def require_tokens(self) -> None:
        """Refuse texts that cannot carry the numbers asked.

        Raises:
            InputError: says how many tokens or documents there are and how many are needed.
        """
        tokenizer = self._loaded.tokenizer
        probe, held_out = (count_tokens(part, tokenizer) for part in (self.probe, self.held_out))
        planning.require_tokens(self.study, probe, held_out, len(self.texts.held_out))

    @cached_property
    def _loaded(self) -> AdaptedModel:
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
        """What identifies each adapter."""
        return {name: weights_digest(name, path) for name, path in self.paths.items()}

    @cached_property
    def seen(self) -> set[str]:
        """Digests of documents an adapter is known to have been trained on."""
        found: set[str] = set()
        for name, path in self.paths.items():
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
    def output_floor(self) -> outputs.Floor:
        """What arithmetic alone changes in the outputs, on the texts that effects are taken on."""
        study = self.study
        return outputs.output_floor(
            self.model, self.held_out, capture=study.capture, most=study.measures.effect_tokens
        )

    def identity(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Everything activations of these documents depend on."""
        study = self.study
        return {
            "model": [study.model, study.revision, study.dtype, self.base],
            "adapters": self.hashes,
            "sites": list(study.sites),
            "capture": study.capture.plain(),
            "null_adapters": [study.controls.null_adapters, study.seed],
            "matched_on": digest([d.digest for d in self._matched_on]),
            "documents": digest([d.digest for d in documents]),
        }

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        context = min(self.study.capture.context, self._loaded.context_length)
        found = windows(documents, self._loaded.tokenizer, context)
        require_rows(found, self._loaded.module, self._loaded.tokenizer)
        return found
