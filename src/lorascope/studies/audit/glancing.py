"""A first look, before anything is measured: what each adapter is, ten prompts before and after.

It is the first stage of an audit, so that the page holds it within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lorascope.errors import InputError
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.updates import weight_update
from lorascope.reading.carriers import grouped
from lorascope.reading.decoding import Amplification, decode, texts
from lorascope.reading.prompts import shipped_prompts
from lorascope.reading.removing import modules_of
from lorascope.reading.settings import Reading
from lorascope.runs import write_atomically
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.costs import GLANCED_PROMPTS, GLANCED_TOKENS
from lorascope.studies.audit.state import Audited
from lorascope.workflows.adapters import ADAPTERS

GLANCE, FILE = "glance", "glance.json"
# Modules named as those that hold most of an update's norm.
_NAMED = 3


@stage(version=1, title="a first look")
def glance(work: Work, *, identity: dict[str, Any], seed: int) -> None:
    """What the adapters are, and what they write after ten prompts.

    Args:
        identity: what they depend on.
        seed: of the sampling.
    """
    state: Audited = work.state
    model = state.unmatched
    record = {
        "model": model.id,
        "adapters": {name: _adapter(model, name) for name in state.adapters},
        "samples": _samples(model, state.adapters, seed),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomically(work.folder / FILE, text)


def stages(state: Audited) -> Iterator[Stage]:
    """The stage `glance`, after the adapters that are trained here."""
    study = state.study
    identity = {
        "model": [study.model, study.revision, study.dtype, state.base],
        "adapters": {} if study.train else state.hashes,
    }
    trained = tuple(f"{ADAPTERS}/{name}" for name in state.trained)
    yield Stage(GLANCE, glance, {"identity": identity, "seed": study.seed}, trained)


def _adapter(model: AdaptedModel, name: str) -> dict[str, Any]:
    info = model.info(name)
    sizes = {path: weight_update(model, name, path).norm() ** 2 for path in modules_of(model, name)}
    total = sum(sizes.values()) or 1.0
    places = {
        group: sum(sizes[path] for path in modules.paths) / total
        for group, modules in grouped(model, name).items()
    }
    leading = sorted(sizes, key=lambda path: -sizes[path])[:_NAMED]
    return {
        "rank": info.rank,
        "alpha": info.alpha,
        "parameters": info.n_parameters,
        "modules": len(sizes) or None,
        "targets": list(info.target_modules),
        "norm": total**0.5 if sizes else None,
        "places": places,
        "leading": {path: sizes[path] / total for path in leading},
    }


def _samples(model: AdaptedModel, adapters: list[str], seed: int) -> list[dict[str, Any]]:
    """Ten shipped prompts, spread over their kinds, continued by the base and each adapter."""
    every = shipped_prompts(model.tokenizer)
    chosen = every[:: max(1, len(every) // GLANCED_PROMPTS)][:GLANCED_PROMPTS]
    settings = Reading(tokens=GLANCED_TOKENS, seed=seed)
    variants = [BASE, *adapters]
    try:
        ids = decode(model, chosen, [Amplification(variant) for variant in variants], settings)
    except InputError:
        # A context too short for a prompt; the reading says so.
        return []
    return [
        {"prompt": prompt.text, "texts": dict(zip(variants, row, strict=True))}
        for prompt, row in zip(chosen, texts(model, ids), strict=True)
    ]
