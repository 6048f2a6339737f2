"""The conditions a fitted model runs under."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from lorascope.fits.wrapper import Spliced
from lorascope.outputs.conditions import Condition, without_adapter
from lorascope.outputs.splicing import Given, spliced

ORIGINAL, SPLICED, ADAPTED, UNSPLICED = "original", "spliced", "adapted", "unspliced"


def conditions_of(opened: Spliced, dictionaries: Given) -> dict[str, Condition]:
    """Every way of running a fit on its model.

    original: the bare model. spliced: with the dictionaries as they were. adapted: with all that
    was fitted, dictionaries included. unspliced: with the adapter alone.

    Args:
        opened: the fit, as `open_fitted` gives it.
        dictionaries: those it was fitted around.
    """
    bare = partial(without_adapter, opened.module)

    @contextmanager
    def before() -> Iterator[None]:
        arguments: Any = {"special_ids": opened.special_ids, "error_term": opened.error_term}
        with bare(), spliced(opened.module, dictionaries, **arguments):
            yield

    return {ORIGINAL: bare, SPLICED: before, ADAPTED: opened.splice, UNSPLICED: nullcontext}
