"""The gates of an audit: what must hold before anything is measured, kept as one stage.

Adapters are live, reach every site, and stand above numeric noise; samples are taken here too.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorascope.activations.gates import noise_floor
from lorascope.activations.tokens import pad
from lorascope.measures.behaviour import continuations
from lorascope.models.gates import verify_all_live
from lorascope.models.load import padding_id
from lorascope.models.sites import resolve_sites
from lorascope.runs import read_json, write_atomically
from lorascope.workflows.state import Audited


def pass_gates(state: Audited) -> dict[str, Any]:
    """What must hold before measuring, with response losses and samples; kept as one stage."""
    study, matches = state.study, state.matches

    def make(folder: Path) -> None:
        model = state.model
        sites = resolve_sites(model.n_blocks, study.sites)
        state.require_tokens()
        chosen = pad(state.held_out[:8], model.tokenizer, padding_id(model.tokenizer))
        # Each adapter is tried, then noise and samples are taken.
        every = (*model.adapters, *model.null_adapters)
        steps = len(every) + 2
        title = "gates: adapters live, numeric noise floor"
        with state.reporter.bar(title, steps, "checks") as advance:
            ids, attended = chosen.ids.to(model.device), chosen.attended.long().to(model.device)
            live = verify_all_live(model, every, ids, attended, sites, advance)
            noise = noise_floor(model, state.held_out, sites)
            advance(1)
            samples = _samples(state)
            advance(1)
        record = {
            "live": [asdict(one) for one in live],
            "noise_floor": noise,
            "adapters": {name: asdict(model.info(name)) for name in model.adapters},
            "null_adapters": {name: asdict(model.info(name)) for name in model.null_adapters},
            "matches": {name: asdict(match) for name, match in matches.items()},
            "model": {
                "id": study.model,
                "parameters": model.n_parameters,
                "d_model": model.d_model,
                "blocks": model.n_blocks,
                "vocabulary": model.vocab_size,
            },
            "samples": samples,
        }
        write_atomically(folder / "gates.json", json.dumps(record, indent=1) + "\n")

    depends_on = [state.identity(state.texts.held_out), study.measures.samples, study.seed]
    return dict(read_json(state.run.stage("gates", depends_on, make) / "gates.json"))


def _samples(state: Audited) -> list[dict[str, object]]:
    wanted = state.study.measures.samples
    prompted = [d for d in state.texts.held_out if d.has_response and len(d.prompt) < 1200]
    return continuations(state.model, prompted[:wanted])
