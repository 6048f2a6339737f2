"""Adapters of PEFT's other tuner types: each on modules of its own, over the base's parameters.

PEFT holds adapters of one type at a time, and many types only one adapter. So each gets a copy of
the model's modules whose parameters are the base's own: no weight is held twice, and no layer of
one adapter is seen by another. An adapter becomes a variant if, on a few tokens,

1. its file's tensors are those PEFT expects, and all of them arrived,
2. the copy computes what PEFT computes, the same twice,
3. with the adapter off, it computes what the bare model computes, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import redirect_stderr
from io import StringIO

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from lorascope.errors import InputError
from lorascope.models.adapter_files import AdapterFiles
from lorascope.models.attaching import check_fits, refusing, set_apart
from lorascope.models.changes import same_values
from lorascope.models.freezing import gradients_kept, random_state_kept
from lorascope.models.tuner_kinds import sizes
from lorascope.models.vocabulary import cut_to_base

_NAME = "variant"
# Of a type whose layers cannot be built without allocating, no size in its configuration is larger.
_LARGEST = 2**20


def share(model: PreTrainedModel) -> PreTrainedModel:
    """Modules of their own over the very parameters and buffers of `model`."""
    tensors = [*model.parameters(), *model.buffers()]
    shared: PreTrainedModel = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    return shared


def try_without_weights(bare: PreTrainedModel, files: AdapterFiles) -> None:
    """Check on a model without weights what can be: modules, names and shapes of all tensors.

    Some types look at the base's weights when their layers are built; of these only the sizes are
    bounded here.

    Raises:
        InputError: the adapter does not fit the model.
    """
    try:
        with torch.device("meta"):
            peft = _built(bare, files)
    except (NotImplementedError, RuntimeError) as error:
        large = [f for f, value in sizes(files.config).items() if value > _LARGEST]
        if large:
            raise InputError(
                f'adapter "{files.info.name}": {large[0]} is {getattr(files.config, large[0])}, '
                f"expected {_LARGEST} at most"
            ) from error
        return
    except Exception as error:
        with refusing(files.info.name, bare, ""):
            raise error
    _fitting(bare, peft, files)


def put_on_copy(
    copied: PreTrainedModel, files: AdapterFiles, bare_logits: Tensor, ids: Tensor
) -> int:
    """Put an adapter on a copy made by `share`, and keep it on.

    Args:
        bare_logits: of the bare model for `ids`.
        ids: [batch, seq].

    Returns:
        how many tokens of its vocabulary were cut off.

    Raises:
        InputError: it does not fit, or PEFT cannot switch it off without a trace.
    """
    with random_state_kept(), gradients_kept(copied):
        with refusing(files.info.name, copied, ""):
            peft = _built(copied, files)
        weights, extra = _fitting(copied, peft, files)
        with refusing(files.info.name, copied, ""):
            set_peft_model_state_dict(peft, weights, adapter_name=_NAME)
            peft.eval().requires_grad_(False)
    _require_arrived(files.info.name, peft, weights)
    _require_switchable(files, peft, copied, bare_logits, ids)
    return extra


def _built(model: PreTrainedModel, files: AdapterFiles) -> PeftModel:
    # PEFT rewrites configurations; the files stay as read. Some types draw bars while they build.
    config: PeftConfig = copy.deepcopy(files.config)
    with redirect_stderr(StringIO()):
        return PeftModel(model, config, adapter_name=_NAME)


def _fitting(
    model: PreTrainedModel, peft: PeftModel, files: AdapterFiles
) -> tuple[dict[str, Tensor], int]:
    """The file's tensors, found to be exactly those PEFT expects; rows of added tokens cut off."""
    name = files.info.name
    with refusing(name, model, ""):
        expected = _held(peft)
    found, extra = cut_to_base(model, expected, files.weights)
    originals = dict(model.named_parameters(remove_duplicate=False))
    weights, biases = set_apart(name, found, expected, originals)
    check_fits(name, expected, {**weights, **biases}, files.config.task_type)
    return weights, extra


def _held(peft: PeftModel) -> dict[str, Tensor]:
    found: dict[str, Tensor] = get_peft_model_state_dict(
        peft, peft.state_dict(), adapter_name=_NAME, save_embedding_layers=False
    )
    return found


def _require_arrived(name: str, peft: PeftModel, weights: Mapping[str, Tensor]) -> None:
    held = _held(peft)
    lost = [key for key, tensor in weights.items() if not _same(held.get(key), tensor)]
    if lost:
        raise InputError(
            f'adapter "{name}": {len(lost)} tensors of its file did not arrive in the model '
            f"(first: {lost[0]}): PEFT reads it otherwise than it was written"
        )


def _same(held: Tensor | None, tensor: Tensor) -> bool:
    if held is None or held.shape != tensor.shape:
        return False
    if not (held.is_floating_point() and tensor.is_floating_point()):
        return torch.equal(held.cpu().long(), tensor.long())
    return same_values(tensor, held)


@torch.no_grad()
def _require_switchable(
    files: AdapterFiles,
    peft: PeftModel,
    copied: PreTrainedModel,
    bare_logits: Tensor,
    ids: Tensor,
) -> None:
    kind = files.info.kind
    with refusing(files.info.name, copied, ""):
        whole = peft(input_ids=ids, use_cache=False).logits
        inner, again = (copied(input_ids=ids, use_cache=False).logits for _ in range(2))
        with peft.disable_adapter():
            off = peft(input_ids=ids, use_cache=False).logits
        after = copied(input_ids=ids, use_cache=False).logits
    reason = None
    if not torch.equal(off, bare_logits):
        reason = "with it off the model does not compute what the bare model computes, bit for bit"
    elif not (torch.equal(inner, again) and torch.equal(inner, after)):
        reason = "it computes something else each time"
    elif not torch.equal(whole, inner):
        reason = "it acts outside the model's modules"
    # A difference of NaNs is that of the weights; the liveness check says so with its place.
    if reason is not None and bool(inner.isfinite().all()):
        raise InputError(
            f'adapter "{files.info.name}": its peft_type is {kind}, not supported as it is: '
            f"{reason}"
        )
