"""Definitions of the numbers that say how alike the updates of two adapters are."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results.null_names import ADAPTER, OTHER_SEED

_DRAWS = (
    "mean and 95 % range of one more draw, from 20 or more: each adapter of the pair against null "
    "adapters of the other; p is the pair's rank among them. Beside it, where adapters are said to "
    f"be taught alike: {OTHER_SEED}"
)
_NULLS = f"{ADAPTER}: random updates of the same modules, shapes and singular values; {_DRAWS}"
_SPACES = f"{ADAPTER}: uniformly random subspaces of the same dimensions; {_DRAWS}"
_EXACT = "the value alone: the weights are read, nothing is sampled"
_FILE = "resembling/resemble.py"
_ANY = "any two updates of these sizes are as alike"

DEFINITIONS: dict[str, Definition] = {
    "resemble.function": Definition(
        "Similarity of two updates, over inputs",
        "cosine",
        "g_ij / √(g_ii g_jj), g_ij = Σ_modules Σ_tokens ⟨ΔW_i x, ΔW_j x⟩ over the inputs x that "
        "the base gives each module on the probe texts, special tokens left out",
        _NULLS,
        "delete-one jackknife over documents",
        _FILE,
        apart="above",
        rivals=(ADAPTER,),
        rival=_ANY,
        sampled="documents",
    ),
    "resemble.weights": Definition(
        "Similarity of two updates, as matrices",
        "cosine",
        "Σ_modules ⟨ΔW_i, ΔW_j⟩_F / (‖ΔW_i‖ ‖ΔW_j‖), from r × r cores",
        _NULLS,
        _EXACT,
        _FILE,
        apart="above",
        rivals=(ADAPTER,),
        rival=_ANY,
    ),
    "resemble.written": Definition(
        "Overlap of what two updates write",
        "share",
        "‖Q_iᵀ Q_j‖_F² / min(r_i, r_j), Q orthonormal columns that span the columns of ΔW; mean "
        "over modules that both change",
        _SPACES,
        _EXACT,
        _FILE,
        apart="above",
        rivals=(ADAPTER,),
        rival=_ANY,
    ),
    "resemble.read": Definition(
        "Overlap of what two updates read",
        "share",
        "the same of the rows of ΔW",
        _SPACES,
        _EXACT,
        _FILE,
        apart="above",
        rivals=(ADAPTER,),
        rival=_ANY,
    ),
}
