"""An audit of the embedded model made for its null adapters: what it "finds" about them.

Adapters are trained for a few steps, only to have modules, shapes and singular values for null
adapters to share; nothing is asked about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorascope.activations.settings import Capture
from lorascope.planted.null_verdicts import CEILING, featureless_shares, null_adapter_shares
from lorascope.planted.shares import Share
from lorascope.progress import Reporter
from lorascope.report.result import read_results
from lorascope.results import Estimates
from lorascope.studies.audit.study import AuditStudy, Controls, Dictionaries, Measures
from lorascope.studies.audit.workflow import AUDIT
from lorascope.training.architectures import ReLU
from lorascope.training.settings import Fitting, LoraTraining
from lorascope.workflows.settings import Texts, TrainAdapters


@dataclass(frozen=True)
class NullAudit:
    """How large the audit is.

    Attributes:
        ranks: one adapter each.
        draws: null adapters of each, and Gaussian-trained dictionaries of each delta.
        sites: where deltas are looked at.
        documents: of the embedded texts; three in ten are held out.
        effects: measure recovery and single latents too.
        strict: the share itself must be at most 5 %, and its interval end at 8 % or below.
    """

    ranks: tuple[int, ...]
    draws: int
    sites: tuple[str, ...]
    documents: int
    effects: bool
    strict: bool

    def study(self, seed: int) -> AuditStudy:
        """The audit's settings."""
        training = LoraTraining(
            ranks=self.ranks, steps=6, context=64, batch=4, held_out=0.02, products="float32"
        )
        fitting = Fitting(epochs=3, batch=256, rate=6e-3, products="float32")
        return AuditStudy(
            name="null-adapters",
            model="embedded",
            device="cpu",
            train=TrainAdapters(share=0.2, training=training),
            sites=self.sites,
            texts=Texts(sources=("embedded",), documents=self.documents, held_out=0.3),
            capture=Capture(context=64),
            dictionaries=Dictionaries(
                architecture=ReLU(n_latents=256, l1=0.15), fitting=fitting, seeds=(0,)
            ),
            controls=Controls(null_adapters=self.draws, gaussian_dictionaries=self.draws),
            reading=None,
            measures=Measures(
                angles_k=(48,),
                rows=2000,
                repeats=2,
                samples=0,
                effects=self.effects,
                effect_tokens=512,
                latents=4 if self.effects else 0,
            ),
            seed=seed,
        )


def null_audit(size: NullAudit, folder: Path, reporter: Reporter, seed: int = 0) -> list[Share]:
    """Run the audit in `folder` and count the verdicts about null draws."""
    AUDIT.run(size.study(seed), folder, reporter)
    return null_audit_shares(read_results(folder).estimates, size.strict)


def null_audit_shares(estimates: Estimates, strict: bool) -> list[Share]:
    """What an audit's results say of its null adapters and Gaussian-trained dictionaries."""
    shares = null_adapter_shares(estimates, CEILING if strict else None)
    return [*shares, *featureless_shares(estimates)]
