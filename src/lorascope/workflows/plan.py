"""What a study will cost, worked out without weights, and refused where it cannot fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lorascope.dictionaries.registry import SCHEME, look_up
from lorascope.errors import InputError, did_you_mean
from lorascope.latent_adapters.loading import check
from lorascope.machine import total_memory
from lorascope.models.adapter_files import is_at_hand
from lorascope.models.shapes import Shape
from lorascope.models.sites import resolve_sites
from lorascope.models.stored import computing_dtype
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows import costs
from lorascope.workflows.advice import lowers_memory, lowers_time
from lorascope.workflows.costs import Counts, Part
from lorascope.workflows.learning import ablated
from lorascope.workflows.machines import Machine
from lorascope.workflows.sizes import Base, Sizes, base_of, sizes_of
from lorascope.workflows.speed import device_of, product_speed
from lorascope.workflows.study import AuditStudy


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What any study takes.

    Attributes:
        disk: bytes of the run folder; the hub's own cache is not counted.
        parts: arithmetic and memory of each part.
        device: where it would run: "cpu", "cuda", or "several devices".
        notes: what was estimated, and from what.
        machine: of the table, for a study that is to run there; None for this machine.
    """

    disk: int
    parts: tuple[Part, ...]
    device: str
    notes: tuple[str, ...] = ()
    machine: Machine | None = None

    @property
    def flops(self) -> float:
        """Floating-point operations of all parts."""
        return sum(part.flops for part in self.parts)

    @property
    def memory(self) -> int:
        """Bytes that the hungriest part takes."""
        return costs.resident(self.hungriest)

    @property
    def about(self) -> str:
        """What stands behind a number that was estimated."""
        return " (estimated)" if self.notes else ""

    @property
    def hungriest(self) -> Part:
        """The part that takes the most memory."""
        return max(self.parts, key=lambda part: part.memory)

    def speeds(self) -> dict[str, float]:
        """Operations a second that are assumed for each part, of the machine or measured here."""
        here = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
        found = {}
        for part in self.parts:
            on_cpu = part.name in costs.ON_CPU
            if self.machine is not None and not on_cpu:
                found[part.name] = self.machine.speed(part.dtype)
            else:
                found[part.name] = product_speed("cpu" if on_cpu else here, part.dtype)
        return found

    def seconds(self) -> dict[str, float]:
        """Estimated time of each part, from the speed of products."""
        speeds = self.speeds()
        return {part.name: part.seconds(speeds[part.name]) for part in self.parts}

    def prices(self) -> list[tuple[str, str]]:
        """(what, how much) of disk, memory, arithmetic and time; times products for a moment."""
        seconds = self.seconds()
        longest = max(seconds, key=lambda name: seconds[name])
        share = seconds[longest] / max(1e-9, sum(seconds.values()))
        place = f"on this machine ({self.device})"
        if self.machine is not None:
            place = f"on one {self.machine.title}"
        return [
            ("disk", _bytes(self.disk)),
            ("memory", f"{_bytes(self.memory)}, in {self.hungriest.name}"),
            ("arithmetic", f"{self.flops:.2e} floating-point operations"),
            *((f"  {part.name}", f"{part.flops:.2e}") for part in self.parts),
            ("time", f"about {_time(sum(seconds.values()))} {place}"),
            *((f"  {part.name}", _time(seconds[part.name])) for part in self.parts),
            ("speed assumed", self._assumed()),
            ("largest part", f"{longest}, {share:.0%} of the time; lower {lowers_time(longest)}"),
            *(("estimated", note) for note in self.notes),
        ]

    def _assumed(self) -> str:
        """Operations a second of large products, by type and by where it comes from."""
        speeds = self.speeds()
        measured: dict[str, str] = {}
        stated: dict[str, str] = {}
        for part in self.parts:
            name = str(part.dtype).removeprefix("torch.")
            known = self.machine is not None and part.name not in costs.ON_CPU
            where = stated if known else measured
            where[name] = f"{speeds[part.name] / 1e9:,.0f} GFLOP/s in {name}"
        found = []
        if stated and self.machine is not None:
            found.append(f"{', '.join(stated.values())} ({self.machine.title}, as stated, × 0.6)")
        if measured:
            threads = torch.get_num_threads()
            found.append(
                f"{', '.join(measured.values())} (products measured here, "
                f"{threads} thread{'s' if threads > 1 else ''}, nothing else running)"
            )
        return "; ".join(found)


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

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a table; times the device's products for a moment."""
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
            *self.prices(),
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
    counts = Counts(
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
        dictionary_steps=study.dictionaries.fitting.steps(sizes.probe_tokens),
        adapter_steps=adapters * study.train.training.steps if study.train else 0,
        disk=costs.disk(study, shape, sizes, counts),
        parts=_parts(study, shape, sizes, counts),
        device="several devices" if study.device_map else device_of(study.device),
        notes=(*sizes.notes, *unread),
    )


def _check_adapters(study: AuditStudy, base: Base, *, estimates: bool) -> list[str]:
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


def refuse_what_cannot_fit(cost: Cost, out: Path) -> None:
    """One clear line where disk or memory will not do; what a run in `out` has written counts.

    Raises:
        InputError: less is free than the study needs.
    """
    for line in what_does_not_fit(cost, out):
        raise InputError(line)


def what_does_not_fit(cost: Cost, out: Path, memory: int | None = None) -> list[str]:
    """Lines where disk or memory will not do, each with what to lower.

    Args:
        out: where the run would go; what it has written there counts.
        memory: bytes there are, in place of those of the machine.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if (out / "manifest.json").exists():
        free += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    found = []
    # Of a machine elsewhere the disk is not known.
    if cost.disk > free and cost.machine is None:
        found.append(
            f"{out}: the study needs {_bytes(cost.disk)} of disk and {_bytes(free)} are free; "
            "use fewer documents or sites, or another --out"
        )
    total, where = memory, "the machine"
    if total is not None:
        where = "it"
    elif cost.machine is not None:
        total, where = cost.machine.memory, f"one {cost.machine.title}"
    elif cost.device == "cpu":
        total, where = total_memory(), "this machine"
    elif cost.device == "cuda":
        total, where = torch.cuda.get_device_properties(0).total_memory, "the GPU"
    if total is not None and cost.memory > total:
        part = cost.hungriest.name
        found.append(
            f"the study needs {_bytes(cost.memory)} of memory in {part} and {where} has "
            f"{_bytes(total)}; lower {lowers_memory(part)}, or use a smaller model"
        )
    return found


def require_tokens(study: AuditStudy, probe: int, held_out: int, documents: int) -> None:
    """Refuse texts that cannot carry the numbers asked.

    Raises:
        InputError: says how many tokens or documents there are and how many are needed.
    """
    # First what more text alone mends: it mends the other too.
    if documents < 10 or held_out < 500:
        raise InputError(
            f"the texts leave {documents} documents with {held_out:,} tokens to measure on; "
            "intervals need at least 10 documents and 500 tokens: give more, or shorter, documents"
        )
    batch = study.dictionaries.fitting.batch
    if probe < 4 * batch:
        raise InputError(
            f"the texts leave {probe:,} tokens to train dictionaries on; batches of {batch} need "
            f"at least {4 * batch:,}: give more text, or --set dictionaries.fitting.batch="
            f"{max(1, probe // 4)}"
        )


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


def _parts(study: AuditStudy, shape: Shape, sizes: Sizes, counts: Counts) -> tuple[Part, ...]:
    device, d = device_of(study.device), shape.d_model
    weights = computing_dtype(study.dtype)
    captured = costs.capture(study, shape, sizes, counts, weights)
    found = [captured, costs.gates(shape, sizes, counts, weights, captured.memory)]
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


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB" if value < 1000 else f"{value:,.0f} GB"


def _time(seconds: float) -> str:
    # Below the number that two digits would round up to a third.
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:,.2g} h" if seconds < 99 * 3600 else f"{seconds / 86400:,.0f} days"
