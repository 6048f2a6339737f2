"""What the delta does to the outputs: how much of it returns through each dictionary, latent by
latent. One stage an adapter, which runs the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lorascope.activations.tokens import token_text
from lorascope.dictionaries.dictionary import Dictionary
from lorascope.measures import matched_latents, recovery, single_latents, surveys
from lorascope.measures.attribution import Attributing
from lorascope.measures.removals import sweep
from lorascope.measures.rows import HeldOut
from lorascope.measures.spots import MOST_TOKENS, Mode, read_spots
from lorascope.models.sites import parse_site
from lorascope.results import GAUSSIAN, Estimate, Key
from lorascope.results.labels import BASE_DIFFERENCE, DELTA
from lorascope.runs import write_json
from lorascope.stages import Stage, Work, stage
from lorascope.studies.audit.measuring import PARENTS, Audit
from lorascope.studies.audit.state import Audited
from lorascope.studies.audit.study import AuditStudy
from lorascope.workflows.measured import Measured
from lorascope.workflows.run_dictionaries import DICTIONARIES, brought_at

EFFECTS = "effects"
LATENTS = "latents.json"
# To first order, of every latent: {site: its losses, then their chance levels}.
ATTRIBUTED = "attributed.safetensors"


# What effects read of the study.
_SETTINGS = (
    *("measures.effect_tokens", "measures.latents", "measures.rows", "capture"),
    "seed",
)


def stages(state: Audited) -> Iterator[Stage]:
    """One stage an adapter, `effects/<adapter>`; none where the study does not ask for effects.

    Dictionaries are those of the study's first seed.
    """
    if not state.study.measures.effects:
        return
    study, seed = state.study.only(*_SETTINGS), state.study.dictionaries.seeds[0]
    for adapter in state.adapters:
        used = [
            f"{DICTIONARIES}/{key.name}"
            for key in state.wanted
            if key.seed == seed and key.target in ("base", "delta", "gaussian")
            if not key.setting
            if key.adapter in ("", adapter, *state.nulls_of(adapter))
        ]
        used += [brought_at(site) for site in state.brought]
        arguments = {"study": study, "first_seed": seed, "adapter": adapter}
        yield Stage(f"{EFFECTS}/{adapter}", take, arguments, (*PARENTS, *used))


@stage(version=1, title="effects on the outputs")
def take(work: Work, *, study: AuditStudy, first_seed: int, adapter: str) -> None:
    """Change of outputs, functional recovery and single latents of one adapter."""
    state: Audited = work.state
    audit = state.audit(study, first_seed)
    _of_adapter(state, audit, adapter, work.folder).write(work.folder)


def _of_adapter(state: Audited, audit: Audit, adapter: str, folder: Path) -> Measured:
    study, sites, found = audit.study, audit.probe.sites, Measured()
    survey, *of_nulls = surveys.surveys(
        state.model,
        [adapter, *audit.variants.nulls_of(adapter)],
        state.held_out,
        sites,
        capture=study.capture,
        most=study.measures.effect_tokens,
        floor=state.output_floor,
    )
    place = audit.variants.keys[adapter]
    found.estimates.extend(surveys.change_estimates(survey, place))
    found.attempt(place, partial(_recovered, state, audit, survey, place))
    for other in of_nulls:
        of_null = audit.variants.keys[other.adapter]
        found.estimates.extend(surveys.change_estimates(other, of_null))
        found.attempt(of_null, partial(_recovered, state, audit, other, of_null))
    rows: list[dict[str, Any]] = []
    attributed: dict[str, Tensor] = {}
    if study.measures.latents:
        for site in sites:
            here = replace(place, site=site, seed=audit.first_seed, dictionary="delta")
            found.attempt(here, partial(_latents, state, audit, survey, here, rows, attributed))
    write_json(folder / LATENTS, rows)
    save_file(attributed, folder / ATTRIBUTED)
    return found


def _recovered(state: Audited, audit: Audit, survey: surveys.Survey, place: Key) -> list[Estimate]:
    """Recovery through every dictionary of one adapter or null adapter; controls of the first."""
    seed, name = audit.first_seed, survey.adapter
    written, differences, means, sparse = {}, {}, {}, dict[Key, Dictionary]()
    for site in audit.probe.sites:
        here = replace(place, site=site, seed=seed)
        base = audit.learned.base(site, seed)
        written[replace(here, dictionary="base")] = base
        written[replace(here, dictionary="delta")] = audit.learned.delta(site, name, seed)
        differences[replace(here, dictionary=BASE_DIFFERENCE)] = base
        means[site], _ = audit.probe.moments(site, name)
        if place.draw is None:
            for draw, dictionary in enumerate(audit.learned.gaussian(site, name)):
                drawn = replace(here, dictionary=DELTA, null=GAUSSIAN, draw=draw)
                written[drawn] = dictionary
                sparse[drawn] = audit.learned.delta(site, name, seed)
    spliced = recovery.splice(
        state.model,
        survey,
        written,
        differences,
        means,
        seed=audit.study.seed,
        repeats=recovery.NULL_REPEATS if place.draw is None else 0,
        as_sparse_as=sparse,
    )
    return recovery.recovery_estimates(spliced, place)


def _latents(
    state: Audited,
    audit: Audit,
    survey: surveys.Survey,
    place: Key,
    rows: list[dict[str, Any]],
    losses: dict[str, Tensor],
) -> list[Estimate]:
    """Effects of the leading latents of one dictionary, beside matched ones.

    A record of each goes into `rows`; every latent's first-order effect and its chance level into
    `losses`.
    """
    assert place.seed is not None
    survey.require_effect()
    dictionary = audit.learned.delta(place.site, place.adapter, place.seed)
    held_out = HeldOut.load(audit.held_out, place.site, place.adapter, audit.study.measures.rows)
    latents = single_latents.leading_latents(
        dictionary, held_out.delta, audit.study.measures.latents
    )
    most = min(MOST_TOKENS, audit.study.measures.effect_tokens)
    single_latents.require_latents(dictionary, latents)
    spots = list(read_spots(state.model, survey, parse_site(place.site), dictionary, most))
    seeded = audit.study.seed
    single = single_latents.Effects(state.model, spots, dictionary, latents, seed=seeded, others=())
    matching = matched_latents.Matching(spots, place.site, dictionary, latents, seed=seeded)
    attributing = Attributing(dictionary, place.site, seeded)
    sweep(state.model, spots, [single, matching, attributing])
    effects, beside, every = single.found(), matching.found(), attributing.found()
    losses[place.site] = torch.stack([every.loss, every.chance]).float().contiguous()
    rows += _records(state.model.tokenizer, effects, beside, place)
    kl = {single_latents.NAMES[mode][0]: one for mode, one in beside.items()}
    return [
        matched_latents.beside_matched(e, kl[e.measure]) if e.measure in kl else e
        for e in single_latents.latent_estimates(effects, place, audit.study.seed)
    ]


def _records(
    tokenizer: Any,
    effects: single_latents.LatentEffects,
    beside: Mapping[Mode, matched_latents.Matched],
    place: Key,
) -> Sequence[dict[str, Any]]:
    found = []
    for index, latent in enumerate(effects.latents.tolist()):
        record: dict[str, Any] = {
            "site": place.site,
            "seed": place.seed,
            "latent": latent,
            "density": float(effects.density[index]),
            "strength": float(effects.strength[index]),
            "promoted": [token_text(tokenizer, t) for t in effects.promoted[index].tolist()],
        }
        for mode, changes in effects.changes.items():
            record |= {
                f"{mode}_kl": float(changes.kl[index, 0]),
                f"{mode}_loss": float(changes.loss[index, 0]),
                f"{mode}_loss_attributed": float(changes.attributed_loss[index, 0]),
            }
        for mode, one in beside.items():
            record |= {
                f"{mode}_kl_other": float(one.expected[index]),
                f"{mode}_p": float(one.p[index]),
                f"{mode}_q": float(one.q[index]),
                f"{mode}_alternatives": int(one.counts[index]),
            }
        found.append(record)
    return found
