"""Labels of dictionaries and modules in keys, and of the two that a number compares."""

from __future__ import annotations

from typing import Final, NamedTuple

from lorascope.results.key import Key

BASE: Final = "base"
DELTA: Final = "delta"
BASE_DIFFERENCE: Final = "base difference"
EXACT_DELTA: Final = "exact delta"
PCA: Final = "PCA"
# In a comparison of two adapters: the one whose delta it is, and the other.
OWN_DELTA: Final = "own delta"
OTHER_DELTA: Final = "other's delta"

ALL_MODULES: Final = "all modules"

_DICTIONARIES: Final = (BASE, DELTA, BASE_DIFFERENCE, EXACT_DELTA, PCA, OWN_DELTA, OTHER_DELTA)


class Of(NamedTuple):
    """Which dictionary a number is of, and which other it is held against.

    Attributes:
        dictionary: its label; empty for a number of no dictionary.
        compared: the other's label; empty where there is none.
    """

    dictionary: str = ""
    compared: str = ""

    @classmethod
    def key(cls, key: Key) -> Of:
        """What a key says of dictionaries; an adapter it is held against is none."""
        return cls(key.dictionary, key.compared if key.compared in _DICTIONARIES else "")

    @property
    def seeds_alone(self) -> bool:
        """Whether the two differ in their seed alone: no finding but a yardstick."""
        return bool(self.compared) and self.compared == self.dictionary

    def __str__(self) -> str:
        """As tables call it: `delta vs base`."""
        return f"{self.dictionary} vs {self.compared}" if self.compared else self.dictionary


DELTA_VS_BASE: Final = Of(DELTA, BASE)
BASE_SEEDS: Final = Of(BASE, BASE)
DELTA_SEEDS: Final = Of(DELTA, DELTA)


def adapters_of(key: Key) -> str:
    """The adapter, or the two that are held against each other, as tables call them."""
    if not key.compared or key.compared in _DICTIONARIES:
        return key.adapter
    return f"{key.adapter} vs {key.compared}"
