"""Which number answers each question, declared before anything is measured.

One number a question: what a run found is counted over these alone, so that a question with many
numbers has no more chances of a finding than one with few.
"""

from __future__ import annotations

from typing import Final

from lorascope.results.labels import BASE, DELTA, DELTA_VS_BASE, Of

PRIMARY: Final[dict[str, Of]] = {
    "response_loss": Of(),
    "delta_rank": Of(),
    "improvement": Of(DELTA),
    "overlap": Of(BASE),
    "max_cosine.mean": DELTA_VS_BASE,
    "angle.mean": DELTA_VS_BASE,
    "cka_debiased.base_delta": Of(),
    "recovery.kl": Of(DELTA),
    "latent_ablation.kl": Of(DELTA),
    "weights.intruders": Of(),
}
