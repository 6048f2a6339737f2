"""A scan's table as CSV, parquet, and one HTML page without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lorascope.checking.ranking import Ranked
from lorascope.runs import replaced
from lorascope.spreadsheets import csv_text

# Adapters whose rows are in memory at once.
_AT_ONCE = 256
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>lorascope scan</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color-scheme: light dark; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8884; }}
th:first-child, td:first-child, td.text {{ text-align: left; overflow-wrap: anywhere; }}
tr.review {{ background: #f802; }}
</style></head><body>
<h1>Scan of adapters</h1>
{sentences}
<div><table><thead><tr>{headings}</tr></thead>
<tbody>
"""
_FOOT = """</tbody></table></div>
</body></html>
"""


def write_tables(
    out: Path, adapters: Sequence[Ranked], sentences: Sequence[str]
) -> dict[str, Path]:
    """Write scan.csv, scan.parquet and scan.html, some adapters at a time.

    Returns:
        {"csv", "parquet", "html": file}.
    """
    files = {kind: out / f"scan.{kind}" for kind in ("csv", "parquet", "html")}
    schema = pa.Schema.from_pandas(_frame(_some(adapters, 0)), preserve_index=False)
    with ExitStack() as stack:
        places = {kind: stack.enter_context(replaced(file)) for kind, file in files.items()}
        csv = stack.enter_context(places["csv"].open("w", encoding="utf-8", newline=""))
        page = stack.enter_context(places["html"].open("w", encoding="utf-8"))
        parquet = stack.enter_context(pq.ParquetWriter(places["parquet"], schema))
        headings = "".join(f"<th>{html.escape(one.replace('_', ' '))}</th>" for one in schema.names)
        told = "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
        page.write(_HEAD.format(sentences=told, headings=headings))
        for start in range(0, len(adapters), _AT_ONCE):
            rows = _some(adapters, start)
            frame = _frame(rows)
            csv.write(csv_text(frame, header=start == 0))
            parquet.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))
            page.writelines(_row(row) + "\n" for row in rows)
        page.write(_FOOT)
    return files


def _some(adapters: Sequence[Ranked], start: int) -> list[dict[str, Any]]:
    return [one.plain() for one in adapters[start : start + _AT_ONCE]]


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame["rank"] = frame["rank"].astype("Int64")
    for name in ("norm", "effective_rank", "largest_share"):
        frame[name] = frame[name].astype(float)
    return frame


def _row(row: dict[str, Any]) -> str:
    cells = "".join(_cell(value) for value in row.values())
    return f"<tr{' class=review' if row['review'] else ''}>{cells}</tr>"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f'<td class="text">{html.escape(value)}</td>'
    if isinstance(value, bool):
        return f"<td>{'yes' if value else ''}</td>"
    if value is None or value != value:
        return "<td></td>"
    return f"<td>{value:,}</td>" if isinstance(value, int) else f"<td>{value:.4g}</td>"
