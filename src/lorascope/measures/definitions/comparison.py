"""Definitions of what two adapters of one base model did differently."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_DOCUMENTS = "jackknife over documents, t quantiles; none for fewer than 8"
_SHIFTED = (
    "rows shifted (the second adapter's rows moved round by a random offset of at least the "
    "longest document); norm-matched random (isotropic vectors with the second delta's norms)"
)
_SUBSPACES = (
    "base covariance-matched (span of k Gaussian vectors with the base stream's covariance); "
    "isotropic (random k-dimensional subspace). Upper reference: the first adapter's delta on "
    "every other document against the rest"
)
_RECONSTRUCTED = (
    "rotated (the dictionary turned at random with what it reads and writes); zero predictor (0)"
)
_MEASURED = "measures/comparison.py"
_LATENTS = "measures/exclusive_latents.py"

DEFINITIONS: dict[str, Definition] = {
    "compare.cosine": Definition(
        "Cosine of two deltas",
        "cosine",
        "mean over tokens of cos(h_Δ of the first adapter, h_Δ of the second)",
        _SHIFTED,
        _DOCUMENTS,
        _MEASURED,
        apart="above",
    ),
    "compare.norm_correlation": Definition(
        "Correlation of two deltas' norms",
        "correlation",
        "Pearson's r over tokens of ‖h_Δ‖₂ under the first adapter and under the second",
        "rows shifted (the second adapter's rows moved round by a random offset of at least the "
        "longest document)",
        _DOCUMENTS,
        _MEASURED,
        apart="above",
    ),
    "compare.difference": Definition(
        "Difference of two deltas",
        "ratio",
        "Σ‖h_Δ − h_Δ′‖₂ / Σ ½(‖h_Δ‖₂ + ‖h_Δ′‖₂) over tokens, h_Δ′ the second adapter's delta",
        _SHIFTED,
        _DOCUMENTS,
        _MEASURED,
        apart="below",
    ),
    "compare.energy": Definition(
        "Energy a dictionary reconstructs",
        "share",
        "1 − Σ‖h_Δ − D(h_Δ)‖² / Σ‖h_Δ‖² over tokens of one adapter's delta, D its own delta "
        "dictionary or the other adapter's",
        _RECONSTRUCTED,
        _DOCUMENTS,
        _MEASURED,
        apart="above",
    ),
    "compare.energy_share": Definition(
        "Energy the other's dictionary reconstructs, of what its own does",
        "ratio",
        "energy of one adapter's delta that the other's delta dictionary reconstructs / energy "
        "that its own reconstructs",
        "rotated (the other's dictionary turned at random); zero predictor (0)",
        _DOCUMENTS,
        _MEASURED,
        apart="above",
    ),
    "compare.subspace_angle": Definition(
        "Principal angle of two deltas",
        "degrees",
        "mean of the k principal angles between the spans of the k leading eigenvectors of the two "
        "deltas' covariances",
        _SUBSPACES,
        "delete-one-group jackknife over documents (10 groups)",
        _MEASURED,
        apart="below",
    ),
    "compare.subspace_variance": Definition(
        "Variance within the other's subspace",
        "share",
        "tr(QᵀCQ)/tr(C), C the covariance of one adapter's delta and Q the k leading eigenvectors "
        "of the other's",
        _SUBSPACES,
        "delete-one-group jackknife over documents (10 groups)",
        _MEASURED,
        apart="above",
    ),
    "compare.only_here": Definition(
        "Latents active in one only",
        "share",
        "share of the findings of an adapter's delta dictionaries (a latent that fires in ten "
        "documents or more; latents with a |cosine| of 0.9 or more are one finding; dictionaries "
        "of all seeds together) listed as active under it alone. The other's delta is first "
        "multiplied by exp(mean log(‖h_Δ‖/‖h_Δ′‖)) over tokens, so that both are as strong. "
        "One-sided is a latent whose energy, the mean of z²‖d‖² over tokens, is on the other's "
        "delta less than a fifth of that on its own; its excess is the mean of log(‖h_Δ‖/‖h_Δ′‖) "
        "less its mean over all tokens, tokens weighted by z². Listed are the one-sided findings "
        "of largest positive excess for as long as (s·max(1, c) + c·m)/l is at most the stated "
        "false discovery rate: l of this adapter's and m of the other's one-sided findings reach "
        "the excess, c is the ratio of their numbers of findings, s the number of seeds. None is "
        "listed where the other adapter has fewer than five one-sided findings",
        "mirrored false discoveries: (s·max(1, c) + c·m)/l of the share listed; 0 where none is",
        "Wilson interval over findings",
        _LATENTS,
        apart="above",
    ),
}
