"""A model run in finer arithmetic without a finer copy of it: one module at a time is copied.

A copy of a whole model in float64 takes twice the model; of one block and a part of the output
matrix, a few per cent of that. The numbers are those of a whole copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.models.sites import block_list_at

# Numbers of a part of the output matrix, or of the rows of an embedding, that are held finer.
_PART = 2**23


@contextmanager
def in_finer_arithmetic(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within the `with`, a pass of the model computes in `dtype`.

    No parameter is changed: each part of the model (blocks one by one, norms, embeddings) is copied
    when it is called and dropped after; of an embedding the rows that are asked for are, and the
    output matrix goes a part at a time.

    Raises:
        ValueError: a part keeps its type (weights in quantised form).
    """
    path, blocks = block_list_at(module)
    head = module.get_output_embeddings()  # type: ignore[operator]
    with ExitStack() as stack:
        for part in [*_beside(module, path), *blocks]:
            run: Callable[..., Any] = partial(_copied, part, dtype)
            if type(part) is nn.Linear and part is head:
                run = partial(_in_parts, part, dtype)
            elif isinstance(part, nn.Embedding):
                run = partial(_some_rows, part, dtype)
            part.forward = run
            stack.callback(_restored, part)
        yield


def _beside(module: nn.Module, path: str) -> list[nn.Module]:
    """The modules beside the way to the blocks: embeddings, final norm, output matrix."""
    found, here = [], module
    for step in path.split("."):
        found += [child for name, child in here.named_children() if name != step]
        here = here.get_submodule(step)
    return list(dict.fromkeys(found))


def _restored(part: nn.Module) -> None:
    """The class's own `forward` again."""
    part.__dict__.pop("forward", None)


def _finer(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    copied = copy.copy(part)
    # The part as it is called: its own hooks run around this.
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        setattr(copied, hooks, type(getattr(part, hooks))())
    copied.__dict__.pop("forward", None)
    return copy.deepcopy(copied).to(dtype)


def _copied(part: nn.Module, dtype: torch.dtype, *given: Any, **named: Any) -> Any:
    return _finer(part, dtype)(*given, **named)


def _some_rows(part: nn.Embedding, dtype: torch.dtype, ids: Tensor) -> Any:
    """An embedding of its own kind (some scale their rows) that holds the rows asked for."""
    rows, where = ids.unique(return_inverse=True)
    small = copy.copy(part)
    small.__dict__.pop("forward", None)
    small._parameters = {"weight": nn.Parameter(part.weight[rows].to(dtype), requires_grad=False)}
    small.padding_idx, small.num_embeddings = None, len(rows)
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        setattr(small, hooks, type(getattr(part, hooks))())
    return small(where)


def _in_parts(part: nn.Linear, dtype: torch.dtype, stream: Tensor) -> Tensor:
    size = max(1, _PART // part.in_features)
    found = stream.new_empty(*stream.shape[:-1], part.out_features)
    for start in range(0, part.out_features, size):
        end = min(start + size, part.out_features)
        bias = None if part.bias is None else part.bias[start:end].to(dtype)
        weight = part.weight[start:end].to(dtype)
        found[..., start:end] = nn.functional.linear(stream, weight, bias)
    return found
