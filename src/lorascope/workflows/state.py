"""A study under way: model, texts and adapters, each made when a stage first asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lorascope.activations.splits import Split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, require_rows, windows
from lorascope.config import digest
from lorascope.latent_adapters.loading import load
from lorascope.models.adapted import AdaptedModel
from lorascope.models.adapter_files import locate, weights_digest
from lorascope.models.identity import model_identity
from lorascope.runs import Run, read_json
from lorascope.training.adapters import CARD
from lorascope.workflows.progress import Reporter
from lorascope.workflows.study import AuditStudy
from lorascope.workflows.texts import read_split


@dataclass
class Audited:
    """A study under way: what has been found so far, each part made when first asked for."""

    study: AuditStudy
    run: Run
    reporter: Reporter
    paths: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def model(self) -> AdaptedModel:
        """The model with its adapters, loaded only if a stage needs it."""
        study = self.study
        self.reporter.say(f"loading {study.model} with {', '.join(self.paths)}")
        return load(
            study.model,
            self.paths,
            revision=study.revision,
            dtype=study.dtype,
            device=study.device,
            device_map=study.device_map,
            force=study.force,
        )

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

    def identity(self, documents: Sequence[Document]) -> dict[str, Any]:
        """Everything activations of these documents depend on."""
        study = self.study
        return {
            "model": [study.model, study.revision, study.dtype, self.base],
            "adapters": self.hashes,
            "sites": list(study.sites),
            "capture": study.capture.plain(),
            "documents": digest([d.digest for d in documents]),
        }

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        context = min(self.study.capture.context, self.model.context_length)
        found = windows(documents, self.model.tokenizer, context)
        require_rows(found, self.model.module, self.model.tokenizer)
        return found
