"""What an evaluation will cost, worked out without weights, and refused where it cannot fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lorascope.dictionaries.addresses import SCHEME
from lorascope.dictionaries.registry import look_up
from lorascope.errors import InputError
from lorascope.fits.card import read_card
from lorascope.models.shapes import Shape
from lorascope.models.sites import resolve_sites
from lorascope.studies.evaluate.settings import EvaluateStudy
from lorascope.workflows.cost import Cost, CostPart
from lorascope.workflows.sizes import base_of
from lorascope.workflows.speed import device_of

# Latents of a dictionary that is not opened yet, and active ones of it.
_LATENTS = 16_384
# Tokens of a request to a judge, and of its answer, as they usually are.
_ASKED, _ANSWERED = 700, 60
# Share of the speed of large products that passes of small batches reach.
_REACHED = 0.3


@dataclass(frozen=True, kw_only=True)
class EvaluatePlan(Cost):
    """The size of an evaluation.

    Attributes:
        passes: {evaluation: tokens that go through the model}.
        questions: what a judge would be asked, in words; empty without one.
    """

    parameters: int
    d_model: int
    blocks: int
    subjects: int
    passes: dict[str, int]
    questions: tuple[str, ...] = ()

    def sizes(self) -> list[tuple[str, str]]:
        """(what, how much) of the study's own sizes."""
        return [
            ("model", f"{self.parameters:,} parameters, {self.blocks} blocks of {self.d_model}"),
            ("subjects", f"{self.subjects}"),
            *((f"  {name}", f"{tokens:,} tokens at most") for name, tokens in self.passes.items()),
            *(("judge", line) for line in self.questions),
        ]


def plan_evaluate(study: EvaluateStudy, *, estimates: bool = True) -> EvaluatePlan:
    """Passes, memory and arithmetic of an evaluation, from settings and configuration alone.

    Args:
        estimates: where a well-known model is not at hand, go by what is published about it.

    Raises:
        InputError: model, sites or a fit do not fit the study.
    """
    base = base_of(study, estimates=estimates)
    shape = base.shape
    for name, subject in study.subjects.items():
        for site in (*subject.dictionaries, *subject.reseeded):
            resolve_sites(shape.blocks, [site])
        for address in (*subject.dictionaries.values(), *subject.reseeded.values()):
            if address.startswith(SCHEME):
                look_up(address)
        fitted_to = read_card(subject.fitted).model if subject.fitted else study.model
        if fitted_to != study.model and not study.force:
            raise InputError(
                f"subject {name}: the fit in {subject.fitted} is of {fitted_to}, not of "
                f"{study.model}; give that model, or --force"
            )
    passes = _passes(study)
    weights = getattr(torch, study.dtype) if study.dtype != "auto" else torch.float32
    parts = tuple(_part(name, tokens, shape, weights) for name, tokens in passes.items())
    return EvaluatePlan(
        parameters=shape.parameters,
        d_model=shape.d_model,
        blocks=shape.blocks,
        subjects=len(study.subjects),
        passes=passes,
        questions=_questions(study),
        disk=8_000_000 * len(study.subjects),
        parts=parts,
        device="several devices" if study.device_map else device_of(study.device),
        notes=base.notes,
    )


def _passes(study: EvaluateStudy) -> dict[str, int]:
    """Tokens that go through the model, evaluation by evaluation, at most."""
    conditions = sum(2 if one.adapter or one.fitted else 1 for one in study.subjects.values())
    found = {}
    if study.core is not None:
        runs = 7 * conditions
        found["core"] = runs * study.core.tokens + 2 * conditions * study.core.training_tokens
    if study.probing is not None:
        rows = study.probing.train + study.probing.test
        sets = (study.probing.limit or 10) * len(study.probing.sets)
        found["probing"] = sets * rows * study.probing.context * conditions
    if study.absorption is not None:
        each = 8 * (study.absorption.examples + 1) + 4
        found["absorption"] = study.absorption.words * each * conditions
    for name, targeted in (("tpp", study.tpp), ("scr", study.scr)):
        if targeted is not None:
            rows = 5 * (targeted.train + targeted.test)
            found[name] = rows * targeted.context * conditions
    if study.autointerp is not None:
        found["autointerp"] = 20_000 * conditions
    if study.disentangling is not None:
        rows = 4 * study.disentangling.pairs * len(study.disentangling.k)
        found["disentangling"] = rows * 64 * conditions
    if study.benchmarks is not None:
        items = (study.benchmarks.limit or 500) * len(study.benchmarks.tasks)
        found["benchmarks"] = items * 4 * 128 * 2 * conditions
    return found


def _part(name: str, tokens: int, shape: Shape, weights: torch.dtype) -> CostPart:
    heads = shape.head_parameters if name in ("core", "benchmarks", "disentangling") else 0
    codes = 0 if name == "benchmarks" else 4 * shape.d_model * _LATENTS
    flops = tokens * (2 * (shape.block_parameters + heads) + codes)
    size = torch.finfo(weights).bits // 8
    memory = size * shape.parameters + 4 * (6 * shape.d_model * _LATENTS + 4096 * _LATENTS)
    return CostPart(name, float(flops), memory, weights, _REACHED)


def _questions(study: EvaluateStudy) -> tuple[str, ...]:
    if study.autointerp is None:
        return ()
    wanted = study.autointerp
    sides = sum(max(1, len(one.dictionaries)) for one in study.subjects.values())
    explanations = 2 * wanted.latents * sides
    scores = 2 * explanations
    asked = explanations + scores
    return (
        f"{wanted.judge} is asked {asked:,} questions at most: {explanations:,} explanations and "
        f"{scores:,} rounds of {wanted.questions} passages, random-decoder dictionaries included; "
        f"about {asked * _ASKED:,} tokens in and {asked * _ANSWERED:,} out",
    )
