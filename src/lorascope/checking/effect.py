"""What was found with the model, as it is kept and shown; nothing here loads a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from lorascope.checking.findings import Finding
from lorascope.results import Estimate

KL, LOSS = "check.kl", "check.loss"


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


@dataclass
class Effect:
    """What was found with the model.

    Attributes:
        live: whether stream or logits differ from the base's in any bit.
        restored: whether the base computes what it did, bit for bit, with the adapter off again.
        documents, tokens: texts, and tokens predicted in them.
        estimates: KL and loss.
        curve: over the adapter's scale; empty where it cannot be scaled.
        merged: largest difference of a logit between merged and unmerged; None if not measured.
        findings: what could not be measured, and what is wrong.
    """

    live: bool = False
    restored: bool = True
    documents: int = 0
    tokens: int = 0
    estimates: list[Estimate] = field(default_factory=list)
    curve: list[AtScale] = field(default_factory=list)
    merged: float | None = None
    findings: list[Finding] = field(default_factory=list)
