"""Definitions of a behaviour's numbers: does the manner show where it should, and only there."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition

_SHARE = "Wilson 1927, over prompts"
_UNTOUCHED = "untouched model: the same prompts, answered with nothing changed"
_ANSWERED = "answered greedily; the set's judge, a fixed rule, says whether an answer shows it"

DEFINITIONS: dict[str, Definition] = {
    "behaviour.success": Definition(
        "Behaviour shown",
        "share",
        f"share of the held-out prompts about the topic whose answer shows the manner, {_ANSWERED}",
        _UNTOUCHED,
        _SHARE,
        "behaviours/judging.py",
        "",
        "above",
    ),
    "behaviour.false_positives": Definition(
        "Behaviour shown elsewhere",
        "share",
        "share of the held-out prompts about anything else whose answer shows the manner, "
        f"{_ANSWERED}. The setting names a topic where only its prompts count",
        _UNTOUCHED,
        _SHARE,
        "behaviours/judging.py",
        "",
        "above",
    ),
    "behaviour.right": Definition(
        "Right answers",
        "share",
        "share of the held-out prompts about the topic whose answer is right, in any manner; only "
        "for sets whose answers can be checked by rule",
        _UNTOUCHED,
        _SHARE,
        "behaviours/judging.py",
    ),
    "behaviour.general_loss": Definition(
        "Change of general loss",
        "nats/token",
        "Σ (L − L_untouched) / tokens, L = −log p(response token | prompt, earlier tokens), over "
        "response tokens of the held-out records about anything else",
        "no change (0)",
        "jackknife over records",
        "behaviours/judging.py",
    ),
}
