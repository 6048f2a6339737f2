"""What every part of a fit can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.models.sites import Site
from lorascope.outputs.splicing import Placed, Splice

AtSite = TypeVar("AtSite", bound=nn.Module)


Values = list[tuple[nn.Parameter, Tensor]]


class FittedPart(Protocol):
    """Something that is fitted, on the model or in the splice already.

    Attributes:
        name: what cards and tables call it.
        rate: AdamW's peak learning rate.
        parameters: what is fitted.
    """

    @property
    def name(self) -> str: ...

    @property
    def rate(self) -> float: ...

    @property
    def parameters(self) -> Sequence[nn.Parameter]: ...

    def off(self) -> AbstractContextManager[None]:
        """Within the `with`, everything is as if this part had never been."""

    @property
    def changes_model(self) -> bool:
        """Whether it acts on the model without the splice too."""

    def scrambled(self, random: torch.Generator) -> Values:
        """The parameters with a random change of the same size in place of what was fitted."""

    def dictionaries(self, placed: Placed) -> Placed:
        """What now stands at each site, as dictionaries; those it leaves alone as they are."""

    def save(self, folder: Path) -> None:
        """Write what belongs to this part alone into the folder of the fit."""


class AtSites(Generic[AtSite]):
    """What a part made of one module a site shares: they stand in the splice, and act while on.

    Without the splice they do nothing.

    Args:
        fitted: {site: what is fitted there}.
        rate: AdamW's peak learning rate.
    """

    changes_model = False

    def __init__(self, fitted: Mapping[Site, AtSite], rate: float) -> None:
        self.rate, self.fitted = rate, dict(fitted)
        self._active = True

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those of every site."""
        return [parameter for each in self.fitted.values() for parameter in each.parameters()]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within the `with`, what stood at the sites before stands there again."""
        before, self._active = self._active, False
        try:
            yield
        finally:
            self._active = before


@contextmanager
def standing(splice: Splice) -> Iterator[dict[Site, Callable[[Tensor], Tensor]]]:
    """Within the `with`, something else may stand at the sites; yields what stands there now."""
    before = dict(splice.standing)
    try:
        yield before
    finally:
        splice.standing.update(before)


@contextmanager
def exchanged(values: Values) -> Iterator[None]:
    """Within the `with`, parameters hold other values."""
    before = [(parameter, parameter.detach().clone()) for parameter, _ in values]
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)


def orthonormal(rows: int, columns: int, random: torch.Generator) -> Float[Tensor, "rows columns"]:
    """Random orthonormal columns, float64."""
    drawn = torch.randn(rows, columns, generator=random, dtype=torch.float64)
    found: Tensor = torch.linalg.qr(drawn).Q
    return found


def same_lengths(change: Float[Tensor, "*n d"], random: torch.Generator) -> Float[Tensor, "*n d"]:
    """Random directions, each with the length of its row."""
    drawn = torch.randn(change.shape, generator=random).to(change)
    found: Tensor = drawn * (change.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))
    return found
