"""An adapt study under way: model, texts and finished stages, each read when first asked for.

Every process that makes stages of a run has a state of its own. It reads the study's inputs and the
run folder and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.splits import Split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, require_rows, windows
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits.wrapper import identity
from lorascope.measures.adapting import unigram_losses
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base, read_config, skeleton
from lorascope.outputs.kept import KeptStates
from lorascope.progress import Reporter
from lorascope.runs import read_json
from lorascope.studies.adapt.bringing import bring, open_brought
from lorascope.studies.adapt.cells import FitCell, FitGrid, asked
from lorascope.studies.adapt.study import AdaptStudy
from lorascope.workflows.sizes import SizedModel, base_of
from lorascope.workflows.texts import read_split

TEXTS, DICTIONARIES = "texts", "dictionaries"
# What the report says of a dictionary, in its stage.
FACTS = "facts.json"


@dataclass
class Adapted:
    """A study under way, each part made when first asked for.

    Attributes:
        folder: the run folder.
        kept: states of the original that the fits of this process take from each other.
    """

    study: AdaptStudy
    folder: Path
    reporter: Reporter
    kept: KeptStates = field(default_factory=KeptStates, init=False, repr=False)
    _unigrams: dict[bool, Tensor] = field(default_factory=dict, init=False, repr=False)
    _opened: dict[str, Dictionary] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def shape(self) -> SizedModel:
        """The model's shape and tokenizer, without a weight of it."""
        return base_of(self.study, estimates=False)

    @cached_property
    def asked(self) -> FitGrid:
        """The dictionaries and fits that the study asks for."""
        return asked(self.study, self.shape.shape.blocks)

    @cached_property
    def frame(self) -> PreTrainedModel:
        """The model without weights, to see what fits it; with them where they are quantised."""
        made = skeleton(read_config(self.study.model, self.study.revision))
        return self.module if made is None else made

    @cached_property
    def module(self) -> PreTrainedModel:
        """The bare base model, loaded only if a stage needs it."""
        study = self.study
        self.reporter.say(f"loading {study.model}")
        found, _ = load_base(
            study.model,
            revision=study.revision,
            dtype=study.dtype,
            device=study.device if study.device_map is None else "auto",
            device_map=study.device_map,
        )
        return found

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        found: PreTrainedTokenizerBase = self.shape.tokenizer
        return found

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

    def identity(self) -> dict[str, Any]:
        """What every number depends on: the model, and the windows it reads."""
        study, parts = self.study, self.texts
        content = model_identity(study.model, study.revision)
        return {
            "model": [study.model, study.revision, study.dtype, content],
            "context": study.context,
            "measure_tokens": study.measure_tokens,
            "training": digest([document.identity for document in parts.probe]),
            "held_out": digest([document.identity for document in parts.held_out]),
        }

    def unigram(self, keep_special: bool) -> Float[Tensor, " documents"]:
        """Losses of the held-out tokens by their frequencies alone, by document.

        Args:
            keep_special: of special tokens too.
        """
        if keep_special not in self._unigrams:
            found = unigram_losses(self.training, self.held_out, self.tokenizer, keep_special)
            self._unigrams[keep_special] = found
        return self._unigrams[keep_special]

    @cached_property
    def brought(self) -> dict[str, str]:
        """{name: what it computes with} of the dictionaries brought along; raises as `bring`."""
        if not any(one.address for one in self.asked.dictionaries.values()):
            return {}
        return bring(self.study, self.asked, self.frame)

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        context = min(self.study.context, self.shape.shape.context)
        found = windows(documents, self.tokenizer, context)
        require_rows(found, self.frame, self.tokenizer)
        return found

    # What finished stages hold.

    def open(self, name: str) -> Dictionary:
        """One of the study's dictionaries, trained or brought along.

        Raises:
            InputError: one brought along has been replaced since the study was read.
        """
        wanted = self.asked.dictionaries[name]
        address = wanted.address
        opened = (
            open_brought(wanted) if address else open_dictionary(self.folder / DICTIONARIES / name)
        )
        if address and identity(opened) != self.brought[name]:
            raise InputError(f"{address}: has changed since the study was read; run it again")
        return opened

    def around(self, cell: FitCell) -> dict[str, Dictionary]:
        """{site: dictionary} of a fit; those of the last one asked for are kept in memory."""
        for name in [name for name in self._opened if name not in cell.dictionaries]:
            del self._opened[name]
        for name in cell.dictionaries:
            if name not in self._opened:
                self._opened[name] = self.open(name)
        pairs = zip(cell.sites, cell.dictionaries, strict=True)
        return {site: self._opened[name] for site, name in pairs}

    def facts_of(self, name: str) -> dict[str, Any]:
        """What the report says of a dictionary: site, width, L0, error on held-out rows."""
        return dict(read_json(self.folder / DICTIONARIES / name / FACTS))


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


def require_held_out(documents: int, tokens: int, setting: str = "measure_tokens") -> None:
    """Refuse texts that cannot carry the numbers.

    Args:
        setting: says how many tokens are measured on at most.

    Raises:
        InputError: fewer than 10 documents or 200 tokens to measure on.
    """
    if documents < 10 or tokens < 200:
        raise InputError(
            f"{documents} documents with {tokens:,} tokens are left to measure on; intervals need "
            "at least 10 documents and 200 tokens: give more, or shorter, documents, or a larger "
            f"{setting}"
        )
