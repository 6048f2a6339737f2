"""The sanity checks of an audit: what must hold before anything is measured, kept as one stage.

Adapters are live, reach every site, and stand above numeric noise; samples are taken here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lorascope.activations.matching import match_delta_norms
from lorascope.activations.noise_floor import noise_floor
from lorascope.activations.settings import Capture
from lorascope.activations.tokens import pad
from lorascope.measures.behaviour import continuations
from lorascope.models.adapted import AdaptedModel
from lorascope.models.load import padding_id
from lorascope.models.sanity_checks import verify_all_live
from lorascope.models.stored import stored_as
from lorascope.runs import write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.state import MATCHING, SANITY_CHECKS, Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.adapters import ADAPTERS


@stage(version=2, title="checking adapters")
def check(work: Work, *, study: AuditStudy, identity: dict[str, Any]) -> None:
    """What must hold before measuring, and samples.

    Args:
        identity: what the held-out activations depend on.
    """
    state: Audited = work.state
    model, matches, sites = state.model, state.matches, state.sites
    state.require_tokens()
    chosen = pad(state.held_out[:8], model.tokenizer, padding_id(model.tokenizer))
    # Each adapter is tried, then noise and samples are taken.
    every = (*model.adapters, *model.null_adapters)
    title = "sanity checks: adapters live, numeric noise floor"
    with work.reporter.bar(title, len(every) + 2, "checks") as advance:
        ids, attended = chosen.inputs(model.device)
        live = verify_all_live(model, every, ids, attended, sites, advance)
        noise = noise_floor(model, state.held_out, sites)
        advance(1)
        samples = _samples(state, study.measures.samples)
        advance(1)
    record = {
        "live": [asdict(one) for one in live],
        "noise_floor": noise,
        "adapters": {name: _record(state, name) for name in model.adapters},
        "null_adapters": {name: asdict(model.info(name)) for name in model.null_adapters},
        "without_null": state.without_null,
        "matches": {name: asdict(match) for name, match in matches.items()},
        "model": _model_record(model, identity["model"][0]),
        "samples": samples,
    }
    write_json(work.folder / "sanity_checks.json", record)


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
    with work.reporter.bar("matching", len(model.null_adapters), "adapters") as advance:
        matches = match_delta_norms(model, model.adapters, found, state.sites, capture, advance)
    record = {name: asdict(match) for name, match in matches.items()}
    write_json(work.folder / "matches.json", record)


def stages(state: Audited) -> Iterator[Stage]:
    """The stages `matching`, where the study asks for that, and `sanity_checks`."""
    trained = tuple(f"{ADAPTERS}/{name}" for name in state.trained)
    if state.matched_on:
        arguments = {"identity": state.identity(state.matched_on)}
        yield Stage(MATCHING, match, arguments, trained)
    before = (MATCHING,) if state.matched_on else trained
    study, identity = state.study.only("measures.samples"), state.identity(state.texts.held_out)
    yield Stage(SANITY_CHECKS, check, {"study": study, "identity": identity}, before)


def _model_record(model: AdaptedModel, id: str) -> dict[str, Any]:
    """What the base is; of one whose weights are rounded to fewer than 16 bits also how."""
    stored = stored_as(id, model.module)
    return {
        "id": id,
        "parameters": model.n_parameters,
        "d_model": model.d_model,
        "blocks": model.n_blocks,
        "vocabulary": model.vocab_size,
        **({"stored": stored} if stored else {}),
    }


def _record(state: Audited, name: str) -> dict[str, Any]:
    """What an adapter is; one trained in this run lies at a path within the run's folder."""
    record = asdict(state.model.info(name))
    if name in state.trained:
        record["path"] = state.trained[name].relative_to(state.folder).as_posix()
    return record


def _samples(state: Audited, wanted: int) -> list[dict[str, object]]:
    prompted = [d for d in state.texts.held_out if d.has_response and len(d.prompt) < 1200]
    return continuations(state.model, prompted[:wanted])
