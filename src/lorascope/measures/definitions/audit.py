"""Definitions of the numbers of activations and dictionaries."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_DOCUMENTS = "jackknife over documents, t quantiles; none for fewer than 8"
_LATENTS = "t interval over clusters of near-copies among the latents"
_SHARE = "Wilson interval over latents"
_ANGLES = "delete-one-group jackknife over latents (10 groups)"
_TRAINED = (
    "trained on Gaussian-matched deltas (Gaussian rows with the delta's mean and covariance), "
    "row-shuffled deltas (each dimension shuffled on its own) and dimension-permuted deltas (the "
    "dimensions in another order)"
)
_COSINE_NULLS = (
    "covariance-matched (directions drawn from a Gaussian with the delta's covariance); "
    "base covariance-matched; isotropic; rotated (the same directions under a random rotation); "
    f"directions of dictionaries {_TRAINED}. "
    "Seed pairs: two base dictionaries and two delta dictionaries of different seeds"
)
_ANGLE_NULLS = (
    "covariance-matched (subspace of as many directions drawn with the delta's covariance); "
    "base covariance-matched; isotropic (two random subspaces); subspaces of dictionaries "
    f"{_TRAINED}. The same seed pairs as for the cosine"
)
_CKA_NULLS = "rows shifted (the second set's rows moved round by a random offset)"

DEFINITIONS: dict[str, Definition] = {
    "response_loss": Definition(
        "Held-out response loss",
        "nats/token",
        "mean over response tokens of held-out records of −log p(token | prompt, earlier tokens)",
        "",
        _DOCUMENTS,
        "measures/behaviour.py",
        "table 2",
        apart="below",
    ),
    "delta_norm": Definition(
        "Delta norm",
        "stream units",
        "mean over kept tokens of ‖h_Δ‖₂, h_Δ = h_adapted − h_base in float32",
        "numeric noise floor: mean norm of the difference between two runs of the same model "
        "batched differently",
        _DOCUMENTS,
        "measures/norms.py",
        "table 4",
        apart="above",
    ),
    "delta_norm.relative": Definition(
        "Delta norm, relative",
        "ratio",
        "mean ‖h_Δ‖₂ / mean ‖h_base‖₂ over the same kept tokens",
        "numeric noise floor over mean ‖h_base‖₂",
        _DOCUMENTS,
        "measures/norms.py",
        apart="above",
    ),
    "delta_rank": Definition(
        "Effective rank of the delta",
        "dimensions",
        "exp(−Σ p_i log p_i), p_i the delta covariance's eigenvalues over their sum",
        "isotropic: as many Gaussian rows with equal variance in every dimension",
        "delete-one-group jackknife over documents (10 groups)",
        "measures/norms.py",
        apart="below",
    ),
    "relative_error": Definition(
        "Relative error",
        "ratio",
        "mean over held-out tokens of ‖h_Δ − ĥ_Δ‖₂ / ‖h_Δ‖₂; "
        "dictionary 'base difference' reconstructs h_Δ as G(h_adapted) − G(h_base)",
        "norm-matched random vectors through the same dictionary; zero predictor (1); "
        f"mean of the training deltas; decoder bias alone; for D: dictionaries {_TRAINED}",
        _DOCUMENTS,
        "measures/reconstruction.py",
        "tables 5 and 6",
        apart="below",
    ),
    "relative_error.frobenius": Definition(
        "Relative error, Frobenius",
        "ratio",
        "√(Σ‖h_Δ − ĥ_Δ‖²) / √(Σ‖h_Δ‖²) over held-out tokens",
        "as for the relative error",
        _DOCUMENTS,
        "measures/reconstruction.py",
        apart="below",
    ),
    "improvement": Definition(
        "Improvement",
        "share",
        "(ε_G − ε_D) / ε_G on held-out tokens, ε the relative error of base dictionary G and "
        "delta dictionary D",
        f"D {_TRAINED}; rotated: D under a random rotation",
        _DOCUMENTS,
        "measures/reconstruction.py",
        "table 7",
        apart="above",
        margin=0.02,
    ),
    "overlap": Definition(
        "Overlap",
        "share",
        "mean over the first 8,192 held-out tokens of |active(G, h_Δ) ∩ active(G, h_base)| / "
        "|active(G, h_Δ)|, tokens with no active latent left out",
        "independence: the mean over tokens of the share expected if each latent fired on h_base "
        "independently of h_Δ; rows shifted (h_base of another document, moved round by a random "
        "offset)",
        _DOCUMENTS,
        "measures/overlap.py",
        "table 8",
        apart="above",
    ),
    "weakly_aligned": Definition(
        "Weakly aligned share",
        "share",
        "1 − overlap",
        "1 − each chance level of overlap",
        _DOCUMENTS,
        "measures/overlap.py",
        "table 8",
        apart="below",
    ),
    "density": Definition(
        "Density",
        "latents/token",
        "mean over kept tokens of the number of active latents",
        "norm-matched random vectors through the same dictionary",
        _DOCUMENTS,
        "measures/firing.py",
        "figure 4",
    ),
    "dead_share": Definition(
        "Dead latents",
        "share",
        "share of latents active on none of the first 4,096 held-out tokens",
        "as many norm-matched random vectors through the same dictionary",
        _SHARE,
        "measures/firing.py",
        "",
    ),
    "max_cosine.mean": Definition(
        "Max cosine, mean",
        "cosine",
        "mean over alive latents i of s_i = max_j cos(d_i, g_j), decoder directions d of the "
        "first and g of the second dictionary",
        _COSINE_NULLS,
        _LATENTS,
        "measures/alignment.py",
        "equation 8, table 9",
        apart="above",
    ),
    "max_cosine.median": Definition(
        "Max cosine, median",
        "cosine",
        "median over alive latents of s_i",
        _COSINE_NULLS,
        "order statistics, as many as the clusters of latents are worth",
        "measures/alignment.py",
        "table 9",
        apart="above",
    ),
    "max_cosine.q90": Definition(
        "Max cosine, 90th percentile",
        "cosine",
        "90th percentile over alive latents of s_i",
        _COSINE_NULLS,
        "order statistics, as many as the clusters of latents are worth",
        "measures/alignment.py",
        "table 9",
        apart="above",
    ),
    "max_cosine.above_0.7": Definition(
        "Max cosine above 0.7",
        "share",
        "share of alive latents with s_i > 0.7",
        _COSINE_NULLS,
        _SHARE,
        "measures/alignment.py",
        "table 9",
        apart="above",
    ),
    "max_cosine.below_0.3": Definition(
        "Max cosine below 0.3",
        "share",
        "share of alive latents with s_i < 0.3",
        _COSINE_NULLS,
        _SHARE,
        "measures/alignment.py",
        "table 9",
        apart="below",
    ),
    "angle.mean": Definition(
        "Principal angle, mean",
        "degrees",
        "mean of the k angles θ_i, cos θ_i = σ_i(Q_1ᵀ Q_2), Q the top-k right singular vectors of "
        "each dictionary's unit-norm directions",
        _ANGLE_NULLS,
        _ANGLES,
        "measures/alignment.py",
        "equation 9, table 10",
        apart="below",
    ),
    "angle.min": Definition(
        "Principal angle, smallest",
        "degrees",
        "min_i θ_i",
        _ANGLE_NULLS,
        _ANGLES,
        "measures/alignment.py",
        "table 10",
        apart="below",
    ),
    "angle.above_70": Definition(
        "Angles above 70°",
        "share",
        "share of the k angles above 70°",
        _ANGLE_NULLS,
        _ANGLES,
        "measures/alignment.py",
        "table 10",
        apart="below",
    ),
    "angle.below_20": Definition(
        "Angles below 20°",
        "share",
        "share of the k angles below 20°",
        _ANGLE_NULLS,
        _ANGLES,
        "measures/alignment.py",
        "table 10",
        apart="above",
    ),
}

_CKA_PLAIN = "‖Y_cᵀX_c‖_F² / (‖X_cᵀX_c‖_F ‖Y_cᵀY_c‖_F), rows centred; biased upwards for few rows"
_CKA_DEBIASED = (
    "the same with an unbiased estimator of HSIC in each of the three places, from pairs of rows "
    "of different groups of documents"
)
_CKA_PAIRS = {
    "base_delta": ("base, delta", "X = h_base, Y = h_Δ"),
    "base_adapted": ("base, adapted", "X = h_base, Y = h_adapted"),
}
for _pair, (_words, _where) in _CKA_PAIRS.items():
    for _key, _title, _formula in (
        ("cka", "CKA", _CKA_PLAIN),
        ("cka_debiased", "Debiased CKA", _CKA_DEBIASED),
    ):
        DEFINITIONS[f"{_key}.{_pair}"] = Definition(
            f"{_title} ({_words})",
            "CKA",
            f"{_formula}; {_where}",
            _CKA_NULLS,
            "delete-one-group jackknife over documents (10 groups)",
            "measures/cka.py",
            "equation 5, table 11",
            "above",
        )
