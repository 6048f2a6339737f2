"""A latent study under way: model, behaviour, dictionary and examples, read when first asked for.

Every process that makes stages of a run has a state of its own. It reads the study's inputs and the
run folder and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, require_rows
from lorascope.behaviours.records import SPLITS, BehaviourRecord, BehaviourSet, Split, read_set
from lorascope.behaviours.turns import record_windows
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.latent_adapters.fitting import Examples
from lorascope.latent_adapters.reading import FrozenSite
from lorascope.models import dimensions
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base
from lorascope.models.sites import resolve_sites
from lorascope.progress import Reporter
from lorascope.studies.latent.study import LatentStudy
from lorascope.workflows.run_dictionaries import DICTIONARIES, brought_at
from lorascope.workflows.sizes import SizedModel, base_of


@dataclass
class LatentRun:
    """A latent study under way, each part read when first asked for.

    Attributes:
        folder: the run folder.
    """

    study: LatentStudy
    folder: Path
    reporter: Reporter

    @cached_property
    def behaviour(self) -> BehaviourSet:
        """The records, checked to be balanced and split."""
        return read_set(self.study.behaviour)

    @cached_property
    def shape(self) -> SizedModel:
        """The model's shape and tokenizer, without a weight of it."""
        return base_of(self.study, estimates=False)

    @cached_property
    def site(self) -> str:
        """The site's one spelling."""
        return resolve_sites(self.shape.shape.blocks, [self.study.site])[0].name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What everything made here depends on: the model and the records, by content."""
        study = self.study
        content = model_identity(study.model, study.revision)
        return {
            "model": [study.model, study.revision, study.dtype, content],
            "records": digest([r.plain() for r in self.behaviour.records]),
            "context": study.context,
        }

    def require(self, identity: dict[str, Any]) -> None:
        """Refuse to make from other inputs what was asked for of these.

        Raises:
            InputError: the model or the records have been replaced since the study was read.
        """
        for name, asked in identity.items():
            if self.identity[name] != asked:
                which = self.study.model if name == "model" else self.study.behaviour
                raise InputError(f"{which}: has changed since the study was read; run it again")

    @cached_property
    def texts(self) -> list[Document]:
        """General texts that a dictionary is trained on."""
        own = self.study.train_dictionary
        return read_documents(own.texts, own.documents)

    @cached_property
    def brought(self) -> dict[str, Dictionary]:
        """The dictionary that the study names, by its site; none where one is trained.

        Raises:
            InputError: it cannot be opened, or is made for another model, site or width.
        """
        study = self.study
        if study.dictionary is None:
            return {}
        found = open_dictionary(study.dictionary)
        found.card.require(
            model=study.model, site=self.site, d_model=self.shape.shape.d_model, force=study.force
        )
        return {self.site: found}

    @property
    def dictionary_at(self) -> str:
        """The stage of the dictionary."""
        brought = self.study.dictionary is not None
        return brought_at(self.site) if brought else f"{DICTIONARIES}/{self.site}"

    @cached_property
    def model(self) -> tuple[PreTrainedModel, Any]:
        """The bare model and its tokenizer."""
        study = self.study
        self.reporter.say(f"loading {study.model}")
        return load_base(
            study.model, revision=study.revision, dtype=study.dtype, device=study.device
        )

    @cached_property
    def context(self) -> int:
        """Longest record in tokens."""
        return min(self.study.context, dimensions.context(self.model[0]))

    def windows(self, records: Sequence[BehaviourRecord]) -> list[Window]:
        """Records as the model reads them, without those that are too long.

        Raises:
            InputError: none is left.
        """
        found = record_windows(records, self.model[1], self.context)
        require_rows(found, *self.model)
        if not found:
            raise InputError(
                f"{self.study.behaviour}: every record is longer than the context of "
                f"{self.context} tokens; give a larger context"
            )
        return found

    @cached_property
    def fitting(self) -> dict[tuple[Split, bool], list[Window]]:
        """Changed (True) and unchanged records of either split that are short enough."""
        part = self.behaviour.part
        return {(s, kind): self.windows(part(s, kind)) for s in SPLITS for kind in (True, False)}

    def asked(self, most: int | None) -> list[BehaviourRecord]:
        """Held-out records that are answered, short enough: at most so many changed, and others."""
        found = []
        for kind in (True, False):
            part = self.behaviour.part("held_out", kind)
            found += [part[w.document] for w in self.fitting["held_out", kind]][:most]
        return found

    def counts(self, most: int | None) -> dict[str, dict[str, int]]:
        """Of each side and kind: records in the set, used, too long, beyond what was asked for.

        Args:
            most: held-out records of a kind that are asked for.
        """
        found = {}
        for (split, kind), windows in self.fitting.items():
            records, fitting = len(self.behaviour.part(split, kind)), len(windows)
            used = fitting if split == "train" or most is None else min(fitting, most)
            found[f"{split} {'changed' if kind else 'unchanged'}"] = {
                "records": records,
                "used": used,
                "too_long": records - fitting,
                "beyond": fitting - used,
            }
        return found

    # What finished stages hold.

    @cached_property
    def dictionary(self) -> Dictionary:
        """The dictionary brought along, or the one that was trained here."""
        return self.brought.get(self.site) or open_dictionary(self.folder / self.dictionary_at)

    @cached_property
    def reading(self) -> FrozenSite:
        """Model, site and dictionary, proved to fit one another."""
        return FrozenSite(*self.model, self.dictionary, self.site)

    @cached_property
    def examples(self) -> Examples:
        """The training records as the site has them."""
        changed, unchanged = (self.fitting["train", kind] for kind in (True, False))
        documents = [record.document.digest for record in self.behaviour.part("train")]
        return Examples.read(self.reading, changed, unchanged, self.study.behaviour, documents)
