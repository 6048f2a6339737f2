"""Definitions of evaluations: reconstruction, probing, absorption, targeted changes, benchmarks."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results import null_names as names

_DOCUMENTS = (
    "jackknife over documents, t with documents − 1 degrees of freedom; fewer than 8: none. "
    "Differences are paired by document"
)
_RANDOM = (
    "random-decoder dictionary: as many latents, directions evenly from the sphere, encoder their "
    "transpose, TopK of the dictionary's mean L0, the training rows' mean, one best scale; paired"
)
_OTHER = "dictionary of another seed, where one is given; a reference"
_CHANGE = "the same without the adapter, 0; paired"
_BENCH = "SAEBench 0.6.0"
_CORE, _PROBING = "studies/evaluate/core.py", "studies/evaluate/probing.py"
_ABSORPTION, _TARGETED = "studies/evaluate/absorption.py", "studies/evaluate/targeted.py"
_LETTERS = (
    "over words of the tokenizer's vocabulary whose first letter the probe on the stream tells, "
    "mean over letters whose probe reaches the F1 asked for"
)
_OVER_LETTERS = "t over letters; differences paired by letter"
_JUDGED = (
    "a judge is shown passages, half of them with the latent firing, and an explanation made from "
    "other passages; share of right answers"
)

DEFINITIONS: dict[str, Definition] = {
    "evaluate.loss": Definition(
        "Loss in each condition",
        "nats/token",
        "−log p(token | earlier tokens), mean over held-out tokens predicted at a position that is "
        "no special token",
        "nothing spliced: the original model",
        _DOCUMENTS,
        _CORE,
        apart="below",
        rivals=(names.NOTHING_SPLICED,),
        rival="nothing has been done to the model",
        sampled="documents",
    ),
    "evaluate.kl": Definition(
        "KL from the original",
        "nats/token",
        "KL(original ‖ condition) of the next-token distributions, mean over the same tokens",
        "nothing spliced, 0",
        _DOCUMENTS,
        _CORE,
        apart="above",
        rivals=(names.NOTHING_SPLICED,),
        rival="nothing has been done to the model",
        sampled="documents",
    ),
    "evaluate.ce_recovered": Definition(
        "CE recovered",
        "share",
        "Σ (L_ablated − L) / Σ (L_ablated − L_reference), L the loss with the dictionaries in the "
        "stream, ablated with zero or the training rows' mean there instead; the reference is the "
        "model without dictionaries, for a fit around them the original",
        f"the ablation itself, 0; {_RANDOM}; for a fit, spliced and not adapted; {_OTHER}",
        _DOCUMENTS,
        _CORE,
        apart="above",
        rivals=(names.ABLATED, names.RANDOM_DECODER, names.UNADAPTED),
        rival="a dictionary without a feature keeps as much; for a fit, it changes nothing",
        sampled="documents",
    ),
    "evaluate.kl_recovered": Definition(
        "KL recovered",
        "share",
        "1 − Σ KL(reference ‖ condition) / Σ KL(reference ‖ ablated), as CE recovered",
        f"the ablation itself, 0; {_RANDOM}; for a fit, spliced and not adapted; {_OTHER}",
        _DOCUMENTS,
        _CORE,
        apart="above",
        rivals=(names.ABLATED, names.RANDOM_DECODER, names.UNADAPTED),
        rival="a dictionary without a feature keeps as much; for a fit, it changes nothing",
        sampled="documents",
    ),
    "evaluate.fvu": Definition(
        "FVU of what is read",
        "ratio",
        "Σ ‖x − x̂‖² / Σ ‖x − x̄‖² over held-out rows of the stream that the dictionary reads; for a "
        "delta dictionary, of what the adapter adds",
        f"mean predictor, 1; as many principal components of the training rows; {_RANDOM}; "
        f"{_OTHER}",
        _DOCUMENTS,
        "studies/evaluate/reconstructing.py",
        apart="below",
        rivals=("mean predictor", names.RANDOM_DECODER),
        rival="the mean, or a dictionary without a feature, reconstructs as well",
        sampled="documents",
    ),
    "evaluate.l0": Definition(
        "L0 of what is read",
        "latents/token",
        "active latents a held-out row, mean",
        f"{_RANDOM}, a reference; {_OTHER}",
        _DOCUMENTS,
        "studies/evaluate/reconstructing.py",
    ),
    "evaluate.dead_share": Definition(
        "Dead latents of a dictionary",
        "share",
        "share of latents that are active on no held-out row; it falls with the number of rows",
        f"the same of {_RANDOM}, a reference; {_OTHER}",
        "Wilson, over latents",
        "studies/evaluate/reconstructing.py",
    ),
    "evaluate.change": Definition(
        "With the adapter less without",
        "of the number",
        "the number with the adapter less the same without it, on the same tokens, rows or items",
        _CHANGE,
        "of the paired differences: over documents, sets, letters, rows or items",
        _CORE,
        rivals=(names.NO_ADAPTER,),
        rival="the adapter changes nothing",
        sampled="units",
    ),
    "evaluate.difference": Definition(
        "Second evaluation less the first",
        "of the number",
        "the number of the second of two evaluations less that of the first, of the documents, "
        "texts, sets, letters, classes or items that both have",
        "the same in both runs, 0; paired by these units",
        "jackknife of the difference of two ratios over documents; t over the other units' "
        "differences; from both intervals where latents are the units, which are no other "
        "dictionary's",
        "studies/evaluate/differences.py",
        rivals=(names.SAME_IN_BOTH,),
        rival="both do equally well",
        sampled="units",
    ),
    "evaluate.probe_accuracy": Definition(
        "Probe accuracy",
        "share",
        "share of held-out rows, half of each label, that a logistic regression (C = 1) on the k "
        "latents of largest |mean₁ − mean₀| tells right; latents pooled over a text's tokens",
        f"as many channels of the stream, chosen likewise; {_RANDOM}; always the same answer, the "
        f"whole stream and {_OTHER}",
        "Wilson over held-out rows, differences paired by row; over all sets: t over sets",
        _PROBING,
        f"{_BENCH} (sparse probing); sae-probes",
        apart="above",
        rivals=(names.CHANNELS, names.RANDOM_DECODER),
        rival="as much is in single channels, or in a dictionary without a feature",
        sampled="rows",
    ),
    "evaluate.probe_auc": Definition(
        "Probe AUC",
        "share",
        "how often the same regression scores a row of label 1 above one of label 0, ties half",
        f"as many channels of the stream; {_RANDOM}; always the same answer, ½, the "
        f"whole stream and {_OTHER}",
        "DeLong over held-out rows, paired; over all sets: t over sets",
        _PROBING,
        "sae-probes",
        apart="above",
        rivals=(names.CHANNELS, names.RANDOM_DECODER),
        rival="as much is in single channels, or in a dictionary without a feature",
        sampled="rows",
    ),
    "evaluate.absorption_full": Definition(
        "Full absorption",
        "share",
        f"share of words absorbed, {_LETTERS}: no main latent of the letter is active, and the "
        "active latent that writes most along the probe has a cosine of 0.025 or more with it and "
        "brings 0.4 or more of its projection",
        f"nothing changed: no absorption, 0; {_RANDOM}",
        _OVER_LETTERS,
        _ABSORPTION,
        f"{_BENCH}; Chanin et al. 2024",
        apart="above",
        rivals=(names.NOTHING_CHANGED,),
        rival="nothing is absorbed",
        sampled="letters",
    ),
    "evaluate.absorption_fraction": Definition(
        "Absorption fraction",
        "share",
        f"mean, {_LETTERS}, of a / (a + m): a what at most three latents of cosine 0.1 or more "
        "with the probe, not the letter's own, write along it (at most what is missing), m what "
        "the letter's main latents write; 0 where m is all of the stream's projection or the three "
        "bring less than 0.4 of it, 1 where m is 0 or less",
        f"nothing changed: no absorption, 0; {_RANDOM}",
        _OVER_LETTERS,
        _ABSORPTION,
        _BENCH,
        apart="above",
        rivals=(names.NOTHING_CHANGED,),
        rival="nothing is absorbed",
        sampled="letters",
    ),
    "evaluate.absorption_splits": Definition(
        "Latents a letter",
        "latents",
        "latents that each raise a letter's F1 by 0.03 or more, best first, mean over letters",
        f"one, where nothing is split; {_RANDOM}",
        _OVER_LETTERS,
        _ABSORPTION,
        _BENCH,
    ),
    "evaluate.tpp": Definition(
        "TPP",
        "share",
        "zero the n latents with the largest effect on a class's probe, (mean on the class − mean "
        "on the others)₊ times the latent's direction · the probe's weight: accuracy lost by the "
        "class's own probe less that lost by the other classes', mean over classes",
        f"nothing changed, 0; {_RANDOM}",
        "t over classes; differences paired by class",
        _TARGETED,
        f"{_BENCH}; caveat: arXiv 2605.18229",
        apart="above",
        rivals=(names.NOTHING_CHANGED, names.RANDOM_DECODER),
        rival="no latent matters to one class alone, or random latents matter as much",
        sampled="classes",
    ),
    "evaluate.scr": Definition(
        "SCR",
        "share",
        "a probe is trained where label and another attribute always go together; zero the n "
        "latents with the largest |effect| on a probe of the other attribute: (accuracy on the "
        "label after − before) / (accuracy of a probe trained on the label alone − before), of the "
        "direction in which the biased probe is worse",
        f"nothing changed, 0; {_RANDOM}",
        "Fieller's over held-out rows; differences paired by row",
        _TARGETED,
        f"{_BENCH}; caveat: arXiv 2605.18229",
        apart="above",
        rivals=(names.NOTHING_CHANGED, names.RANDOM_DECODER),
        rival="nothing is removed, or random latents remove as much",
        sampled="rows",
    ),
    "evaluate.detection": Definition(
        "Detection",
        "share",
        f"{_JUDGED} to: does the latent fire in this passage?",
        f"always the same answer, ½; the same of {_RANDOM}",
        "t over latents",
        "studies/evaluate/autointerp.py",
        "EleutherAI's detection score, balanced",
        apart="above",
        rivals=(names.COIN, names.RANDOM_DECODER),
        rival="the explanation says nothing, or one of a latent without a feature says as much",
        sampled="latents",
    ),
    "evaluate.fuzzing": Definition(
        "Fuzzing",
        "share",
        f"{_JUDGED} to: is the marked token one that the latent fires on?",
        f"always the same answer, ½; the same of {_RANDOM}",
        "t over latents",
        "studies/evaluate/autointerp.py",
        "EleutherAI's fuzzing score, balanced",
        apart="above",
        rivals=(names.COIN, names.RANDOM_DECODER),
        rival="the explanation says nothing, or one of a latent without a feature says as much",
        sampled="latents",
    ),
    "evaluate.cause": Definition(
        "Cause",
        "share",
        "exchange the k latents that tell an attribute's values apart for those of another "
        "prompt: share of prompts whose most likely next token becomes the other's answer",
        f"nothing changed; {_RANDOM}; the whole stream exchanged, a reference",
        "Wilson over pairs, differences paired",
        "studies/evaluate/disentangling.py",
        "RAVEL (Huang et al. 2024)",
        apart="above",
        rivals=(names.NOTHING_CHANGED, names.RANDOM_DECODER),
        rival="the answer does not change, or random latents change it as often",
        sampled="prompts",
    ),
    "evaluate.isolation": Definition(
        "Isolation",
        "share",
        "under the same exchange, share of prompts about other attributes of the entity whose "
        "answer stays what it was",
        f"nothing changed, 1; {_RANDOM}, a reference",
        "Wilson over pairs, differences paired",
        "studies/evaluate/disentangling.py",
        "RAVEL (Huang et al. 2024)",
    ),
    "evaluate.disentangling": Definition(
        "Disentangling",
        "share",
        "(cause + isolation) / 2; doing nothing has no cause and full isolation: ½",
        f"nothing changed, near ½; {_RANDOM}",
        "t over attributes",
        "studies/evaluate/disentangling.py",
        "RAVEL (Huang et al. 2024)",
        apart="above",
        rivals=(names.NOTHING_CHANGED, names.RANDOM_DECODER),
        rival="doing nothing scores as much",
        sampled="prompts",
    ),
    "evaluate.benchmark": Definition(
        "Benchmark",
        "share",
        "lm-eval's own metric of the task, mean over items",
        "nothing spliced: the original model on the same items, paired; guessing, one over the "
        "number of an item's choices, as a reference where there are choices",
        "Wilson over items that are right or wrong, else t over items; differences paired by item",
        "studies/evaluate/benchmarks.py",
        "lm-eval 0.4.13",
        rivals=(names.NOTHING_SPLICED,),
        rival="nothing has been done to the model",
        sampled="items",
    ),
}
