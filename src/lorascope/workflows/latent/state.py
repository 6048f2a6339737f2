"""A latent study under way: model, behaviour, dictionary and examples, each made when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from lorascope.activations.mixing import TensorRows
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import Window, batches, require_rows, windows
from lorascope.behaviours.manners import Manner, judged
from lorascope.behaviours.records import SPLITS, BehaviourRecord, BehaviourSet, Split, read_set
from lorascope.behaviours.turns import record_windows
from lorascope.config import digest
from lorascope.dictionaries.card import Card
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary, save
from lorascope.errors import InputError
from lorascope.latent_adapters.fitting import Examples
from lorascope.latent_adapters.reading import BATCH_TOKENS, Reading, Seen
from lorascope.models import dimensions
from lorascope.models.hooks import run_until
from lorascope.models.identity import model_identity
from lorascope.models.load import load_base, padding_id
from lorascope.models.sites import resolve_sites
from lorascope.progress import Reporter
from lorascope.runs import Run, versions
from lorascope.training.dictionaries import fit
from lorascope.workflows.latent.study import LatentStudy


@dataclass
class Learned:
    """A latent study under way; each part is made when a stage first asks for it."""

    study: LatentStudy
    run: Run
    reporter: Reporter

    @cached_property
    def behaviour(self) -> BehaviourSet:
        """The records, checked to be balanced and split."""
        return read_set(self.study.behaviour)

    @cached_property
    def manner(self) -> Manner:
        """What changed responses look like, with a judge.

        Raises:
            InputError: nothing tells whether an answer shows it.
        """
        return judged(self.study.manner, self.study.judge)

    @cached_property
    def model(self) -> tuple[PreTrainedModel, Any]:
        """The bare model and its tokenizer."""
        study = self.study
        self.reporter.say(f"loading {study.model}")
        return load_base(
            study.model, revision=study.revision, dtype=study.dtype, device=study.device
        )

    @cached_property
    def identity(self) -> list[Any]:
        """What everything made here depends on."""
        study = self.study
        records = digest([r.plain() for r in self.behaviour.records])
        base = model_identity(study.model, study.revision)
        return [study.model, study.revision, study.dtype, base, records, study.context]

    @cached_property
    def reading(self) -> Reading:
        """Model, site and dictionary, proved to fit one another."""
        module, tokenizer = self.model
        found = self.dictionary
        found.card.require(
            model=self.study.model,
            site=self.site,
            d_model=dimensions.width(module),
            force=self.study.force,
        )
        return Reading(module, tokenizer, found, self.site)

    @cached_property
    def site(self) -> str:
        """The site's one spelling."""
        return resolve_sites(self.model[0], [self.study.site])[0].name

    @property
    def dictionary_stage(self) -> tuple[str, ...]:
        """Stages the dictionary comes from."""
        return () if self.study.dictionary else (f"dictionaries/{self.site}",)

    @cached_property
    def dictionary(self) -> Dictionary:
        """The dictionary brought along, or one trained on the model's stream."""
        study = self.study
        if study.dictionary is not None:
            return open_dictionary(study.dictionary)
        own = study.train_dictionary
        depends_on = [self.identity, self.site, own.plain(), study.seed]

        def make(folder: Path) -> None:
            rows = self._rows()
            self.reporter.say(f"training a dictionary on {len(rows):,} tokens at {self.site}")
            card = Card(target="base", site=self.site, model=study.model, d_model=rows.shape[1])
            card = card.model_copy(update={"versions": versions()})
            trained = fit(
                own.architecture,
                TensorRows(rows),
                fitting=own.fitting,
                seed=study.seed,
                card=card,
                device=str(self.model[0].device),
            )
            save(trained, folder)

        return open_dictionary(self.run.stage(self.dictionary_stage[0], depends_on, make))

    @cached_property
    def examples(self) -> Examples:
        """The training records as the site has them."""
        changed, unchanged = self.windows("train", True), self.windows("train", False)
        data = f"{self.study.behaviour}, manner {self.study.manner}"
        documents = [record.document.digest for record in self.behaviour.part("train")]
        return Examples.read(self.reading, changed, unchanged, data, documents)

    @cached_property
    def asked(self) -> list[BehaviourRecord]:
        """Held-out records that are answered, as many changed as not, short enough."""
        most = self.study.measures.prompts
        found = []
        for changed in (True, False):
            part = self.behaviour.part("held_out", changed)
            fitting = [part[w.document] for w in self._windows(part)]
            found += fitting[:most]
        return found

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Of each side and kind: records in the set, used, too long, beyond what was asked for."""
        found = {}
        for split in SPLITS:
            for kind in (True, False):
                part = self.behaviour.part(split, kind)
                fitting = len(self._windows(part))
                most = self.study.measures.prompts if split == "held_out" else None
                used = fitting if most is None else min(fitting, most)
                found[f"{split} {'changed' if kind else 'unchanged'}"] = {
                    "records": len(part),
                    "used": used,
                    "too_long": len(part) - fitting,
                    "beyond": fitting - used,
                }
        return found

    @cached_property
    def seen(self) -> list[Seen]:
        """The held-out changed records that are answered, as the site has them."""
        return self.reading.see(self._windows([r for r in self.asked if r.changed]))

    def windows(self, split: Split, changed: bool) -> list[Window]:
        """Changed or unchanged records of a split."""
        return self._windows(self.behaviour.part(split, changed))

    def _windows(self, records: Sequence[BehaviourRecord]) -> list[Window]:
        found = record_windows(records, self.model[1], self.context)
        require_rows(found, *self.model)
        if not found:
            raise InputError(
                f"{self.study.behaviour}: every record is longer than the context of "
                f"{self.context} tokens; give a larger context"
            )
        return found

    @cached_property
    def context(self) -> int:
        """Longest record in tokens."""
        return min(self.study.context, dimensions.context(self.model[0]))

    @torch.no_grad()
    def _rows(self) -> Float[Tensor, "rows d"]:
        """The stream at the site on the texts the dictionary is trained on."""
        own, (module, tokenizer) = self.study.train_dictionary, self.model
        found = windows(read_documents(own.texts, own.documents), tokenizer, self.context)
        if own.on_behaviour:
            found += self._windows(self.behaviour.part("train"))
        require_rows(found, module, tokenizer)
        (site,) = resolve_sites(module, [self.site])
        rows = []
        with self.reporter.bar("reading texts", len(found), "windows") as advance:
            for batch in batches(found, tokenizer, padding_id(tokenizer), BATCH_TOKENS):
                ids, mask = batch.ids.to(module.device), batch.attended.long().to(module.device)
                stream = run_until(module, [site], ids, mask)[site]
                rows.append(stream[batch.kept.to(stream.device)].float().cpu())
                advance(len(ids))
        return torch.cat(rows)
