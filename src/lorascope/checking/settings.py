"""What `check` and `scan` are asked for; nothing here imports a large library."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lorascope.config import Settings
from lorascope.errors import InputError

Required = Literal["live", "whole"]
_Positive = Annotated[float, Field(gt=0)]


class Gates(Settings):
    """What an adapter must come up to; without any of them nothing is missed.

    Attributes:
        require: "whole", no finding is an error; "live", it changes what the model computes, or
            without a model: a tensor of an update is not zero.
        max_norm_z: largest |robust z| of a module's log norm among those of its kind.
        max_kl: KL(adapted ‖ base) on the texts, nats/token.
        max_loss: how much the loss on the texts may rise above the base's, nats/token.
        max_merge_difference: largest difference of a logit between merged and unmerged.
    """

    require: tuple[Required, ...] = ()
    max_norm_z: _Positive | None = None
    max_kl: Annotated[float, Field(ge=0)] | None = None
    max_loss: float | None = None
    max_merge_difference: Annotated[float, Field(ge=0)] | None = None

    @property
    def of_the_model(self) -> list[str]:
        """The options given that only a model answers."""
        named = {
            "--max-kl": self.max_kl,
            "--max-loss": self.max_loss,
            "--max-merge-difference": self.max_merge_difference,
        }
        return [option for option, value in named.items() if value is not None]


class CheckSettings(Settings):
    """How one adapter is looked at.

    Attributes:
        model: base model to put it on: hub id, folder or embedded; None for its files alone.
        texts: what it is tried on with a model, as `read_documents` takes them.
        documents: how many of the texts.
        tokens: most tokens of each.
        draws: null adapters it is held against.
        seed: of the draws.
        intruders: modules, those of the largest updates, whose base weight is decomposed.
        reference: folder of ordinary adapters; None for those that come with the package.
        force: accept a base model that the adapter's configuration does not name.
        gates: what it must come up to.
    """

    model: str | None = None
    texts: tuple[str, ...] = ("embedded",)
    documents: Annotated[int, Field(ge=1)] = 8
    tokens: Annotated[int, Field(ge=4)] = 24
    draws: Annotated[int, Field(ge=20, le=1000)] = 20
    seed: Annotated[int, Field(ge=0)] = 0
    intruders: Annotated[int, Field(ge=0)] = 4
    reference: str | None = None
    force: bool = False
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _asks_what_a_model_answers(self) -> Any:
        if self.model is None and self.gates.of_the_model:
            options = ", ".join(self.gates.of_the_model)
            raise InputError(f"{options}: only a model answers this; give --model")
        return self


class ScanSettings(Settings):
    """How folders of adapters are looked at.

    Attributes:
        rate: false discovery rate of those named for review.
        least: fewest adapters of one base and shape that are held against one another.
        workers: processes.
    """

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    least: Annotated[int, Field(ge=8)] = 8
    workers: Annotated[int, Field(ge=1)] = 1
