"""What was read of an adapter: a value that is written to a folder and read back the same."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lorascope.errors import InputError
from lorascope.folder_contents import READING
from lorascope.measures.definitions import declared
from lorascope.models.adapted import BASE
from lorascope.reading.carried import Carrier, finite
from lorascope.reading.changed import ChangedToken, FirstToken
from lorascope.reading.passages import ChangedPosition
from lorascope.reading.phrases import Phrase, Voices, words_of
from lorascope.reading.when import Act, Occasion
from lorascope.results import Estimate, Estimates, Key, Null
from lorascope.runs import read_json, write_atomically
from lorascope.spreadsheets import csv_text

MARK: Final = READING


@dataclass(frozen=True)
class Sample:
    """One continuation.

    Attributes:
        prompt: as it is shown.
        variant: "base", the adapter, a null adapter or another adapter.
        rank: what the update was cut to; None for all of it.
        strength: of the amplification.
        text: what was written.
    """

    prompt: str
    variant: str
    rank: int | None
    strength: float
    text: str


@dataclass(frozen=True)
class PromptExample:
    """One prompt before and after.

    Attributes:
        base: what the base writes.
        plain, amplified: what the adapter does at the least and at the largest strength.
    """

    prompt: str
    base: str
    plain: str
    amplified: str


@dataclass(frozen=True)
class Divergence:
    """How far next-token distributions move on ordinary text, nats/token.

    Attributes:
        value: mean KL(adapted ‖ base).
        interval: 95 %, over texts.
        nulls: of each null adapter.
        tokens: positions.
    """

    value: float
    interval: tuple[float, float]
    nulls: tuple[float, ...]
    tokens: int


@dataclass(frozen=True)
class JudgedSentence:
    """What a judge says of one variant, and whether it tells the variant apart.

    Attributes:
        variant: the adapter or a null adapter.
        said: in a sentence; empty where the judge sees nothing, None without a usable answer.
        right: prompts not shown at which it finds the variant's continuation; half a prompt each
            where there is nothing to choose by, or no usable answer.
        answered: of how many prompts it gave a usable answer.
        tried: of so many.
    """

    variant: str
    said: str | None
    right: float
    answered: int
    tried: int


@dataclass(frozen=True)
class Read:
    """What an adapter learned, in words, and what null adapters of its size seem to have learned.

    Attributes:
        model, adapter: ids.
        nulls: names of the null adapters.
        prompts: how many.
        phrases: what comes back.
        null_phrases: what comes back of each null adapter in the adapter's place.
        changed: words that gain and lose on ordinary text, some of either.
        n_changed: how many gain and lose in all.
        places: where the next token is foreseen most differently.
        first: tokens that the first deltas point to.
        divergence: on ordinary text; None where it was left out.
        samples: every continuation.
        carriers: what is left of the phrases without some modules.
        acts: how much it acts on each prompt.
        occasions: kinds of prompts, and words in them, beside all others.
        null_occasions: how many stand apart with each null adapter in its place.
        estimates: its numbers, each beside null adapters'.
        judge: what the judge is called; empty without one.
        judged: its sentence about the adapter, then about each null adapter.
        settings: of the reading, as plain data.
        cautions: what to know before relying on it.
        seconds: wall-clock time.

    Examples:
        >>> found = ls.Read.load("runs/read")
        >>> found.adapter, len(found.samples) > 0
        ('mine', True)
    """

    model: str
    adapter: str
    nulls: tuple[str, ...]
    prompts: int
    phrases: tuple[Phrase, ...]
    null_phrases: tuple[tuple[Phrase, ...], ...]
    changed: tuple[ChangedToken, ...]
    n_changed: tuple[int, int]
    places: tuple[ChangedPosition, ...]
    first: tuple[FirstToken, ...]
    divergence: Divergence | None
    samples: tuple[Sample, ...]
    carriers: tuple[Carrier, ...] = ()
    acts: tuple[Act, ...] = ()
    occasions: tuple[Occasion, ...] = ()
    null_occasions: tuple[int, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    judge: str = ""
    judged: tuple[JudgedSentence, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def named(self) -> tuple[Phrase, ...]:
        """The phrases that are surer than any phrase of a null adapter in the adapter's place."""
        surest = min((phrase.p for found in self.null_phrases for phrase in found), default=1.0)
        return tuple(phrase for phrase in self.phrases if phrase.p < surest)

    @property
    def names_something(self) -> bool:
        """Whether there are such phrases."""
        return bool(self.named)

    @property
    def example(self) -> PromptExample | None:
        """The prompt at which most of the leading phrases are said; None without samples."""
        conditions = sorted({(s.rank is not None, s.strength) for s in self.own})
        if not conditions:
            return None
        plain, loud = conditions[0], max(c for c in conditions if not c[0])
        shown = {(s.prompt, (s.rank is not None, s.strength)): s.text for s in self.own}
        base = {s.prompt: s.text for s in self.samples if s.variant == BASE}
        leading = [phrase.text for phrase in self.phrases[:5]]

        def said(prompt: str) -> tuple[int, int]:
            texts = [" ".join(words_of(shown[prompt, c])) for c in (plain, loud)]
            hits = [sum(phrase in text for phrase in leading) for text in texts]
            return sum(hits), hits[0]

        prompt = max(base, key=said)
        return PromptExample(prompt, base[prompt], shown[prompt, plain], shown[prompt, loud])

    @property
    def own(self) -> tuple[Sample, ...]:
        """The adapter's own continuations."""
        return tuple(sample for sample in self.samples if sample.variant == self.adapter)

    def voices(self, strengths: Collection[float] | None = None) -> Voices:
        """Whose continuations are held against each other; of some strengths alone if given."""
        rows: dict[str, list[Sample]] = {}
        for sample in self.samples:
            rows.setdefault(sample.prompt, []).append(sample)

        def of(variant: str) -> list[list[str]]:
            return [
                [
                    s.text
                    for s in row
                    if s.variant == variant
                    and (strengths is None or variant == BASE or s.strength in strengths)
                ]
                for row in rows.values()
            ]

        others = self.settings["references"]
        return Voices(
            of(self.adapter), tuple(map(of, self.nulls)), of(BASE), tuple(map(of, others))
        )

    def plain(self) -> dict[str, Any]:
        """All of it as plain data."""
        named = [phrase.text for phrase in self.named]
        return {**asdict(self), "names_something": bool(named), "named": named}

    def write(self, folder: str | Path) -> None:
        """Write `read.json` and each table as CSV and parquet into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables().items():
            table.to_parquet(folder / f"{name}.parquet")
            write_atomically(folder / f"{name}.csv", csv_text(table))
        data = json.dumps(finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / MARK, data + "\n")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Phrases (null adapters' too), changed tokens, places, first tokens, samples, carriers,
        a judge's sentences and numbers."""
        phrases = [{"variant": self.adapter, **_row(p)} for p in self.phrases]
        for name, found in zip(self.nulls, self.null_phrases, strict=True):
            phrases += [{"variant": name, **_row(p)} for p in found]
        return {
            "phrases": _table(phrases, ["variant", *_columns(Phrase)]),
            "changed_tokens": _table(map(_row, self.changed), _columns(ChangedToken)),
            "places": _table(map(_row, self.places), _columns(ChangedPosition)),
            "first_tokens": _table(map(_row, self.first), _columns(FirstToken)),
            "samples": _table(map(_row, self.samples), _columns(Sample)),
            "carriers": _table(map(_row, self.carriers), _columns(Carrier)),
            "prompts": _table(map(_row, self.acts), _columns(Act)),
            "occasions": _table(map(_row, self.occasions), _columns(Occasion)),
            "judged": _table(map(_row, self.judged), _columns(JudgedSentence)),
            "estimates": Estimates(map(declared, self.estimates)).to_frame(),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Read:
        """What `write` left in a folder.

        Raises:
            InputError: it holds no reading, or a damaged one.
        """
        folder = Path(folder)
        data = read_json(folder / MARK)
        try:
            return cls(**{**data, **_revived(data)})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / MARK}: no reading of this version ({error}); read the adapter again"
            ) from None


def _revived(data: Mapping[str, Any]) -> dict[str, Any]:
    divergence = data["divergence"]
    if divergence is not None:
        nulls, interval = tuple(divergence["nulls"]), _numbers(divergence["interval"])
        divergence = Divergence(**{**divergence, "nulls": nulls, "interval": interval})
    moved = ("gains", "losses")
    return {
        "nulls": tuple(data["nulls"]),
        "cautions": tuple(data["cautions"]),
        "phrases": _phrases(data["phrases"]),
        "null_phrases": tuple(map(_phrases, data["null_phrases"])),
        "n_changed": tuple(data["n_changed"]),
        "changed": tuple(ChangedToken(**one) for one in data["changed"]),
        "places": tuple(
            ChangedPosition(**{**one, **{key: tuple(map(tuple, one[key])) for key in moved}})
            for one in data["places"]
        ),
        "first": tuple(
            FirstToken(**{**one, "null": _numbers([one["null"]])[0]}) for one in data["first"]
        ),
        "divergence": divergence,
        "samples": tuple(Sample(**one) for one in data["samples"]),
        "carriers": tuple(map(Carrier.revived, data["carriers"])),
        "acts": tuple(
            Act(**{**one, **{key: tuple(one[key]) for key in ("nulls", "nulls_said")}})
            for one in data["acts"]
        ),
        "occasions": tuple(
            Occasion(**{**one, "null": _numbers([one["null"]])[0]}) for one in data["occasions"]
        ),
        "null_occasions": tuple(data["null_occasions"]),
        "estimates": tuple(map(_estimate, data["estimates"])),
        "judged": tuple(JudgedSentence(**one) for one in data["judged"]),
    }


def _phrases(found: Sequence[Mapping[str, Any]]) -> tuple[Phrase, ...]:
    return tuple(Phrase(**{**one, "nulls": tuple(one["nulls"])}) for one in found)


def _estimate(one: Mapping[str, Any]) -> Estimate:
    nulls = tuple(
        Null(
            **{
                **null,
                **dict(zip(("level", "low", "high"), _levels(null), strict=True)),
                "difference": None if null["difference"] is None else _numbers(null["difference"]),
            }
        )
        for null in one["nulls"]
    )
    (value,) = _numbers([one["value"]])
    changed = {"value": value, "interval": _numbers(one["interval"]), "nulls": nulls}
    return Estimate(**{**one, **changed, "key": Key(**one["key"])})


def _levels(null: Mapping[str, Any]) -> tuple[Any, ...]:
    return _numbers([null["level"], null["low"], null["high"]])


def _numbers(values: Sequence[float | None]) -> tuple[Any, ...]:
    """JSON has no nan: null stands for it."""
    return tuple(math.nan if value is None else value for value in values)


def _row(one: Any) -> dict[str, Any]:
    """A record of a table: what is itself a list is JSON."""
    return {
        key: json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else value
        for key, value in asdict(one).items()
    }


def _columns(kind: Any) -> list[str]:
    return [one.name for one in fields(kind)]


def _table(rows: Any, columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns)
