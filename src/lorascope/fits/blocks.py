"""Where adapters go: the linear maps of some blocks, never so that a dictionary's L0 can drift."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.dictionaries.topk import TopKDictionary
from lorascope.errors import InputError, did_you_mean
from lorascope.fits.settings import Blocks, Targets
from lorascope.models.sites import Site, block_list
from lorascope.outputs.splicing import Placed


def chosen_blocks(
    n_blocks: int, placed: Placed, blocks: Blocks, *, before_thresholds: bool = False
) -> tuple[int, ...]:
    """Numbers of the blocks to adapt, in order.

    A dictionary with thresholds keeps what exceeds them, however many latents that is. Adapters in
    front of it could close the gap by making more of its latents fire, so they have to come after
    it. TopK fixes the number itself.

    Args:
        n_blocks: how many the model has.
        blocks: "all", "after" the first site, the "next" one after each site, or their numbers.
        before_thresholds: let adapters stand in front of thresholds all the same, with a warning.

    Raises:
        InputError: no block is left, a number is unknown or given twice, or a block would act on
            what a dictionary with thresholds reads.
    """
    first = min(placed)
    if blocks == "all":
        chosen = tuple(range(n_blocks))
    elif blocks == "after":
        chosen = tuple(range(first.index + 1, n_blocks))
    elif blocks == "next":
        chosen = tuple(site.index + 1 for site in sorted(placed) if site.index + 1 < n_blocks)
    else:
        chosen = _named(n_blocks, blocks)
    if not chosen:
        after = blocks in ("after", "next")
        what = f"no block comes after {first}" if after else "blocks is empty"
        raise InputError(f"no block to adapt: {what}; give all, or block numbers")
    if (last := _last_threshold(placed)) is not None and chosen[0] <= last.index:
        _meet_thresholds(placed, last, chosen[0], n_blocks, before_thresholds)
    return chosen


def require_still_thresholds(placed: Placed, encoders: Collection[Site], allowed: bool) -> None:
    """Refuse a fit at the sites themselves that would let a dictionary's L0 drift.

    What is fitted at one site acts on all dictionaries after it, and a dictionary's own encoder
    decides how much of it fires; with TopK neither changes L0.

    Args:
        encoders: where the dictionary's own encoder is fitted.
        allowed: warn instead.

    Raises:
        InputError: a dictionary with thresholds would read, or use, what is fitted.
    """
    last = _last_threshold(placed)
    if last is None:
        return
    own = [site for site in sorted(encoders) if not isinstance(placed[site], TopKDictionary)]
    if own:
        acts = f"fitting the encoder of the {placed[own[0]].architecture} dictionary at {own[0]}"
        advice = "fit its decoder alone (encoder: false)"
    elif min(placed) < last:
        acts = f"what is fitted at {min(placed)} acts on what the dictionary at {last} reads and"
        advice = f"splice at {last} alone"
    else:
        return
    if not allowed:
        raise InputError(f"{acts} lets its L0 drift; {advice}, or set before_thresholds")
    warnings.warn(f"{acts} lets its L0 drift: report the L0 with the fit on", stacklevel=3)


def linear_maps(module: nn.Module, blocks: Sequence[int], targets: Targets) -> list[str]:
    """Full names of the linear maps of attention and MLP in these blocks.

    Raises:
        InputError: a target that none of the blocks has, or no linear map at all.
    """
    names = {id(part): name for name, part in module.named_modules()}
    found: list[str] = []
    for number in blocks:
        block = block_list(module)[number]
        found += [names[id(p)] for p in block.modules() if isinstance(p, nn.Linear | Conv1D)]
    last = sorted({name.rsplit(".", 1)[-1] for name in found})
    if targets != "all-linear":
        for target in targets:
            if not any(name.endswith(f".{target}") for name in found):
                raise InputError(
                    f'no linear map called "{target}" in the blocks to adapt.'
                    f"{did_you_mean(target, last)} There are: {', '.join(last)}"
                )
        found = [name for name in found if any(name.endswith(f".{t}") for t in targets)]
    if not found:
        raise InputError("no block to adapt: the chosen blocks hold no linear map")
    return found


def _named(n_blocks: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    for number in blocks:
        if not 0 <= number < n_blocks:
            raise InputError(
                f"block {number} does not exist: the model has {n_blocks}, 0 to {n_blocks - 1}"
            )
        if blocks.count(number) > 1:
            raise InputError(f"block {number} is given more than once: name each block once")
    return tuple(sorted(blocks))


def _last_threshold(placed: Placed) -> Site | None:
    kinds = [site for site, one in placed.items() if not isinstance(one, TopKDictionary)]
    return max(kinds, default=None)


def _meet_thresholds(placed: Placed, last: Site, number: int, n_blocks: int, allowed: bool) -> None:
    kind = placed[last].architecture
    acts = f"block {number} acts on what the {kind} dictionary at {last} reads, so its L0 can drift"
    if allowed:
        warnings.warn(f"{acts}: report the L0 with the adapter on", stacklevel=4)
        return
    after = f"{last.index + 1} to {n_blocks - 1}"
    advice = f"adapt blocks {after}" if last.index + 1 < n_blocks else "splice at an earlier site"
    raise InputError(f"{acts}: {advice}, or set before_thresholds")
