"""Settings of the commands that are no study of their own; nothing here waits for torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lorascope.activations.settings import CATEGORIES, Capture, Template
from lorascope.activations.text import is_unseen
from lorascope.config import Device, DType, Settings
from lorascope.training.settings import LoraTraining


class TrainStudy(Settings):
    """Settings of `lorascope train-adapter`.

    Attributes:
        model: hub id, folder, or "embedded".
        records: where instruction records come from.
        documents: most records to use.
        training: ranks and everything they share.
        seeds: one adapter each per rank; by default one, `training.seed`.
        template: which records go through the tokenizer's chat template where it has one: chats,
            while instructions are put in Alpaca's words ("auto"); both ("chat"); none ("plain").
    """

    model: str = "embedded"
    revision: str | None = None
    dtype: DType = "auto"
    device: Device = "auto"
    records: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    documents: int | None = Field(default=None, gt=0)
    training: LoraTraining = LoraTraining()
    seeds: tuple[int, ...] = ()
    template: Template = "auto"


class OnTexts(Settings):
    """What a dictionary is tried on.

    Attributes:
        model: hub id, folder, or "embedded".
        texts: files, folders, dataset ids, or "embedded".
        site: where it is tried; by default where its file says it reads.
        adapter: folder or hub id; the rows are then h_adapted − h_base.
        rows: most tokens to use.
        force: try it on a model or site it was not made for.
    """

    model: str
    texts: tuple[str, ...] = Field(min_length=1)
    site: str | None = None
    adapter: str | None = None
    rows: int = Field(default=4096, ge=100)
    force: bool = False
    device: Device = "auto"
    capture: Capture = Capture(store="float32")


def require_different(seeds: tuple[int, ...]) -> None:
    """ValueError where a seed is given twice."""
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds {list(seeds)} repeat; give different ones")


class Balance(Settings):
    """Equal numbers of documents of several kinds.

    Attributes:
        categories: the kinds: a source's own labels, or the five that instructions are sorted into
            by their words where a source has none. Documents of other kinds are left out.
        probe: documents of each to train dictionaries on.
        held_out: documents of each to measure on.
    """

    categories: tuple[str, ...] = Field(default=CATEGORIES, min_length=1)
    probe: int = Field(gt=0)
    held_out: int = Field(gt=0)

    @model_validator(mode="after")
    def _categories_differ(self) -> Self:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"categories {list(self.categories)} repeat; give different ones")
        return self


class Texts(Settings):
    """Which texts the adapters are looked at on.

    Attributes:
        sources: files, folders, dataset ids (`org/name:train[5000:7000]` for some of the rows), or
            "embedded".
        documents: most documents to use; all by default.
        held_out: share of the documents, by hash, that measures are computed on. By default a
            fifth, but at least 20 documents, or half of fewer than 40.
        measure_on: sources to measure on instead of that share; no dictionary is trained on them.
        balance: equal numbers of documents of several kinds; all documents by default.
        seen: further texts the adapters were trained on; documents among them are left out. What
            an adapter trained here has seen is known from its folder.
        keep_seen: train dictionaries on documents the adapters have seen too, as the paper does;
            the report says so. Nothing is ever measured on them.
        template: which records go through the tokenizer's chat template where it has one: chats,
            while instructions are put in Alpaca's words ("auto"); both ("chat"); none ("plain").
    """

    sources: tuple[str, ...] = Field(min_length=1)
    documents: int | None = Field(default=None, gt=0)
    held_out: float | None = Field(default=None, gt=0, lt=1)
    measure_on: tuple[str, ...] = ()
    balance: Balance | None = None
    seen: tuple[str, ...] = ()
    keep_seen: bool = False
    template: Template = "auto"

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> Self:
        if self.measure_on and self.held_out is not None:
            raise ValueError("give either held_out (a share) or measure_on (sources), not both")
        return self


class TrainAdapters(Settings):
    """Adapters to train first, instead of being given some.

    Attributes:
        records: where instruction records come from.
        share: share of the records, by hash, the adapters may see; the rest is left for the audit.
            1 where the audit has texts of its own.
        training: ranks and everything they share.
        seeds: one adapter each per rank: other starting weights, another order of the same
            records. By default one, `training.seed`.
        template: as that of the texts.
        ending: a last line for every response that they are trained on: something to learn that
            one can see, as in the demo. The texts of the audit stay as they are.
    """

    records: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    share: float = Field(default=0.5, gt=0, le=1)
    training: LoraTraining = LoraTraining()
    seeds: tuple[int, ...] = ()
    template: Template = "auto"
    ending: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        require_different(self.seeds)
        return self

    @field_validator("ending")
    @classmethod
    def _seen(cls, ending: str) -> str:
        if ending and is_unseen(ending):
            raise ValueError(f"{ending!r} has nothing that can be seen; give words, or leave it")
        return ending


Control = Literal["shuffled", "permuted"]


def numbered(adapters: Mapping[str, str | tuple[str, ...]]) -> dict[str, str]:
    """{name: folder or hub id} of the adapters given; `name-1`, `name-2` … of several seeds."""
    found: dict[str, str] = {}
    for name, paths in adapters.items():
        if isinstance(paths, str):
            found[name] = paths
        else:
            found |= {f"{name}-{i}": path for i, path in enumerate(paths, start=1)}
    return found
