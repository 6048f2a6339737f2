"""What a latent study will cost, worked out without weights."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from lorascope.behaviours.records import BehaviourRecord, read_set
from lorascope.behaviours.turns import record_windows
from lorascope.dictionaries.addresses import SCHEME
from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError
from lorascope.models.shapes import Shape
from lorascope.models.sites import resolve_sites
from lorascope.models.stored import computing_dtype
from lorascope.studies.latent.study import LatentStudy
from lorascope.training.dictionaries import product_dtype
from lorascope.workflows.cost import Cost, CostPart, operations_a_row
from lorascope.workflows.sizes import CHARACTERS_PER_TOKEN, SizedModel, base_of
from lorascope.workflows.speed import device_of

# What is assumed of a behaviour set that is not made yet.
_RECORDS, _HELD_OUT, _TOKENS = 512, 128, 200.0
# Latents of a dictionary whose address does not say.
_USUAL_LATENTS = 32768
# Mean tokens of a text the dictionary is trained on.
_TEXT_TOKENS = 128.0
# Latent activations encoded at once, and their selection.
_ENCODED = 3 * 4 * 2**24


@dataclass(frozen=True)
class Records:
    """Sizes of the behaviour set: records and their mean tokens."""

    train: int
    held_out: int
    tokens: float


@dataclass(frozen=True, kw_only=True)
class LatentPlan(Cost):
    """The size of a latent study.

    Attributes:
        parameters: of the base model.
        latents: of the dictionary.
        adapters: latent adapters trained; one ordinary adapter comes on top.
    """

    parameters: int
    d_model: int
    blocks: int
    records: Records
    latents: int
    rank: int
    adapters: int
    steps: int

    def sizes(self) -> list[tuple[str, str]]:
        """(what, how much) of the study's own sizes."""
        known, about = self.records, self.about
        written = 2 * self.rank * self.latents
        return [
            ("model", f"{self.parameters:,} parameters, {self.blocks} blocks of {self.d_model}"),
            (
                "behaviour",
                f"{known.train:,} records to train on, {known.held_out:,} held out, "
                f"{known.tokens:.0f} tokens each{about}",
            ),
            ("tokens", f"{known.train * known.tokens:,.0f} to train on{about}"),
            ("dictionary", f"{self.latents:,} latents"),
            ("adapters", f"{self.adapters} of {self.steps:,} steps, {written:,} weights at most"),
        ]


def plan_latent(study: LatentStudy, *, estimates: bool = True) -> LatentPlan:
    """Records, steps, disk, memory and arithmetic of a study, without weights.

    Args:
        estimates: where a well-known model is not at hand, or the behaviour set not made yet, go
            by what is published or assumed, and say so.

    Raises:
        InputError: model, site, dictionary or behaviour set do not fit the study.
    """
    base = base_of(study, estimates=estimates)
    shape = base.shape
    (site,) = resolve_sites(shape.blocks, [study.site])
    records, notes = _records(study, base, estimates)
    latents, guessed = _latents(study)
    after = shape.block_parameters * (shape.blocks - site.index - 1) / shape.blocks
    parts = _parts(study, shape, records, latents, after + shape.head_parameters)
    n_weights = 2 * study.training.rank * latents
    adapters = len(study.adapters)
    dictionary = 0 if study.dictionary else 4 * (2 * shape.d_model * latents + latents)
    return LatentPlan(
        parameters=shape.parameters,
        d_model=shape.d_model,
        blocks=shape.blocks,
        records=records,
        latents=latents,
        rank=study.training.rank,
        adapters=adapters,
        steps=study.training.steps,
        # Weights and indices of every adapter; while one is trained its moments too.
        disk=dictionary + n_weights * (12 * adapters + 12) + 4 * shape.rank_one_parameters,
        parts=parts,
        device=device_of(study.device),
        notes=(*base.notes, *notes, *guessed),
    )


def _records(study: LatentStudy, base: SizedModel, estimates: bool) -> tuple[Records, list[str]]:
    try:
        found = read_set(study.behaviour)
    except InputError:
        if not estimates or Path(study.behaviour).expanduser().exists():
            raise
        note = (
            f"{study.behaviour} is not made yet: {_RECORDS} records to train on, {_HELD_OUT} held "
            f"out, {_TOKENS:.0f} tokens each"
        )
        return Records(_RECORDS, _HELD_OUT, _TOKENS), [note]
    train, held_out = found.part("train"), found.part("held_out")
    if base.tokenizer is None:
        note = f"{CHARACTERS_PER_TOKEN} characters a token"
        tokens = sum(map(_characters, train)) / CHARACTERS_PER_TOKEN / len(train)
        return Records(len(train), len(held_out), tokens), [note]
    context = min(study.context, base.shape.context)
    windows = record_windows(train, base.tokenizer, context)
    if not windows:
        raise InputError(
            f"{study.behaviour}: every record is longer than the context of {context} tokens; "
            "give a larger context"
        )
    tokens = sum(len(window.ids) for window in windows) / len(windows)
    return Records(len(windows), len(held_out), tokens), []


def _characters(record: BehaviourRecord) -> int:
    return len(record.document.text)


def _latents(study: LatentStudy) -> tuple[int, list[str]]:
    address = study.dictionary
    if address is None:
        return study.train_dictionary.architecture.n_latents, []
    if address.startswith(SCHEME):
        look_up(address)
    match = re.search(r"width_(\d+)(k|m)", address)
    if match:
        near = int(match[1]) * {"k": 1e3, "m": 1e6}[match[2]]
        return 2 ** round(math.log2(near)), []
    return _USUAL_LATENTS, [f"latents of {address}: {_USUAL_LATENTS:,}"]


def _parts(
    study: LatentStudy, shape: Shape, records: Records, n: int, after: float
) -> tuple[CostPart, ...]:
    """`after`: parameters behind the site, the map to the vocabulary among them."""
    device, d = device_of(study.device), shape.d_model
    weights = computing_dtype(study.dtype)
    products = product_dtype(study.training.products, device)
    reached = 0.3 * d / (d + 128)
    trained, training, measures = len(study.adapters), study.training, study.measures
    whole, tokens = shape.block_parameters + shape.head_parameters, records.tokens
    prompts = min(records.held_out / 2, measures.prompts or math.inf)
    held = shape.parameters * weights.itemsize + 4 * 2 * d * n
    cached = int(records.train * tokens * d * weights.itemsize)
    padded = training.batch * min(2 * tokens, study.context)
    behind = after / shape.block_parameters * shape.blocks
    kept = padded * (
        behind * (14 * d + 5 * shape.d_mlp) * products.itemsize + 12 * shape.vocabulary
    )
    seen = records.train * tokens
    through = 2.0 * (whole - after) + 2.0 * d * n
    parts = [CostPart("reading", through * seen, held + cached + _ENCODED, products, reached)]
    own = study.train_dictionary
    if study.dictionary is None:
        rows = int(seen + _TEXT_TOKENS * (own.documents or 4000))
        each, share = operations_a_row(own.architecture, d, device)
        steps = own.fitting.steps(rows)
        flops = each * own.fitting.batch * steps + 2.0 * (whole - after) * rows
        memory = held + 2 * rows * d * 4 + 6 * 4 * 2 * d * n
        parts.append(CostPart("dictionary", flops, memory, products, share, 0.0013 * steps))
    step = 4.0 * after * padded + 12.0 * training.rank * n * d
    flops = trained * training.steps * step
    parts.append(CostPart("latent adapters", flops, int(held + cached + kept), products, reached))
    lora = study.lora_training()
    flops = 4.0 * whole * lora.steps * lora.batch * min(2 * tokens, study.context)
    memory = held + int(kept * shape.blocks / max(1.0, behind))
    parts.append(CostPart("LoRA", flops, memory, products, reached))
    answer = 2.0 * (whole + d * n) * (tokens + measures.new_tokens)
    cuts = trained * (1 + len(measures.sizes))
    cuts += len(study.seeds) * len(measures.sizes) * measures.draws
    cuts += len(study.ablated) * (1 + 2 * (1 + measures.draws))
    flops = answer * prompts * (2 * (trained + 2 + study.prompting) + cuts)
    # Tokens come one after another.
    parts.append(CostPart("answers", flops, held, products, reached / 4))
    if study.ablated:
        latents = min(measures.latents, measures.most)
        beside = min(measures.alternatives, n)
        # Alternatives of latents that are read are shared where they are the same ones.
        runs = len(study.ablated) * (2 * latents + min(n, latents * beside) + latents * beside)
        flops = 2.0 * after * prompts * tokens * runs
        parts.append(CostPart("ablation", flops, held + cached, products, reached))
    return tuple(parts)
