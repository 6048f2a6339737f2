"""The variants of a model that an audit measures, and how their numbers are keyed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorascope.models.adapter_files import AdapterInfo
from lorascope.results import ADAPTER, Key


def key_of(info: AdapterInfo) -> Key:
    """The key of an adapter's numbers; of a null adapter, that of the adapter it is a draw for."""
    return Key(
        adapter=info.null_of or info.name,
        rank=info.rank,
        null=ADAPTER if info.null_of else "",
        draw=info.draw,
    )


@dataclass(frozen=True)
class Variants:
    """Adapters and null adapters by name.

    Attributes:
        keys: {name: its numbers' key}, adapters first.
    """

    keys: Mapping[str, Key]

    @classmethod
    def read(cls, checks: Mapping[str, Any]) -> Variants:
        """From the record of an audit's checks."""
        records = {**checks["adapters"], **checks["null_adapters"]}
        return cls({name: key_of(AdapterInfo(**one)) for name, one in records.items()})

    @property
    def adapters(self) -> list[str]:
        """Names of what was given."""
        return [name for name, key in self.keys.items() if key.draw is None]

    @property
    def nulls(self) -> list[str]:
        """Names of the null adapters."""
        return [name for name, key in self.keys.items() if key.draw is not None]

    def nulls_of(self, adapter: str) -> list[str]:
        """Names of one adapter's null adapters."""
        return [name for name in self.nulls if self.keys[name].adapter == adapter]
