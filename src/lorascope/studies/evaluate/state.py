"""An evaluation under way: model, texts and subjects, each read when first asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.activations.splits import Split
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, count_tokens, require_rows, windows
from lorascope.config import digest
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError
from lorascope.fits.card import read_card
from lorascope.fits.wrapper import identity
from lorascope.models.adapter_files import WEIGHT_FILES, locate
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base
from lorascope.models.sites import Site
from lorascope.progress import Reporter
from lorascope.results.null_names import OTHER_DICTIONARY, RANDOM_DECODER
from lorascope.runs import read_json
from lorascope.studies.adapt.state import require_held_out, spread
from lorascope.studies.evaluate.baselines import random_decoder
from lorascope.studies.evaluate.core import active_latents
from lorascope.studies.evaluate.rows import stream_rows
from lorascope.studies.evaluate.settings import EvaluateStudy, Subject
from lorascope.studies.evaluate.subjects import OpenedSubject, around, opened
from lorascope.training.adapters import CARD
from lorascope.workflows.sizes import SizedModel, base_of
from lorascope.workflows.texts import read_split

# {adapter on: {site: {name of the null: dictionary}}}
Beside = dict[bool, dict[Site, dict[str, Dictionary]]]
# Training tokens that baselines are made from where core, which says how many, is not asked for.
_TRAINING_TOKENS = 20_000
_MEASURED_TOKENS = 20_000


@dataclass
class Evaluating:
    """An evaluation under way, each part made when first asked for.

    Attributes:
        folder: the run folder.
    """

    study: EvaluateStudy
    folder: Path
    reporter: Reporter
    _beside: dict[str, Beside] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def shape(self) -> SizedModel:
        """The model's shape and tokenizer, without a weight of it."""
        return base_of(self.study, estimates=False)

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
        found.eval().requires_grad_(False)
        return found

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base model's tokenizer."""
        found: PreTrainedTokenizerBase = self.shape.tokenizer
        return found

    @cached_property
    def texts(self) -> Split:
        """Documents that give means and baselines, and those that are measured on."""
        sources = self.study.texts.seen
        seen = {document.digest for source in sources for document in read_documents(source)}
        for subject in self.study.subjects.values():
            if subject.fitted:
                seen |= set(read_card(subject.fitted).trained_on)
            folder = locate("adapter", subject.adapter) if subject.adapter else None
            if folder is not None and (folder / CARD).is_file():
                seen |= set(read_json(folder / CARD).get("trained_on", []))
        return read_split(self.study.texts, seen, self.study.seed)

    @cached_property
    def training(self) -> list[Window]:
        """Windows that means, covariances and baselines are made from."""
        core = self.study.core
        most = core.training_tokens if core else _TRAINING_TOKENS
        return spread(self._windows(self.texts.probe), self.tokenizer, most)

    @cached_property
    def held_out(self) -> list[Window]:
        """Windows that are measured on."""
        core = self.study.core
        most = core.tokens if core else _MEASURED_TOKENS
        return spread(self._windows(self.texts.held_out), self.tokenizer, most)

    def _windows(self, documents: Sequence[Document]) -> list[Window]:
        found = windows(
            documents, self.tokenizer, min(self.study.context, self.shape.shape.context)
        )
        require_rows(found, self.module, self.tokenizer)
        return found

    def identity(self) -> dict[str, Any]:
        """What every number depends on: the model, and the texts."""
        study, parts = self.study, self.texts
        content = model_identity(study.model, study.revision)
        return {
            "model": [study.model, study.revision, study.dtype, content],
            "context": study.context,
            "training": digest([document.identity for document in parts.probe]),
            "held_out": digest([document.identity for document in parts.held_out]),
        }

    def _fitting(self, site: str, address: str) -> Dictionary:
        """A dictionary, refused before the model is loaded where it is of another."""
        found, shape = open_dictionary(address), self.shape.shape
        force = self.study.force
        found.card.require(model=self.study.model, site=site, d_model=shape.d_model, force=force)
        if found.d_model != shape.d_model:
            raise InputError(
                f"dictionary {address} for {site}: reads rows of width {found.d_model}, the "
                f"model's are {shape.d_model} wide; give one made for this model"
            )
        return found

    def subject_identity(self, name: str) -> dict[str, Any]:
        """What a subject is made of: what its dictionaries compute, its adapter's weights."""
        subject = self.study.subjects[name]
        given = dict(subject.dictionaries)
        if subject.fitted and not given:
            given = {site.name: address for site, address in around(Path(subject.fitted)).items()}
        found: dict[str, Any] = {
            kind: {site: identity(self._fitting(site, address)) for site, address in which.items()}
            for kind, which in (("dictionaries", given), ("reseeded", subject.reseeded))
        }
        found["adapter"] = _weights(subject)
        return found

    @contextmanager
    def opened(self, name: str) -> Iterator[OpenedSubject]:
        """Within the `with`, a subject on the model; raises as `subjects.opened`."""
        study = self.study
        arguments: Any = {"model": study.model, "force": study.force}
        subject = study.subjects[name]
        with opened(name, subject, self.module, self.tokenizer, **arguments) as found:
            yield found

    def beside(self, subject: OpenedSubject) -> Beside:
        """Dictionaries for a subject's to stand beside; made once in a process."""
        if subject.name not in self._beside:
            self._beside[subject.name] = beside(subject, self.training, self.study.seed)
        return self._beside[subject.name]


def beside(subject: OpenedSubject, training: Sequence[Window], seed: int) -> Beside:
    """Random-decoder dictionaries for every site of a subject, and those of another seed."""
    found: Beside = {}
    for adapter in subject.read_with if subject.dictionaries else ():
        found[adapter] = {}
        for site, rows in stream_rows(subject, training, adapter=adapter).items():
            own = subject.dictionary(site, adapter=adapter)
            l0 = active_latents(own, rows.rows)
            made = random_decoder(own, rows.rows, l0, seed, subject.name, site.name)
            found[adapter][site] = {RANDOM_DECODER: made}
            if site in subject.reseeded:
                found[adapter][site][OTHER_DICTIONARY] = subject.reseeded[site]
    return found


def require_texts(state: Evaluating) -> dict[str, Any]:
    """Count the texts.

    Raises:
        InputError: they cannot carry the numbers.
    """
    record = {}
    for name, found in (("training", state.training), ("held_out", state.held_out)):
        record[name] = {
            "documents": len({window.document for window in found}),
            "tokens": count_tokens(found, state.tokenizer),
        }
    counts = record["held_out"]
    require_held_out(counts["documents"], counts["tokens"], "core.tokens")
    if record["training"]["tokens"] < 200:
        seen = state.texts.excluded
        why = (
            f" ({seen} documents are left out, which a fit or an adapter has seen)" if seen else ""
        )
        keep = ", or texts.keep_seen, which takes means of them too" if seen else ""
        raise InputError(
            f"{record['training']['tokens']} tokens are left beside the held-out ones{why}; means "
            f"and baselines need at least 200: give more text{keep}"
        )
    return record


def _weights(subject: Subject) -> str:
    """Hash of the adapter's weights; empty without one."""
    if not (subject.adapter or subject.fitted):
        return ""
    folder = Path(subject.fitted) if subject.fitted else locate("adapter", subject.adapter)
    if folder is None:
        raise InputError(
            f"{subject.adapter}: a whole fine-tuned model, not an adapter; evaluate it as `model`"
        )
    files = [
        folder / name for name in (*WEIGHT_FILES, "lorascope.json") if (folder / name).is_file()
    ]
    files += sorted(folder.glob("dictionaries/**/*.safetensors"))
    return digest([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
