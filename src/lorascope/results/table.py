"""Many estimates as one table: picked by what they belong to, written and read back whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from lorascope.errors import InputError, UnknownName
from lorascope.results.estimate import Estimate, Null
from lorascope.results.key import KEY_FIELDS
from lorascope.results.shown import estimates_html

# pandas and pyarrow are imported where a table is made: together they are 80 MB.
if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_WHOLE: Final = ("rank", "seed", "k", "latent", "size", "draw")
_FIRST: Final = ("adapter", "rank", "site", "seed", "dictionary")
# The key's `null` is the column `draw_of`: `null` is the one the number is held against.
_LATER: Final = tuple(
    "draw_of" if name == "null" else name for name in KEY_FIELDS if name not in _FIRST
)
ESTIMATE_COLUMNS: Final = (
    *("measure", *_FIRST, "value", "chance", "low", "high", "n", "unit"),
    *(
        "null",
        "rival",
        "chance_low",
        "chance_high",
        "difference",
        "difference_low",
        "difference_high",
    ),
    *("p", "margin", "judged", "verdict", *_LATER),
)
NULL_COLUMNS: Final = (
    *("measure", *_FIRST, "null", "rival", "level", "low", "high", "draws"),
    *("difference_low", "difference_high", "p", "verdict", *_LATER),
)
_FLOATS: Final = (
    *("value", "low", "high", "chance", "chance_low", "chance_high", "level", "p", "margin"),
    *("difference", "difference_low", "difference_high", "loss"),
)

# In the ids of measures of runs made before these used the words of docs/concepts.md.
_FORMER_WORDS: Final = (("won_back", "recovered"), ("_foretold", "_attributed"))


@cache
def _schema() -> pa.Schema:
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()

    def of_key(name: str) -> pa.DataType:
        return real if name == "loss" else whole if name in _WHOLE else text

    null = pa.struct(
        [
            ("name", text),
            ("level", real),
            ("low", real),
            ("high", real),
            ("rival", pa.bool_()),
            ("difference", pa.list_(real)),
            ("p", real),
            ("draws", whole),
        ]
    )
    return pa.schema(
        [
            ("measure", text),
            ("value", real),
            ("interval", pa.list_(real)),
            ("n", whole),
            ("unit", text),
            ("nulls", pa.list_(null)),
            ("key", pa.struct([(name, of_key(name)) for name in KEY_FIELDS])),
            ("margin", real),
            ("judged", pa.bool_()),
        ]
    )


class Estimates(Sequence[Estimate]):
    """Estimates in order, as a sequence and as a table.

    Args:
        estimates: any; later changes of the iterable change nothing here.

    Examples:
        >>> table = ls.Estimates([ls.Estimate("delta_norm", 1.5, (1.4, 1.6), 200, "stream units")])
        >>> table.select("delta_norm")[0].value, list(table.to_frame().columns)[:2]
        (1.5, ['measure', 'adapter'])
    """

    def __init__(self, estimates: Iterable[Estimate] = ()) -> None:
        self._all = tuple(estimates)
        # Of the table this one was cut out of: a part still knows what the whole is called.
        self._known: frozenset[str] = frozenset(estimate.measure for estimate in self._all)

    def __repr__(self) -> str:
        measures = list(dict.fromkeys(estimate.measure for estimate in self._all))
        more = ", …" if len(measures) > 6 else ""
        return f"Estimates({len(self)}: {', '.join(measures[:6])}{more})"

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Estimate]:
        return iter(self._all)

    @overload
    def __getitem__(self, index: int) -> Estimate: ...
    @overload
    def __getitem__(self, index: slice) -> Estimates: ...
    def __getitem__(self, index: int | slice) -> Estimate | Estimates:
        return self._part(self._all[index]) if isinstance(index, slice) else self._all[index]

    def __add__(self, other: Iterable[Estimate]) -> Estimates:
        return Estimates((*self._all, *other))

    def select(self, *measures: str, **fields: Any) -> Estimates:
        """Those of some measures whose keys have these values, in order.

        Args:
            measures: any of these; all where none is named.
            fields: fields of `Key`; a list, tuple or set admits any of its values. Draws of
                nulls are left out unless `draw` is named, numbers without massive coordinates
                unless `massive` is.

        Raises:
            UnknownName: neither this table nor the one it was cut out of has such a measure, or a
                key has no such field. `taken` gives nothing then.
        """
        for measure in measures:
            if measure not in self._known:
                raise UnknownName.of("measure in this table", measure, sorted(self._known))
        return self.taken(*measures, **fields)

    def taken(self, *measures: str, **fields: Any) -> Estimates:
        """As `select`, for numbers that a run may not have taken: none of them then.

        Raises:
            UnknownName: a key has no such field.
        """
        for name in fields:
            if name not in KEY_FIELDS:
                raise UnknownName.of("field of a key", name, KEY_FIELDS)
        wanted = {"draw": None, "massive": "", **fields}
        admitted = {
            name: value if isinstance(value, list | tuple | set | frozenset) else (value,)
            for name, value in wanted.items()
        }
        return self._part(
            e
            for e in self._all
            if (not measures or e.measure in measures)
            and all(getattr(e.key, name) in values for name, values in admitted.items())
        )

    @property
    def of_adapters(self) -> Estimates:
        """Without the draws of nulls."""
        return self._part(e for e in self._all if e.key.draw is None)

    @property
    def of_nulls(self) -> Estimates:
        """The draws of nulls alone: null adapters, dictionaries trained on Gaussian rows."""
        return self._part(e for e in self._all if e.key.draw is not None)

    def one(self, *measures: str, **fields: Any) -> Estimate:
        """The only one that `select` finds; LookupError where there is none or several."""
        found = self.select(*measures, **fields)
        if len(found) != 1:
            asked = ", ".join([*measures, *(f"{name}={value}" for name, value in fields.items())])
            raise LookupError(f"{len(found)} estimates of {asked or 'everything'}, expected one")
        return found[0]

    def _part(self, estimates: Iterable[Estimate]) -> Estimates:
        part = Estimates(estimates)
        part._known = self._known
        return part

    def over_seeds(self, groups: Mapping[str, str] | None = None) -> Estimates:
        """One number a measure and condition: means over seeds, as `results.seeds` pools them.

        Args:
            groups: {adapter: name it shares with those that differ from it in their seed alone};
                each adapter stands for itself by default. `key.adapter` becomes that name and
                `key.seed` None.
        """
        # Imported here: its statistics need torch, which a table should not wait for.
        from lorascope.results.seeds import over_seeds

        return Estimates(over_seeds(self._all, groups or {}))

    def to_frame(self) -> pd.DataFrame:
        """One row an estimate, columns `ESTIMATE_COLUMNS`; chance is the headline null's."""
        return _frame([_row(estimate) for estimate in self._all], ESTIMATE_COLUMNS)

    def nulls_frame(self) -> pd.DataFrame:
        """One row an estimate and null, columns `NULL_COLUMNS`."""
        return _frame([row for e in self._all for row in _null_rows(e)], NULL_COLUMNS)

    def _repr_html_(self) -> str:
        """The table as notebooks show it: what each number belongs to, value, chance, verdict."""
        return estimates_html(self._all)

    def write(self, path: str | Path) -> None:
        """Write everything as one parquet file, beside its final name first."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        table = pa.Table.from_pylist([asdict(estimate) for estimate in self._all], schema=_schema())
        pq.write_table(table, partial)
        partial.replace(path)

    @classmethod
    def read(cls, path: str | Path) -> Estimates:
        """What `write` left.

        Raises:
            InputError: no such file, or no table of estimates.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path} is missing: finish the run first, then make its report")
        try:
            table = pq.read_table(path)
            if not set(_schema().names) <= set(table.column_names):
                raise ValueError("other columns")
            return cls(Estimate.revived(_known(row)) for row in table.to_pylist())
        except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{path} holds no table of estimates of this version ({reason}); remake the run's "
                "results"
            ) from error


def _known(row: dict[str, Any]) -> dict[str, Any]:
    measure = row["measure"]
    for former, now in _FORMER_WORDS:
        measure = measure.replace(former, now)
    return {**{name: row[name] for name in _schema().names}, "measure": measure}


def _key(estimate: Estimate) -> dict[str, Any]:
    fields = asdict(estimate.key)
    return {"measure": estimate.measure, **fields, "draw_of": fields.pop("null")}


def _row(estimate: Estimate) -> dict[str, Any]:
    null = estimate.headline
    low, high = (math.nan, math.nan) if null is None else estimate.difference(null)
    return {
        **_key(estimate),
        "value": estimate.value,
        "low": estimate.interval[0],
        "high": estimate.interval[1],
        "n": estimate.n,
        "unit": estimate.unit,
        "null": "" if null is None else null.name,
        "rival": null is not None and null.rival,
        "chance": estimate.chance,
        "chance_low": math.nan if null is None else null.low,
        "chance_high": math.nan if null is None else null.high,
        "difference": estimate.value - estimate.chance,
        "difference_low": low,
        "difference_high": high,
        "p": estimate.p_value,
        "margin": estimate.margin,
        "judged": estimate.judged,
        "verdict": estimate.verdict,
    }


def _null_rows(estimate: Estimate) -> list[dict[str, Any]]:
    return [_null_row(estimate, null) for null in estimate.nulls]


def _null_row(estimate: Estimate, null: Null) -> dict[str, Any]:
    low, high = estimate.difference(null)
    return {
        **_key(estimate),
        "null": null.name,
        "rival": null.rival,
        "level": null.level,
        "low": null.low,
        "high": null.high,
        "draws": null.draws,
        "difference_low": low,
        "difference_high": high,
        "p": estimate.p(null),
        "verdict": estimate.against(null),
    }


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(columns))
    kinds = {
        column: "Int64"
        if column in (*_WHOLE, "n", "draws")
        else "float64"
        if column in _FLOATS
        else "bool"
        if column in ("rival", "judged")
        else "str"
        for column in columns
    }
    return table.astype(kinds)
