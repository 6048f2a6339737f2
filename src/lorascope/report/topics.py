"""The report's sections: which measures answer which question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from lorascope.measures.definitions import DEFINITIONS
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
class Topic:
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
    Topic(
        "behaviour",
        "Behaviour",
        "Does the adapted model predict held-out responses better than the base model?",
        ("response_loss",),
    ),
    Topic(
        "reading",
        "What it says",
        "Does the adapter say something again and again, and how far do its predictions move on "
        "ordinary text?",
        ("reading",),
    ),
    Topic(
        "size",
        "Size of the change",
        "How far did the adapter move the residual stream, and in how many dimensions?",
        ("delta_norm", "delta_rank"),
    ),
    Topic(
        "reconstruction",
        "Reconstruction",
        "How well does a dictionary of the base model write the delta down, and how much better "
        "is one trained on the delta?",
        ("relative_error", "improvement"),
    ),
    Topic(
        "pursuit",
        "What directions can express",
        "Is it the base dictionary's encoder that misses the delta, or can its directions not "
        "express it?",
        ("pursuit", "pca"),
    ),
    Topic(
        "firing",
        "Latents that fire",
        "Which latents does the delta switch on, and are they the ones the base stream uses?",
        ("overlap", "weakly_aligned", "density", "dead_share"),
    ),
    Topic(
        "cosine",
        "Directions",
        "Does each delta direction have a close match in the base dictionary?",
        ("max_cosine",),
    ),
    Topic(
        "angles",
        "Subspaces",
        "Do the two dictionaries span the same part of the residual stream?",
        ("angle",),
    ),
    Topic(
        "cka",
        "Similarity of activations",
        "Do tokens that are alike in the base stream stay alike in the delta?",
        ("cka", "cka_debiased"),
    ),
    Topic(
        "effects",
        "Effect on the outputs",
        "How much of what the adapter does to the model's predictions returns when the base model "
        "gets a reconstruction of the delta?",
        ("output_change", "recovery"),
    ),
    Topic(
        "latents",
        "Single latents",
        "Does removing or adding one delta latent change the outputs, and as foretold?",
        ("latent_ablation", "latent_addition"),
    ),
    Topic(
        "weights",
        "Weights",
        "What did the adapter add to each weight matrix, and does that belong to what was there?",
        ("weights",),
    ),
    Topic(
        "ablation",
        "Sparsity",
        "How do error and active latents depend on the sparsity asked for?",
        ("ablation",),
    ),
    Topic(
        "seeds",
        "Seeds",
        "Do the numbers differ between conditions, or as much between seeds of the same condition?",
        ("variance",),
    ),
)

OTHER: Final = Topic("other", "Other numbers", "What else the run measured.", ())

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
_MEASURES: Final = tuple(DEFINITIONS)


def topic_of(measure: str) -> Topic:
    """The section a measure belongs to."""
    family = measure.split(".")[0]
    return next((topic for topic in TOPICS if family in topic.families), OTHER)


def measure_order(measures: Iterable[str]) -> list[str]:
    """Measures without repeats, in the order of their definitions, unknown ones last."""
    return _ordered(measures, _MEASURES)


def dictionary_order(estimates: Iterable[Estimate]) -> list[Of]:
    """Of which dictionaries they are, without repeats; findings before yardsticks."""
    return _ordered((Of.key(estimate.key) for estimate in estimates), _ORDER)


T = TypeVar("T")


def _ordered(names: Iterable[T], known: tuple[T, ...]) -> list[T]:
    unique = dict.fromkeys(names)
    return [n for n in known if n in unique] + [n for n in unique if n not in known]
