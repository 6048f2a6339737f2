"""Which nulls are rivals of which number, declared before anything is measured.

A rival is an explanation of a number by which the adapter learned nothing, put through everything
the number goes through. A verdict must leave every rival; all other nulls are references.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lorascope.results.null_names import (
    ADAPTER,
    BASE_COVARIANCE,
    BASE_MODEL,
    GAUSSIAN,
    MIRRORED,
    NO_DIFFERENCE,
    RANDOM_FACTORS,
    RANDOM_UPDATE,
    ROTATED,
    SHIFTED,
)

# What stands for a rival in a definition's words, where its own text does not say.
_MADE: Final = {
    BASE_MODEL: "the same tokens with the adapter off",
    ADAPTER: "random updates of the adapter's own sizes, through everything it goes through",
    GAUSSIAN: "a dictionary trained on Gaussian rows with the delta's mean and covariance",
}


@dataclass(frozen=True)
class Rivals:
    """Rivals of some numbers.

    Attributes:
        nulls: their names.
        explanation: what they say of the number, in words.
    """

    nulls: tuple[str, ...]
    explanation: str

    def before(self, references: str) -> str:
        """Chance levels in words, rivals first: one of them is the headline null.

        Args:
            references: the others, or a text that names the rivals itself.
        """
        if not all(name in _MADE for name in self.nulls) or not self.nulls:
            return references
        told = " or ".join(f"{name} ({_MADE[name]})" for name in self.nulls)
        hardest = ", whichever is harder to leave" if len(self.nulls) > 1 else ""
        beside = f". References: {references}" if references else ""
        return f"{told}{hardest}{beside}"


_RANDOM_CHANGE: Final = Rivals(
    (ADAPTER,), "any change of the weights of this size moves the model so"
)
_FEATURELESS: Final = Rivals(
    (ADAPTER, GAUSSIAN),
    "any change of this size gives such directions; so does training on rows without features",
)
_RECOVERED: Final = Rivals(
    (ADAPTER, GAUSSIAN),
    "as much of any change of this size returns; so it does through a dictionary without features",
)

_LEARNED: Final = Rivals(
    (BASE_MODEL, ADAPTER),
    "nothing was learned (the base, on the same texts); any change of this size moves the loss so",
)
_WRITTEN: Final = Rivals(
    (ADAPTER,), "any change of the weights of this size writes directions that lie so"
)
_PLACED: Final = Rivals(
    (RANDOM_UPDATE,), "any update of the same singular values has such directions"
)

_UNRELATED: Final = Rivals(
    (SHIFTED,), "the deltas of unrelated tokens are as much alike, by what every token shares"
)
_ANY_SPACE: Final = Rivals(
    (BASE_COVARIANCE,), "any directions drawn with the base stream's covariance lie so"
)
_TURNED: Final = Rivals((ROTATED,), "any as many directions write as much of the delta")
_BY_SEEDS: Final = Rivals((NO_DIFFERENCE,), "seeds of one condition differ as much")
_DECOYS: Final = Rivals((MIRRORED,), "as many latents seem one-sided by chance")

_RANDOM_SPECTRUM: Final = Rivals(
    (RANDOM_FACTORS,), "random factors of this size spread their energy so"
)

# By the first part of a measure's name, and by whole names where that is too coarse.
_FAMILIES: Final = {
    "response_loss": _LEARNED,
    "reading": _RANDOM_CHANGE,
    "output_change": _RANDOM_CHANGE,
    "delta_rank": _RANDOM_CHANGE,
    "relative_error": _RANDOM_CHANGE,
    "improvement": _RANDOM_CHANGE,
    "density": _RANDOM_CHANGE,
    "dead_share": _RANDOM_CHANGE,
    "overlap": _RANDOM_CHANGE,
    "weakly_aligned": _RANDOM_CHANGE,
    "cka": _RANDOM_CHANGE,
    "cka_debiased": _RANDOM_CHANGE,
    "max_cosine": _FEATURELESS,
    "angle": _FEATURELESS,
    "pursuit": _FEATURELESS,
    "pca": _RANDOM_CHANGE,
    "recovery": _RECOVERED,
    "weights.effective_rank": _RANDOM_SPECTRUM,
    "weights.participation": _RANDOM_SPECTRUM,
    "compare.cosine": _UNRELATED,
    "compare.norm_correlation": _UNRELATED,
    "compare.difference": _UNRELATED,
    "compare.subspace_angle": _ANY_SPACE,
    "compare.subspace_variance": _ANY_SPACE,
    "compare.energy": _TURNED,
    "compare.energy_share": _TURNED,
    "compare.only_here": _DECOYS,
    "variance": _BY_SEEDS,
    "weights.written_cosine": _WRITTEN,
    "weights.intruders": _PLACED,
    "weights.alignment.left": _PLACED,
    "weights.alignment.right": _PLACED,
}
_NONE: Final = Rivals((), "")


def rivals_of(measure: str) -> Rivals:
    """The rivals of a number; none where its definition names its own or has no rival."""
    return _FAMILIES.get(measure, _FAMILIES.get(measure.partition(".")[0], _NONE))
