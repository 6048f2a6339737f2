"""A scan's table as CSV, parquet, and one HTML page without scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lorascope.checking.ranking import Ranked
from lorascope.runs import write_atomically

_PAGE = """<!doctype html>
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
{rows}
</tbody></table></div>
</body></html>
"""


def write_tables(
    out: Path, adapters: Sequence[Ranked], sentences: Sequence[str]
) -> dict[str, Path]:
    """Write scan.csv, scan.parquet and scan.html.

    Returns:
        {"csv", "parquet", "html": file}.
    """
    files = {kind: out / f"scan.{kind}" for kind in ("csv", "parquet", "html")}
    frame = pd.DataFrame([one.plain() for one in adapters])
    frame["rank"] = frame["rank"].astype("Int64")
    for name in ("norm", "effective_rank", "largest_share"):
        frame[name] = frame[name].astype(float)
    frame.to_csv(files["csv"], index=False)
    frame.to_parquet(files["parquet"], index=False)
    lines = [f"<p>{html.escape(sentence)}</p>" for sentence in sentences]
    columns = [str(name).replace("_", " ") for name in frame.columns]
    page = _PAGE.format(
        sentences="\n".join(lines),
        headings="".join(f"<th>{html.escape(name)}</th>" for name in columns),
        rows="\n".join(_row(one) for one in adapters),
    )
    write_atomically(files["html"], page)
    return files


def _row(one: Ranked) -> str:
    cells = "".join(_cell(value) for value in one.plain().values())
    return f"<tr{' class=review' if one.review else ''}>{cells}</tr>"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f'<td class="text">{html.escape(value)}</td>'
    if isinstance(value, bool):
        return f"<td>{'yes' if value else ''}</td>"
    if value is None or value != value:
        return "<td></td>"
    return f"<td>{value:,}</td>" if isinstance(value, int) else f"<td>{value:.4g}</td>"
