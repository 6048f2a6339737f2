"""The ways of running a fitted model, each something to be within while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

from peft import PeftModel
from torch import nn

from lorascope.fits.splicing import Given, spliced
from lorascope.fits.wrapper import Spliced

ORIGINAL, SPLICED, ADAPTED, UNSPLICED = "original", "spliced", "adapted", "unspliced"


class Condition(Protocol):
    """A way of running the model: something to be within while it runs."""

    def __call__(self) -> AbstractContextManager[Any]: ...


def conditions_of(opened: Spliced, dictionaries: Given) -> dict[str, Condition]:
    """Every way of running a fit on its model.

    original: the bare model. spliced: with the dictionaries as they were. adapted: with all that
    was fitted, dictionaries included. unspliced: with the adapter alone.

    Args:
        opened: the fit, as `open_fitted` gives it.
        dictionaries: those it was fitted around.
    """
    bare = partial(_without_adapter, opened.module)

    @contextmanager
    def before() -> Iterator[None]:
        arguments: Any = {"special_ids": opened.special_ids, "error_term": opened.error_term}
        with bare(), spliced(opened.module, dictionaries, **arguments):
            yield

    return {ORIGINAL: bare, SPLICED: before, ADAPTED: opened.splice, UNSPLICED: nullcontext}


@contextmanager
def _without_adapter(module: nn.Module) -> Iterator[None]:
    if not isinstance(module, PeftModel):
        yield
        return
    module.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        module.base_model.enable_adapter_layers()
