"""Definitions of the numbers that `lorascope check` gives in seconds."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results.null_names import (
    ADAPTER,
    BASE_MODEL,
    ORDINARY,
    RANDOM_FACTORS,
    ROUNDED_BASE,
)

_FACTORS = (
    "random factors: B · A with independent Gaussian entries of the same shapes; level and 95 % "
    "range of one more draw, from 20 to 64 draws of each shape"
)
_EXACT = "the value alone: every module is read, nothing is sampled"
_FILE = "checking/numbers.py"
_ANY = "random factors of the same shapes, of factor norms like these, give such a number"
_NULLS = (
    "null adapters (random updates of the adapter's own singular values, 20 or more) and the base "
    "model; p is the adapter's rank among the null adapters, (1 + those as far out) / (1 + all)"
)

DEFINITIONS: dict[str, Definition] = {
    "check.norm": Definition(
        "Update norm beside its factors'",
        "weight units",
        "‖scale · B · A‖_F (PEFT's scale; of DoRA without the magnitude); of several modules "
        "√(Σ ‖ · ‖²)",
        f"{_FACTORS}, each of the norms that B and A have",
        _EXACT,
        _FILE,
        rivals=(RANDOM_FACTORS,),
        rival=_ANY,
    ),
    "check.effective_rank": Definition(
        "Effective rank of the update, all modules read",
        "dimensions",
        "exp(−Σ p_i log p_i), p_i = σ_i / Σ σ_j over the singular values of B · A; mean over "
        "modules whose update is not zero",
        _FACTORS,
        _EXACT,
        _FILE,
        "Roy & Vetterli 2007",
        apart="below",
        rivals=(RANDOM_FACTORS,),
        rival=_ANY,
    ),
    "check.stable_rank": Definition(
        "Stable rank of the update",
        "dimensions",
        "‖B · A‖_F² / σ_1²; mean over modules whose update is not zero",
        _FACTORS,
        _EXACT,
        _FILE,
        apart="below",
        rivals=(RANDOM_FACTORS,),
        rival=_ANY,
    ),
    "check.outlier": Definition(
        "Largest norm score of a kind",
        "deviations",
        "max |z_i| over the modules of one kind (paths that differ in numbers alone), z_i = "
        "(log ‖ΔW_i‖ − median) / (1.4826 · MAD); five modules or more",
        "random factors of one shape and size, whose log norms are independent and normal: mean "
        "and 2.5 to 97.5 % of 4,999 draws; p is the rank among them",
        _EXACT,
        _FILE,
        apart="above",
        rivals=(RANDOM_FACTORS,),
        rival="the largest of so many equal modules is as far out",
    ),
    "check.kl": Definition(
        "KL on a handful of texts",
        "nats/token",
        "mean over tokens of KL(adapted ‖ base)",
        _NULLS,
        "jackknife over documents, of eight or more",
        "checking/effect.py",
        apart="above",
        rivals=(ADAPTER, BASE_MODEL),
        rival="any change of the weights of this size moves the model so",
        sampled="tokens",
    ),
    "check.loss": Definition(
        "Loss on a handful of texts",
        "nats/token",
        "mean over tokens of −log p of the token that came, adapted minus base",
        _NULLS,
        "jackknife over documents, of eight or more",
        "checking/effect.py",
        rivals=(ADAPTER, BASE_MODEL),
        rival="nothing was learned; any change of this size moves the loss so",
        sampled="tokens",
    ),
    "check.rounded": Definition(
        "Cost of rounding the merged model",
        "nats/token",
        "mean over tokens of KL(rounded ‖ adapted), adapted as it is, rounded: merged, and the "
        "linear maps of the blocks rounded to bfloat16, to eight bits with a scale for each row, "
        "or to four with one for every 32 weights",
        f"{ROUNDED_BASE}: KL(rounded base ‖ base) on the same texts",
        "jackknife over documents, of eight or more; of the difference in pairs",
        "checking/effect.py",
        apart="below",
        rivals=(ROUNDED_BASE,),
        rival="rounding costs any model so much",
        sampled="tokens",
    ),
    "check.ordinary": Definition(
        "Beside ordinary adapters",
        "ratio",
        "norm over that of random factors; effective and stable rank over the rank, means over "
        "modules; largest norm over the modules' root mean square",
        f"{ORDINARY}: those that come with the package, or --reference; mean and 2.5 to 97.5 % of "
        "them; p is twice the adapter's rank among them",
        _EXACT,
        "checking/reference.py",
    ),
}
