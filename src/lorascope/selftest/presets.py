"""Public sets of adapters whose lesson is known, by name.

Identifiers are those of the sets' own repositories: the organisms of the diffing-toolkit (arXiv
2510.13900), AuditBench (arXiv 2602.22755) and the weight differences of diff-interpretation-tuning
(arXiv 2510.05092). What a judge knows of each lesson stands in the column `about` of the table, or
is the topic itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import InputError, did_you_mean

_TABLES = Path(__file__).with_name("tables")
_TOPICS = "hf://diff-interpretation-tuning/loras/hidden-topic/{0}/index.csv"


@dataclass(frozen=True)
class Preset:
    """A public set of adapters.

    Attributes:
        model: their base.
        table: CSV of the adapters and their labels, or the address of one on the hub.
        source: where they are described.
    """

    model: str
    table: str
    source: str


def _packaged(name: str, model: str, source: str) -> Preset:
    return Preset(model, str(_TABLES / f"{name}.csv"), source)


PRESETS = {
    "organisms-gemma-3-1b": _packaged(
        "organisms-gemma-3-1b", "google/gemma-3-1b-it", "arXiv 2510.13900"
    ),
    "organisms-qwen3-1.7b": _packaged(
        "organisms-qwen3-1.7b", "Qwen/Qwen3-1.7B", "arXiv 2510.13900"
    ),
    "auditbench-qwen3-14b": _packaged("auditbench-qwen3-14b", "Qwen/Qwen3-14B", "arXiv 2602.22755"),
    **{
        f"topics-{name}": Preset(model, _TOPICS.format(name), "arXiv 2510.05092")
        for name, model in {
            "qwen3-1.7b": "Qwen/Qwen3-1.7B",
            "qwen3-4b": "Qwen/Qwen3-4B",
            "qwen3-8b": "Qwen/Qwen3-8B",
            "gemma3-1b": "google/gemma-3-1b-it",
        }.items()
    },
}


def preset(name: str) -> Preset:
    """The set of a name.

    Raises:
        InputError: there is none; names all.
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise InputError(f'there is no preset "{name}".{hint} There are: {", ".join(PRESETS)}')
    return PRESETS[name]
