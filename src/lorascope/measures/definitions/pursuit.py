"""Definitions of what a few directions at a time can express."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_PURSUIT = (
    "x̂ = α b_D + Σ_{i∈S} z_i d_i with |S| ≤ k and α, z ≥ 0: directions chosen one by one by their "
    "largest positive product with what is left of h_Δ, all coefficients fitted anew by "
    "non-negative least squares after each (orthogonal matching pursuit), d the directions of the "
    "dictionary, b_D the delta dictionary's bias; k the mean L0 on h_Δ, rounded and at most 128, "
    "of the delta dictionary, and of the base dictionary"
)
_PURSUIT_NULLS = (
    "covariance-matched (as many directions drawn from a Gaussian with the delta's covariance, "
    "searched in the same way); isotropic (as many uniform directions); the delta dictionary's "
    "bias alone (k = 0)"
)
_PCA = (
    "x̂ = m + V Vᵀ(h_Δ − m), m the mean and V the k leading eigenvectors of the covariance of the "
    "probe deltas, evaluated on held-out tokens; k as for pursuit"
)
_PCA_NULLS = "random subspace of k dimensions through m; mean of the training deltas (k = 0)"
_RELATIVE = "mean over held-out tokens (at most 1,024) of ‖h_Δ − x̂‖₂ / ‖h_Δ‖₂"
_FVU = "Σ‖h_Δ − x̂‖² / Σ‖h_Δ − h̄_Δ‖² over the same tokens as the relative error, h̄_Δ their mean"
_DOCUMENTS = "jackknife over documents, t quantiles; none for fewer than 8"

DEFINITIONS: dict[str, Definition] = {
    "pursuit.relative_error": Definition(
        "Relative error of k-sparse pursuit",
        "ratio",
        f"{_RELATIVE}, {_PURSUIT}",
        _PURSUIT_NULLS,
        _DOCUMENTS,
        "measures/pursuit.py",
        apart="below",
    ),
    "pursuit.fvu": Definition(
        "FVU of k-sparse pursuit",
        "share",
        f"{_FVU}; x̂ as for the relative error of k-sparse pursuit",
        _PURSUIT_NULLS,
        _DOCUMENTS,
        "measures/pursuit.py",
        apart="below",
    ),
    "pursuit.gap": Definition(
        "Gap to pursuit",
        "ratio",
        "relative error of the dictionary itself less that of k-sparse pursuit on its directions, "
        "on the same tokens, k its own mean L0: what its encoder leaves that its directions could "
        "have expressed",
        "norm-matched random: the same gap on isotropic random vectors with the deltas' norms",
        "jackknife over documents of the difference token by token",
        "measures/pursuit.py",
    ),
    "pca.relative_error": Definition(
        "Relative error of k principal components",
        "ratio",
        f"{_RELATIVE}, {_PCA}",
        _PCA_NULLS,
        _DOCUMENTS,
        "measures/pursuit.py",
        apart="below",
    ),
    "pca.fvu": Definition(
        "FVU of k principal components",
        "share",
        f"{_FVU}; x̂ as for the relative error of k principal components",
        _PCA_NULLS,
        _DOCUMENTS,
        "measures/pursuit.py",
        apart="below",
    ),
}
