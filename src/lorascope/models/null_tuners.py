"""Null adapters of PEFT's other tuner types, whose update of each linear map is a matrix.

However a type writes its update down, what it does at a linear map is a difference of weights
(`computed_updates`). A null adapter has, map by map, a random one of the same singular values. It
is shown as a fine-tune is, on modules of its own; what it does not change is the base's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Generator, Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.errors import NoNullAdapter
from lorascope.models.adapted import BASE, AdaptedModel
from lorascope.models.computed_updates import (
    bias_difference,
    changes_map,
    difference,
    inner,
    offset,
    replaced,
    why_no_matrix,
)
from lorascope.models.null_fine_tunes import Redraw, Redraws
from lorascope.models.random_updates import Rounding, corner, digest_of, same_spectrum
from lorascope.models.sanity_checks import base_logits, probe_ids
from lorascope.models.tuned_copies import share


def tuner_redraws(model: AdaptedModel, name: str, seed: int) -> tuple[Redraws, PreTrainedModel]:
    """The null adapters of an adapter of another tuner type than LoRA, and the model they show.

    The identity of the draws is the base's class, 64 numbers of each changed weight, and the hash
    of the adapter's file. One is drawn at once, so that what cannot be drawn is refused now.

    Raises:
        NoNullAdapter: what the adapter does somewhere is no difference of weights; or as
            `Redraws.drawn`.
    """
    with model.variant(name) as tuned:
        changed = replaced(tuned)
        shown = share(tuned)
    parameters: dict[str, Tensor] = {}
    drawing: dict[str, Redraw] = {}
    for path, module in changed.items():
        own = inner(shown.get_submodule(path))
        shown.set_submodule(path, own)
        for leaf, redraw in _redraws_at(name, path, module):
            parameters[f"{path}.{leaf}"] = _set_apart(own, leaf)
            drawing[f"{path}.{leaf}"] = redraw
    _require_bare(model, name, shown)
    corners = [corner(parameters[key]) for key in drawing]
    identity = digest_of(type(shown).__name__, model.info(name).sha256, *drawing, *corners)
    found = Redraws(name, parameters, drawing, identity, seed)
    found.drawn(0)
    return found, shown


def _redraws_at(name: str, path: str, module: nn.Module) -> Iterator[tuple[str, Redraw]]:
    """(parameter of the module, how it is drawn) of those that an adapter changes."""
    own, replacing = inner(module), _replacing(module)
    if replacing is not None:
        ours = dict(own.named_parameters())
        for leaf, theirs in replacing.named_parameters():
            if not torch.equal(ours[leaf].to(theirs), theirs):
                yield leaf, partial(_replaced, ours[leaf], theirs)
        return
    reason = why_no_matrix(module)
    if reason is not None:
        raise NoNullAdapter(
            f'adapter "{name}": {path} has {reason}, so there are no singular values that a random '
            "adapter could have, and it has no null adapters"
        )
    if changes_map(module):
        yield "weight", partial(_turned, module)
    if offset(module):
        yield "bias", partial(_moved, module)


def _replacing(module: nn.Module) -> nn.Module | None:
    """The module that an adapter puts in place of the model's, of one that replaces it whole."""
    if isinstance(module, LNTuningLayer):
        return module.ln_tuning_layers[module.active_adapters[0]]
    if isinstance(module, ModulesToSaveWrapper):
        return module.modules_to_save[module.active_adapters[0]]
    return None


def _replaced(
    ours: Tensor, theirs: Tensor, random: Generator, rounding: Rounding, factor: float
) -> Tensor:
    return rounding.redrawn(ours, theirs, random, factor).to(ours)


def _turned(module: nn.Module, random: Generator, rounding: Rounding, factor: float) -> Tensor:
    """The weight of a linear map; of an embedding the rows that differ, as one matrix."""
    own: Any = inner(module)
    change = difference(module).cpu()
    if isinstance(own, Conv1D | nn.Embedding):
        change = change.T.contiguous()
    rows = torch.ones(len(change), dtype=torch.bool)
    if isinstance(own, nn.Embedding):
        rows = change.any(dim=1)
    update = torch.zeros_like(change)
    update[rows] = (factor * same_spectrum(change[rows], random)).to(update)
    return rounding.added(own.weight, update)


def _moved(module: nn.Module, random: Generator, rounding: Rounding, factor: float) -> Tensor:
    """The bias of a linear map: a random direction of the norm of its difference."""
    own: Any = inner(module)
    change = bias_difference(module)
    ours = torch.zeros_like(change).to(own.weight) if own.bias is None else own.bias
    return rounding.added(ours, factor * same_spectrum(change, random))


def _set_apart(own: Any, leaf: str) -> Tensor:
    """A parameter of a module's own, with the base's numbers until a draw is shown."""
    path, _, last = leaf.rpartition(".")
    owner: Any = own.get_submodule(path)
    held = getattr(owner, last)
    if held is None:
        held = owner.weight.new_zeros(owner.out_features)
    apart = nn.Parameter(held.detach(), requires_grad=False)
    setattr(owner, last, apart)
    return apart


@torch.no_grad()
def _require_bare(model: AdaptedModel, name: str, shown: PreTrainedModel) -> None:
    """Without a draw the modules must compute what the base does."""
    with model.variant(BASE):
        expected = base_logits(model)
    found = shown(input_ids=probe_ids(model), use_cache=False).logits
    if not torch.equal(found, expected):
        raise NoNullAdapter(
            f'adapter "{name}": without what its type ({model.info(name).kind}) puts around the '
            "model's modules, these do not compute what the base does"
        )
