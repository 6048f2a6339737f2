"""Passes over a batch begun behind a site, where nothing that differs lies before it.

With dictionaries from a site on and adapters behind it, the original, the spliced and the adapted
model have one stream up to there: it is computed once a batch, or taken from where it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lorascope.activations.tokens import TokenBatch
from lorascope.models.hooks import capture
from lorascope.models.interventions import REFUSALS, passed_over, returned
from lorascope.models.sites import Site, block_list
from lorascope.outputs.conditions import Condition
from lorascope.outputs.evaluation import states_at
from lorascope.outputs.kept import Known


class Begun:
    """How all passes over a batch are begun at a site.

    Tried on the first batch: where the original's final states do not come out the same bit for
    bit, as in a model whose later blocks read more of earlier ones than the stream, whole passes
    are made.

    Args:
        site: nothing before it, nor the stream after its block, hangs on the condition.
        original: the condition with nothing spliced and nothing fitted.
        products: type of the matrix products.
        known: where the stream is kept from one fit to the next.
    """

    def __init__(
        self,
        module: nn.Module,
        site: Site,
        original: Condition,
        products: torch.dtype,
        known: Known | None = None,
    ) -> None:
        self._module, self._site, self._original = module, site, original
        self._products, self._known = products, known
        self._blocks: list[int | None] = []
        self.holds: bool | None = None

    @contextmanager
    def __call__(self, batch: TokenBatch, /) -> Iterator[None]:
        """Within the `with`, passes over the batch begin behind the site, and what they compute
        again for the way back does too."""
        if self.holds is None:
            self.holds = self._tried(batch)
        if not self.holds:
            yield
            return
        with passed_over(self._module, self._site, self._stream(batch), self._blocks):
            yield

    @torch.no_grad()
    def _tried(self, batch: TokenBatch) -> bool:
        every = batch.attended
        try:
            stream = self._computed(batch)
            with self._original():
                whole = states_at(self._module, batch, every, self._products)
                with passed_over(self._module, self._site, stream, self._blocks):
                    begun = states_at(self._module, batch, every, self._products)
        except REFUSALS:
            return False
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return False
        return torch.equal(whole, begun)

    def _stream(self, batch: TokenBatch) -> Tensor:
        """The original's stream after the site, [batch, seq, d]."""
        if self._known is None:
            return self._computed(batch)
        device = next(block_list(self._module)[self._site.index].parameters()).device
        given = (batch, batch.attended, self._products, device)
        return self._known.states(*given, lambda: self._computed(batch))

    @torch.no_grad()
    def _computed(self, batch: TokenBatch) -> Tensor:
        device = self._module.get_input_embeddings().weight.device  # type: ignore[operator]
        ids, mask = batch.inputs(device)
        with (
            self._original(),
            torch.autocast(device.type, self._products, self._products != torch.float32),
            returned(self._module) as blocks,
            # Of a step nothing is asked of the device; what is not finite shows in its loss.
            capture(self._module, [self._site], finite=False) as streams,
        ):
            self._module(input_ids=ids, attention_mask=mask, use_cache=False)
        self._blocks = blocks
        return streams[self._site]
