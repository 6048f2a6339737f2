"""The dictionaries an adapt study brings along: opened, checked to fit, identified by content."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from torch import nn

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.rereading import as_topk
from lorascope.fits.fitting import adapted_blocks
from lorascope.fits.wrapper import identity
from lorascope.outputs.splicing import Placed, place
from lorascope.studies.adapt.cells import AdaptDictionary, FitCell, FitGrid
from lorascope.studies.adapt.study import AdaptStudy


def open_brought(one: AdaptDictionary) -> Dictionary:
    """A dictionary brought along, by the rule the study reads it by.

    Raises:
        InputError: it cannot be opened, or not be read as TopK.
    """
    opened = open_dictionary(one.address)
    return opened if one.k is None else as_topk(opened, one.k, one.address)


def bring(study: AdaptStudy, asked: FitGrid, frame: nn.Module) -> dict[str, str]:
    """{name: what it computes with}, each dictionary proved to fit its site and its fits.

    Args:
        frame: the model, with or without its weights.

    Raises:
        InputError: one cannot be opened, is of another width, site or model, or has thresholds
            that a fit around it would act on.
    """
    found: dict[str, str] = {}
    # Only those that stand on the model together are held in memory together.
    together = [cell.dictionaries for cell in asked.fits if len(cell.dictionaries) > 1]
    several = {name for names in together for name in names}
    kept: dict[str, Placed] = {}
    for one in asked.dictionaries.values():
        if one.address:
            opened = open_brought(one)
            placed = place(frame, {one.site: opened}, model=study.model, force=study.force)
            found[one.name] = identity(opened)
            for cell in _around(asked, alone=True):
                _require_still(study, cell, {one.name: placed}, frame)
            if one.name in several:
                kept[one.name] = placed
    for cell in _around(asked, alone=False):
        _require_still(study, cell, kept, frame)
    return found


def _around(asked: FitGrid, *, alone: bool) -> Iterator[FitCell]:
    """Fits around one dictionary, or around several."""
    for cell in asked.fits:
        if (len(cell.dictionaries) == 1) is alone:
            yield cell


def _require_still(
    study: AdaptStudy, cell: FitCell, brought: dict[str, Placed], frame: nn.Module
) -> None:
    """Refuse a fit around these that would let an L0 drift; TopK trained here cannot."""
    placed = {
        site: dictionary
        for name in cell.dictionaries
        for site, dictionary in brought.get(name, {}).items()
    }
    if placed:
        with warnings.catch_warnings():
            # Where it is allowed the fit itself warns.
            warnings.simplefilter("ignore", UserWarning)
            adapted_blocks(frame, placed, cell.settings(study))
