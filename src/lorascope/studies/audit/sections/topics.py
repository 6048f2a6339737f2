"""The report's sections: which measures answer which question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lorascope.report.tables import ordered
from lorascope.results import Estimate
from lorascope.results.labels import (
    BASE,
    BASE_DIFFERENCE,
    BASE_SEEDS,
    DELTA,
    DELTA_SEEDS,
    DELTA_VS_BASE,
    EXACT_DELTA,
    PCA,
    Of,
)


@dataclass(frozen=True)
class ReportTopic:
    """One section of the report.

    Attributes:
        key: name of its tables and its place on the page.
        title: heading.
        question: what its numbers answer, in one line.
        families: the first parts (before the dot) of the measures that belong to it.
    """

    key: str
    title: str
    question: str
    families: tuple[str, ...]


TOPICS: Final = (
    ReportTopic(
        "behaviour",
        "Behaviour",
        "Does the adapted model predict held-out responses better than the base model?",
        ("response_loss",),
    ),
    ReportTopic(
        "reading",
        "What it says",
        "Does the adapter say something again and again, and how far do its predictions move on "
        "ordinary text?",
        ("reading",),
    ),
    ReportTopic(
        "size",
        "Size of the change",
        "How far did the adapter move the residual stream, and in how many dimensions?",
        ("delta_norm", "delta_rank"),
    ),
    ReportTopic(
        "reconstruction",
        "Reconstruction",
        "How well does a dictionary of the base model write the delta down, and how much better "
        "is one trained on the delta?",
        ("relative_error", "improvement"),
    ),
    ReportTopic(
        "pursuit",
        "What directions can express",
        "Is it the base dictionary's encoder that misses the delta, or can its directions not "
        "express it?",
        ("pursuit", "pca"),
    ),
    ReportTopic(
        "firing",
        "Latents that fire",
        "Which latents does the delta switch on, and are they the ones the base stream uses?",
        ("overlap", "weakly_aligned", "density", "dead_share"),
    ),
    ReportTopic(
        "cosine",
        "Directions",
        "Does each delta direction have a close match in the base dictionary?",
        ("max_cosine",),
    ),
    ReportTopic(
        "angles",
        "Subspaces",
        "Do the two dictionaries span the same part of the residual stream?",
        ("angle",),
    ),
    ReportTopic(
        "cka",
        "Similarity of activations",
        "Do tokens that are alike in the base stream stay alike in the delta?",
        ("cka", "cka_debiased"),
    ),
    ReportTopic(
        "effects",
        "Effect on the outputs",
        "How much of what the adapter does to the model's predictions returns when the base model "
        "gets a reconstruction of the delta?",
        ("output_change", "recovery"),
    ),
    ReportTopic(
        "latents",
        "Single latents",
        "Does removing or adding one delta latent change the outputs, and as attributed?",
        ("latent_ablation", "latent_addition"),
    ),
    ReportTopic(
        "weights",
        "Weights",
        "What did the adapter add to each weight matrix, and does that belong to what was there?",
        ("weights",),
    ),
    ReportTopic(
        "ablation",
        "Sparsity",
        "How do error and active latents depend on the sparsity asked for?",
        ("ablation",),
    ),
    ReportTopic(
        "seeds",
        "Seeds",
        "Do the numbers differ between conditions, or as much between seeds of the same condition?",
        ("variance",),
    ),
)

OTHER: Final = ReportTopic("other", "Other numbers", "What else the run measured.", ())

HEADLINE_MEASURES: Final = (
    "response_loss",
    "delta_norm",
    "delta_rank",
    "relative_error",
    "improvement",
    "overlap",
    "density",
    "max_cosine.mean",
    "angle.mean",
    "cka_debiased.base_delta",
    "pursuit.gap",
    "recovery.loss",
    "recovery.kl",
    "latent_ablation.kl",
    "weights.intruders",
)

_ORDER: Final = (
    Of(),
    Of(EXACT_DELTA),
    DELTA_VS_BASE,
    *(Of(label) for label in (DELTA, BASE, BASE_DIFFERENCE, PCA)),
    BASE_SEEDS,
    DELTA_SEEDS,
)


def topic_of(measure: str) -> ReportTopic:
    """The section a measure belongs to."""
    family = measure.split(".")[0]
    return next((topic for topic in TOPICS if family in topic.families), OTHER)


def dictionary_order(estimates: Iterable[Estimate]) -> list[Of]:
    """Of which dictionaries they are, without repeats; findings before yardsticks."""
    return ordered((Of.key(estimate.key) for estimate in estimates), _ORDER)
