"""The most bytes of tensors that are alive at once, by what made them."""

from __future__ import annotations

import traceback
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(TorchDispatchMode):
    """Counts the storages of every new tensor that an operation returns, until they are freed.

    Attributes:
        now, most: bytes alive now, and the most at once.
        largest: the lines of this package that were running then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.largest: list[str] = []
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        # What an operation is given was there before: views of it take nothing.
        for leaf in tree_leaves((arguments, named)):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if not self._knows(storage):
                    self._known[storage._cdata] = weakref.ref(storage)
        found = function(*arguments, **(named or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        return found

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if self._knows(storage):
            return
        self._known[key] = weakref.ref(storage, lambda _: self._drop(key, size))
        self.now += size
        if self.now > self.most:
            self.most = self.now
            frames = traceback.extract_stack()
            self.largest = [
                f"{f.filename}:{f.lineno}" for f in frames if "/lorascope/" in f.filename
            ]

    def _knows(self, storage: torch.UntypedStorage) -> bool:
        known = self._known.get(storage._cdata)
        return known is not None and known() is not None

    def _drop(self, key: int, size: int) -> None:
        self.now -= size
        self._known.pop(key, None)
