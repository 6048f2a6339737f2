"""What a study will cost, worked out without weights, and refused where it cannot fit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lorascope import embedded
from lorascope.activations.splits import split
from lorascope.activations.text import read_documents
from lorascope.activations.tokens import count_tokens, windows
from lorascope.errors import InputError, did_you_mean
from lorascope.models.sites import resolve_sites
from lorascope.workflows.adapters import split_for_training
from lorascope.workflows.study import AuditStudy

SHUFFLE_BUFFER_ROWS = 262144


@dataclass(frozen=True)
class Plan:
    """The size of a study.

    Attributes:
        parameters: of the base model.
        probe_tokens, held_out_tokens: tokens that count; the first train dictionaries.
        dictionaries: how many are trained.
        dictionary_steps: optimiser steps of one of them.
        adapter_steps: optimiser steps over all adapters trained.
        disk, memory: bytes.
        flops: floating-point operations, all stages.
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
    disk: int
    memory: int
    flops: float

    def lines(self) -> list[tuple[str, str]]:
        """(what, how much) for a table."""
        return [
            ("model", f"{self.parameters:,} parameters, {self.blocks} blocks of {self.d_model}"),
            ("adapters × sites", f"{self.adapters} × {self.sites}"),
            ("documents", f"{self.documents:,}"),
            ("tokens", f"{self.probe_tokens:,} to train on, {self.held_out_tokens:,} held out"),
            ("adapter training", f"{self.adapter_steps:,} steps"),
            ("dictionaries", f"{self.dictionaries} of {self.dictionary_steps:,} steps each"),
            ("disk", _bytes(self.disk)),
            ("memory", _bytes(self.memory)),
            ("arithmetic", f"{self.flops:.2e} floating-point operations"),
        ]


def plan(study: AuditStudy) -> Plan:
    """Tokens, steps, disk, memory and arithmetic of a study, from configuration and texts alone.

    Raises:
        InputError: model, sites or texts do not fit the study, or there are too few tokens.
    """
    config, tokenizer, parameters = _model(study)
    sites = resolve_sites(config.num_hidden_layers, study.sites)
    _require_places(study.dictionaries.base, [site.name for site in sites])
    d = int(config.hidden_size)
    documents = read_documents(study.texts.sources, study.texts.documents)
    seen = set()
    if study.train is not None:
        seen = {d.digest for d in split_for_training(study.train, study.seed)}
    parts = split(documents, study.texts.held_out, seen, study.seed)
    context = min(study.capture.context, int(config.max_position_embeddings))
    probe, held_out = (
        count_tokens(windows(part, tokenizer, context), tokenizer)
        for part in (parts.probe, parts.held_out)
    )
    require_tokens(study, probe, held_out, len(parts.held_out))
    adapters = len(study.train.training.ranks) if study.train else len(study.adapters)
    trained = count_dictionaries(study, adapters, len(sites))
    n = study.dictionaries.architecture.n_latents
    steps = study.dictionaries.fitting.steps(probe)
    width = 2 if study.capture.store == "bfloat16" else 4
    depth = (max(site.index for site in sites) + 1) / int(config.num_hidden_layers)
    adapter_steps = adapters * study.train.training.steps if study.train else 0
    return Plan(
        parameters=parameters,
        d_model=d,
        blocks=int(config.num_hidden_layers),
        documents=len(documents),
        probe_tokens=probe,
        held_out_tokens=held_out,
        adapters=adapters,
        sites=len(sites),
        dictionaries=trained,
        dictionary_steps=steps,
        adapter_steps=adapter_steps,
        disk=_disk(probe + held_out, d, width, len(sites), adapters, trained, n),
        memory=_memory(study, parameters, probe, d, n),
        flops=_flops(study, parameters, depth, adapters, trained, probe, held_out, d),
    )


def refuse_what_cannot_fit(cost: Plan, out: Path) -> None:
    """One clear line where disk or memory will not do; what a run in `out` has written counts.

    Raises:
        InputError: less is free than the study needs.
    """
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if (out / "manifest.json").exists():
        free += sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if cost.disk > free:
        raise InputError(
            f"{out}: the study needs {_bytes(cost.disk)} of disk and {_bytes(free)} are free; "
            "use fewer documents or sites, or another --out"
        )
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if cost.memory > total and not torch.cuda.is_available():
        raise InputError(
            f"the study needs {_bytes(cost.memory)} of memory and this machine has "
            f"{_bytes(total)}; use a smaller model, fewer latents, or dtype bfloat16"
        )


def _require_places(brought: Iterable[str], sites: Sequence[str]) -> None:
    """Refuse a base dictionary for a site that is not looked at: nothing would read it."""
    for site in brought:
        if site not in sites:
            raise InputError(
                f'dictionaries.base: "{site}" is none of the sites ({", ".join(sites)}).'
                f"{did_you_mean(site, sites)} Name one of them"
            )


def require_tokens(study: AuditStudy, probe: int, held_out: int, documents: int) -> None:
    """Refuse texts that cannot carry the numbers asked.

    Raises:
        InputError: says how many tokens or documents there are and how many are needed.
    """
    batch = study.dictionaries.fitting.batch
    if probe < 4 * batch:
        raise InputError(
            f"the texts leave {probe:,} tokens to train dictionaries on; batches of {batch} need "
            f"at least {4 * batch:,}: give more text, or --set dictionaries.fitting.batch="
            f"{max(1, probe // 4)}"
        )
    if documents < 10 or held_out < 500:
        raise InputError(
            f"the texts leave {documents} documents with {held_out:,} tokens to measure on; "
            "intervals need at least 10 documents and 500 tokens: give more, or shorter, documents"
        )


def count_dictionaries(study: AuditStudy, adapters: int, sites: int) -> int:
    """How many dictionaries a study trains."""
    settings = study.dictionaries
    delta = adapters * sites * (len(settings.seeds) + settings.gaussian_control)
    return delta + (sites - len(settings.base)) * len(settings.seeds)


def _model(study: AuditStudy) -> tuple[Any, Any, int]:
    """(configuration, tokenizer, number of parameters) without loading a weight."""
    source = str(embedded.model_path()) if study.model == "embedded" else study.model
    try:
        config = AutoConfig.from_pretrained(source, revision=study.revision)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=study.revision)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f'model "{study.model}": its configuration cannot be read ({first}); check the id or '
            "folder, and the network"
        ) from None
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    return config.get_text_config(), tokenizer, sum(p.numel() for p in skeleton.parameters())


def _disk(tokens: int, d: int, width: int, sites: int, adapters: int, trained: int, n: int) -> int:
    activations = tokens * (sites * (1 + adapters) * d * width + 25)
    return activations + trained * 4 * (2 * d * n + d + n)


def _memory(study: AuditStudy, parameters: int, probe: int, d: int, n: int) -> int:
    """The largest of: the model with a batch's streams; a dictionary in training; the measures."""
    weight = 2 if study.dtype in ("bfloat16", "float16") else 4
    capture = parameters * weight + 40 * study.capture.batch_tokens * d * 4
    buffer = min(probe, SHUFFLE_BUFFER_ROWS) * d * 4
    fitting = 2 * buffer + 5 * 4 * 2 * d * n + 6 * 4 * study.dictionaries.fitting.batch * n
    measures = 8 * study.measures.rows * d * 4 + 4 * 4 * 2048 * n + 4 * 8 * d * n
    return max(capture, fitting, measures) + 500_000_000


def _flops(
    study: AuditStudy,
    parameters: int,
    depth: float,
    adapters: int,
    trained: int,
    probe: int,
    held_out: int,
    d: int,
) -> float:
    capture = 2.0 * parameters * depth * (probe + held_out) * (1 + adapters)
    settings = study.dictionaries
    rows = settings.fitting.steps(probe) * settings.fitting.batch
    fitting = 10.0 * d * settings.architecture.n_latents * rows * trained
    training = 0.0
    if study.train is not None:
        shared = study.train.training
        training = 4.0 * parameters * shared.steps * shared.batch * shared.context * adapters
    return capture + fitting + training


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB" if value < 1000 else f"{value:,.0f} GB"
