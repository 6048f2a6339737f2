"""Memory, GPU share and arithmetic of each stage, from the study's plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from lorascope.stages import Graph, Need, Stage
from lorascope.workflows.cost import RESIDENT, Cost, resident

# Parts of a plan by the first word of a stage's name; of any other the hungriest part counts.
_PARTS = {
    "adapters": ("adapter training", "latent adapters", "LoRA"),
    "matching": ("sanity checks",),
    "sanity_checks": ("sanity checks",),
    "glance": ("sanity checks",),
    "activations": ("capture",),
    "dictionaries": ("dictionary training", "dictionary", "dictionaries"),
    "yardsticks": ("measures",),
    "measures": ("measures", "pursuit"),
    "massive": ("measures", "pursuit"),
    "drift": ("measures",),
    "recovered": ("effects",),
    "effects": ("effects",),
    "features": ("effects",),
    "read": ("reading",),
    "carriers": ("effects", "capture"),
    "weights": ("weights",),
    "written": ("weights",),
    "fits": ("fits",),
    "answers": ("answers",),
    "frontier": ("answers",),
    "latents": ("ablation",),
    "times": ("times",),
    "core": ("core",),
    "probing": ("probing",),
    "absorption": ("absorption",),
    "tpp": ("tpp",),
    "scr": ("scr",),
    "autointerp": ("autointerp",),
    "disentangling": ("disentangling",),
    "benchmarks": ("benchmarks",),
}
# Put together from tables: nothing but the interpreter and its libraries.
_SMALL = ("results", "texts")
# Stages that compute on the CPU wherever the study runs.
_ON_CPU = ("yardsticks", "measures", "massive", "drift", "weights", "written", *_SMALL)


def stated(graph: Graph, cost: Cost) -> Graph:
    """The same stages, each with what it needs; stages of a kind share its arithmetic alike."""
    alike = Counter(_kind(one) for one in graph)
    return Graph(replace(one, need=_need(one, cost, alike[_kind(one)])) for one in graph)


def _kind(one: Stage) -> str:
    return one.name.partition("/")[0]


def _need(one: Stage, cost: Cost, alike: int) -> Need:
    kind = _kind(one)
    own = [part for part in cost.parts if part.name in _PARTS.get(kind, ())]
    memory = max((resident(part) for part in own or cost.parts), default=0)
    if kind in _SMALL:
        memory = min(memory, RESIDENT)
    gpus = 0.0 if cost.device == "cpu" or kind in _ON_CPU else 1.0
    return Need(memory, gpus, sum(part.flops for part in own) / alike)
