"""The settings of an audit: one strict file says everything a run depends on."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from lorascope.activations.categories import CATEGORIES
from lorascope.activations.collect import Capture
from lorascope.config import Settings
from lorascope.training.adapters import LoraTraining
from lorascope.training.architectures import Architecture, ReLU
from lorascope.training.dictionaries import Fitting


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
        held_out: share of the documents, by hash, that measures are computed on.
        measure_on: sources to measure on instead of that share; no dictionary is trained on them.
        balance: equal numbers of documents of several kinds; all documents by default.
        seen: further texts the adapters were trained on; documents among them are left out. What
            an adapter trained here has seen is known from its folder.
        keep_seen: train dictionaries on documents the adapters have seen too, as the paper does;
            the report says so. Nothing is ever measured on them.
    """

    sources: tuple[str, ...] = Field(min_length=1)
    documents: int | None = Field(default=None, gt=0)
    held_out: float = Field(default=0.2, gt=0, lt=1)
    measure_on: tuple[str, ...] = ()
    balance: Balance | None = None
    seen: tuple[str, ...] = ()
    keep_seen: bool = False

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> Self:
        if self.measure_on and self.held_out != Texts.model_fields["held_out"].default:
            raise ValueError("give either held_out (a share) or measure_on (sources), not both")
        return self


class TrainAdapters(Settings):
    """Adapters to train first, instead of being given some.

    Attributes:
        records: where instruction records come from.
        share: share of the records, by hash, the adapters may see; the rest is left for the audit.
            1 where the audit has texts of its own.
        training: ranks and everything they share.
    """

    records: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    share: float = Field(default=0.5, gt=0, le=1)
    training: LoraTraining = LoraTraining()


class Dictionaries(Settings):
    """Which dictionaries are trained, and which are brought along.

    Attributes:
        architecture: of every dictionary trained here.
        fitting: how they are trained.
        seeds: one delta dictionary each per adapter and site; two or more give the seed pair.
        base: addresses of base dictionaries by site; at other sites one is trained per seed.
        gaussian_control: train dictionaries on Gaussian rows of each delta's mean and covariance,
            the covariance-matched null of the improvement.
    """

    architecture: Architecture = ReLU(n_latents=4096)
    fitting: Fitting = Fitting()
    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1)
    base: dict[str, str] = Field(default_factory=dict)
    gaussian_control: bool = True

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat; give different ones")
        return self


class Measures(Settings):
    """What is measured, and how finely.

    Attributes:
        angles_k: subspace dimensions of the principal angles; by default 256, or a quarter of the
            stream's width where that is less.
        rows: most held-out tokens the measures of one adapter and site use.
        repeats: draws of each null of the geometric measures.
        samples: how many held-out prompts every face continues in the report.
    """

    angles_k: tuple[PositiveInt, ...] = ()
    rows: int = Field(default=20000, ge=100)
    repeats: int = Field(default=20, ge=2)
    samples: int = Field(default=3, ge=0)


class AuditStudy(Settings):
    """An audit of one or several adapters of one model.

    Attributes:
        model: hub id, folder, or "embedded".
        adapters: {name: folder or hub id}.
        train: train adapters first; excludes `adapters`.
        sites: residual-stream sites, `layers.12` = output of block 12.
        force: accept adapters and dictionaries whose files name another base model.
    """

    name: str = Field(default="audit", pattern=r"^[A-Za-z0-9._-]+$")
    model: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    adapters: dict[str, str] = Field(default_factory=dict)
    train: TrainAdapters | None = None
    sites: tuple[str, ...] = Field(min_length=1)
    texts: Texts
    capture: Capture = Capture()
    dictionaries: Dictionaries = Dictionaries()
    measures: Measures = Measures()
    seed: int = 0
    force: bool = False

    @model_validator(mode="after")
    def _adapters_given_or_trained(self) -> Self:
        if bool(self.adapters) == (self.train is not None):
            raise ValueError("give either adapters (name: path) or a train section, not both")
        return self
