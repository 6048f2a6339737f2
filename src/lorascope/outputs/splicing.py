"""Splice dictionaries into a model: at each site the stream becomes its reconstruction.

1. `place` checks that every dictionary fits the site it is to stand at.
2. `spliced` puts them there for the time of a `with`; tokens that are left out keep their stream.

Which tokens are left out is decided for every pass anew, from the token ids and the mask the model
was called with, so that generation with a cache is spliced like a whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.errors import InputError
from lorascope.models.dimensions import width
from lorascope.models.hooks import replace
from lorascope.models.kept_streams import LeftOut
from lorascope.models.sites import Site, block_list, resolve_sites

Named = str | int | Site
Placed = dict[Site, Dictionary]
ByName = Mapping[str, Dictionary] | Mapping[int, Dictionary] | Mapping[Site, Dictionary]
Given = ByName | Iterable[tuple[Named, Dictionary]]


def place(
    module: nn.Module, dictionaries: Given, *, model: str = "", force: bool = False
) -> Placed:
    """{site: dictionary} by depth, each dictionary proved to fit.

    Args:
        dictionaries: by site, in any spelling of `parse_site`.
        model: the model's id, to compare with the dictionaries' cards; empty compares nothing.
        force: accept dictionaries made for another site or model; never another width.

    Raises:
        InputError: no dictionary, an unknown site, several at one site, or another width, site or
            model than the dictionary was made for.
    """
    pairs = list(dictionaries.items() if isinstance(dictionaries, Mapping) else dictionaries)
    if not pairs:
        raise InputError("no dictionary to splice: give at least one, with its site")
    found: Placed = {}
    for name, dictionary in pairs:
        (site,) = resolve_sites(module, [name])
        if site in found:
            raise InputError(f"two dictionaries at {site}: splice one at each site")
        found[site] = _fitting(module, site, dictionary, model, force)
    return dict(sorted(found.items()))


class Splice:
    """Dictionaries in place. Outside `off`, every pass of the model goes through them.

    Attributes:
        dictionaries: {site: dictionary}.
        standing: {site: what gives the reconstruction there}: the dictionary, until someone puts
            something else in its place.
        error_term: what a dictionary misses is added back as a constant.
    """

    def __init__(
        self,
        module: nn.Module,
        dictionaries: Placed,
        special_ids: Sequence[int] = (),
        error_term: bool = False,
    ) -> None:
        self.dictionaries = dictionaries
        self.standing: dict[Site, Callable[[Tensor], Tensor]] = dict(dictionaries)
        self.error_term = error_term
        self._left_out = LeftOut(module, special_ids)
        self.watch = self._left_out.watch
        self._active = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within the `with`, the stream stays as it is, bit for bit."""
        before, self._active = self._active, False
        try:
            yield
        finally:
            self._active = before

    def reconstruct(
        self, site: Site, x: Float[Tensor, "batch seq d"]
    ) -> Float[Tensor, "batch seq d"]:
        """What stands at `site` instead of `x`; computed in the dictionary's own precision."""
        if not self._active:
            return x
        precision = self.dictionaries[site].directions.dtype
        with torch.autocast(x.device.type, enabled=False):
            found = self.standing[site](x.to(precision)).to(x.dtype)
        if self.error_term:
            # exactly x, with the gradient of the reconstruction
            found = x.detach() + (found - found.detach())
        left = self._left_out.among((x.shape[0], x.shape[1]), x.device)
        return found if left is None else torch.where(left[..., None], x, found)


@contextmanager
def spliced(
    module: nn.Module,
    dictionaries: Given,
    *,
    special_ids: Sequence[int] = (),
    error_term: bool = False,
) -> Iterator[Splice]:
    """Within the `with`, dictionaries stand at their sites: x becomes decode(encode(x)).

    Gradients flow through the dictionaries into the stream; their own tensors get none. Call
    `backward` before the next pass and inside the `with`. Dictionaries are moved to the device of
    their block.

    Args:
        module: a causal language model, under PEFT or not.
        dictionaries: by site.
        special_ids: tokens that keep their stream; padding always does.
        error_term: add x − x̂ back as a constant: outputs stay exactly as they were, and only the
            gradient goes through the dictionary.

    Raises:
        InputError: as `place`.
    """
    splice = Splice(module, place(module, dictionaries, force=True), special_ids, error_term)
    blocks = block_list(module)
    with ExitStack() as stack:
        splice.watch(stack)
        for site, dictionary in splice.dictionaries.items():
            dictionary.to(next(blocks[site.index].parameters()).device)
            stack.enter_context(replace(module, site, partial(splice.reconstruct, site)))
        yield splice


def _fitting(
    module: nn.Module, site: Site, dictionary: Dictionary, model: str, force: bool
) -> Dictionary:
    expected = width(module)
    card = dictionary.card
    if dictionary.d_model != expected:
        named = f" {card.source}" if card.source else ""
        raise InputError(
            f"dictionary{named} for {site}: reads rows of width {dictionary.d_model}, the model's "
            f"are {expected} wide; give one made for this model"
        )
    card.require(model=model or card.model, site=site.name, force=force)
    return dictionary
