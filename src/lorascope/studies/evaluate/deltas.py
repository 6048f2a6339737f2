"""A delta dictionary in the stream: what the adapter adds at a site becomes its reconstruction.

    h ↦ h_base + D(h_adapted − h_base)

The base's stream of the same tokens is computed anew before every pass. A pass over a part of a
text with a cache cannot be done that way and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.errors import InputError
from lorascope.models.hooks import replace, run_until
from lorascope.models.kept_streams import LeftOut
from lorascope.models.sites import Site

Rows = Float[Tensor, "batch seq d"]


class DeltaSplice:
    """Puts a reconstruction in the place of a delta.

    Args:
        module: the model with the adapter on.
        special_ids: tokens that keep their stream; padding always does.
        without: within it, the adapter is off.
    """

    def __init__(
        self,
        module: nn.Module,
        special_ids: Sequence[int],
        without: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._module, self._without = module, without
        self._left_out = LeftOut(module, special_ids)
        self._base: Tensor | None = None
        self._inside = False

    @contextmanager
    def on(self, site: Site, function: Callable[[Rows], Rows]) -> Iterator[None]:
        """Within the `with`, the stream at `site` is base + function(adapted − base).

        Raises:
            InputError: a pass goes on from a cache, or is given no token ids.
        """

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._inside:
                return
            ids = kwargs.get("input_ids", args[0] if args else None)
            cache = kwargs.get("past_key_values")
            if ids is None or (cache is not None and len(cache) and cache.get_seq_length()):
                raise InputError(
                    "a delta dictionary cannot be spliced into a pass that goes on from a cache, "
                    "or is given no token ids: evaluate it without generation"
                )
            self._inside = True
            try:
                with self._without(), torch.no_grad():
                    found = run_until(self._module, [site], ids, kwargs.get("attention_mask"))
                self._base = found[site]
            finally:
                self._inside = False

        def stand(x: Rows) -> Rows:
            if self._inside or self._base is None:
                return x
            base = self._base.float()
            new = (base + function(x.float() - base)).to(x.dtype)
            left = self._left_out.among((x.shape[0], x.shape[1]), x.device)
            return new if left is None else torch.where(left[..., None], x, new)

        with ExitStack() as stack:
            handle = self._module.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(handle.remove)
            self._left_out.watch(stack)
            stack.enter_context(replace(self._module, site, stand))
            yield
