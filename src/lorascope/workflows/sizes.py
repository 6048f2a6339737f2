"""How large a study's model and texts are, counted where they are at hand, else estimated.

An estimate rests on published sizes and a stated number of characters a token; every one made is
named in `notes`.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import datasets

from lorascope.activations.settings import Capture
from lorascope.activations.splits import HELD_OUT
from lorascope.activations.text import Document, read_documents
from lorascope.activations.tokens import count_tokens, windows
from lorascope.errors import InputError
from lorascope.models.load import read_config, read_tokenizer
from lorascope.models.shapes import Shape, published
from lorascope.workflows.adapters import split_for_training
from lorascope.workflows.settings import Texts, TrainAdapters
from lorascope.workflows.texts import read_split

# English under a subword vocabulary; the range over common tokenizers is about 4 to 4.8.
CHARACTERS_PER_TOKEN = 4.4
# Of texts with more characters in all, which stand in random order, the tokens of so many are
# counted.
COUNTED = 4_000_000
# (rows of the train split, mean characters of a row; those of Alpaca in its template)
_PUBLISHED_TEXTS = {
    "tatsu-lab/alpaca": (52002, 540),
    "NeelNanda/pile-10k": (10000, 6052),
    "JeanKaddour/minipile": (1_000_000, 5600),
    "DKYoon/SlimPajama-6B": (5_489_000, 4350),
}
# The longest of a batch of instruction records, in mean lengths.
_LONGEST_OF_A_BATCH = 2.0


@dataclass(frozen=True)
class StudySizes:
    """What a study's costs follow from.

    Attributes:
        documents: read, before any is left out.
        probe_tokens, held_out_tokens: that count; the first train dictionaries.
        held_out_documents: documents to measure on.
        records: that adapters may be trained on; 0 where none is trained.
        record_tokens: mean tokens of one.
        padded_tokens: mean tokens of one as it stands in a batch, padded to the longest there.
        notes: what was estimated, and from what.
    """

    documents: int
    probe_tokens: int
    held_out_tokens: int
    held_out_documents: int
    records: int = 0
    record_tokens: float = 0.0
    padded_tokens: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SizedModel:
    """A model's shape, its tokenizer where there is one, and what had to be assumed."""

    shape: Shape
    tokenizer: Any
    notes: tuple[str, ...] = field(default=())


class OfModel(Protocol):
    """Settings that name a base model."""

    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str | None: ...


class SizedStudy(OfModel, Protocol):
    """Settings that say which texts a model reads, and which adapters are trained first."""

    @property
    def texts(self) -> Texts: ...
    @property
    def train(self) -> TrainAdapters | None: ...
    @property
    def capture(self) -> Capture: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class OfTexts:
    """What is sized of a study that trains no adapters first."""

    model: str
    revision: str | None
    texts: Texts
    capture: Capture
    seed: int
    train: None = None


def base_of(study: OfModel, *, estimates: bool) -> SizedModel:
    """The study's model without a weight of it.

    Raises:
        InputError: its configuration can neither be read nor, with `estimates`, looked up.
    """
    try:
        config = read_config(study.model, study.revision)
        return SizedModel(Shape.of(config), read_tokenizer(study.model, study.revision))
    except Exception as error:
        known = published(study.model) if estimates else None
        if known is None and isinstance(error, InputError):
            raise
        if known is None:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f'model "{study.model}": its configuration cannot be read ({first}); check the id '
                "or folder, and the network"
            ) from None
    return SizedModel(
        Shape.of(known), None, (f"{study.model} is not at hand: its shape as published",)
    )


def sizes_of(study: SizedStudy, base: SizedModel, *, estimates: bool) -> StudySizes:
    """The study's texts: counted where all of them and the tokenizer are at hand.

    Raises:
        InputError: a source cannot be read and, with `estimates`, nothing is published about it.
    """
    named = dict.fromkeys(source.partition(":")[0] for source in _all_sources(study))
    absent = [name for name in named if estimates and _is_absent(name)]
    return _estimated(study, base, absent) if absent else _counted(study, base)


def _all_sources(study: SizedStudy) -> list[str]:
    records = study.train.records if study.train else ()
    return [*study.texts.sources, *study.texts.measure_on, *records]


def _is_absent(name: str) -> bool:
    """Whether a dataset whose size is published cannot be read here."""
    if name not in _PUBLISHED_TEXTS:
        return False
    try:
        read_documents(name, 1)
    except InputError:
        return True
    return False


def _counted(study: SizedStudy, base: SizedModel) -> StudySizes:
    context = min(study.capture.context, base.shape.context)
    learned: list[Document] = []
    if study.train is not None:
        learned = split_for_training(study.train, study.seed)
    parts = read_split(study.texts, {d.digest for d in learned}, study.seed)
    probe = _tokens(parts.probe, base.tokenizer, context)
    held_out = _tokens(parts.held_out, base.tokenizer, context)
    characters = sum(len(d.text) for d in parts.probe + parts.held_out)
    per_token = characters / max(1, probe + held_out)
    cut = study.train.training.context if study.train else context
    lengths = sorted(min(cut, len(d.text) / per_token) for d in learned)
    notes = () if base.tokenizer else (f"{CHARACTERS_PER_TOKEN} characters a token",)
    if base.tokenizer and characters > COUNTED:
        notes = (f"tokens of texts beyond {COUNTED:,} characters, by the rate of those before",)
    return StudySizes(
        documents=parts.excluded + parts.surplus + len(parts.probe) + len(parts.held_out),
        probe_tokens=probe,
        held_out_tokens=held_out,
        held_out_documents=len(parts.held_out),
        records=len(learned),
        record_tokens=statistics.fmean(lengths) if lengths else 0.0,
        padded_tokens=_longest(lengths, study.train.training.batch) if study.train else 0.0,
        notes=base.notes + notes,
    )


def _tokens(documents: Sequence[Document], tokenizer: Any, context: int) -> int:
    """Tokens of documents in random order; of many, the first tell what the rest have."""
    whole = sum(len(d.text) for d in documents)
    if tokenizer is None:
        return round(whole / CHARACTERS_PER_TOKEN)
    reached = list(accumulate(len(d.text) for d in documents))
    counted = bisect_left(reached, COUNTED) + 1
    found = count_tokens(windows(documents[:counted], tokenizer, context), tokenizer)
    return found if counted >= len(documents) else round(found * whole / reached[counted - 1])


def _longest(lengths: Sequence[float], batch: int) -> float:
    """Expected largest of `batch` draws from lengths in ascending order."""
    n = len(lengths)
    weights = [((i + 1) / n) ** batch - (i / n) ** batch for i in range(n)]
    return sum(length * weight for length, weight in zip(lengths, weights, strict=True))


@dataclass(frozen=True)
class _Stretch:
    """Rows `first` to `end` of a text collection, and the mean length of one."""

    collection: str
    first: int
    end: int
    characters: float

    @classmethod
    def read(cls, source: str) -> _Stretch:
        """All documents of a source that is at hand."""
        found = read_documents(source)
        return cls(source, 0, len(found), statistics.fmean(len(d.text) for d in found))

    @classmethod
    def published(cls, source: str) -> _Stretch:
        """The rows that a dataset's address names, by what is published about it."""
        name, _, part = source.partition(":")
        rows, characters = _PUBLISHED_TEXTS[name]
        try:
            whole = datasets.ReadInstruction.from_spec(part or "train")
            (piece,) = whole.to_absolute({"train": rows})
        except Exception:
            raise InputError(
                f"{source}: expected one stretch of the {rows:,} rows of {name}, as in "
                f"{name}:train[5000:7000]"
            ) from None
        return cls(name, piece.from_ or 0, rows if piece.to is None else piece.to, characters)

    def __len__(self) -> int:
        return max(0, self.end - self.first)

    def shared(self, others: Sequence[_Stretch]) -> int:
        """Rows that also stand in one of `others`."""
        rows: set[int] = set()
        for other in others:
            if other.collection == self.collection:
                rows |= set(range(max(self.first, other.first), min(self.end, other.end)))
        return len(rows)


def _estimated(study: SizedStudy, base: SizedModel, absent: Sequence[str]) -> StudySizes:
    texts, train = study.texts, study.train

    def stretches(named: Sequence[str]) -> list[_Stretch]:
        return [
            _Stretch.published(s) if s.partition(":")[0] in absent else _Stretch.read(s)
            for s in named
        ]

    sources, measured = stretches(texts.sources), stretches(texts.measure_on)
    records = stretches(train.records) if train else []
    share = train.share if train else 0.0

    def unseen(some: Sequence[_Stretch]) -> float:
        return sum(len(s) - share * s.shared(records) for s in some)

    total = sum(map(len, sources))
    used = min(1.0, texts.documents / total) if texts.documents else 1.0
    if measured:
        held_out = unseen(measured)
        probe = used * (total if texts.keep_seen else unseen(sources))
        probe -= used * sum(s.shared(measured) for s in sources)
    else:
        measuring = texts.held_out or HELD_OUT
        held_out = used * unseen(sources) * measuring
        probe = used * (total if texts.keep_seen else unseen(sources)) * (1 - measuring)
    probe, held_out = _balanced(texts, probe, held_out)
    length = _mean_tokens(sources)
    record = min(_mean_tokens(records), train.training.context) if train else 0.0
    padded = min(_LONGEST_OF_A_BATCH * record, train.training.context) if train else 0.0
    note = (
        f"{', '.join(absent)} is not at hand: rows and mean length as published, "
        f"{CHARACTERS_PER_TOKEN} characters a token"
    )
    return StudySizes(
        documents=round(used * total) + sum(map(len, measured)),
        probe_tokens=round(probe * length),
        held_out_tokens=round(held_out * (_mean_tokens(measured) if measured else length)),
        held_out_documents=round(held_out),
        records=round(share * sum(map(len, records))),
        record_tokens=record,
        padded_tokens=padded,
        notes=(*base.notes, note),
    )


def _balanced(texts: Texts, probe: float, held_out: float) -> tuple[float, float]:
    if texts.balance is None:
        return probe, held_out
    kinds = len(texts.balance.categories)
    return min(probe, kinds * texts.balance.probe), min(held_out, kinds * texts.balance.held_out)


def _mean_tokens(stretches: Sequence[_Stretch]) -> float:
    rows = sum(map(len, stretches))
    characters = sum(len(s) * s.characters for s in stretches)
    return characters / max(1, rows) / CHARACTERS_PER_TOKEN
