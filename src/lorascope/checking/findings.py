"""What `check` says of an adapter beside its numbers: the rules, and where each was broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["error", "warning", "note"]

# Every rule by its id. An id never changes its meaning: gates and dashboards go by it.
RULES: Final[dict[str, str]] = {
    "unusable": "The configuration asks for what no variant of a model can do",
    "pickled": "Weights or other files are pickled: they are not opened",
    "several": "The folder holds more than one adapter, or more than one weights file",
    "not-finite": "A tensor holds NaN or infinity",
    "bad-tensor": "A tensor is empty or of a dtype that no weight has",
    "half-pair": "A factor stands without the other",
    "shape": "Factors do not fit each other, or not the rank in the configuration",
    "unused-key": "A tensor of the file that the configuration gives no place to",
    "no-match": "A name in the configuration that no tensor of the file answers to",
    "zero-update": "An update is zero",
    "zero-scale": "The scale is zero",
    "not-in-base": "The adapter acts on what its base model does not have",
    "replaced-whole": "Modules are replaced whole and stand in no spectrum",
    "vocabulary": "The vocabulary was resized, or token rows were trained",
    "tied": "Input and output embedding of the base are one tensor",
    "target-parameters": "Factors act on parameters that hold several maps together",
    "dora": "Weights are renormalised to a learned magnitude",
    "rslora": "The scale is alpha / sqrt(rank)",
    "bias": "Biases are trained",
    "other-head": "The adapter was trained on a model with another head than a language model's",
    "tuner": "The tuner type is not LoRA",
    "kind-outlier": "Modules whose norm stands out among those of their kind",
    "unlike-ordinary": "A number lies beyond those of every ordinary adapter",
    "not-live": "The model computes exactly what the base computes",
    "base-changed": "With the adapter off the model does not compute what it did",
    "not-measured": "A number of the model that could not be had",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        rule: key into `RULES`.
        level: "error" where the adapter cannot do what its files say; "warning" where something
            may be off without being told; "note" for what a reader of the numbers must know.
        message: one line.
        file: name of the file in the adapter's folder.
        where: modules or tensors, the first few.
    """

    rule: str
    level: Level
    message: str
    file: str = ""
    where: tuple[str, ...] = ()


def listed(names: list[str], most: int = 3) -> str:
    """The first few of several names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
