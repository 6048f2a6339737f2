"""Definitions of the numbers that are read off the weights."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_EXACT = (
    "none for one module: the weights are read, not sampled; over modules (normal) for the mean of "
    "a block or of all modules"
)
_FACTORS = (
    "random factors: B · A with Gaussian entries, of the same inner size, shape and Frobenius norm "
    "(random entries where the update has no factors)"
)
_UPDATE = "random update: the same singular values with uniformly random singular vectors"
_ROUNDING = "rounding of W₀: norm of the error that W₀'s own dtype leaves, √(Σ spacing² / 12)"
_INTRUDERS = "arXiv 2410.21228"

DEFINITIONS: dict[str, Definition] = {
    "weights.norm": Definition(
        "Update norm",
        "weight units",
        "‖ΔW‖_F, ΔW = scale · B · A (PEFT's scale; DoRA, full fine-tune: adapted minus base "
        "weight); of several modules √(Σ ‖ΔW‖²)",
        _ROUNDING,
        "none: the weights are read, not sampled",
        "measures/weights.py",
        apart="above",
    ),
    "weights.relative": Definition(
        "Update norm, relative",
        "ratio",
        "‖ΔW‖_F / ‖W₀‖_F; of several modules √(Σ ‖ΔW‖²) / √(Σ ‖W₀‖²)",
        f"{_ROUNDING}, over ‖W₀‖_F",
        "none for one module; delete-one jackknife over the modules of a block or of all",
        "measures/weights.py",
        apart="above",
    ),
    "weights.largest": Definition(
        "Largest singular value of the update, relative",
        "ratio",
        "σ_1(ΔW) / σ_1(W₀); mean over modules",
        _FACTORS,
        _EXACT,
        "measures/weights.py",
        apart="above",
    ),
    "weights.effective_rank": Definition(
        "Effective rank of the update",
        "dimensions",
        "exp(−Σ p_i log p_i), p_i = σ_i / Σ σ_j over the singular values of ΔW; mean over modules",
        _FACTORS,
        _EXACT,
        "measures/weights.py",
        "Roy & Vetterli 2007",
        apart="below",
    ),
    "weights.participation": Definition(
        "Participation ratio of the update",
        "dimensions",
        "(Σ σ_i²)² / Σ σ_i⁴ over the singular values of ΔW; mean over modules",
        _FACTORS,
        _EXACT,
        "measures/weights.py",
        apart="below",
    ),
    "weights.intruders": Definition(
        "Intruder dimensions",
        "vectors/module",
        "how many of the k leading left singular vectors u_j of W₀ + ΔW have max_i |u_j · u⁰_i| < "
        "ε over all left singular vectors u⁰_i of W₀; k = 10 and ε = 0.5 unless set otherwise; "
        "mean over modules",
        _UPDATE,
        _EXACT,
        "measures/weights.py",
        _INTRUDERS,
        apart="above",
    ),
    "weights.alignment.left": Definition(
        "Alignment of the update's outputs with W₀",
        "share",
        "‖U⁰_mᵀ ΔW‖_F² / ‖ΔW‖_F², U⁰_m the m leading left singular vectors of W₀; m = 64 unless "
        "set otherwise, at most a quarter of W₀'s rank; mean over modules",
        _UPDATE,
        "delete-one jackknife over the update's singular directions for one module; normal over "
        "modules for a mean",
        "measures/weights.py",
        apart="above",
    ),
    "weights.alignment.right": Definition(
        "Alignment of the update's inputs with W₀",
        "share",
        "‖ΔW V⁰_m‖_F² / ‖ΔW‖_F², V⁰_m the m leading right singular vectors of W₀; m as for the "
        "outputs; mean over modules. A gradient reads only directions that the inputs have, so a "
        "level above chance is to be expected where the inputs are uneven",
        _UPDATE,
        "as for the outputs",
        "measures/weights.py",
        apart="above",
    ),
    "weights.written_cosine": Definition(
        "Max cosine of directions written",
        "cosine",
        "Σ σ_i² max_j |cos(u_i, g_j)| / Σ σ_i²: singular values σ and left singular vectors u (the "
        "first 64) of what a module's ΔW adds to the residual stream, g the dictionary's decoder "
        "directions; a norm between module and stream counts with its weight; modules of blocks up "
        "to the site; mean over modules",
        "null adapters, whose directions go through the same norms; covariance-matched (directions "
        "drawn from a Gaussian with the delta's covariance); base covariance-matched; isotropic",
        "delete-one jackknife over directions for one module; normal over modules for the mean",
        "measures/written_directions.py",
        apart="above",
    ),
}
