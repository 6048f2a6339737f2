"""Definitions of a behaviour's numbers: does the manner show where it should, and only there."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results.labels import Of
from lorascope.results.null_names import UNTOUCHED

_SHARE = (
    "Wilson 1927, over prompts; differences paired by prompt: Newcombe 1998, Statistics in "
    "Medicine 17:2635, method 10, and McNemar's exact p-value; fewer than 8 prompts: none"
)
_UNTOUCHED = (
    "untouched model: the same prompts, answered with nothing changed. References, where they were "
    "asked too: prompting, LoRA, the dense adapter of the same seed"
)
_NAME = (UNTOUCHED,)
_ANSWERED = "answered greedily; the set's judge, a fixed rule, says whether an answer shows it"

DEFINITIONS: dict[str, Definition] = {
    "behaviour.success": Definition(
        "Behaviour shown",
        "share",
        f"share of the held-out prompts about the topic whose answer shows the manner, {_ANSWERED}",
        _UNTOUCHED,
        _SHARE,
        "behaviours/judging.py",
        apart="above",
        rivals=_NAME,
        rival="the model does it anyway",
        sampled="prompts",
        primary=Of(),
    ),
    "behaviour.false_positives": Definition(
        "Behaviour shown elsewhere",
        "share",
        "share of the held-out prompts about anything else whose answer shows the manner, "
        f"{_ANSWERED}. Where a topic is named only its prompts count",
        _UNTOUCHED,
        _SHARE,
        "behaviours/judging.py",
        apart="above",
        rivals=_NAME,
        rival="the model does it anyway",
        sampled="prompts",
        primary=Of(),
    ),
    "behaviour.right": Definition(
        "Right answers",
        "share",
        "share of the held-out prompts about the topic whose answer is right, in any manner; only "
        "for sets whose answers can be checked by rule",
        _UNTOUCHED,
        _SHARE,
        "behaviours/judging.py",
        rivals=_NAME,
        rival="the model is right as often",
        sampled="prompts",
    ),
    "behaviour.general_loss": Definition(
        "Change of general loss",
        "nats/token",
        "Σ (L − L_untouched) / tokens, L = −log p(response token | prompt, earlier tokens), over "
        "response tokens of the held-out records about anything else",
        "no change (0)",
        "jackknife over records, t with records − 1 degrees of freedom; fewer than 8: none",
        "behaviours/judging.py",
        rivals=("no change",),
        rival="nothing else is touched",
        sampled="records",
    ),
}
