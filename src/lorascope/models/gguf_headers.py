"""The headers of GGUF files, read as far as they are needed.

A header lists every token and every merge of the tokenizer. The package gguf makes several arrays
of each, which takes longer than reading the weights, and transformers reads the header once for the
configuration, once for the tokenizer and once for the weights. Here lists of words are gone through
in one pass, and passed over where nobody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import gguf
import numpy as np
from gguf import GGUFReader, GGUFValueType

_LENGTH = 8
_CUT_OFF = "a list in the header ends after the file does"


# Offset behind the list, and its parts.
_Found = tuple[int, list[Any]]


class QuickReader(GGUFReader):
    """gguf's reader; a list of words has the bytes of each as its parts, and not their lengths."""

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        start, several = orig_offs + kind.nbytes + count.nbytes, int(count[0])
        item = GGUFValueType(int(kind[0]))
        if item == GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        found = self._words if item == GGUFValueType.STRING else self._numbers
        stop, values = found(start, several, item)
        parts = [kind, count, *values]
        types = [GGUFValueType.ARRAY] + [item] * bool(values)
        return stop - orig_offs, parts, list(range(2, len(parts))), types

    def _numbers(self, start: int, count: int, item: GGUFValueType) -> _Found:
        whole = np.asarray(self._get(start, self.gguf_scalar_to_np[item], count))
        if len(whole) < count:
            raise ValueError(_CUT_OFF)
        return start + whole.nbytes, [whole[i : i + 1] for i in range(count)]

    def _words(self, start: int, count: int, item: GGUFValueType) -> _Found:
        del item
        plain = np.asarray(self.data)
        return self._ends(start, count, lambda begin, end: plain[begin:end])

    def _ends(self, start: int, count: int, word: Callable[[int, int], Any]) -> _Found:
        """Where the words end, and what `word` makes of each."""
        order: Any = "little" if self.endianess == gguf.GGUFEndian.LITTLE else "big"
        whole: Any = self.data
        raw, at, found = memoryview(whole), start, []
        for _ in range(count):
            begin = at + _LENGTH
            at = begin + int.from_bytes(raw[at:begin], order)
            if at > len(raw):
                raise ValueError(_CUT_OFF)
            found.append(word(begin, at))
        return at, found


class WordlessReader(QuickReader):
    """The same; lists of words are empty."""

    def _words(self, start: int, count: int, item: GGUFValueType) -> _Found:
        del item
        return self._ends(start, count, lambda begin, end: None)[0], []


@contextmanager
def words_read_quickly() -> Iterator[None]:
    """Within the `with`, transformers reads headers by `QuickReader`."""
    with _reader(QuickReader):
        yield


@contextmanager
def weights_alone() -> Iterator[None]:
    """Within the `with`, headers have no words, and maps of a model's tensor names are made once.

    transformers asks for the map at every module, and to make it takes longer than to read the
    weights. Nothing but weights may be read so: a tokenizer would be empty.
    """
    whole = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = cache(whole)
    try:
        with _reader(WordlessReader):
            yield
    finally:
        gguf.get_tensor_name_map = whole


@contextmanager
def _reader(kind: type[GGUFReader]) -> Iterator[None]:
    given = gguf.GGUFReader
    gguf.GGUFReader = kind
    try:
        yield
    finally:
        gguf.GGUFReader = given
