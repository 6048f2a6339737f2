"""What a study will cost, worked out without weights, and refused where it cannot fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorascope.dictionaries.addresses import SCHEME
from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError, did_you_mean
from lorascope.latent_adapters.loading import check
from lorascope.models.adapter_files import is_at_hand
from lorascope.models.shapes import Shape
from lorascope.models.sites import resolve_sites
from lorascope.models.stored import computing_dtype
from lorascope.studies.audit import costs
from lorascope.studies.audit.costs import StudyCounts
from lorascope.studies.audit.learning import ablated
from lorascope.studies.audit.study import AuditStudy
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.cost import Cost, CostPart
from lorascope.workflows.sizes import SizedModel, StudySizes, base_of, sizes_of
from lorascope.workflows.speed import device_of

# Fewest tokens to measure on, and to train dictionaries on.
LEAST_TOKENS = 500


@dataclass(frozen=True, kw_only=True)
class Plan(Cost):
    """The size of an audit.

    Attributes:
        parameters: of the base model.
        probe_tokens, held_out_tokens: tokens that count; the first train dictionaries.
        dictionaries: how many are trained.
        dictionary_steps: optimiser steps of one of them.
        adapter_steps: optimiser steps over all adapters trained.
    """

    parameters: int
    d_model: int
    blocks: int
    documents: int
    probe_tokens: int
    held_out_tokens: int
    adapters: int
    sites: int
    dictionaries: int
    dictionary_steps: int
    adapter_steps: int

    def sizes(self) -> list[tuple[str, str]]:
        """(what, how much) of the study's own sizes."""
        return [
            ("model", f"{self.parameters:,} parameters, {self.blocks} blocks of {self.d_model}"),
            ("adapters × sites", f"{self.adapters} × {self.sites}"),
            ("documents", f"{self.documents:,}{self.about}"),
            (
                "tokens",
                f"{self.probe_tokens:,} to train on, {self.held_out_tokens:,} held out{self.about}",
            ),
            ("adapter training", f"{self.adapter_steps:,} steps"),
            (
                "dictionaries",
                f"{self.dictionaries} of {self.dictionary_steps:,} steps each{self.about}",
            ),
        ]


def plan(study: AuditStudy, *, estimates: bool = True) -> Plan:
    """Tokens, steps, disk, memory and arithmetic of a study, from configuration and texts alone.

    Args:
        estimates: where a well-known model or dataset is not at hand, go by what is published
            about it and say so.

    Raises:
        InputError: model, sites, dictionaries or texts do not fit the study, or there are too few
            tokens.
    """
    base = base_of(study, estimates=estimates)
    shape = base.shape
    sites = resolve_sites(shape.blocks, study.sites)
    _require_places(study.dictionaries.base, [site.name for site in sites])
    _require_known(study.dictionaries.base)
    unread = _check_adapters(study, base, estimates=estimates)
    sizes = sizes_of(study, base, estimates=estimates)
    ablated(study, [site.name for site in sites], list(study.groups))
    require_tokens(study, sizes.probe_tokens, sizes.held_out_tokens, sizes.held_out_documents)
    adapters = len(study.groups)
    counts = StudyCounts(
        adapters=adapters,
        sites=len(sites),
        deepest=max(site.index for site in sites) + 1,
        trained=count_dictionaries(study, adapters, len(sites)),
        controls=adapters * len(sites) * _drawn_dictionaries(study),
        nulls=adapters * study.controls.null_adapters,
        ablated=len(study.ablation.values) if study.ablation else 0,
    )
    return Plan(
        parameters=shape.parameters,
        d_model=shape.d_model,
        blocks=shape.blocks,
        documents=sizes.documents,
        probe_tokens=sizes.probe_tokens,
        held_out_tokens=sizes.held_out_tokens,
        adapters=adapters,
        sites=len(sites),
        dictionaries=counts.trained,
        dictionary_steps=study.dictionaries.fitting.within(sizes.probe_tokens).steps(
            sizes.probe_tokens
        ),
        adapter_steps=adapters * study.train.training.steps if study.train else 0,
        disk=costs.disk(study, shape, sizes, counts),
        parts=_parts(study, shape, sizes, counts),
        device="several devices" if study.device_map else device_of(study.device),
        notes=(*sizes.notes, *unread),
        cautions=tuple(smaller_batches(study, sizes.probe_tokens)),
    )


def _check_adapters(study: AuditStudy, base: SizedModel, *, estimates: bool) -> list[str]:
    """Look at the adapters without a weight of the base; say which could not be looked at.

    Raises:
        InputError: one does not fit the base, or is damaged.
    """
    at_hand = {n: path for n, path in study.given.items() if not estimates or is_at_hand(path)}
    if base.notes:
        at_hand = {}
    check(study.model, at_hand, revision=study.revision, force=study.force)
    unread = [name for name in study.given if name not in at_hand]
    return [f"adapters not looked at: {', '.join(unread)}"] if unread else []


def require_tokens(study: AuditStudy, probe: int, held_out: int, documents: int) -> None:
    """Refuse texts that cannot carry the numbers asked.

    Raises:
        InputError: says how many tokens or documents there are and how many are needed.
    """
    # First what more text alone mends: it mends the other too.
    if documents < 10 or held_out < LEAST_TOKENS:
        raise InputError(
            f"the texts leave {documents} documents with {held_out:,} tokens to measure on; "
            f"intervals need at least 10 documents and {LEAST_TOKENS} tokens: give more, or "
            "shorter, documents"
        )
    if probe < (needed := min(LEAST_TOKENS, 4 * study.dictionaries.fitting.batch)):
        raise InputError(
            f"the texts leave {probe:,} tokens to train dictionaries on, which needs at least "
            f"{needed:,}: give more text"
        )


def smaller_batches(study: AuditStudy, probe: int) -> list[str]:
    """What has to be said where the texts are too few for the batches of the settings.

    Dictionaries of so few tokens are poor; their yardsticks say so, and numbers taken with them
    have no verdict then.
    """
    fitting = study.dictionaries.fitting
    smaller = fitting.within(probe)
    if smaller.batch == fitting.batch:
        return []
    return [
        f"the texts leave {probe:,} tokens to train dictionaries on: batches are of "
        f"{smaller.batch} in place of {fitting.batch} rows, {smaller.steps(probe):,} steps in all; "
        "more text makes better dictionaries"
    ]


def count_dictionaries(study: AuditStudy, adapters: int, sites: int) -> int:
    """How many dictionaries a study trains."""
    settings = study.dictionaries
    each = len(settings.seeds) + study.controls.null_adapters + _drawn_dictionaries(study)
    delta = adapters * sites * each
    ablated = len(study.ablation.values) if study.ablation else 0
    return delta + ablated + (sites - len(settings.base)) * len(settings.seeds)


def _drawn_dictionaries(study: AuditStudy) -> int:
    """Dictionaries of one adapter and site that are trained on rows made from its delta."""
    return len(study.dictionaries.controls) + study.controls.gaussian_dictionaries


def _require_places(brought: Iterable[str], sites: Sequence[str]) -> None:
    """Refuse a base dictionary for a site that is not looked at: nothing would read it."""
    for site in brought:
        if site not in sites:
            raise InputError(
                f'dictionaries.base: "{site}" is none of the sites ({", ".join(sites)}).'
                f"{did_you_mean(site, sites)} Name one of them"
            )


def _require_known(brought: dict[str, str]) -> None:
    """Refuse an address in SAELens' list that is not in it; the list is in its package."""
    for address in brought.values():
        if address.startswith(SCHEME):
            look_up(address)


def _parts(
    study: AuditStudy, shape: Shape, sizes: StudySizes, counts: StudyCounts
) -> tuple[CostPart, ...]:
    device, d = device_of(study.device), shape.d_model
    weights = computing_dtype(study.dtype)
    captured = costs.capture(study, shape, sizes, counts, weights)
    found = [
        captured,
        costs.sanity_checks(study, shape, sizes, counts, weights, captured.memory),
        costs.first_look(study, shape, counts, weights),
    ]
    if counts.nulls and study.controls.match != "spectrum":
        found.append(costs.matching(study, shape, sizes, counts, weights))
    if study.train is not None:
        products = product_dtype(study.train.training.products, device)
        found.insert(0, costs.adapter_training(study, shape, sizes, weights, products))
    products = product_dtype(study.dictionaries.fitting.products, device)
    found.append(costs.dictionary_training(study, d, sizes, counts, device, products))
    found.append(costs.measures(study, d, sizes, counts))
    if study.measures.pursuit:
        found.append(costs.pursued(study, d, sizes, counts))
    if study.measures.effects:
        found.append(costs.effects(study, shape, sizes, counts, weights, captured.memory))
    if study.reading is not None:
        found.append(costs.reading(study, shape, counts, weights, captured.memory))
    if study.measures.weights:
        found.append(costs.weights(shape, counts))
    return tuple(found)
