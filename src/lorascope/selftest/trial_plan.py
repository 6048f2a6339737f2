"""What a trial of readings takes, worked out from the base's shape alone."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.models.shapes import Shape
from lorascope.models.stored import computing_dtype
from lorascope.reading.settings import Reading
from lorascope.selftest.adapter_tables import AdapterTable, null_count
from lorascope.workflows.cost import Cost, CostPart
from lorascope.workflows.reading_cost import reading_part
from lorascope.workflows.sizes import base_of
from lorascope.workflows.speed import device_of

# Bytes of a reading on disk, with its samples, about.
_KEPT = 300_000


@dataclass(frozen=True)
class _Planned:
    model: str
    revision: None = None


@dataclass(frozen=True, kw_only=True)
class TrialPlan(Cost):
    """The size of a trial.

    Attributes:
        shape: of the base.
        adapters, labels: that the table has; labels are what the judge chooses among.
        nulls: random updates that are read beside them.
    """

    model: str
    shape: Shape
    adapters: int
    labels: int
    nulls: int

    def sizes(self) -> list[tuple[str, str]]:
        """(what, how much) of the trial's own sizes."""
        shape = self.shape
        width = f"{shape.parameters:,} parameters, {shape.blocks} blocks of {shape.d_model}"
        return [
            ("model", f"{self.model}, {width}"),
            ("adapters", f"{self.adapters}, and {self.nulls} that learned nothing"),
            ("labels", f"{self.labels}: {1 / self.labels:.1%} of choices are right by chance"),
        ]

    def lowers(self, part: str) -> str:
        """A trial's own options."""
        return "--most, --nulls, or take --quick, or --dtype bfloat16 on a GPU"


def plan_table(
    model: str,
    table: AdapterTable,
    settings: Reading,
    nulls: int | None = None,
    dtype: str = "auto",
) -> TrialPlan:
    """What reading the adapters of a table takes; no weights are loaded or fetched.

    Args:
        nulls, dtype: as for the trial.

    Raises:
        InputError: the base's configuration cannot be had.
    """
    base = base_of(_Planned(model), estimates=True)
    kind = computing_dtype(dtype)
    more = null_count(table, nulls)
    readings = len(table.adapters) + more
    part: CostPart = reading_part(settings, base.shape, readings, settings.nulls, 0, kind)
    return TrialPlan(
        disk=readings * _KEPT,
        parts=(part,),
        device=device_of("auto"),
        notes=(*base.notes, "sizes of adapters that have to be fetched are not counted"),
        model=model,
        shape=base.shape,
        adapters=len(table.adapters),
        labels=len(table.texts),
        nulls=more,
    )
