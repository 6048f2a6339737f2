"""Shuffling, from iterator to iterator, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Rows(Protocol):
    """Rows that can be read in chunks, again and again, in any order of chunks."""

    @property
    def d_model(self) -> int: ...

    @property
    def n_chunks(self) -> int: ...

    def __len__(self) -> int: ...

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]: ...


class TensorRows:
    """Rows in memory behind the same interface as rows on disk."""

    def __init__(self, rows: Float[Tensor, "rows d"]) -> None:
        self.rows = rows

    @property
    def d_model(self) -> int:
        return self.rows.shape[1]

    @property
    def n_chunks(self) -> int:
        return 1

    def __len__(self) -> int:
        return len(self.rows)

    def chunks(self, order: Sequence[int] | None = None) -> Iterator[Float[Tensor, "rows d"]]:
        del order  # one chunk has one order
        yield self.rows


def mixed(
    chunks: Iterable[Float[Tensor, "rows d"]],
    batch: int,
    buffer: int,
    generator: torch.Generator,
) -> Iterator[Float[Tensor, "batch d"]]:
    """Batches of rows drawn at random from a buffer that is topped up as it empties.

    Every row comes out exactly once, but for the last that do not fill a batch. Where all rows
    fit, the order is one uniform permutation; otherwise half the buffer is handed out before it
    is filled again, so rows move far from their neighbours.
    """
    buffer = max(buffer, 2 * batch)
    waiting = iter(chunks)
    pool: Tensor | None = None
    exhausted = False
    while not exhausted:
        parts = [] if pool is None else [pool]
        count = sum(map(len, parts))
        while count < buffer:
            chunk = next(waiting, None)
            if chunk is None:
                exhausted = True
                break
            parts.append(chunk)
            count += len(chunk)
        if not count:
            return
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        order = torch.randperm(len(joined), generator=generator)
        emptied = len(order) if exhausted else len(order) // 2
        handed_out = emptied - emptied % batch
        for start in range(0, handed_out, batch):
            yield joined[order[start : start + batch]]
        pool = joined[order[handed_out:]]


def epochs(
    rows: Rows, batch: int, generator: torch.Generator, buffer: int = 262144
) -> Iterator[Float[Tensor, "batch d"]]:
    """Endless batches: each pass reads the chunks in a new order and mixes their rows.

    Raises:
        ValueError: there are fewer rows than a batch holds.
    """
    if len(rows) < batch:
        raise ValueError(f"{len(rows)} rows do not fill one batch of {batch}")
    while True:
        order = torch.randperm(rows.n_chunks, generator=generator).tolist()
        yield from mixed(rows.chunks(order), batch, buffer, generator)
