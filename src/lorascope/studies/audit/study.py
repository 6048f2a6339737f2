"""The settings of an audit: one strict file says everything a run depends on."""

from __future__ import annotations

from typing import Any, Literal, Self

import yaml
from pydantic import Field, PositiveInt, model_validator

from lorascope.activations.settings import Capture
from lorascope.config import Device, DeviceMap, DType, Settings
from lorascope.errors import did_you_mean
from lorascope.measures.settings import Bars
from lorascope.models.sites import SiteName
from lorascope.reading.settings import Reading
from lorascope.training.architectures import Architecture, ReLU
from lorascope.training.settings import Fitting
from lorascope.workflows.settings import (
    Control,
    Texts,
    TrainAdapters,
    numbered,
    require_different,
)


class Dictionaries(Settings):
    """Which dictionaries are trained, and which are brought along.

    Attributes:
        architecture: of every dictionary trained here.
        fitting: how they are trained.
        seeds: one delta dictionary each per adapter and site; two or more give the seed pair.
        base: addresses of base dictionaries by site; at other sites one is trained per seed.
        controls: what else a dictionary is trained on for each delta, with the first seed, as a
            reference: its rows with each dimension shuffled on its own; its rows with the
            dimensions in another order.
    """

    architecture: Architecture = ReLU(n_latents=4096)
    fitting: Fitting = Fitting()
    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1)
    base: dict[str, str] = Field(default_factory=dict)
    controls: tuple[Control, ...] = ()

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        require_different(self.seeds)
        return self


class SparsityAblation(Settings):
    """One condition trained again at several sparsities: L0 and error of each.

    Attributes:
        setting: the field of the architecture that is varied, `l1` or `k` for instance.
        values: what it is set to.
        epochs: passes over the rows; as for the other dictionaries by default.
        adapter, site: which condition; the first of the study by default.
    """

    setting: str = "l1"
    values: tuple[float, ...] = Field(default=(0.015, 0.05, 0.15, 0.5, 1.5), min_length=2)
    epochs: float | None = Field(default=None, gt=0)
    adapter: str | None = None
    site: str | None = None


class Measures(Settings):
    """What is measured, and how finely.

    Attributes:
        angles_k: subspace dimensions of the principal angles, the headline first; by default 256,
            or a quarter of the stream's width where that is less.
        rows: most held-out tokens the measures of one adapter and site use.
        repeats: draws of each null of the geometric measures.
        samples: how many held-out prompts every variant continues in the report.
        pursuit: what directions can express apart from what encoders find, by matching pursuit; for
            the dictionaries of the first seed.
        effects: how much of the adapter's effect on the outputs returns through each dictionary of
            the first seed.
        effect_tokens: most held-out tokens these runs of the model use.
        latents: how many latents of each delta dictionary are removed and added one at a time.
        weights: what the adapter did to the weights of each module.
        yardstick: what every dictionary must reach on its own stream for verdicts to be drawn with
            it.
    """

    angles_k: tuple[PositiveInt, ...] = ()
    rows: int = Field(default=20000, ge=100)
    repeats: int = Field(default=20, ge=2)
    samples: int = Field(default=3, ge=0)
    pursuit: bool = True
    effects: bool = True
    effect_tokens: int = Field(default=8192, ge=256)
    latents: int = Field(default=16, ge=0)
    weights: bool = True
    yardstick: Bars = Bars()


class Controls(Settings):
    """What goes through the whole audit beside the adapters, as their rival explanations.

    Attributes:
        null_adapters: random adapters for each adapter, with its modules, shapes and singular
            values (`docs/null_adapters.md`); 0 for none, and then no number of the delta has a
            verdict.
        match: what else a null adapter has of the adapter's size. "delta norm": it is multiplied
            until its mean delta norm over the sites is the adapter's, so that numbers that depend
            on how large the delta is are compared at equal sizes. "spectrum": the singular values
            themselves, whose delta is as large as it happens to be.
        gaussian_dictionaries: dictionaries trained on Gaussian rows of each delta's mean and
            covariance, which have no features; 0 for none.
    """

    null_adapters: int = Field(default=5, ge=0)
    match: Literal["delta norm", "spectrum"] = "delta norm"
    gaussian_dictionaries: int = Field(default=5, ge=0)

    @model_validator(mode="after")
    def _draws_have_a_spread(self) -> Self:
        for name in ("null_adapters", "gaussian_dictionaries"):
            if getattr(self, name) == 1:
                raise ValueError(f"{name}: one draw has no spread; give 2 or more, or 0 for none")
        return self


class AuditStudy(Settings):
    """An audit of one or several adapters of one model.

    Attributes:
        model: hub id, folder, or "embedded".
        adapters: {name: folder or hub id, or several that differ in their seed alone}.
        train: train adapters first; excludes `adapters`.
        sites: residual-stream sites, `layers.12` = output of block 12.
        ablation: train one condition at several sparsities too.
        reading: how each adapter is put into words; null for not at all. Its texts are the study's
            where it names none, its null adapters those of the study.
        force: accept adapters and dictionaries whose files name another base model.
    """

    name: str = Field(default="audit", pattern=r"^[A-Za-z0-9._-]+$")
    model: str
    revision: str | None = None
    dtype: DType = "auto"
    device: Device = "auto"
    device_map: DeviceMap | None = None
    adapters: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    train: TrainAdapters | None = None
    sites: tuple[SiteName, ...] = Field(min_length=1)
    texts: Texts
    capture: Capture = Capture()
    dictionaries: Dictionaries = Dictionaries()
    controls: Controls = Controls()
    ablation: SparsityAblation | None = None
    measures: Measures = Measures()
    reading: Reading | None = Reading()
    seed: int = 0
    force: bool = False

    @model_validator(mode="after")
    def _adapters_given_or_trained(self) -> Self:
        if bool(self.adapters) == (self.train is not None):
            raise ValueError("give either adapters (name: path) or a train section, not both")
        return self

    @model_validator(mode="after")
    def _ablation_fits(self) -> Self:
        if self.ablation is not None:
            for value in self.ablation.values:
                self.varied(self.label(value))
        return self

    @property
    def given(self) -> dict[str, str]:
        """{name: folder or hub id} of the adapters given; `name-1`, `name-2` … of several seeds."""
        return numbered(self.adapters)

    @property
    def groups(self) -> dict[str, str]:
        """{adapter: the name it shares with those that differ from it in their seed alone}."""
        if self.train is not None:
            return {
                name: f"r{one.ranks[0]}"
                for name, one in self.train.training.each(self.train.seeds).items()
            }
        return {
            each: name for name, paths in self.adapters.items() for each in numbered({name: paths})
        }

    def label(self, value: float) -> str:
        """How the ablation's dictionary with this value is called: `l1=0.05`."""
        assert self.ablation is not None
        return f"{self.ablation.setting}={value:g}"

    def varied(self, label: str) -> Architecture:
        """The dictionaries' architecture with one setting of the ablation.

        Raises:
            ValueError: the architecture has no such field, or cannot take the value.
        """
        architecture = self.dictionaries.architecture
        plain, (name, _, text) = architecture.plain(), label.partition("=")
        if name not in plain:
            raise ValueError(
                f"ablation.setting: {architecture.architecture} has no {name}."
                f"{did_you_mean(name, list(plain))}"
            )
        value: Any = yaml.safe_load(text)
        return type(architecture).parse({**plain, name: value}, "ablation.values")
