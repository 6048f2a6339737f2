"""Definitions of what steering by a latent does, without a fit and with it."""

from __future__ import annotations

from lorascope.measures.definitions.definition import Definition
from lorascope.results.labels import Of
from lorascope.results.null_names import EQUAL_DISPLACEMENT

_PAPER = "arXiv 2501.19406"
_STEERING = "measures/steering.py"
_STEERED = (
    "mean over test texts of 100 · (s_α − s_0)/(range of s_0 over all texts without the fit), s "
    "the mean log p of a text's tokens, with x + α (x·v) v in place of the stream x after the "
    "dictionary, v the latent's unit direction; α the one of a grid with the largest mean change "
    "on other positive texts less the rise on other negative ones, chosen without and with the fit"
)
_DIRECTIONS = (
    "random directions of equal displacement: x ± α (x·v) u with isotropic unit u, as far as the "
    "latent moves the stream at every token, the sign tuned and the change tested on the same "
    "texts; several draws, the draws' prediction interval and the texts' of the difference, "
    "squares added"
)
_TEXTS = "t over test texts; fewer than 8: none"
DEFINITIONS: dict[str, Definition] = {}

for _kind, _what in (("positive", "fires"), ("negative", "is silent")):
    for _when, _words, _how in (
        ("before", "without the fit", ""),
        ("after", "with the fit", ""),
        ("change", "the fit's change", "with the fit less without it, text by text: "),
    ):
        DEFINITIONS[f"steering.{_when}_{_kind}"] = Definition(
            f"Steering, {_kind} texts, {_words}",
            "points",
            f"{_how}{_STEERED}; texts in which the latent {_what}",
            _DIRECTIONS,
            _TEXTS,
            _STEERING,
            f"{_PAPER}, section 5.2, table 4, which has 90 % intervals",
            "above" if _kind == "positive" else "either",
            rivals=(EQUAL_DISPLACEMENT,),
            rival="moving the stream as far along any direction does it",
            margin=1.0,
            sampled="texts",
            primary=Of() if _when == "change" and _kind == "positive" else None,
        )
