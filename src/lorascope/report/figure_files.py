"""Figures as files for a paper: SVG, PNG and PDF in two widths, with captions.

`<key>` fits both columns of a page, 7 in; `single/<key>` one column, 3.5 in, where it has panels
these one below the other and without title. One unit of a figure is one point, so that text is 8 to
11 pt high.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def written_figures(figures: Iterable[Figure], folder: Path) -> Iterator[list[Figure]]:
    """The figures, whose files are being written within the `with` and are finished after it.

    The first are drawn while later ones are still described. Each is on white, in a light theme;
    files of figures from before that are not drawn now go. Beside `<key>.svg`, `.png` and `.pdf`,
    and `single/<key>.svg` and `.pdf`: `captions.csv` and `figures.tex`, which holds each as a
    figure environment.
    """
    for place in (folder, folder / "single"):
        place.mkdir(parents=True, exist_ok=True)
    drawn: list[Figure] = []
    # One thread draws while another makes images of what is drawn; neither holds up this one.
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[None]] = []
        for figure in figures:
            drawn.append(figure)
            waiting.append(pool.submit(_write_figure, figure, folder))
        yield drawn
        for each in waiting:
            each.result()
    for place in (folder, folder / "single"):
        for old in place.iterdir():
            if old.is_file() and old.stem not in {figure.key for figure in drawn}:
                old.unlink()
    (folder / "captions.csv").write_text(_captions(drawn), encoding="utf-8")
    (folder / "figures.tex").write_text(_latex(drawn), encoding="utf-8")


def write_figures(figures: Iterable[Figure], folder: Path) -> list[Figure]:
    """Write the files of all figures, which are returned, and wait for them."""
    with written_figures(figures, folder) as drawn:
        return drawn


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


def _write_figure(figure: Figure, folder: Path) -> None:
    whole = _drawn({**figure.spec, "title": figure.title})
    wide = narrowed(whole, DOUBLE)
    _write(wide, folder / figure.key)
    png = vl_convert.svg_to_png(wide, scale=_SHARP)
    (folder / figure.key).with_suffix(".png").write_bytes(png)
    if "columns" in figure.spec:
        whole = _drawn({**figure.spec, "columns": 1}, legend={"columns": 1})
    _write(narrowed(whole, SINGLE), folder / "single" / figure.key)


def _write(svg: str, path: Path) -> None:
    path.with_suffix(".svg").write_text(svg, encoding="utf-8")
    path.with_suffix(".pdf").write_bytes(vl_convert.svg_to_pdf(svg))


def _latex(drawn: Sequence[Figure]) -> str:
    texts = [
        latex_figure(path, _caption(figure), f"{figure.key}{suffix}", wide=wide)
        for figure in drawn
        for path, suffix, wide in (
            (f"figures/single/{figure.key}.pdf", "", False),
            (f"figures/{figure.key}.pdf", "-wide", True),
        )
    ]
    return "\n".join(texts)


def _caption(figure: Figure) -> str:
    return f"{figure.title}. {figure.caption}"


def _captions(drawn: Sequence[Figure]) -> str:
    found = io.StringIO()
    writer = csv.writer(found, lineterminator="\n")
    writer.writerow(["figure", "title", "caption"])
    writer.writerows(map(cell, (f.key, f.title, f.caption)) for f in drawn)
    return found.getvalue()
