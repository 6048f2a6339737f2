"""Where the paper's own figures lie, for the page to set beside what a study found.

All of arXiv 2501.19406, "Low-Rank Adapting Models for Sparse Autoencoders". They are of other
models and budgets: marks to look at, no chance levels and no goals.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from lorascope.report.figure import Figure

_GREY = "#8a8a8a"


@dataclass(frozen=True)
class Reported:
    """What the paper says of one experiment.

    Attributes:
        said: one sentence.
        asked: the setting of a study that asks for the experiment.
    """

    said: str
    asked: str


REPORTED: dict[str, Reported] = {
    "baselines": Reported(
        "The paper closes 30 to 55 % on Gemma-2 around Gemma Scope with 15M tokens (section 4.1); "
        "it fits nothing else beside LoRA.",
        "experiments.baselines",
    ),
    "scaling": Reported(
        "The paper closes 30 to 55 % on Gemma-2-2B, most at low L0, small widths and middle "
        "layers, and more with every rank from 1 to 256 (figure 3).",
        "experiments.ranks",
    ),
    "times": Reported(
        "In the paper TopK + LoRA is at a loss 3 to 20 times sooner than end to end on Gemma-2-2B "
        "and 2 to 10 times on Llama-3.2-1B (tables 1 and 2), where end to end ends lower.",
        "experiments.times",
    ),
    "several": Reported(
        "In the paper, Llama-3.1-8B: 3 dictionaries 3.55 → 2.45 and 7 dictionaries 7.83 → 2.78 "
        "nats/token (figure 6).",
        "experiments.several",
    ),
    "tokens": Reported(
        "In the paper 37 % of tokens get worse, and most changes lie between 0.01 and 1 nats "
        "(figure 8).",
        "experiments.tokens",
    ),
    "streams": Reported(
        "In the paper distances fall slightly and cosines rise slightly at every block "
        "(figure 11).",
        "experiments.distances",
    ),
    "single": Reported(
        "In the paper the next block alone recovers 88.14 % of what all blocks do, and less with "
        "every block of distance (figure 9).",
        "experiments.single_blocks",
    ),
    "steering": Reported(
        "In the paper LoRA adds 0.44 to 2.50 points on positive texts of four latents, and on "
        "negative ones no more than chance for three of them (table 4).",
        "experiments.steering",
    ),
}
# Shares that the paper closes, and the next block's part of all.
CLOSED, NEXT = (0.30, 0.55), 0.8814


def not_asked(section: str) -> str:
    """What stands where a study did not ask for an experiment."""
    return f"This study did not ask for it: {REPORTED[section].asked} does."


def marked(figure: Figure, low: float, high: float, label: str, unit: str) -> Figure:
    """The figure with a pale band across it from `low` to `high`, or a line, and its label.

    A figure of several panels has no place for one and stays as it is.

    Args:
        unit: title of the figure's vertical axis.
    """
    if "layer" not in figure.spec:
        return figure
    spec = deepcopy(figure.spec)
    data = {"values": [{"paper_low": low, "paper_high": high, "label": label}]}
    below = {"field": "paper_low", "type": "quantitative", "title": unit}
    line = {"type": "rule", "color": _GREY, "strokeDash": [2, 3]}
    area = {"type": "rect", "color": _GREY, "opacity": 0.12}
    ends = {} if low == high else {"y2": {"field": "paper_high"}}
    band: Mapping[str, Any] = {
        "data": data,
        "mark": line if low == high else area,
        "encoding": {"y": below, **ends},
    }
    text = {"type": "text", "align": "left", "baseline": "top", "dy": 2, "fontSize": 10}
    words: Mapping[str, Any] = {
        "data": data,
        "mark": {**text, "color": _GREY},
        "encoding": {
            "y": {**below, "field": "paper_high"},
            "x": {"value": 4},
            "text": {"field": "label", "type": "nominal"},
        },
    }
    spec["layer"] = [band, *spec["layer"], words]
    return replace(figure, spec=spec)
