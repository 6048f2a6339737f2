"""The settings of an evaluation: one strict file says everything its numbers depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from lorascope.config import Device, DeviceMap, DType, Settings
from lorascope.models.sites import SiteName
from lorascope.workflows.settings import Texts

Pool = Literal["mean", "last"]
Evaluation = Literal[
    "core", "probing", "absorption", "tpp", "scr", "autointerp", "disentangling", "benchmarks"
]
EVALUATIONS: tuple[Evaluation, ...] = get_args(Evaluation)
# Evaluations that read nothing but the model's own texts and vocabulary.
DEFAULT: tuple[Evaluation, ...] = ("core", "probing", "absorption")


class Subject(Settings):
    """One thing to evaluate: what stands in the model's stream, and what is on the model.

    Attributes:
        dictionaries: {site: address}; none evaluates the model itself.
        adapter: a PEFT adapter, a fine-tune of the model; everything is measured with and without.
        fitted: folder of a fit that `adapt` made around these dictionaries; where none are named,
            they are looked up in its run.
        delta: the one dictionary writes down what the adapter adds to the stream at its site.
        reseeded: {site: address} of the same dictionaries from another seed, as a reference.
    """

    dictionaries: dict[SiteName, str] = Field(default_factory=dict)
    adapter: str = ""
    fitted: str = ""
    delta: bool = False
    reseeded: dict[SiteName, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.adapter and self.fitted:
            raise ValueError("give an adapter (a fine-tune) or a fit (fitted), not both")
        if self.delta and (not self.adapter or len(self.dictionaries) != 1):
            raise ValueError("delta: give one dictionary, and the adapter whose deltas it is of")
        unknown = set(self.reseeded) - set(self.dictionaries)
        if unknown and not self.fitted:
            raise ValueError(f"reseeded: no dictionary stands at {', '.join(sorted(unknown))}")
        return self


class Core(Settings):
    """Reconstruction and what splicing costs.

    Attributes:
        tokens: most held-out tokens.
        training_tokens: tokens of the other texts, for means, covariances and baselines.
    """

    tokens: int = Field(default=20_000, ge=200)
    training_tokens: int = Field(default=20_000, ge=200)


class Probing(Settings):
    """Probes on few latents.

    Attributes:
        sets: "embedded"; the wheel or the unpacked folder of sae-probes; files and dataset ids
            with a text and a label.
        limit: most binary sets out of each source; all by default.
        k: how many latents a probe reads.
        train, test: most rows of a set, half of them of each label.
        context: tokens of a text that are read.
        pool: mean over a text's tokens, or its last one.
    """

    sets: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    limit: PositiveInt | None = None
    k: tuple[PositiveInt, ...] = Field(default=(1, 2, 5, 20), min_length=1)
    train: int = Field(default=600, ge=20)
    test: int = Field(default=300, ge=16)
    context: int = Field(default=128, ge=2)
    pool: Pool = "mean"


class Absorption(Settings):
    """First letters (Chanin et al. 2024; thresholds of SAEBench 0.6.0).

    Attributes:
        examples: words shown before the one asked about.
        words: most words of the vocabulary.
        most: most latents of one letter.
        f1_jump: by how much one more latent has to raise F1 to count as another part of the letter.
        probe_f1: letters whose probe on the stream reaches less are left out.
        full_cosine: least cosine of the absorbing latent with the probe, full absorption.
        fraction_cosine: least cosine of absorbing latents with the probe, absorption fraction.
        share: least share of the probe's projection that the absorbing latents bring.
        absorbers: most latents that absorb together.
    """

    examples: int = Field(default=10, ge=0)
    words: int = Field(default=2500, ge=100)
    most: int = Field(default=10, ge=1)
    f1_jump: float = Field(default=0.03, gt=0)
    probe_f1: float = Field(default=0.6, ge=0, lt=1)
    full_cosine: float = Field(default=0.025, ge=0, lt=1)
    fraction_cosine: float = Field(default=0.1, ge=0, lt=1)
    share: float = Field(default=0.4, gt=0, le=1)
    absorbers: int = Field(default=3, ge=1)


class Targeted(Settings):
    """Targeted probe perturbation (TPP): zero the latents of one class, see which probe suffers.

    Attributes:
        source: a set of texts of two classes or more: "embedded", a file or a dataset id.
        n: how many latents are zeroed.
        train, test: most rows a class.
        context: tokens of a text that are read.
        epochs, batch, rate, l1: of the probes, as published.
    """

    source: str = "embedded"
    n: tuple[PositiveInt, ...] = Field(default=(2, 5, 10, 20, 50, 100, 500), min_length=1)
    train: int = Field(default=400, ge=20)
    test: int = Field(default=200, ge=16)
    context: int = Field(default=128, ge=2)
    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=16, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    l1: float = Field(default=1e-3, ge=0)


class Spurious(Targeted):
    """Spurious correlation removal (SCR): a file with text, label and spurious (each 0 or 1).

    Attributes:
        source: "embedded" are prompts and answers (the label) about code and facts (spurious).
    """


class Autointerp(Settings):
    """Explanations of latents by a language model, scored by detection and fuzzing.

    Attributes:
        judge: model id behind an OpenAI-compatible endpoint (OPENAI_BASE_URL), or "local:ID".
        latents: how many, drawn from those that fire often enough.
        examples: passages shown to explain a latent.
        questions: passages to tell apart, half of them with the latent firing.
        tokens: of a passage.
        minimum: least number of passages in which a latent has to fire.
    """

    judge: str
    latents: int = Field(default=20, ge=1)
    examples: int = Field(default=8, ge=2)
    questions: int = Field(default=10, ge=2)
    tokens: int = Field(default=24, ge=8)
    minimum: int = Field(default=20, ge=4)

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        if self.questions % 2:
            raise ValueError(f"questions {self.questions}: give an even number, half with each")
        return self


class Disentangling(Settings):
    """RAVEL-style: change one attribute of an entity by its latents, leave the others.

    Attributes:
        source: a file of prompts: `prompt`, `entity`, `attribute`, `answer`, see docs/evaluate.md.
        k: how many latents are exchanged.
        pairs: most pairs of prompts an attribute.
    """

    source: str
    k: tuple[PositiveInt, ...] = Field(default=(1, 5, 20), min_length=1)
    pairs: int = Field(default=100, ge=8)


class Benchmarks(Settings):
    """General benchmarks through lm-eval.

    Attributes:
        tasks: names of lm-eval; "embedded" is a small task in the package.
        include: folder with further task files.
        limit: items a task; all by default.
        fewshot: examples before each item; the task's own by default.
        batch: items at once.
    """

    tasks: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    include: str = ""
    limit: PositiveInt | None = None
    fewshot: int | None = Field(default=None, ge=0)
    batch: int = Field(default=8, ge=1)


# {evaluation: (setting without a default, what it is and which option gives it)}.
_NEEDED = {
    "autointerp": (
        "judge",
        "a model that explains latents: --judge MODEL (an id at OPENAI_BASE_URL), or "
        "--judge local:MODEL; in a file, autointerp.judge",
    ),
    "disentangling": (
        "source",
        "a table of prompts with the columns prompt, entity, attribute and answer: --set "
        "disentangling.source=FILE; in a file, disentangling.source",
    ),
}


class EvaluateStudy(Settings):
    """An evaluation of one or several subjects on one model.

    Attributes:
        workflow: says in a file which kind of study it is.
        model: hub id, folder, or "embedded".
        texts: held-out ones are measured on, the others give means and baselines.
        context: most tokens in one window.
        subjects: what is evaluated, by name.
        force: accept dictionaries whose files name another model or site.
    """

    workflow: Literal["evaluate"] = "evaluate"
    name: str = Field(default="evaluate", pattern=r"^[A-Za-z0-9._-]+$")
    model: str
    revision: str | None = None
    dtype: DType = "auto"
    device: Device = "auto"
    device_map: DeviceMap | None = None
    texts: Texts
    context: int = Field(default=256, ge=8)
    subjects: dict[str, Subject] = Field(min_length=1)
    core: Core | None = Core()
    probing: Probing | None = Probing()
    absorption: Absorption | None = Absorption()
    tpp: Targeted | None = None
    scr: Spurious | None = None
    autointerp: Autointerp | None = None
    disentangling: Disentangling | None = None
    benchmarks: Benchmarks | None = None
    seed: int = 0
    force: bool = False

    @model_validator(mode="before")
    @classmethod
    def _what_one_needs(cls, data: Any) -> Any:
        """An evaluation without what it alone needs says which option gives it."""
        for name, (field, given) in _NEEDED.items() if isinstance(data, Mapping) else ():
            section = data.get(name)
            if isinstance(section, Mapping) and not str(section.get(field) or "").strip():
                raise ValueError(f"{name} needs {given}")
        return data

    @model_validator(mode="after")
    def _something(self) -> Self:
        for name in self.subjects:
            if not name or not all(c.isalnum() or c in "._-" for c in name):
                raise ValueError(f'the name "{name}": use letters, digits, dots, - and _')
        if not self.asked:
            raise ValueError(f"no evaluation is asked for; name one of {', '.join(EVALUATIONS)}")
        if not any(self.applies(name, one) for name in self.subjects for one in self.asked):
            raise ValueError(
                f"{', '.join(self.asked)}: of dictionaries, and no subject has one; give "
                "--dictionary site=address or --fitted FOLDER, or ask for core or benchmarks"
            )
        return self

    @property
    def asked(self) -> tuple[Evaluation, ...]:
        """The evaluations that are asked for."""
        return tuple(name for name in EVALUATIONS if getattr(self, name) is not None)

    def applies(self, subject: str, evaluation: str) -> bool:
        """Whether an evaluation says anything of a subject: most are of dictionaries."""
        one = self.subjects[subject]
        return evaluation in ("core", "benchmarks") or bool(one.dictionaries or one.fitted)
