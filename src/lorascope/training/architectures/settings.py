"""Settings of every architecture. Each makes its objective, whose module waits for torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from lorascope.config import Settings

if TYPE_CHECKING:
    import torch

    from lorascope.training.architectures.batch_topk import BatchTopKObjective
    from lorascope.training.architectures.gated import GatedObjective
    from lorascope.training.architectures.jumprelu import JumpReluObjective
    from lorascope.training.architectures.matryoshka import MatryoshkaObjective
    from lorascope.training.architectures.objective import Objective, TrainingStart
    from lorascope.training.architectures.relu import ReluObjective
    from lorascope.training.architectures.topk import TopKObjective


class ArchitectureSettings(Settings, ABC):
    """What the settings of every architecture hold.

    Attributes:
        n_latents: how many latents.
        start: where directions start: "subspace" draws them inside the span that holds the rows'
            variance, which for a low-rank delta is a small part of the stream; "isotropic" in the
            whole stream.
        bias: where b_dec starts, the rows' mean or their geometric median.
    """

    n_latents: int = Field(gt=0)
    start: Literal["subspace", "isotropic"] = "subspace"
    bias: Literal["mean", "median"] = "mean"

    def objective(self, start: TrainingStart, products: torch.dtype | None = None) -> Objective:
        """The parameters and the loss of this architecture, at the start of training.

        Args:
            products: type of the large matrix products; float32 by default.
        """
        import torch

        return self._objective(start, torch.float32 if products is None else products)

    @abstractmethod
    def _objective(self, start: TrainingStart, products: torch.dtype) -> Objective: ...


class PenalisedSettings(ArchitectureSettings):
    """Settings of an architecture whose sparsity comes from a penalty.

    Attributes:
        target_l0: mean active latents per row to steer λ towards; λ then only starts at the
            value given for it.
        resample: give latents that have stopped firing a new start, aimed at badly reconstructed
            rows.
    """

    target_l0: float | None = Field(default=None, gt=0)
    resample: bool = True

    @model_validator(mode="after")
    def _target_within_reach(self) -> Self:
        if self.target_l0 is not None and self.target_l0 >= self.n_latents:
            raise ValueError(f"target_l0 {self.target_l0} must be below n_latents {self.n_latents}")
        return self


class RevivedSettings(ArchitectureSettings):
    """Settings of an architecture that keeps k latents a row; AuxK revives those that die.

    Attributes:
        k: latents active per row.
        aux: α; 0 switches AuxK off.
        k_aux: dead latents a row may use; by default half the stream's width.
        dead_after: rows without firing after which a latent counts as dead.
    """

    k: int = Field(default=32, gt=0)
    aux: float = Field(default=1 / 32, ge=0)
    k_aux: int | None = Field(default=None, gt=0)
    dead_after: int = Field(default=65536, gt=0)

    @model_validator(mode="after")
    def _k_within_reach(self) -> Self:
        if self.k >= self.n_latents:
            raise ValueError(f"k {self.k} must be below n_latents {self.n_latents}")
        return self


class ReLU(PenalisedSettings):
    """Settings of a ReLU dictionary.

    Attributes:
        l1: λ, for inputs scaled to mean norm 1.

    Examples:
        >>> ls.ReLU(n_latents=4096, l1=0.1).architecture
        'relu'
    """

    architecture: Literal["relu"] = "relu"
    l1: float = Field(default=0.15, gt=0)

    def _objective(self, start: TrainingStart, products: torch.dtype) -> ReluObjective:
        from lorascope.training.architectures.relu import ReluObjective

        return ReluObjective(self, self.l1, start, products)


class TopK(RevivedSettings):
    """Settings of a TopK dictionary.

    Examples:
        >>> ls.TopK(n_latents=4096, k=32).k
        32
    """

    architecture: Literal["topk"] = "topk"

    def _objective(self, start: TrainingStart, products: torch.dtype) -> TopKObjective:
        from lorascope.training.architectures.topk import TopKObjective

        return TopKObjective(self, start, products)


class BatchTopK(RevivedSettings):
    """Settings of a BatchTopK dictionary; k latents a row are active on average.

    Examples:
        >>> ls.BatchTopK(n_latents=4096, k=32).architecture
        'batch_topk'
    """

    architecture: Literal["batch_topk"] = "batch_topk"

    def _objective(self, start: TrainingStart, products: torch.dtype) -> BatchTopKObjective:
        from lorascope.training.architectures.batch_topk import BatchTopKObjective

        return BatchTopKObjective(self, start, products)


class JumpReLU(PenalisedSettings):
    """Settings of a JumpReLU dictionary; lengths are for inputs scaled to mean norm 1.

    Attributes:
        penalty: λ, the loss of one active latent.
        bandwidth: ε, how near its threshold a pre-activation must be to move it.
        threshold: where thresholds start.

    Examples:
        >>> ls.JumpReLU(n_latents=4096, target_l0=40).threshold
        0.03
    """

    architecture: Literal["jumprelu"] = "jumprelu"
    penalty: float = Field(default=1e-3, gt=0)
    bandwidth: float = Field(default=0.03, gt=0)
    threshold: float = Field(default=0.03, gt=0)

    def _objective(self, start: TrainingStart, products: torch.dtype) -> JumpReluObjective:
        from lorascope.training.architectures.jumprelu import JumpReluObjective

        return JumpReluObjective(self, start, products)


class Matryoshka(BatchTopK):
    """Settings of a Matryoshka BatchTopK dictionary.

    Attributes:
        prefixes: nested dictionaries, each a share of the latents, rising to 1.

    Examples:
        >>> ls.Matryoshka(n_latents=64, k=4, prefixes=(0.25, 1.0)).ends
        (16, 64)
    """

    architecture: Literal["matryoshka"] = "matryoshka"  # type: ignore[assignment]
    prefixes: tuple[float, ...] = Field(default=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0), min_length=1)

    @model_validator(mode="after")
    def _prefixes_rise_to_one(self) -> Self:
        ends = self.ends
        if self.prefixes[-1] != 1.0 or ends[0] < 1 or sorted(set(ends)) != list(ends):
            raise ValueError(
                f"prefixes {list(self.prefixes)} must rise to 1, each by at least one latent"
            )
        return self

    @property
    def ends(self) -> tuple[int, ...]:
        """How many latents each nested dictionary has."""
        return tuple(round(share * self.n_latents) for share in self.prefixes)

    def _objective(self, start: TrainingStart, products: torch.dtype) -> MatryoshkaObjective:
        from lorascope.training.architectures.matryoshka import MatryoshkaObjective

        return MatryoshkaObjective(self, start, products)


class Gated(PenalisedSettings):
    """Settings of a gated dictionary.

    Attributes:
        l1: λ, on the gates, for inputs scaled to mean norm 1.

    Examples:
        >>> ls.Gated(n_latents=4096).l1
        0.15
    """

    architecture: Literal["gated"] = "gated"
    l1: float = Field(default=0.15, gt=0)

    def _objective(self, start: TrainingStart, products: torch.dtype) -> GatedObjective:
        from lorascope.training.architectures.gated import GatedObjective

        return GatedObjective(self, self.l1, start, products)


def _relu_by_default(data: Any) -> Any:
    return {"architecture": "relu", **data} if isinstance(data, dict) else data


Architecture = Annotated[
    ReLU | TopK | BatchTopK | JumpReLU | Matryoshka | Gated,
    Field(discriminator="architecture"),
    BeforeValidator(_relu_by_default),
]
