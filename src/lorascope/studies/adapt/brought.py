"""Opening a dictionary of an adapt study as the study reads it."""

from __future__ import annotations

from lorascope.dictionaries.dictionary import Dictionary
from lorascope.dictionaries.files import open_dictionary
from lorascope.dictionaries.rereading import as_topk
from lorascope.studies.adapt.cells import AdaptDictionary


def open_brought(one: AdaptDictionary) -> Dictionary:
    """A dictionary brought along, by the rule the study reads it by.

    Raises:
        InputError: it cannot be opened, or not be read as TopK.
    """
    opened = open_dictionary(one.address)
    return opened if one.k is None else as_topk(opened, one.k, one.address)
