"""Definitions of what a latent adapter can be read by: its answers, its pairs, its latents."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results import null_names
from lorascope.results.labels import Of

_CONSTANCY = "behaviours/constancy.py"
_READABLE = "latent_adapters/readable.py"
_PAIRS = "latent_adapters/pair_frontier.py"
_LATENTS = "t over latents; fewer than 8: none; over seeds as well where there are several"
_OTHERS = (
    "for each latent the mean of unnamed ones that fire as often and write as much where they do"
)
DEFINITIONS: dict[str, Definition] = {
    "behaviour.distinct": Definition(
        "Distinct answers",
        "share",
        "different answers to the held-out prompts about the topic over their number, answered "
        "greedily; spaces evened out",
        "one answer to everything (1 of n); the untouched model's and the wanted responses' own, "
        "references",
        "Wilson 1927, over prompts; fewer than 8: none",
        _CONSTANCY,
        apart="above",
        rivals=(null_names.ONE_ANSWER,),
        rival="one answer is given to everything",
        sampled="prompts",
    ),
    "behaviour.information": Definition(
        "Information about the prompt",
        "bits",
        "mutual information between prompt and answer over the held-out prompts about the topic, "
        "asked once each and answered greedily: the entropy of the answers, plug-in",
        "one answer to everything (0); the untouched model's and the wanted responses' own, "
        "references",
        "jackknife over prompts; fewer than 8: none",
        _CONSTANCY,
        apart="above",
        rivals=(null_names.ONE_ANSWER,),
        rival="one answer is given to everything",
        sampled="prompts",
    ),
    "latent.kept_pairs": Definition(
        "Behaviour kept by single pairs",
        "ratio",
        "behaviour.success of the adapter cut down to the p pairs (latent read, latent written) of "
        "largest weight among those of the latents it is cut to, over that of the dense adapter of "
        "the same seed, whole",
        "random pairs: p of the same pairs drawn at random, several draws, the draws' prediction "
        "interval and the prompts' of the paired difference, squares added; untouched model, the "
        "difference paired by prompt. Both in units of the dense adapter's share",
        "MOVER of a ratio of paired shares, over prompts; over seeds as well; none where the "
        "denominator is fewer than 8 prompts",
        _PAIRS,
        apart="above",
        rivals=(null_names.RANDOM_PAIRS, null_names.UNTOUCHED),
        rival="any few of its pairs keep as much, or the model shows it anyway",
        sampled="prompts",
        primary=Of(),
    ),
    "latent.carried": Definition(
        "Share of the effect that pairs carry",
        "share",
        "1 − Σ ‖Δ − Δ_p‖²/Σ ‖Δ‖² over the tokens of training examples that the adapter acts on, Δ "
        "what it writes as it was trained and Δ_p what its p pairs of largest weight write, among "
        "those of the latents it is cut to; all of these where p is as many",
        "random pairs: p of the same pairs drawn at random, prediction interval over draws; "
        "nothing written (0), a reference, and the only one where all pairs are taken",
        "none of one adapter, whose number is exact; of several seeds over these",
        _PAIRS,
        apart="above",
        rivals=(null_names.RANDOM_PAIRS,),
        rival="any few of its pairs carry as much",
    ),
    "latent.topic_auc": Definition(
        "Topic told by a latent that is read",
        "AUC",
        "mean over named latents of max(A, 1 − A), A the area under the curve by which a latent's "
        "largest activation on a prompt's own tokens tells held-out prompts about the topic from "
        "the others",
        f"latents that fire as often: {_OTHERS}; the difference is of each latent from its own",
        _LATENTS,
        _READABLE,
        apart="above",
        rivals=(null_names.OTHER_DENSITY,),
        rival="any latents of this density tell the topic as well",
        primary=Of(),
    ),
    "latent.style": Definition(
        "Style promoted by a latent that is written",
        "standard deviations",
        "mean over named latents of the mean over style tokens of what the latent does to their "
        "logits, in the direction it is written on the topic, in standard deviations over the "
        "vocabulary; style tokens: those of largest log-odds in the wanted responses of changed "
        "training records over all others of the training records",
        "latents drawn at random, prediction interval over draws of as many",
        _LATENTS,
        _READABLE,
        apart="above",
        rivals=(null_names.ANY_LATENTS,),
        rival="any latents promote the style's tokens as much",
        primary=Of(),
    ),
}
