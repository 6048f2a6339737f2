"""The feature browser: what of it stands in the page, and what in files beside the page.

The page holds the first latents of every dictionary, those that write most: `PAGE_ROWS` rows of the
tables and `PAGE_DETAILS` records, shared out equally. The whole tables and all records stand in
`report/features/*.js`, which the page loads when they are asked for. They are scripts and not JSON
because a page opened from disk may not read files, only run them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from lorascope.report.latents import BLOCK, Browsed
from lorascope.report.markup import embedded_json, escaped_json
from lorascope.report.rendering import asset
from lorascope.runs import write_atomically

PAGE_ROWS: Final = 4096
PAGE_DETAILS: Final = 512
# What the files beside the page call.
_CALLBACK: Final = "lorascopeFeatures"
Labels = Mapping[str, str]


@dataclass(frozen=True)
class FeatureSection:
    """The browser's section of the page.

    Attributes:
        dictionaries: how many dictionaries it shows.
        data: their first latents, JSON for a script element.
        script, style: its own code.
    """

    dictionaries: int
    data: Markup
    script: Markup
    style: Markup


def feature_section(
    found: Sequence[Browsed], labels: Mapping[str, Labels]
) -> FeatureSection | None:
    """The section of a run's page; None where the run has no latents to browse.

    Args:
        labels: of base latents, by site.
    """
    if not found:
        return None
    data = {
        "block": BLOCK,
        "dictionaries": [_in_page(each, len(found), _of(labels, each)) for each in found],
    }
    return FeatureSection(
        len(found),
        Markup(embedded_json(data)),
        asset("features.js"),
        asset("features.css"),
    )


def write_features(
    found: Sequence[Browsed], labels: Mapping[str, Labels], folder: Path
) -> list[Path]:
    """Write the files beside the page for what it does not hold; those of before are removed."""
    for old in folder.glob("*.js"):
        old.unlink()
    return [
        path
        for index, each in enumerate(found)
        for path in _beside(each, index, len(found), folder, _of(labels, each))
    ]


def _beside(
    each: Browsed, index: int, dictionaries: int, folder: Path, labels: Labels
) -> Iterator[Path]:
    """Write what the page lacks of one dictionary."""
    rows, details = _shares(dictionaries)
    if len(each) > rows:
        table = embedded_json(_columns(each, len(each), labels))
        yield _write(folder, f"{index}-table", table)
    if len(each) > details:
        for number in range(details // BLOCK, each.blocks):
            if labels:
                text = embedded_json([_record(record, labels) for record in each.block(number)])
            else:
                # As it stands: parsing gigabytes to write them again takes minutes.
                text = escaped_json(each.path(number).read_text(encoding="utf-8").strip())
            yield _write(folder, f"{index}-{number:03d}", text)


def _shares(dictionaries: int) -> tuple[int, int]:
    """Rows and records of each dictionary in the page."""
    return max(1, PAGE_ROWS // dictionaries), max(1, PAGE_DETAILS // dictionaries)


def _in_page(each: Browsed, dictionaries: int, labels: Labels) -> dict[str, Any]:
    rows, details = _shares(dictionaries)
    return {
        "head": each.head,
        "total": len(each),
        "columns": _columns(each, rows, labels),
        "details": [_record(record, labels) for record in each.details(details)],
    }


def _of(labels: Mapping[str, Labels], each: Browsed) -> Labels:
    return labels.get(each.head["site"], {})


def _columns(each: Browsed, rows: int, labels: Labels) -> dict[str, list[Any]]:
    """The first rows of the table; with labels a column of those of the nearest base latents."""
    columns = {name: column[:rows] for name, column in each.columns.items()}
    if labels:
        columns["label"] = [labels.get(str(latent), "") for latent in columns["base"]]
    return columns


def _record(record: dict[str, Any], labels: Labels) -> dict[str, Any]:
    """A record whose base latents have their labels beside them."""
    if not labels or not record.get("built"):
        return record
    built = [[latent, weight, labels.get(str(latent), "")] for latent, weight in record["built"]]
    return {**record, "built": built}


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.js"
    write_atomically(path, f'{_CALLBACK}("{name}",{text});\n')
    return path
