"""Null adapters: random adapters of the same modules, shapes and singular values.

What an adapter does beside what a random change of its size does: a null adapter goes through
everything the adapter goes through. `docs/null_adapters.md` gives the matching rule of each kind.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import Generator, Tensor
from transformers import PreTrainedModel

from lorascope.errors import InputError, NoNullAdapter
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.adapter_config import LORA
from lorascope.models.adapter_files import AdapterInfo
from lorascope.models.null_fine_tunes import Redraws, redraws
from lorascope.models.null_parts import NullPart, Tensors, parts_of
from lorascope.models.null_tuners import tuner_redraws
from lorascope.models.random_updates import PURPOSE, Rounding, corner, digest_of
from lorascope.randomness import generator


@torch.no_grad()
def add_null_adapters(model: AdaptedModel, name: str, draws: int, seed: int) -> tuple[str, ...]:
    """Add random adapters of the same spectrum as `name`, further variants of the same model.

    Draw i becomes the variant "name~null{i}" in `model.null_adapters`; its `info` has `null_of` and
    `draw`. A draw depends on the seed, its number and on the adapter's base, shapes and spectra:
    not on its name, nor on the other adapters; `info.sha256` is the digest of all of these.
    Nothing writes a null adapter to disk.

    A null of a LoRA adapter takes as much memory as the adapter; one of a full fine-tune or of
    another tuner type is drawn when it is shown (`null_fine_tunes`, `null_tuners`).

    Returns:
        the names of the null adapters, by draw.

    Raises:
        InputError: there is no such adapter, it has null adapters already, or `draws` < 1.
        NoNullAdapter: no random adapter matches one of its kind; says why.
    """
    if draws < 1:
        raise InputError(f"null adapters: {draws} draws were asked for, give 1 or more")
    if model.nulls_of(name):
        raise InputError(f'adapter "{name}" has null adapters already: ask for all draws at once')
    if not model.has_weights(name):
        raise NoNullAdapter(
            f'adapter "{name}" acts by hooks and changes no weight: there is no update whose '
            "singular values a random adapter could have, so it has no null adapters"
        )
    kind = model.info(name).kind
    with model.variant(BASE) as base:
        if kind != LORA:
            if kind:
                found, shown = tuner_redraws(model, name, seed)
            else:
                found, shown = redraws(model, name, seed), None
            # A null adapter is a set of weights, whatever type of PEFT's wrote the adapter down.
            info = replace(model.info(name), kind="")
            nulls = _infos(info, found.identity, draws, seed)
            for draw, null in enumerate(nulls):
                rescale = partial(_rescale_fine_tune, found, null)
                model.add_null_of_full_model(null, partial(found.shown, draw), rescale, shown)
        else:
            parts = list(parts_of(model, name, base))
            identity = _identity(base, parts)
            nulls = _infos(model.info(name), identity, draws, seed)
            for null in nulls:
                _add(model, null, parts, partial(generator, seed, PURPOSE, identity))
    return tuple(null.name for null in nulls)


def null_adapters_in_turn(model: AdaptedModel, name: str, draws: int, seed: int) -> Iterator[str]:
    """The draws of `add_null_adapters`, one at a time: each is there until the next is asked for.

    Of a LoRA adapter without biases all of them take the first one's place, so that PEFT puts one
    on and memory holds one; `info` stays the first's. The numbers are the same bit for bit.

    Yields:
        the variant that is the draw now.

    Raises:
        InputError, NoNullAdapter: as `add_null_adapters`.
    """
    alike = model.has_weights(name) and model.info(name).kind == LORA
    if not alike or model.trained_biases(name):
        yield from add_null_adapters(model, name, draws, seed)
        return
    (null,) = add_null_adapters(model, name, 1, seed)
    yield null
    with model.variant(BASE) as base, torch.no_grad():
        parts = list(parts_of(model, name, base))
        identity = _identity(base, parts)
    peft_name = model.peft_name(null)
    for info in _infos(model.info(name), identity, draws, seed)[1:]:
        with torch.no_grad():
            values = _drawn(info, parts, partial(generator, seed, PURPOSE, identity))
            for part, one in zip(parts, values, strict=True):
                part.put(peft_name, one)
        yield null


@torch.no_grad()
def rescale_null_adapter(model: AdaptedModel, name: str, factor: float) -> None:
    """Multiply everything a null adapter draws by one factor, of the draw as it was first.

    Singular values of updates and norms of differences become `factor` times the adapter's. Of
    DoRA the low-rank update is multiplied; the magnitude keeps the adapter's relative magnitudes.
    The factor is absolute, so giving it twice changes nothing, and 1 gives the first draw back
    bit for bit. `info` has the factor, and a digest of its own for each.

    Raises:
        InputError: there is no such null adapter, or the factor is not a positive number.
        NoNullAdapter: the weights' dtype cannot hold a random change of that size; the null
            adapter stays as it was.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise InputError(f'null adapter "{name}": factor {factor} is not a positive number')
    model.rescale_null(name, factor)


def _rescaled(null: AdapterInfo, factor: float) -> AdapterInfo:
    """`null` is the first draw."""
    if factor == 1:
        return null
    return replace(null, factor=factor, sha256=digest_of(PURPOSE, null.sha256, repr(factor)))


def _rescale_fine_tune(found: Redraws, null: AdapterInfo, factor: float) -> AdapterInfo:
    assert null.draw is not None
    found.rescale(null.draw, factor)
    return _rescaled(null, factor)


def _infos(info: AdapterInfo, identity: str, draws: int, seed: int) -> list[AdapterInfo]:
    """A null adapter comes from no file: its digest is of all that its numbers depend on."""
    return [
        replace(
            info,
            name=f"{info.name}~null{draw}",
            path="",
            sha256=digest_of(PURPOSE, identity, str(seed), str(draw)),
            null_of=info.name,
            draw=draw,
        )
        for draw in range(draws)
    ]


def _add(
    model: AdaptedModel, null: AdapterInfo, parts: list[NullPart], drawing: Callable[..., Generator]
) -> None:
    source, biases = model.peft_name(null.null_of), model.trained_biases(null.null_of)
    drawn = _drawn(null, parts, drawing)
    names: list[str] = []
    own: dict[str, Tensor] = {}

    def fill(base: PreTrainedModel, peft_name: str) -> dict[str, Tensor]:
        names.append(peft_name)
        for module in base.modules():
            if isinstance(module, ModulesToSaveWrapper) and source in module.modules_to_save:
                copied = copy.deepcopy(module.modules_to_save[source])
                module.modules_to_save[peft_name] = copied
        for part, values in zip(parts, drawn, strict=True):
            part.put(peft_name, values)
        own.update({p.path: v[0] for p, v in zip(parts, drawn, strict=True) if p.path in biases})
        return own

    def rescale(factor: float) -> AdapterInfo:
        scaled = _rescaled(null, factor)
        for part, values in zip(parts, _drawn(scaled, parts, drawing), strict=True):
            part.put(names[0], values)
            if part.path in own:
                own[part.path].copy_(values[0])
        return scaled

    try:
        model.add_null_of_lora(null, fill, rescale)
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise NoNullAdapter(
            f'adapter "{null.null_of}": PEFT holds no second adapter of its kind: {reason}'
        ) from error


def _drawn(
    null: AdapterInfo, parts: list[NullPart], drawing: Callable[..., Generator]
) -> list[Tensors]:
    rounding = Rounding()
    drawn = [part.draw(drawing(part.path, null.draw), rounding, null.factor) for part in parts]
    rounding.check(null.null_of)
    return drawn


def _identity(base: PreTrainedModel, parts: list[NullPart]) -> str:
    """Digest of what a null's distribution depends on: base, shapes, spectra.

    Spectra are rounded, to 10⁻⁶ of the largest value, so that a machine's last digits do not
    change what is drawn. The base is known by its class and 64 numbers of each changed weight.
    """
    found: list[str | bytes] = [type(base).__name__]
    for part in sorted(parts, key=lambda part: part.path):
        largest = float(part.spectrum.max()) if part.spectrum.numel() else 0.0
        steps = (part.spectrum.double() / (largest or 1.0) * 1e6).round().long().flatten()
        found += [part.path, part.about, f"{largest:.5e} {steps.tolist()}", corner(part.base)]
    return digest_of(*found)
