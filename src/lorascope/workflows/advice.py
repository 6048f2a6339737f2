"""Which setting makes a study cheaper, by the part of it that is the largest."""

from __future__ import annotations

_DICTIONARIES = "dictionaries.architecture.n_latents, dictionaries.fitting.epochs"

# {part of a plan: (settings that lower its time, settings that lower its memory)}
_LOWER: dict[str, tuple[str, str]] = {
    # audits
    "adapter training": ("train.training.steps", "train.training.batch, train.training.context"),
    "capture": (
        "texts.documents, controls.null_adapters",
        "capture.batch_tokens, dtype=bfloat16",
    ),
    "sanity checks": (
        "texts.documents, controls.null_adapters",
        "capture.batch_tokens, dtype=bfloat16",
    ),
    "first look": ("measures.samples", "dtype=bfloat16"),
    "matching": ("controls.null_adapters, controls.match=spectrum", "capture.batch_tokens"),
    "reading": ("reading=null, reading.nulls", "dtype=bfloat16"),
    "dictionary training": (
        f"{_DICTIONARIES}, controls.null_adapters, controls.gaussian_dictionaries",
        "dictionaries.architecture.n_latents, dictionaries.seeds",
    ),
    "measures": ("measures.repeats, measures.rows", "measures.rows"),
    "pursuit": ("measures.pursuit=false", "measures.rows"),
    "effects": (
        "measures.effect_tokens, measures.latents, controls.null_adapters",
        "capture.batch_tokens, dtype=bfloat16",
    ),
    "weights": ("measures.weights=false", "measures.weights=false"),
    # adapt
    "fits": ("fit.tokens, the experiments' seeds and ranks", "fit.batch, context"),
    "times": ("experiments.times=null", "fit.batch, context"),
    # latent
    "dictionary": ("train_dictionary.documents", "train_dictionary.architecture.n_latents"),
    "latent adapters": ("training.steps, the adapters", "training.batch, context"),
    "LoRA": ("training.steps", "training.batch, context"),
    "answers": ("measures.prompts, measures.new_tokens", "dtype=bfloat16"),
    "ablation": ("measures.latents, measures.alternatives", "dtype=bfloat16"),
}
_OTHERWISE = ("a smaller model, fewer texts", "a smaller model, dtype=bfloat16")


def lowers_time(part: str) -> str:
    """Settings that lower the time of a part, the most effective first."""
    return _LOWER.get(part, _OTHERWISE)[0]


def lowers_memory(part: str) -> str:
    """Settings that lower the memory of a part."""
    return _LOWER.get(part, _OTHERWISE)[1]
