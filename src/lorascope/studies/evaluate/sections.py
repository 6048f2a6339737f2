"""The parts of an evaluation's page: which evaluation a number is of."""

from __future__ import annotations

from typing import Final

from lorascope.results import Estimate

SECTIONS: Final = (
    ("core", "Core", "How much of the stream, and of the model's predictions, is kept?"),
    ("probing", "Sparse probing", "Is a concept in few latents?"),
    ("absorption", "Absorption", "Do latents of a concept miss what more special ones take over?"),
    ("tpp", "Targeted probe perturbation", "Do few latents of a class matter to it alone?"),
    ("scr", "Spurious correlation removal", "Do few latents carry what should not count?"),
    ("autointerp", "Automated interpretation", "Does an explanation say where a latent fires?"),
    ("disentangling", "Disentangling", "Can one attribute be changed without the others?"),
    ("benchmarks", "General benchmarks", "What is left of the model's abilities?"),
)
_OF: Final = {
    "core": ("loss", "kl", "ce_recovered", "kl_recovered", "fvu", "l0", "dead_share"),
    "probing": ("probe_accuracy", "probe_auc"),
    "absorption": ("absorption_full", "absorption_fraction", "absorption_splits"),
    "tpp": ("tpp",),
    "scr": ("scr",),
    "autointerp": ("detection", "fuzzing"),
    "disentangling": ("cause", "isolation", "disentangling"),
    "benchmarks": ("benchmark",),
}
# Topics of numbers that are means over sets or attributes.
MEANS: Final = ("all sets", "all attributes")


def section_of(estimate: Estimate) -> str:
    """Which evaluation a number is of."""
    measure = estimate.key.about or estimate.measure
    name = measure.removeprefix("evaluate.")
    return next((key for key, measures in _OF.items() if name in measures), "core")
