"""Which tokens of a pass keep their stream, from the ids and the mask the model was called with.

Decided for every pass anew, so that generation with a cache is treated like a whole text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from lorascope.errors import InputError
from lorascope.models.sending import sent
from lorascope.models.sites import block_list


class LeftOut:
    """Special tokens, by their ids, and padding.

    Args:
        module: the model that will be called.
        special_ids: tokens that are left out; padding always is.
    """

    def __init__(self, module: nn.Module, special_ids: Sequence[int] = ()) -> None:
        self._special = torch.tensor(sorted(set(special_ids)), dtype=torch.long)
        self._ancestors = _ancestors(module)
        self._depth = 0
        self._ids: Tensor | None = None
        self._mask: Tensor | None = None

    def watch(self, stack: ExitStack) -> None:
        """See what the model is called with, until `stack` is left."""
        for depth, (module, signature) in enumerate(self._ancestors):
            look = partial(self._look, depth, signature)
            handle = module.register_forward_pre_hook(look, with_kwargs=True)
            stack.callback(handle.remove)

    def among(
        self, shape: tuple[int, int], device: torch.device
    ) -> Bool[Tensor, "batch seq"] | None:
        """True at the tokens of the pass that are left out; None where none can be.

        Args:
            shape: batch and length of the stream of this pass.

        Raises:
            InputError: special tokens are to be left out and the model was given no token ids.
        """
        left = None
        if len(self._special):
            if self._ids is None or tuple(self._ids.shape) != shape:
                raise InputError(
                    "special tokens are to keep their stream, but the model was not called with "
                    "token ids: give input_ids, or let special tokens be treated like others"
                )
            left = torch.isin(self._ids.to(device), sent(self._special, device))
        if self._mask is not None and self._mask.shape[1] >= shape[1]:
            # with a cache the mask also covers tokens of earlier passes
            padding = self._mask[:, -shape[1] :].to(device) == 0
            left = padding if left is None else left | padding
        return left

    def _look(
        self,
        depth: int,
        signature: inspect.Signature,
        _module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        # The modules around the blocks are entered from the outside in: a step back out is a
        # new pass, which must not see the tokens of the last.
        if depth <= self._depth:
            self._ids = self._mask = None
        self._depth = depth
        given = {**signature.bind_partial(*args, **kwargs).arguments, **kwargs}
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if isinstance(ids, Tensor):
            self._ids = ids
        if isinstance(mask, Tensor) and mask.ndim == 2:
            self._mask = mask


def _ancestors(module: nn.Module) -> list[tuple[nn.Module, inspect.Signature]]:
    """The modules around the block list, outermost first, and what each may be called with."""
    blocks = block_list(module)
    path = next(name for name, part in module.named_modules() if part is blocks)
    names = path.split(".")[:-1]
    around = [module, *(module.get_submodule(".".join(names[: i + 1])) for i in range(len(names)))]
    return [(part, inspect.signature(part.forward)) for part in around]
