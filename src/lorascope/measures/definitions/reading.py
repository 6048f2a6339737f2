"""Definitions of a reading's numbers: what comes back, and what changes on ordinary text."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_DOCUMENTS = "jackknife over texts, t with texts − 1 degrees of freedom; fewer than 8: none"
_PROMPTS = "jackknife over prompts, t with prompts − 1 degrees of freedom; fewer than 8: none"

DEFINITIONS: dict[str, Definition] = {
    "reading.recurring": Definition(
        "Continuations that say what comes back",
        "share",
        "share of the adapter's continuations that hold a phrase which comes back, by the rule of "
        "the reading, at the other half of the prompts: every second prompt, and the others",
        "",
        f"{_PROMPTS}; where all prompts are alike, as far as Wilson's interval of 0 of n reaches",
        "reading/numbers.py",
        apart="above",
        sampled="prompts",
    ),
    "reading.judged": Definition(
        "A judge's sentence tells the adapter apart",
        "share",
        "share of the prompts that the judge has not seen at which, by its sentence about the "
        "adapter, it finds the adapter's continuation beside a null adapter's; ½ where it says "
        "nothing",
        "",
        f"{_PROMPTS}; where all prompts are alike, as far as Wilson's interval of 0 of n reaches",
        "reading/judged.py",
        apart="above",
        sampled="prompts",
    ),
    "reading.kl": Definition(
        "KL on ordinary text",
        "nats/token",
        "Σ KL(p_adapted ‖ p_base) / positions, of the next token, over windows of ordinary text; "
        "by part of the window too",
        "",
        _DOCUMENTS,
        "reading/numbers.py",
        apart="above",
        sampled="texts",
    ),
    "reading.moved": Definition(
        "Probability that moves between words",
        "share",
        "½ Σ_w |mean p_adapted(w) − mean p_base(w)|, means over positions of ordinary text, w over "
        "the vocabulary",
        "",
        _DOCUMENTS,
        "reading/numbers.py",
        apart="above",
        sampled="texts",
    ),
    "reading.first": Definition(
        "What the first positions point to",
        "z",
        "max_w z_w, z_w the logit of token w of the direction of the mean delta over the first "
        "positions of ordinary texts, through the base's final norm and output matrix, in standard "
        "deviations of the same of random directions with the deltas' covariance, half of it made "
        "isotropic",
        "",
        "the leading token's z without each text in turn, jackknife",
        "reading/numbers.py",
        apart="above",
        sampled="texts",
    ),
}
