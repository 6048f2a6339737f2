"""The result of a check with the model; nothing here loads a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from lorascope.checking.findings import Finding
from lorascope.results import Estimate

KL, LOSS, ROUNDED = "check.kl", "check.loss", "check.rounded"
Rounding = Literal["bfloat16", "int8", "int4"]
ROUNDINGS: Final[tuple[Rounding, ...]] = ("bfloat16", "int8", "int4")


@dataclass(frozen=True)
class AtScale:
    """What the model does with the adapter's scale multiplied by a factor.

    Attributes:
        factor: 1 is the adapter as it is.
        kl: KL(adapted ‖ base), nats/token.
        loss: adapted minus base, nats/token.
    """

    factor: float
    kl: float
    loss: float


@dataclass(frozen=True)
class Rounded:
    """The adapter merged, and the weights rounded as they are stored.

    Attributes:
        rounding: how.
        kept: KL of the rounded merged model to the base rounded alike, nats/token: what is left of
            the adapter's effect.
    """

    rounding: Rounding
    kept: float


@dataclass
class Effect:
    """What was found with the model.

    Attributes:
        live: whether stream or logits differ from the base's in any bit.
        restored: whether the base computes what it did, bit for bit, with the adapter off again.
        documents, tokens: texts, and tokens predicted in them.
        estimates: KL and loss; what rounding of merged copies costs; intruder dimensions.
        curve: over the adapter's scale; empty where it cannot be scaled.
        merged: largest difference of a logit between merged and unmerged; None if not measured.
        rounded: merged copies, rounded in every way; empty where PEFT does not merge.
        findings: what could not be measured, and what is wrong.
    """

    live: bool = False
    restored: bool = True
    documents: int = 0
    tokens: int = 0
    estimates: list[Estimate] = field(default_factory=list)
    curve: list[AtScale] = field(default_factory=list)
    merged: float | None = None
    rounded: list[Rounded] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
