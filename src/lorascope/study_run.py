"""A finished run of any study, opened to look at: its numbers, figures, latents and rows."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import torch

from lorascope import report
from lorascope.activations.deltas import documents_of
from lorascope.activations.shards import RowSource, Shards
from lorascope.activations.text import Document
from lorascope.activations.tokens import windows
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.errors import InputError, did_you_mean
from lorascope.measures.matched_latents import matched_latents
from lorascope.measures.single_latents import NAMES, latent_effects
from lorascope.measures.spots import MOST_TOKENS
from lorascope.measures.surveys import surveys
from lorascope.models.adapted import AdaptedModel
from lorascope.report.figure import Figure
from lorascope.report.latents import Browsed, matching, read_latents
from lorascope.report.result import Results, read_results
from lorascope.results import Estimates
from lorascope.workflows.run_dictionaries import AuditDictionary


@dataclass(frozen=True, eq=False)
class Latent:
    """One latent of a delta dictionary, as the feature browser shows it.

    Attributes:
        run: the run it is of.
        head: what is said of the dictionary: site, adapter, seed, sizes, chance levels.
        row: its row of the table: density, mean, what it writes, its effects where they were taken.
        record: promoted and suppressed tokens, examples, nearest latents.

    Examples:
        >>> latent = ls.open_run("runs/mine").latents("mine", "layers.5")[0]
        >>> type(latent.index).__name__, len(latent.promotes) > 0, "«" in latent.examples[0]
        ('int', True, True)
    """

    run: StudyRun
    head: Mapping[str, Any]
    row: Mapping[str, Any]
    record: Mapping[str, Any]

    def __repr__(self) -> str:
        fires, promotes = (" ".join(map(repr, self.row[name])) for name in ("fires", "promotes"))
        return (
            f"Latent({self.index} of {self.head['adapter']} at {self.head['site']}: fires on "
            f"{fires or 'nothing shown'}; promotes {promotes})"
        )

    @property
    def index(self) -> int:
        """Its number in the dictionary."""
        return int(self.row["latent"])

    @property
    def promotes(self) -> list[tuple[str, float]]:
        """Tokens whose logits its direction raises most, and by how much a unit of it."""
        return [(str(token), float(by)) for token, by in self.record["up"]]

    @property
    def suppresses(self) -> list[tuple[str, float]]:
        """Tokens whose logits its direction lowers most."""
        return [(str(token), float(by)) for token, by in self.record["down"]]

    @property
    def examples(self) -> list[str]:
        """Passages in which it fires, the token that it fires on most between « and »."""
        return [_passage(example) for example in self.record["examples"]]

    def ablate(
        self,
        model: AdaptedModel,
        texts: str | Sequence[str] | Sequence[Document],
        *,
        most: int = MOST_TOKENS,
        seed: int = 0,
    ) -> pd.DataFrame:
        """What removing it from the adapted model, and adding it to the base, changes.

        Args:
            model: with the adapter under the run's name for it.
            texts: to look at; no text that the adapter or dictionary was trained on.
            most: tokens to score at most.

        Returns:
            a row for "removed" and one for "added": `kl` and `loss`, nats a scored token; `other`,
            the mean KL of matched latents (same firing rate and norm) under the same intervention;
            `p`, the share of these that do as much or more.

        Raises:
            InputError: the model lacks the adapter, or the texts have no token to score.
        """
        site, adapter = str(self.head["site"]), str(self.head["adapter"])
        dictionary = self.run.dictionary(site, adapter, int(self.head["seed"]))
        found = windows(documents_of(texts), model.tokenizer, model.context_length)
        [survey] = surveys(model, [adapter], found, [site], most=most)
        index = torch.tensor([self.index])
        effects = latent_effects(
            model, survey, site, dictionary, index, seed=seed, most=most, others=()
        )
        beside = matched_latents(model, survey, site, dictionary, index, most=most, seed=seed)
        rows = [
            {
                "intervention": NAMES[mode][0],
                "kl": float(changes.kl[0, 0]),
                "loss": float(changes.loss[0, 0]),
                "other": float(beside[mode].expected[0]) if mode in beside else float("nan"),
                "p": float(beside[mode].p[0]) if mode in beside else float("nan"),
            }
            for mode, changes in effects.changes.items()
        ]
        return pd.DataFrame(rows)


class Latents(Sequence[Latent]):
    """The latents of one delta dictionary that fire, those that write most first.

    Examples:
        >>> latents = ls.open_run("runs/mine").latents("mine", "layers.5")
        >>> len(latents) == len(latents.to_frame()), len(latents[:3])
        (True, 3)
    """

    def __init__(self, run: StudyRun, browsed: Browsed) -> None:
        self._run, self._browsed = run, browsed

    def __len__(self) -> int:
        return len(self._browsed)

    def __repr__(self) -> str:
        head = self._browsed.head
        return f"Latents({len(self)} of {head['adapter']} at {head['site']})"

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return list(self._browsed.details(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        row = {name: column[place] for name, column in self._browsed.columns.items()}
        return Latent(self._run, self._browsed.head, row, self._records[place])

    def to_frame(self) -> pd.DataFrame:
        """The table of the feature browser, a row a latent."""
        return pd.DataFrame(self._browsed.columns)

    def _repr_html_(self) -> str:
        return str(self.to_frame().head(20).to_html(index=False, escape=True))


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A finished run of any study.

    Attributes:
        folder: where it is.

    Examples:
        >>> run = ls.open_run("runs/mine")
        >>> run.dictionary("layers.5", "mine").n_latents, len(run.figures) > 5
        (64, True)
    """

    folder: Path

    @cached_property
    def results(self) -> Results:
        """All numbers, those of null adapters too, and all that the report says beside them."""
        return read_results(self.folder)

    @property
    def facts(self) -> dict[str, Any]:
        """What is no estimate: model, adapters, tokens, checks, warnings, settings."""
        return self.results.facts

    @cached_property
    def table(self) -> Estimates:
        """The numbers, each with its chance levels, interval and verdict."""
        return self.results.numbers

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """The numbers as a table: value, interval, chance level, verdict; one a row."""
        return self.table.to_frame()

    @cached_property
    def _figures(self) -> dict[str, Figure]:
        return {figure.key: figure for figure in report.figures_of(self.results)}

    @property
    def figures(self) -> list[str]:
        """Names of the report's figures."""
        return list(self._figures)

    def figure(self, name: str) -> alt.Chart:
        """One of the report's figures; a notebook shows it.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self._figures:
            hint = did_you_mean(name, self.figures)
            raise InputError(
                f'no figure "{name}" in {self.folder}.{hint} There are: {", ".join(self.figures)}'
            )
        return alt.Chart.from_dict(self._figures[name].spec)

    def latents(self, adapter: str | None = None, site: str | None = None) -> Latents:
        """Latents of an audit's delta dictionary; of the only one where none is named.

        Raises:
            InputError: the run has none to browse, or several and none is named.
        """
        found = matching(read_latents(self.folder), site, adapter, None)
        if len(found) == 1:
            return Latents(self, found[0])
        known = ", ".join(f"{one.head['adapter']} at {one.head['site']}" for one in found)
        raise InputError(
            f"{self.folder}: say which dictionary's latents, as in latents(adapter, site); there "
            f"are those of {known}"
            if found
            else f"{self.folder}: has no latents to browse; only an audit does"
        )

    def dictionary(self, site: str, adapter: str = "", seed: int = 0) -> Dictionary:
        """A dictionary that an audit trained: the base's where no adapter is named.

        Raises:
            InputError: it trained no such dictionary.
        """
        wanted = AuditDictionary("delta" if adapter else "base", site, adapter, seed)
        return open_dictionary(self.folder / "dictionaries" / wanted.name)

    def deltas(self, adapter: str, site: str) -> RowSource:
        """An audit's held-out deltas, [rows, d_model] a chunk.

        Raises:
            InputError: there are none of that adapter and site.
        """
        return Shards.open(self.folder / "activations" / "held_out").source(site, adapter)

    @property
    def report(self) -> Path:
        """The page; made if it is not there."""
        page = self.folder / "report" / "index.html"
        return page if page.exists() else report.build(self.folder)

    def __repr__(self) -> str:
        return f"StudyRun({str(self.folder)!r}: {len(self.table)} numbers; page {self.report})"

    def _repr_html_(self) -> str:
        page = html.escape(self.report.absolute().as_uri(), quote=True)
        link = f'<p><a href="{page}">{html.escape(str(self.report))}</a></p>'
        return link + self.table._repr_html_()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.table)


def _passage(example: Mapping[str, Any]) -> str:
    tokens, at = [str(token) for token in example["tokens"]], int(example["at"])
    if 0 <= at < len(tokens):
        tokens[at] = f"«{tokens[at]}»"
    return "".join(tokens)
