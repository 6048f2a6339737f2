"""A finished audit, opened to read: its study, activations and dictionaries, and its rows' texts.

Nothing in its folder is written. Rows are traced to the documents and tokens they come from by
reading the study's texts again and cutting them as the capture did; what does not come out the
same is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from lorascope import embedded
from lorascope.activations.shards import Shards
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import Window, windows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError, did_you_mean
from lorascope.models import dimensions
from lorascope.models.adapter_files import locate
from lorascope.runs import read_json
from lorascope.studies.compare.study import AuditedStudy, in_finished, one_named, sanity_checks_of
from lorascope.training.adapters import CARD
from lorascope.workflows.run_dictionaries import AuditDictionary
from lorascope.workflows.texts import read_split


@dataclass(frozen=True, eq=False)
class Traced:
    """Where the kept rows of an activations folder come from.

    Attributes:
        documents: the documents measured on.
        windows: their windows of tokens.
        window: index of each row's window.
        position: place of each row's token in its window.
    """

    documents: list[Document]
    windows: list[Window]
    window: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]

    def keys(self) -> list[tuple[str, int, int]]:
        """What names each row in any run: digest of the document, window within it, position."""
        digests = [document.digest for document in self.documents]
        within: list[tuple[str, int]] = []
        counts: dict[int, int] = {}
        for window in self.windows:
            number = counts.get(window.document, 0)
            counts[window.document] = number + 1
            within.append((digests[window.document], number))
        pairs = zip(self.window.tolist(), self.position.tolist(), strict=True)
        return [(*within[window], position) for window, position in pairs]


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished audit's folder.

    Attributes:
        study: its settings.
        facts: what its sanity checks found out about model and adapters.
        activations: those of the held-out texts.
    """

    folder: Path
    study: AuditedStudy
    facts: dict[str, Any]
    activations: Shards

    @classmethod
    def open(cls, folder: Path) -> Finished:
        """Open a run folder.

        Raises:
            InputError: it is no audit's, the audit is not finished, or its activations are gone.
        """
        study = in_finished(folder)
        activations = Shards.open(folder / "activations" / "held_out")
        name = sanity_checks_of(folder)
        return cls(folder, study, read_json(folder / name / f"{name}.json"), activations)

    @property
    def model(self) -> dict[str, Any]:
        """Id and sizes of the base model."""
        return dict(self.facts["model"])

    def adapter(self, name: str) -> str:
        """An adapter's name; the only one's where none is asked for.

        Raises:
            InputError: there is no such adapter, or none was named and there are several.
        """
        return one_named(self.folder, self.activations.adapters, name)

    def delta(self, site: str, adapter: str, seed: int) -> Dictionary:
        """The delta dictionary of an adapter, site and seed.

        Raises:
            InputError: it has been removed.
        """
        name = AuditDictionary("delta", site, adapter, seed).name
        try:
            return open_dictionary(self.folder / "dictionaries" / name)
        except InputError as error:
            raise InputError(f"{self.folder}: cannot open the dictionary {name}: {error}") from None

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer, without the model."""
        try:
            return AutoTokenizer.from_pretrained(
                self._source, revision=self.study.revision, trust_remote_code=False
            )
        except Exception as error:
            raise self._gone(error) from None

    def trace(self) -> Traced:
        """Where the held-out rows come from.

        Raises:
            InputError: the study's texts, adapters or tokenizer are not what they were.
        """
        study = self.study
        documents = read_split(study.texts, self._seen(), study.seed).held_out
        found = windows(documents, self.tokenizer, min(study.capture.context, self._longest()))
        special = set() if study.capture.keep_special else set(self.tokenizer.all_special_ids)
        # As they were captured: the shortest first.
        order = sorted(range(len(found)), key=lambda index: len(found[index].ids))
        rows = [
            (index, position, token)
            for index in order
            for position, token in enumerate(found[index].ids)
            if token not in special
        ]
        window, position, token = torch.tensor(rows, dtype=torch.long).reshape(-1, 3).unbind(1)
        kept = self._kept(len(rows))
        stored = self.activations.tokens()
        of_window = torch.tensor([w.document for w in found])
        if kept is None or not (
            torch.equal(token[kept], stored.token.long())
            and torch.equal(position[kept], stored.position.long())
            and torch.equal(of_window[window[kept]], stored.document.long())
        ):
            raise InputError(
                f"{self.folder}: the texts ({', '.join(study.texts.sources)}), adapters or "
                "tokenizer are no longer those it was captured from; restore them, or run the "
                "audit again"
            )
        return Traced(documents, found, window[kept], position[kept])

    def _kept(self, rows: int) -> Tensor | None:
        """Captured rows that are not outliers; None where there were not as many as `rows`."""
        manifest = self.activations.manifest
        if manifest["rows"] != rows:
            return None
        kept = torch.ones(rows, dtype=torch.bool)
        if manifest["outliers"]:
            kept[load_file(self.activations.folder / "outliers.safetensors")["rows"]] = False
        return kept

    def _seen(self) -> set[str]:
        """Digests of documents the adapters were trained on, as the audit knew them."""
        seen: set[str] = set()
        for name, path in self._paths().items():
            folder = locate(name, path)
            if folder is not None and (folder / CARD).exists():
                seen |= set(read_json(folder / CARD).get("trained_on", []))
        for source in self.study.texts.seen:
            seen |= {document.digest for document in read_documents(source)}
        return seen

    def _paths(self) -> dict[str, str]:
        if self.study.train is None:
            return self.study.given
        return {n: str(self.folder / "adapters" / n) for n in self.activations.adapters}

    @property
    def _source(self) -> str:
        model = self.study.model
        return str(embedded.model_path(model)) if embedded.is_embedded(model) else model

    def _longest(self) -> int:
        try:
            config = AutoConfig.from_pretrained(
                self._source, revision=self.study.revision, trust_remote_code=False
            )
        except Exception as error:
            raise self._gone(error) from None
        return dimensions.context(config)

    def _gone(self, error: Exception) -> InputError:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return InputError(
            f"{self.folder}: the tokenizer of {self.study.model} cannot be read ({first[:160]}); "
            "put the model back where the audit found it"
        )


def shared_sites(first: Finished, second: Finished, wanted: Sequence[str]) -> list[str]:
    """The sites both runs captured, of those wanted (all by default).

    Raises:
        InputError: a wanted site is missing, or they share none.
    """
    common = [site for site in first.activations.sites if site in second.activations.sites]
    if not common:
        ours, theirs = (", ".join(run.activations.sites) for run in (first, second))
        raise InputError(
            f"{first.folder} ({ours}) and {second.folder} ({theirs}) have no site in common; "
            "audit both at the same sites"
        )
    for site in wanted:
        if site not in common:
            raise InputError(
                f"site {site} is not in both runs; common: {', '.join(common)}."
                f"{did_you_mean(site, common)}"
            )
    return [site for site in common if site in wanted] if wanted else common
