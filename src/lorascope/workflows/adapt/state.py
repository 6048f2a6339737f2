"""An adapt study under way: model and texts, each made when a stage first asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.splits import Split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, count_tokens, require_rows, windows
from lorascope.config import digest
from lorascope.errors import InputError
from lorascope.models import dimensions
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base
from lorascope.runs import Run, read_json, write_atomically
from lorascope.workflows.adapt.cells import Asked
from lorascope.workflows.adapt.study import AdaptStudy
from lorascope.workflows.facts import text_warnings
from lorascope.workflows.left_out import text_counts
from lorascope.workflows.progress import Reporter
from lorascope.workflows.texts import read_split

TEXTS = "texts"


@dataclass
class Adapted:
    """A study under way: what has been found so far, each part made when first asked for."""

    study: AdaptStudy
    run: Run
    reporter: Reporter
    asked: Asked

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        study = self.study
        self.reporter.say(f"loading {study.model}")
        return load_base(
            study.model,
            revision=study.revision,
            dtype=study.dtype,
            device=study.device if study.device_map is None else "auto",
            device_map=study.device_map,
        )

    @property
    def module(self) -> PreTrainedModel:
        """The bare base model, loaded only if a stage needs it."""
        return self._loaded[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        return self._loaded[1]

    @cached_property
    def texts(self) -> Split:
        """Documents to train and fit on, and to measure on."""
        return read_adapt_texts(self.study)

    @cached_property
    def training(self) -> list[Window]:
        """Windows to train and fit on."""
        return self._windows(self.texts.probe)

    @cached_property
    def held_out(self) -> list[Window]:
        """Windows to measure on: of as many documents as the tokens asked for allow."""
        found = self._windows(self.texts.held_out)
        return spread(found, self.tokenizer, self.study.measure_tokens)

    @cached_property
    def trained_on(self) -> list[str]:
        """Digests of the training documents."""
        return [document.digest for document in self.texts.probe]

    @property
    def model_key(self) -> list[str | None]:
        """What identifies the model."""
        study = self.study
        return [study.model, study.revision, study.dtype, self.base]

    @cached_property
    def base(self) -> str:
        """A fingerprint of the model's files."""
        return model_identity(self.study.model, self.study.revision)

    def read_texts(self) -> dict[str, Any]:
        """Counts of the texts, kept as the stage that every other one depends on.

        Raises:
            InputError: too few documents or tokens to measure on.
        """
        study, parts = self.study, self.texts
        identity = [
            self.model_key,
            [study.context, study.measure_tokens, study.seed],
            digest(self.trained_on),
            digest([document.digest for document in parts.held_out]),
        ]

        def make(folder: Path) -> None:
            tokens = count_tokens(self.held_out, self.tokenizer)
            documents = len({window.document for window in self.held_out})
            require_held_out(documents, tokens)
            training = {
                "documents": len(parts.probe),
                "tokens": count_tokens(self.training, self.tokenizer),
            }
            record = {
                "training": training,
                "held_out": {"documents": documents, "tokens": tokens},
                "held_out_documents": len(parts.held_out),
                "left_out": parts.excluded + parts.surplus,
                "records": text_counts(parts),
                "warnings": text_warnings(parts),
            }
            write_atomically(folder / "texts.json", json.dumps(record, indent=1) + "\n")

        return dict(read_json(self.run.stage(TEXTS, identity, make) / "texts.json"))

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        context = min(self.study.context, dimensions.context(self.module))
        found = windows(documents, self.tokenizer, context)
        require_rows(found, self.module, self.tokenizer)
        return found


def read_adapt_texts(study: AdaptStudy) -> Split:
    """Documents to train and fit on, and to measure on; raises as `read_split`."""
    sources = study.texts.seen
    seen = {document.digest for source in sources for document in read_documents(source)}
    return read_split(study.texts, seen, study.seed)


def spread(found: Sequence[Window], tokenizer: Any, most: int) -> list[Window]:
    """Windows of as many documents as possible, with so many tokens that are not special at most.

    One window of every document, not always its first, before any gives a second.
    """
    special = set(tokenizer.all_special_ids)
    by_document: dict[int, list[Window]] = {}
    for window in found:
        by_document.setdefault(window.document, []).append(window)
    kept: list[Window] = []
    used = 0
    for turn in range(max(map(len, by_document.values()), default=0)):
        for number, whole in enumerate(by_document.values()):
            if turn >= len(whole):
                continue
            window = whole[(number + turn) % len(whole)]
            used += sum(token not in special for token in window.ids)
            if used > most and kept:
                return kept
            kept.append(Window(window.ids, window.response, number))
    return kept


def require_held_out(documents: int, tokens: int) -> None:
    """Refuse texts that cannot carry the numbers.

    Raises:
        InputError: fewer than 10 documents or 200 tokens to measure on.
    """
    if documents < 10 or tokens < 200:
        raise InputError(
            f"{documents} documents with {tokens:,} tokens are left to measure on; intervals need "
            "at least 10 documents and 200 tokens: give more, or shorter, documents, or a larger "
            "measure_tokens"
        )
