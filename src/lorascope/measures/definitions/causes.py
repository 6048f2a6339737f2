"""Definitions of the causal numbers: functional recovery, and single latents removed or added."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results.null_names import MATCHED

_DOCUMENTS = "jackknife over documents, t quantiles; none for fewer than 8"
_LATENTS = "jackknife over latents"
_WINDOWS = (
    "over scored tokens of the first held-out documents of at most 8,192 tokens: response tokens, "
    "or all tokens where texts have no responses, predicted at tokens that are no special tokens"
)
_CONTROLS = (
    "the control with the highest upper bound stands first. Rotated at equal L0 (the same "
    "dictionary under a random rotation, with no more active latents on any token than it has "
    "itself; the largest stay); mean of the training deltas; decoder bias alone; deltas of other "
    "documents; norm-matched random vectors; nothing (0). Their intervals: the wider of "
    "documents and of the draws' prediction interval. Reference: the exact delta, the "
    "ceiling at the site, below 1 where the adapter changes later blocks too"
)
_SPLICED = (
    "spliced: the base with D(h_Δ) added to its stream at the site (dictionary 'base difference': "
    "G(h_adapted) − G(h_base)); special tokens and attention sinks keep the base's stream"
)
_UNMOVED = "vocabulary's mean: 0, as the change is taken beside it"
_PERMUTED = "latents permuted: attributed and observed changes paired at random, 1,000 times"
_ABLATED = "z_j d_j taken from the adapted model's stream at the site"
_ADDED = "z_j d_j added to the base's stream at the site, z from h_Δ"
_TOKENS = "over scored tokens of the first held-out documents of at most 2,048 tokens"
_PROMOTED_BY = (
    "of the 10 tokens that z_j d_j promotes most through the base's final norm and output matrix "
    "alone; mean over scored tokens where the latent is active (64 a batch at most)"
)

_EXCHANGED = (
    "exchange: one of each latent's own set (itself and its matched ones) in every latent's place"
)
_MATCHED = (
    "matched latents: the 40 other latents nearest in log firing rate and log mean strength, each "
    "put through the same intervention; their KL per energy written, times the latent's energy. "
    "All are looked at on three windows at random of those in which they fire. "
    "Each latent's rank among its alternatives gives its p-value, adjusted over the latents "
    "(Benjamini-Hochberg)"
)

DEFINITIONS: dict[str, Definition] = {
    "output_change.loss": Definition(
        "Change of loss",
        "nats/token",
        f"mean of L_adapted − L_base, L = −log p(token | earlier tokens), {_WINDOWS}",
        "numeric noise floor: the same difference between two runs of the base, batched "
        "differently or in finer arithmetic",
        _DOCUMENTS,
        "measures/surveys.py",
    ),
    "output_change.kl": Definition(
        "Change of predictions",
        "nats/token",
        f"mean of KL(adapted ‖ base) of the next token's distribution, {_WINDOWS}",
        "numeric noise floor: KL between two runs of the base, batched differently or in finer "
        "arithmetic; at or below it an adapter's outputs equal the base's",
        _DOCUMENTS,
        "measures/surveys.py",
        apart="above",
    ),
    "output_change.greedy": Definition(
        "Changed greedy choices",
        "share",
        "share of tokens at which the most likely next token of the adapted model is not the "
        f"base's, {_WINDOWS}",
        "numeric noise floor: the same share between two runs of the base, batched differently or "
        "in finer arithmetic; at 0 greedy decoding cannot tell the adapter from the base",
        _DOCUMENTS,
        "measures/surveys.py",
        apart="above",
    ),
    "recovery.loss": Definition(
        "Functional recovery of loss",
        "share",
        f"Σ (L_base − L_spliced) / Σ (L_base − L_adapted), {_SPLICED}; sums {_WINDOWS}; left out "
        "where the interval of the change of loss holds 0",
        _CONTROLS,
        _DOCUMENTS,
        "measures/recovery.py",
        apart="above",
    ),
    "recovery.kl": Definition(
        "Functional recovery of predictions",
        "share",
        f"1 − Σ KL(adapted ‖ spliced) / Σ KL(adapted ‖ base), {_SPLICED}; sums {_WINDOWS}",
        _CONTROLS,
        _DOCUMENTS,
        "measures/recovery.py",
        apart="above",
    ),
    "latent_ablation.kl": Definition(
        "One latent removed: predictions",
        "nats/token",
        f"mean over latents j of KL(adapted ‖ ablated), ablated: {_ABLATED}; mean {_TOKENS}",
        _MATCHED,
        _EXCHANGED,
        "measures/single_latents.py",
        apart="above",
        rivals=(MATCHED,),
        rival="any latent that fires as often and as strongly does as much",
        margin=0.0,
    ),
    "latent_addition.kl": Definition(
        "One latent added: predictions",
        "nats/token",
        f"mean over latents j of KL(base ‖ changed), changed: {_ADDED}; mean {_TOKENS}",
        _MATCHED,
        _EXCHANGED,
        "measures/single_latents.py",
        apart="above",
        margin=0.0,
        rivals=(MATCHED,),
        rival="any latent that fires as often and as strongly does as much",
    ),
    "latent_ablation.promoted": Definition(
        "One latent removed: promoted tokens",
        "logits",
        f"mean over latents j of the change of logit, less the vocabulary's mean, {_PROMOTED_BY}; "
        f"{_ABLATED}",
        _UNMOVED,
        _LATENTS,
        "measures/single_latents.py",
        apart="below",
    ),
    "latent_addition.promoted": Definition(
        "One latent added: promoted tokens",
        "logits",
        f"mean over latents j of the change of logit, less the vocabulary's mean, {_PROMOTED_BY}; "
        f"{_ADDED}",
        _UNMOVED,
        _LATENTS,
        "measures/single_latents.py",
        apart="above",
    ),
}

for _mode, _words, _how in (
    ("ablation", "removed", _ABLATED),
    ("addition", "added", _ADDED),
):
    DEFINITIONS[f"latent_{_mode}.loss_attributed"] = Definition(
        f"One latent {_words}: loss attributed",
        "correlation",
        "Pearson's r over latents between the gradient of the loss times the change of the stream "
        f"and the change of loss observed; {_how}; sums {_TOKENS}",
        _PERMUTED,
        _LATENTS,
        "measures/single_latents.py",
        apart="above",
    )
    DEFINITIONS[f"latent_{_mode}.promoted_attributed"] = Definition(
        f"One latent {_words}: promoted tokens attributed",
        "correlation",
        "Pearson's r over latents between the change of logits through final norm and output "
        f"matrix alone and the change observed, {_PROMOTED_BY}; {_how}",
        _PERMUTED,
        _LATENTS,
        "measures/single_latents.py",
        apart="above",
    )
