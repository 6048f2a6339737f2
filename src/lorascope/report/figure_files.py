"""Figures as files for a paper: SVG, PNG and PDF in two widths, with captions.

`<key>` fits both columns of a page, 7 in; `single/<key>` one column, 3.5 in, where it has panels
these one below the other and without title. One unit of a figure is one point, so that text is 8 to
11 pt high.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import vl_convert

from lorascope.report.charts import EXPORT_CONFIG
from lorascope.report.figure import VEGA_LITE_VERSION, Figure
from lorascope.report.latex import figure as latex_figure
from lorascope.spreadsheets import cell

# Points: 72 to the inch.
DOUBLE: Final = 504
SINGLE: Final = 252
# Pixels of a PNG for each point: 300 to the inch.
_SHARP: Final = 300 / 72
_SIZE: Final = re.compile(r'<svg([^>]*) width="([\d.]+)" height="([\d.]+)"')


def write_figures(drawn: Sequence[Figure], folder: Path) -> None:
    """Write every figure on white, in a light theme; those of before that are not drawn now go.

    Beside `<key>.svg`, `.png` and `.pdf`, and `single/<key>.svg` and `.pdf`: `captions.csv` and
    `figures.tex`, which holds each as a figure environment.
    """
    for place in (folder, folder / "single"):
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            if old.is_file() and old.stem not in {figure.key for figure in drawn}:
                old.unlink()
    # One thread draws while others make images of what is drawn.
    with ThreadPoolExecutor(2) as pool:
        waiting = []
        for figure in drawn:
            whole = _drawn({**figure.spec, "title": figure.title})
            wide = narrowed(whole, DOUBLE)
            waiting.append(pool.submit(_write, wide, folder / figure.key, png=True))
            if "columns" in figure.spec:
                whole = _drawn({**figure.spec, "columns": 1}, legend={"columns": 1})
            narrow = narrowed(whole, SINGLE)
            waiting.append(pool.submit(_write, narrow, folder / "single" / figure.key, png=False))
        for each in waiting:
            each.result()
    (folder / "captions.csv").write_text(_captions(drawn), encoding="utf-8")
    texts = [
        latex_figure(path, _caption(figure), f"{figure.key}{suffix}", wide=wide)
        for figure in drawn
        for path, suffix, wide in (
            (f"figures/single/{figure.key}.pdf", "", False),
            (f"figures/{figure.key}.pdf", "-wide", True),
        )
    ]
    (folder / "figures.tex").write_text("\n".join(texts), encoding="utf-8")


def narrowed(svg: str, width: float) -> str:
    """An SVG no wider than `width`; its height follows."""
    found = _SIZE.search(svg)
    if found is None or float(found[2]) <= width:
        return svg
    share = width / float(found[2])
    size = f'<svg{found[1]} width="{width}" height="{share * float(found[3]):.1f}"'
    return svg[: found.start()] + size + svg[found.end() :]


def _drawn(spec: dict[str, Any], **config: object) -> str:
    chosen = {**spec, "config": {**EXPORT_CONFIG, **config}}
    return str(vl_convert.vegalite_to_svg(chosen, vl_version=VEGA_LITE_VERSION))


def _write(svg: str, path: Path, *, png: bool) -> None:
    path.with_suffix(".svg").write_text(svg, encoding="utf-8")
    path.with_suffix(".pdf").write_bytes(vl_convert.svg_to_pdf(svg))
    if png:
        path.with_suffix(".png").write_bytes(vl_convert.svg_to_png(svg, scale=_SHARP))


def _caption(figure: Figure) -> str:
    return f"{figure.title}. {figure.caption}"


def _captions(drawn: Sequence[Figure]) -> str:
    found = io.StringIO()
    writer = csv.writer(found, lineterminator="\n")
    writer.writerow(["figure", "title", "caption"])
    writer.writerows(map(cell, (f.key, f.title, f.caption)) for f in drawn)
    return found.getvalue()
