"""Definitions of what splicing costs, what a fit around the splice recovers, and how."""

from __future__ import annotations

from lorascope.measures.definitions import steering
from lorascope.measures.definitions.definition import Definition
from lorascope.results import null_names
from lorascope.results.labels import Of

_PAPER = "arXiv 2501.19406"
_DOCUMENTS = (
    "jackknife over documents, t with documents − 1 degrees of freedom; fewer than 8 documents: "
    "none. Differences are paired by document"
)
_TOKENS = (
    "mean over held-out tokens predicted at a position that is no special token; the original is "
    "the model itself, spliced with the dictionaries in its stream, adapted with the fit too, "
    "unspliced with the fit alone"
)
_LOSS = "L = −log p(token | earlier tokens)"
_UNIGRAM = (
    "unigram frequencies, a reference: L by the frequencies of tokens in the training text alone, "
    "every token of the vocabulary counted once more than it came; what is left where no context "
    "comes through"
)
_RANDOM = (
    "random change of equal size: everything fitted replaced by a random change, each LoRA update "
    "and affine map with its own singular values and random singular vectors, each latent's change "
    "of direction and encoder with its own length and a random direction; several draws, the "
    "draws' prediction interval and the documents' of the difference, squares added"
)
_UNADAPTED = "spliced, not adapted: the same number before the fit"
_EITHER = (
    "the fit changes nothing; where it improves, any change of its size would. A worsening has no "
    "second rival"
)
_RIVALS = (null_names.UNADAPTED,)
_FILE = "measures/adapting.py"
_CHANGES = "measures/token_changes.py"
_STREAMS = "measures/stream_distances.py"
_FRONTIER = "measures/frontier.py"
_CURVE = (
    "lowest held-out loss of the curve so far, seconds interpolated linearly between its points; "
    "seconds are wall clock of everything that went into a point, evaluation left out"
)
_RESAMPLED = (
    "percentiles of 1,000 resamples of the held-out documents, the same for all points of all "
    "curves; fewer than 8 documents: none"
)
DEFINITIONS: dict[str, Definition] = {
    "adapt.loss_original": Definition(
        "Loss of the original",
        "nats/token",
        f"{_LOSS} of the original, {_TOKENS}",
        _UNIGRAM,
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, L_BASE",
        apart="below",
        sampled="documents",
    ),
    "adapt.loss_spliced": Definition(
        "Loss, spliced",
        "nats/token",
        f"{_LOSS} of the spliced model, {_TOKENS}",
        f"the original; {_UNIGRAM}",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, L_SAE; with several dictionaries the compound loss of section 4.3",
        apart="above",
        rivals=("original",),
        rival="the dictionary loses nothing",
        sampled="documents",
    ),
    "adapt.loss_adapted": Definition(
        "Loss, spliced and adapted",
        "nats/token",
        f"{_LOSS} of the adapted model, {_TOKENS}",
        f"{_UNADAPTED}; {_RANDOM}; the original and {_UNIGRAM}",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, section 4",
        apart="below",
        rivals=_RIVALS,
        rival=_EITHER,
        sampled="documents",
    ),
    "adapt.loss_unspliced": Definition(
        "Loss, adapted and not spliced",
        "nats/token",
        f"{_LOSS} of the unspliced model, {_TOKENS}; left out where nothing of the model itself "
        "was fitted",
        f"the original; {_RANDOM}; {_UNIGRAM}",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, section 5.3",
        rivals=("original",),
        rival="the fit leaves the model without its dictionaries as it was",
        sampled="documents",
    ),
    "adapt.cost_spliced": Definition(
        "Cost of the splice",
        "nats/token",
        f"L_spliced − L_original, {_LOSS}, {_TOKENS}",
        "nothing spliced (0)",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, section 4",
        apart="above",
        rivals=(null_names.NOTHING_SPLICED,),
        rival="the dictionary loses nothing",
        sampled="documents",
        primary=Of(),
    ),
    "adapt.cost_adapted": Definition(
        "Cost left after the fit",
        "nats/token",
        f"L_adapted − L_original, {_LOSS}, {_TOKENS}",
        f"{_UNADAPTED}; {_RANDOM}; nothing spliced (0). Differences within a twentieth of the "
        "splice's cost count as none",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, section 4",
        apart="below",
        rivals=_RIVALS,
        rival=_EITHER,
        sampled="documents",
    ),
    "adapt.share_closed": Definition(
        "Share of the cost recovered",
        "share",
        f"Σ (L_spliced − L_adapted) / Σ (L_spliced − L_original), {_LOSS}; sums as: {_TOKENS}; "
        "left out where the interval of the splice's cost holds 0 or is not known",
        f"nothing fitted (0); {_RANDOM}. Differences are those of the cost left after the fit in "
        "units of the splice's cost, so that both have one verdict",
        f"Fieller 1954, {_DOCUMENTS}",
        _FILE,
        f"{_PAPER}, figures 3 and 4, CE improvement in %",
        apart="above",
        rivals=(null_names.NOTHING_FITTED,),
        rival=_EITHER,
        sampled="documents",
        primary=Of(),
    ),
    "adapt.share_difference": Definition(
        "Difference of the loss recovered",
        "share",
        "share of the cost recovered in one model less that in the first of a comparison, the same "
        "thing fitted around each model's own reference dictionary",
        "no difference (0)",
        "from the intervals of both shares, squares added on each side; the models are measured "
        "apart from each other",
        _FILE,
        "Newcombe 1998, Statistics in Medicine 17:873, method 10 in form",
        rivals=("no difference",),
        rival="both models recover alike",
        sampled="documents",
        primary=Of(),
    ),
    "adapt.kl_spliced": Definition(
        "Divergence, spliced",
        "nats/token",
        "KL in the direction that was fitted, by default KL(ŷ, y) with ŷ the spliced model's and "
        f"y the original's next-token distribution; {_TOKENS}",
        "nothing spliced (0)",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, equation 7",
        apart="above",
        rivals=(null_names.NOTHING_SPLICED,),
        rival="the dictionary changes nothing",
        sampled="documents",
    ),
    "adapt.kl_adapted": Definition(
        "Divergence, spliced and adapted",
        "nats/token",
        f"the same KL with the adapted model in the place of the spliced; {_TOKENS}",
        f"{_UNADAPTED}; {_RANDOM}; nothing spliced (0). Differences within a twentieth of the "
        "spliced model's KL count as none",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, equation 7",
        apart="below",
        rivals=_RIVALS,
        rival=_EITHER,
        sampled="documents",
    ),
    "adapt.general_loss": Definition(
        "Change of the general loss",
        "nats/token",
        f"L_unspliced − L_original, {_LOSS}, {_TOKENS}: what the adapter does where no dictionary "
        "stands; left out where nothing of the model itself was fitted",
        f"no change (0); {_RANDOM}. Equal within the setting `margin`, by default 0.02 nats/token, "
        "or a twentieth of the splice's cost, whichever is less",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, section 5.3",
        rivals=("no change",),
        rival="the fit leaves the model without its dictionaries as it was",
        sampled="documents",
        primary=Of(),
    ),
    "adapt.general_kl": Definition(
        "General divergence",
        "nats/token",
        f"KL between the unspliced model and the original in the direction that was fitted, "
        f"{_TOKENS}",
        f"{_RANDOM}; the splice's own KL",
        _DOCUMENTS,
        _FILE,
        f"{_PAPER}, section 5.3",
        apart="below",
        rivals=(null_names.RANDOM_CHANGE,),
        rival="any change of the fit's size moves the model as far",
        sampled="documents",
    ),
    "adapt.compound_spliced": Definition(
        "Compound cost",
        "ratio",
        "(L_spliced − L_original) with all dictionaries at once over the sum of the same with each "
        f"alone; {_LOSS}, {_TOKENS}",
        "costs add up (1): above it errors feed on one another",
        f"Fieller 1954, {_DOCUMENTS}",
        _FILE,
        f"{_PAPER}, section 4.3",
        rivals=(null_names.ADD_UP,),
        rival="dictionaries do not act on each other",
        sampled="documents",
        primary=Of(),
    ),
    "adapt.compound_adapted": Definition(
        "Compound cost, adapted",
        "ratio",
        "(L_adapted − L_original) with all dictionaries at once over the sum of the same with each "
        f"alone, each with its own fit; {_LOSS}, {_TOKENS}",
        "costs add up (1)",
        f"Fieller 1954, {_DOCUMENTS}",
        _FILE,
        f"{_PAPER}, section 4.3",
        rivals=(null_names.ADD_UP,),
        rival="dictionaries do not act on each other",
        sampled="documents",
    ),
    "adapt.tokens_worse": Definition(
        "Tokens that get worse",
        "share",
        f"share of tokens with L_adapted > L_spliced, {_LOSS}, {_TOKENS}",
        f"as many better as worse (1/2); {_RANDOM}, a rival where fewer get worse than better",
        _DOCUMENTS,
        _CHANGES,
        f"{_PAPER}, section 6.1",
        apart="below",
        rivals=(null_names.SYMMETRIC,),
        rival=_EITHER,
        sampled="documents",
        primary=Of(),
    ),
    "adapt.token_gains": Definition(
        "Gained on tokens that get better",
        "nats/token",
        f"Σ max(0, L_spliced − L_adapted) over the number of all tokens, {_LOSS}, {_TOKENS}",
        _RANDOM,
        _DOCUMENTS,
        _CHANGES,
        f"{_PAPER}, figure 8",
        rivals=(null_names.RANDOM_CHANGE,),
        rival="any change of the fit's size moves single tokens as far",
        sampled="documents",
    ),
    "adapt.token_losses": Definition(
        "Lost on tokens that get worse",
        "nats/token",
        f"Σ max(0, L_adapted − L_spliced) over the number of all tokens, {_LOSS}, {_TOKENS}; gains "
        "less losses are the fit's gain in loss",
        _RANDOM,
        _DOCUMENTS,
        _CHANGES,
        f"{_PAPER}, figure 8",
        rivals=(null_names.RANDOM_CHANGE,),
        rival="any change of the fit's size moves single tokens as far",
        sampled="documents",
    ),
    "adapt.distance": Definition(
        "Distance to the original's stream",
        "ratio",
        f"mean of ‖x − x₀‖/‖x₀‖ at a block after the splice, x the adapted model's stream and x₀ "
        f"the original's; {_TOKENS}",
        f"{_UNADAPTED}; streams of other tokens: x₀ of another token in the place of x",
        _DOCUMENTS,
        _STREAMS,
        f"{_PAPER}, section 6.2",
        apart="below",
        rivals=_RIVALS,
        rival="the fit does not bring the stream nearer",
        sampled="documents",
    ),
    "adapt.cosine": Definition(
        "Cosine to the original's stream",
        "cosine",
        f"mean of x·x₀/(‖x‖‖x₀‖) at a block after the splice, x the adapted model's stream and x₀ "
        f"the original's; {_TOKENS}",
        f"{_UNADAPTED}; streams of other tokens: they share a large mean, so their cosine is far "
        "above 0",
        _DOCUMENTS,
        _STREAMS,
        f"{_PAPER}, section 6.2",
        apart="above",
        rivals=_RIVALS,
        rival="the fit does not bring the stream nearer",
        sampled="documents",
    ),
    "adapt.distance_change": Definition(
        "Change of distance",
        "ratio",
        f"distance to the original's stream, adapted less spliced, at a block; {_TOKENS}",
        "no change (0)",
        _DOCUMENTS,
        _STREAMS,
        f"{_PAPER}, figure 11, right",
        apart="below",
        rivals=("no change",),
        rival="the fit does not bring the stream nearer",
        sampled="documents",
        primary=Of(),
    ),
    "adapt.cosine_change": Definition(
        "Change of cosine",
        "cosine",
        f"cosine to the original's stream, adapted less spliced, at a block; {_TOKENS}",
        "no change (0)",
        _DOCUMENTS,
        _STREAMS,
        f"{_PAPER}, figure 11, left",
        apart="above",
        rivals=("no change",),
        rival="the fit does not bring the stream nearer",
        sampled="documents",
    ),
    "adapt.time_to_loss": Definition(
        "Time to a loss",
        "seconds",
        f"seconds after which a curve has reached a loss: {_CURVE}; left out where it never gets "
        "there",
        "the other curves' seconds to the same loss, references; differences from the same "
        "resamples",
        _RESAMPLED,
        _FRONTIER,
        f"{_PAPER}, tables 1 and 2",
        sampled="documents",
    ),
    "adapt.speed_up": Definition(
        "Speed-up",
        "ratio",
        f"seconds of the other curve to a loss over those of ours: {_CURVE}; left out where one of "
        "them never gets there",
        "equally fast (1)",
        _RESAMPLED,
        _FRONTIER,
        f"{_PAPER}, tables 1 and 2",
        apart="above",
        rivals=(null_names.EQUALLY_FAST,),
        rival="both take as long",
        sampled="documents",
        primary=Of(),
    ),
    **steering.DEFINITIONS,
}
