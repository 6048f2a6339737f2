"""The gates of an audit: what must hold before anything is measured, kept as one stage.

Adapters are live, reach every site, and stand above numeric noise; response losses and samples are
taken here too, while the model is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lorascope.activations.collect import Capture
from lorascope.activations.gates import noise_floor
from lorascope.activations.matching import Match, match_delta_norms
from lorascope.activations.tokens import pad
from lorascope.measures.behaviour import continuations, response_loss, response_losses
from lorascope.models.gates import verify_live
from lorascope.models.load import padding_id
from lorascope.progress import Advance
from lorascope.results import Estimate
from lorascope.runs import write_atomically
from lorascope.stages import Stage, Work, stage
from lorascope.workflows.adapters import ADAPTERS
from lorascope.workflows.state import GATES, MATCHING, Audited
from lorascope.workflows.study import AuditStudy
from lorascope.workflows.variants import key_of


@stage(version=1, title="checking adapters")
def check(work: Work, *, study: AuditStudy, identity: dict[str, Any]) -> None:
    """What must hold before measuring, with response losses and samples.

    Args:
        identity: what the held-out activations depend on.
    """
    state: Audited = work.state
    model, matches, sites = state.model, state.matches, state.sites
    state.require_tokens()
    chosen = pad(state.held_out[:8], model.tokenizer, padding_id(model.tokenizer))
    # Each adapter is tried and its loss taken; so is the base's, and noise and samples.
    every = (*model.adapters, *model.null_adapters)
    steps = 2 * len(every) + 3
    title = "gates: adapters live, numeric noise floor"
    with work.reporter.bar(title, steps, "checks") as advance:
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
        samples = _samples(state, study.measures.samples)
        advance(1)
    record = {
        "live": [asdict(one) for one in live],
        "noise_floor": noise,
        "adapters": {name: asdict(model.info(name)) for name in model.adapters},
        "null_adapters": {name: asdict(model.info(name)) for name in model.null_adapters},
        "matches": {name: asdict(match) for name, match in matches.items()},
        "model": {
            "id": identity["model"][0],
            "parameters": model.n_parameters,
            "d_model": model.d_model,
            "blocks": model.n_blocks,
            "vocabulary": model.vocab_size,
        },
        "response_loss": [asdict(one) for one in losses],
        "samples": samples,
    }
    write_atomically(work.folder / "gates.json", json.dumps(record, indent=1) + "\n")


@stage(version=1, title="matching null adapters")
def match(work: Work, *, identity: dict[str, Any]) -> None:
    """Bring the null adapters to their adapters' mean delta norms.

    Args:
        identity: what activations of the documents that they are matched on depend on.
    """
    state: Audited = work.state
    state.require_tokens()
    model, found = state.unmatched, state.openings()
    capture = Capture.parse(identity["capture"], "capture")
    matches: dict[str, Match] = {}
    with work.reporter.bar("matching", len(model.null_adapters), "adapters") as advance:
        for name in model.adapters:
            matches |= match_delta_norms(model, name, found, state.sites, capture, advance)
    record = {name: asdict(match) for name, match in matches.items()}
    write_atomically(work.folder / "matches.json", json.dumps(record, indent=1) + "\n")


def stages(state: Audited) -> Iterator[Stage]:
    """The stages `matching`, where the study asks for that, and `gates`."""
    trained = tuple(f"{ADAPTERS}/{name}" for name in state.trained)
    if state.matched_on:
        arguments = {"identity": state.identity(state.matched_on)}
        yield Stage(MATCHING, match, arguments, trained)
    before = (MATCHING,) if state.matched_on else trained
    study, identity = state.study.only("measures.samples"), state.identity(state.texts.held_out)
    yield Stage(GATES, check, {"study": study, "identity": identity}, before)


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


def _samples(state: Audited, wanted: int) -> list[dict[str, object]]:
    prompted = [d for d in state.texts.held_out if d.has_response and len(d.prompt) < 1200]
    return continuations(state.model, prompted[:wanted])
