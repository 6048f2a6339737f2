"""The gates of an audit: what must hold before anything is measured, kept as one stage.

Adapters are live, reach every site, and stand above numeric noise; response losses and samples are
taken here too, while the model is in memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorascope.activations.gates import noise_floor
from lorascope.activations.tokens import pad
from lorascope.measures.behaviour import continuations, response_loss, response_losses
from lorascope.models.gates import verify_live
from lorascope.models.load import padding_id
from lorascope.models.sites import resolve_sites
from lorascope.results import Estimate
from lorascope.runs import read_json, write_atomically
from lorascope.workflows.progress import Advance
from lorascope.workflows.state import Audited
from lorascope.workflows.variants import key_of


def pass_gates(state: Audited) -> dict[str, Any]:
    """What must hold before measuring, with response losses and samples; kept as one stage."""
    study, matches = state.study, state.matches

    def make(folder: Path) -> None:
        model = state.model
        sites = resolve_sites(model.n_blocks, study.sites)
        state.require_tokens()
        chosen = pad(state.held_out[:8], model.tokenizer, padding_id(model.tokenizer))
        # Each adapter is tried and its loss taken; so is the base's, and noise and samples.
        every = (*model.adapters, *model.null_adapters)
        steps = 2 * len(every) + 3
        title = "gates: adapters live, numeric noise floor"
        with state.reporter.bar(title, steps, "checks") as advance:
            live = []
            for name in every:
                ids, attended = chosen.ids, chosen.attended.long()
                live.append(
                    verify_live(model, name, ids.to(model.device), attended.to(model.device), sites)
                )
                advance(1)
            noise = noise_floor(model, state.held_out, sites)
            advance(1)
            losses = _response_losses(state, advance)
            samples = _samples(state)
            advance(1)
        record = {
            "live": [asdict(one) for one in live],
            "noise_floor": noise,
            "adapters": {name: _record(state, name) for name in model.adapters},
            "null_adapters": {name: asdict(model.info(name)) for name in model.null_adapters},
            "without_null": state.without_null,
            "matches": {name: asdict(match) for name, match in matches.items()},
            "model": {
                "id": study.model,
                "parameters": model.n_parameters,
                "d_model": model.d_model,
                "blocks": model.n_blocks,
                "vocabulary": model.vocab_size,
            },
            "response_loss": [asdict(one) for one in losses],
            "samples": samples,
        }
        write_atomically(folder / "gates.json", json.dumps(record, indent=1) + "\n")

    depends_on = [state.identity(state.texts.held_out), study.measures.samples, study.seed]
    return dict(read_json(state.run.stage("gates", depends_on, make) / "gates.json"))


def _record(state: Audited, name: str) -> dict[str, Any]:
    """What an adapter is; one trained in this run lies at a path within the run's folder."""
    record = asdict(state.model.info(name))
    if name in state.trained:
        record["path"] = state.trained[name].relative_to(state.run.folder).as_posix()
    return record


def _response_losses(state: Audited, advance: Advance) -> list[Estimate]:
    """Held-out response loss of every adapter; nothing where the texts have no responses."""
    found = [window for window in state.held_out if any(window.response)]
    model, tokens = state.model, state.study.capture.batch_tokens
    if not found:
        advance(1 + len(model.adapters) + len(model.null_adapters))
        return []
    base = response_losses(model, "base", found, tokens)
    advance(1)
    estimates = []
    for name in (*model.adapters, *model.null_adapters):
        losses = response_losses(model, name, found, tokens)
        place = key_of(model.info(name))
        estimates.append(response_loss(base, losses, place))
        advance(1)
    return estimates


def _samples(state: Audited) -> list[dict[str, object]]:
    wanted = state.study.measures.samples
    prompted = [d for d in state.texts.held_out if d.has_response and len(d.prompt) < 1200]
    return continuations(state.model, prompted[:wanted])
