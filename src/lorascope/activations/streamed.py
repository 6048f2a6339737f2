"""A model's stream at one site as rows that are computed when they are read; nothing is stored.

For dictionaries trained on more text than a disk holds. Reading rows again runs the model again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.activations.mixing import TensorRows
from lorascope.activations.tokens import TokenBatch, Window, batches, require_rows
from lorascope.errors import InputError
from lorascope.models.dimensions import width
from lorascope.models.hooks import run_until
from lorascope.models.load import padding_id
from lorascope.models.sites import resolve_sites

BATCH_TOKENS = 4096


class StreamedRows:
    """Rows of the stream at a site, one chunk a forward pass, in float32 on the model's device.

    The model runs no deeper than the site.

    Args:
        module: the model, in the state in which it is to be run.
        site: in any spelling.
        windows: the text.
        batch_tokens: padded tokens in one pass.
        keep_special: special tokens give rows too.

    Raises:
        InputError: an unknown site, or no token that gives a row.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        site: str,
        windows: Sequence[Window],
        *,
        batch_tokens: int = BATCH_TOKENS,
        keep_special: bool = False,
    ) -> None:
        self._module, self._keep_special = module, keep_special
        (self.site,) = resolve_sites(module, [site])
        require_rows(windows, module, tokenizer)
        made = batches(windows, tokenizer, padding_id(tokenizer), batch_tokens)
        # Token ids are small; the rows they stand for are not.
        self._batches = [batch for batch in made if bool(self._kept(batch).any())]
        self._sizes = [int(self._kept(batch).sum()) for batch in self._batches]
        if not self._sizes:
            raise InputError("no token is left once special tokens are masked; give longer texts")

    @property
    def d_model(self) -> int:
        """Width of the stream."""
        return width(self._module)

    @property
    def sizes(self) -> Sequence[int]:
        """Rows of each chunk, known without running the model."""
        return self._sizes

    def __len__(self) -> int:
        return sum(self._sizes)

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        """The chunks in the order asked for, computed one at a time."""
        for number in range(len(self._sizes)) if order is None else order:
            batch = self._batches[number]
            device = self._module.get_input_embeddings().weight.device  # type: ignore[operator]
            ids, mask = batch.inputs(device)
            stream = run_until(self._module, [self.site], ids, mask)[self.site]
            yield stream[self._kept(batch).to(stream.device)].float()

    def sample(self, rows: int) -> TensorRows:
        """About so many rows in main memory, from chunks in even steps through all of them."""
        wanted = max(1, round(len(self._sizes) * min(1.0, rows / len(self))))
        step = len(self._sizes) / wanted
        chosen = sorted({int(step * number) for number in range(wanted)})
        return TensorRows(torch.cat([chunk.cpu() for chunk in self.chunks(chosen)]))

    def _kept(self, batch: TokenBatch) -> Tensor:
        return batch.attended if self._keep_special else batch.kept
