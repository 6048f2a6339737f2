"""The settings of a latent study: which behaviour, over which dictionary, kept sparse how."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lorascope.config import Device, DType, Settings
from lorascope.latent_adapters.settings import ALTERNATIVES, LatentTraining
from lorascope.latent_adapters.sparsity import (
    Dense,
    HardConcrete,
    Proximal,
    RatioL1,
    RawL1,
    Sparsity,
    TopM,
)
from lorascope.models.sites import SiteName
from lorascope.training.architectures import Architecture, TopK
from lorascope.training.settings import Fitting, LoraTraining

DENSE = "dense"


class TrainedDictionary(Settings):
    """A dictionary to train on the model's stream at the site, where none is brought.

    Attributes:
        architecture: its settings.
        fitting: how it is trained.
        texts: where general texts come from.
        documents: most of them to use.
        on_behaviour: train on the behaviour's own training records too.
    """

    architecture: Architecture = TopK(n_latents=1024, k=32)
    fitting: Fitting = Fitting()
    texts: tuple[str, ...] = Field(default=("embedded",), min_length=1)
    documents: int | None = Field(default=None, gt=0)
    on_behaviour: bool = True


def usual_choices() -> dict[str, Sparsity]:
    """The choices of sparsity, side by side."""
    return {
        DENSE: Dense(),
        "raw L1": RawL1(),
        "ratio L1": RatioL1(),
        "proximal": Proximal(),
        "top m": TopM(m=32),
        "gates": HardConcrete(),
        "preselected": TopM(m=32, preselect=128),
    }


class LatentMeasures(Settings):
    """What is measured, and how finely.

    Attributes:
        most: latents that may be read, and as many written, for an adapter to count as readable.
        share: of the dense adapter's success that such an adapter is to keep.
        sizes: to how many latents adapters are cut down for the frontier.
        pairs: to how many pairs the chosen adapters are cut down, of those of `most` latents.
        prompts: held-out prompts about the topic, and as many others, that are answered; all by
            default.
        new_tokens: most tokens of an answer.
        draws: random choices of latents that stand beside those of an adapter.
        ablation_seeds: adapters of the best choice whose named latents are removed one at a time,
            in the order of the seeds; all of them by default, none with 0.
        latents: most named latents of a side that are removed, the heaviest.
        alternatives: unnamed latents of the same firing rate and norm that are removed beside each,
            where the dictionary has so many.
        examples: contexts shown of a latent.
        rows: most tokens looked through for them.
    """

    most: int = Field(default=32, gt=0)
    share: float = Field(default=0.95, gt=0, le=1)
    sizes: tuple[PositiveInt, ...] = Field(default=(1, 2, 4, 8, 16, 32, 64, 128), min_length=1)
    pairs: tuple[PositiveInt, ...] = (1, 4, 16, 64, 256)
    prompts: int | None = Field(default=None, gt=0)
    new_tokens: int = Field(default=24, gt=0)
    draws: int = Field(default=8, ge=2)
    ablation_seeds: int | None = Field(default=None, ge=0)
    latents: int = Field(default=32, gt=0)
    alternatives: int = Field(default=ALTERNATIVES, ge=1)
    examples: int = Field(default=5, ge=1)
    rows: int = Field(default=20000, ge=100)


class LatentStudy(Settings):
    """One behaviour, learned by latent adapters that differ in how they are kept sparse.

    Attributes:
        model: hub id, folder, "embedded" or "embedded-it".
        behaviour: a set made by `lorascope behaviour make` (folder or file), or "embedded".
        manner: what changed responses look like, as `lorascope behaviour make` takes it.
        judge: a pattern that answers in a described manner match.
        site: where the adapter acts, `layers.12` = output of block 12.
        dictionary: address of the dictionary there; one is trained by default.
        train_dictionary: how.
        choices: {name: choice of sparsity}; one named dense without sparsity is what the others
            are held against.
        training: what all of them share; its sparsity and seed are not used.
        seeds: one adapter each per choice.
        context: longest example in tokens; longer ones are left out.
        lora: an ordinary LoRA adapter trained on the same examples, of the same rank by default.
        prompting: also ask the untouched model for the manner in words.
        force: accept a dictionary whose file names another model or site.
    """

    workflow: Literal["latent"] = "latent"
    name: str = Field(default="latent", pattern=r"^[A-Za-z0-9._-]+$")
    model: str
    revision: str | None = None
    dtype: DType = "auto"
    device: Device = "auto"
    behaviour: str
    manner: str = "french"
    judge: str = ""
    site: SiteName
    dictionary: str | None = None
    train_dictionary: TrainedDictionary = TrainedDictionary()
    choices: dict[str, Sparsity] = Field(default_factory=usual_choices, min_length=1)
    training: LatentTraining = LatentTraining()
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    context: int = Field(default=256, ge=8)
    lora: LoraTraining | None = None
    prompting: bool = True
    measures: LatentMeasures = LatentMeasures()
    seed: int = 0
    force: bool = False

    @model_validator(mode="after")
    def _something_to_hold_against(self) -> Self:
        dense = self.choices.get(DENSE)
        if not isinstance(dense, Dense) or dense.preselect is not None:
            raise ValueError(
                f'choices: one named "{DENSE}" of kind dense is needed; the others are held '
                "against it"
            )
        for name in self.choices:
            if not name.replace(" ", "-").replace("-", "").replace("_", "").isalnum():
                raise ValueError(f'choices: "{name}" is no name; use letters, digits, spaces, - _')
        return self

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat; give different ones")
        return self

    @property
    def ablated(self) -> tuple[int, ...]:
        """Seeds of the adapters whose named latents are removed one at a time."""
        return self.seeds[: self.measures.ablation_seeds]

    def trained(self, choice: str, seed: int) -> LatentTraining:
        """The settings of one adapter."""
        return self.training.model_copy(update={"sparsity": self.choices[choice], "seed": seed})

    @property
    def adapters(self) -> dict[str, tuple[str, int]]:
        """{name of an adapter's folder: (choice, seed)}."""
        return {
            f"{choice.replace(' ', '-')}-s{seed}": (choice, seed)
            for choice in self.choices
            for seed in self.seeds
        }

    def lora_training(self) -> LoraTraining:
        """The ordinary adapter: as long, on as many examples a step."""
        if self.lora is not None:
            return self.lora
        shared: dict[str, Any] = {"ranks": (self.training.rank,), "steps": self.training.steps}
        return LoraTraining(
            **shared, batch=self.training.batch, context=self.context, seed=self.seed
        )
