"""The page of a comparison of two adapters: one self-contained file without scripts.

Its texts come from the compared runs' documents and adapters and are not to be trusted: the
template escapes them, and the figure is an image of its own.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import altair as alt
import pandas as pd
import vl_convert

from lorascope.errors import InputError
from lorascope.measures.definitions import DEFINITIONS, Definition
from lorascope.report.charts import EXPORT_CONFIG, SERIES_COLOURS
from lorascope.report.figure import VEGA_LITE_VERSION, Figure
from lorascope.report.formatting import interval, number, plural, verdict_words
from lorascope.report.rendering import asset, rendered
from lorascope.report.result import Results
from lorascope.report.tables import TableRow, table_row
from lorascope.results import Estimate
from lorascope.runs import write_atomically
from lorascope.spreadsheets import from_csv

LATENT_COLUMNS: Final = (
    "adapter",
    "site",
    "seed",
    "latent",
    "only_here",
    "one_sided",
    "documents",
    "density",
    "density_other",
    "contrast",
    "contrast_low",
    "contrast_high",
    "excess",
    "false_discovery_rate",
    "energy",
    "energy_low",
    "energy_high",
    "energy_chance",
    "energy_chance_high",
    "energy_other",
    "energy_other_low",
    "energy_other_high",
    "energy_other_chance",
    "energy_other_chance_high",
)
TEXT_COLUMNS: Final = (
    "kind",
    "adapter",
    "site",
    "seed",
    "latent",
    "rank",
    "value",
    "document",
    "position",
    "response",
    "before",
    "token",
    "after",
    "text",
)
_WORDS: Final = {"kind", "adapter", "site", "document", "before", "token", "after", "text"}
HEADLINES: Final = (
    "compare.cosine",
    "compare.norm_correlation",
    "compare.difference",
    "compare.energy_share",
    "compare.subspace_angle",
    "compare.subspace_variance",
    "max_cosine.mean",
    "angle.mean",
    "compare.only_here",
)
_POINTS: Final = 1500


def write_comparison(
    folder: Path,
    estimates: Sequence[Estimate],
    latents: pd.DataFrame,
    texts: pd.DataFrame,
    facts: Mapping[str, Any],
) -> Path:
    """Write `report/index.html` of a comparison and return its path.

    Args:
        latents: one row a latent, columns `LATENT_COLUMNS`.
        texts: documents, tokens and contexts, columns `TEXT_COLUMNS`.
        facts: model, adapters, sites, tokens, warnings and settings of the comparison.
    """
    page = folder / "report" / "index.html"
    write_atomically(page, render(estimates, latents, texts, facts))
    return page


def write_page(results: Results) -> Path:
    """Write the page of a finished comparison again, from its tables.

    Raises:
        InputError: `latents.csv` or `texts.csv` is missing or damaged.
    """
    latents = _read(results.run / "latents.csv", LATENT_COLUMNS)
    texts = _read(results.run / "texts.csv", TEXT_COLUMNS)
    return write_comparison(results.run, results.numbers, latents, texts, results.facts)


def figures_of(results: Results) -> list[Figure]:
    """How often each latent fires on its own delta and on the other's.

    Raises:
        InputError: as `write_page`.
    """
    latents = _read(results.run / "latents.csv", LATENT_COLUMNS)
    title = "Latents by density on their own delta and on the other's (share of tokens)"
    caption = "Diamonds: latents active in one adapter only. Latents that never fire are left out."
    names = [str(adapter["name"]) for adapter in results.facts["adapters"]]
    chart = _densities(latents, names)
    return [Figure.of("densities", "latents", title, caption, chart)]


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table as it was written: words stay as they are, "NA" and digits among them."""
    words = [column for column in columns if column in _WORDS]
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(words, str),
            keep_default_na=False,
            na_values={column: [""] for column in columns if column not in _WORDS},
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); compare again") from None
    if tuple(table.columns) != tuple(columns):
        raise InputError(f"{path}: not the columns of this version; compare again")
    return from_csv(table)


def render(
    estimates: Sequence[Estimate],
    latents: pd.DataFrame,
    texts: pd.DataFrame,
    facts: Mapping[str, Any],
) -> str:
    """The page's HTML."""
    names = [adapter["name"] for adapter in facts["adapters"]]
    rows = number_rows(estimates)
    return rendered(
        "comparison.html.j2",
        model=facts["model"]["id"],
        names=names,
        facts=facts,
        sentences=sentences(estimates, latents, facts),
        leading=number_rows([e for e in estimates if e.measure in HEADLINES]),
        rows=rows,
        definitions=_definitions(estimates),
        chart=_chart(latents, names) if len(latents) else "",
        sides=[_side(name, latents, texts) for name in names],
        documents=_records(texts, "document"),
        tokens=_records(texts, "token"),
        rate=f"{facts['false_rate']:.0%}",
        settings=json.dumps(dict(facts["settings"]), indent=2, ensure_ascii=False),
        style=asset("style.css", "comparison.css"),
    )


def sentences(
    estimates: Sequence[Estimate], latents: pd.DataFrame, facts: Mapping[str, Any]
) -> list[str]:
    """What was found, in a few plain sentences."""
    found = []
    for adapter in facts["adapters"]:
        ours = latents[latents["adapter"] == adapter["name"]]
        listed, one_sided = int(ours["only_here"].sum()), int(ours["one_sided"].sum())
        rate = f"at a false discovery rate of {facts['false_rate']:.0%}"
        found.append(
            f"{adapter['name']}: {plural(listed, 'latent')} active under it alone {rate} "
            f"({one_sided} of {len(ours)} one-sided)."
            if listed
            else f"{adapter['name']}: no latent active under it alone {rate} ({one_sided} of "
            f"{len(ours)} are one-sided, as may be between two trainings of the same data)."
        )
    for estimate in estimates:
        if estimate.measure in ("compare.cosine", "compare.difference"):
            title = _title(estimate.measure)
            found.append(
                f"{title} at {estimate.key.site}: {number(estimate.value)} "
                f"{interval(*estimate.interval)}, chance {number(estimate.chance)}: "
                f"{verdict_words(estimate)}."
            )
    return found


def number_rows(estimates: Sequence[Estimate]) -> list[TableRow]:
    """Estimates as printed, one row each."""
    return [table_row(estimate) for estimate in estimates]


def _title(measure: str) -> str:
    return DEFINITIONS[measure].title if measure in DEFINITIONS else measure


def _definitions(estimates: Sequence[Estimate]) -> list[tuple[str, Definition]]:
    measures = dict.fromkeys(estimate.measure for estimate in estimates)
    return [(measure, DEFINITIONS[measure]) for measure in measures if measure in DEFINITIONS]


def _side(name: str, latents: pd.DataFrame, texts: pd.DataFrame) -> dict[str, Any]:
    """One adapter's listed latents, each with its contexts."""
    listed = latents[(latents["adapter"] == name) & latents["only_here"].astype(bool)]
    contexts = texts[(texts["kind"] == "latent") & (texts["adapter"] == name)]
    keys = ["site", "seed", "latent"]
    groups = dict(iter(contexts.groupby(keys)))
    cards = []
    for record in listed.to_dict("records"):
        part = groups.get(tuple(record[key] for key in keys))
        if part is None:
            continue
        printed = {
            column: number(float(record[column]))
            for column in ("density", "density_other", "contrast", "excess")
        }
        printed["rate"] = number(float(record["false_discovery_rate"]))
        printed["interval"] = interval(record["contrast_low"], record["contrast_high"])
        where = {key: record[key] for key in keys}
        cards.append({**where, **printed, "contexts": _printed(part)})
    return {"name": name, "listed": len(listed), "cards": cards}


def _records(texts: pd.DataFrame, kind: str) -> list[dict[str, Any]]:
    return _printed(texts[texts["kind"] == kind])


def _printed(part: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): value for key, value in record.items()} | {"value": number(record["value"])}
        for record in part.to_dict("records")
    ]


def _chart(latents: pd.DataFrame, names: Sequence[str]) -> str:
    """The densities as a picture, a data URI."""
    chart = _densities(latents, names).configure(**EXPORT_CONFIG)
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE_VERSION)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _densities(latents: pd.DataFrame, names: Sequence[str]) -> alt.Chart:
    """Each latent's density on its own delta against that on the other's."""
    shown = latents[latents["density"] > 0]
    floor = max(float(shown["density"].min()) / 2, 1e-6)
    points = [
        {
            "own": float(record["density"]),
            "other": max(float(record["density_other"]), floor),
            "latents of": str(record["adapter"]),
            "found": "active in one only" if record["only_here"] else "other latents",
        }
        for record in _thinned(shown).to_dict("records")
    ]
    colour = alt.Color(
        "latents of:N",
        scale=alt.Scale(domain=list(names), range=list(SERIES_COLOURS[: len(names)])),
        legend=alt.Legend(orient="top"),
    )
    low = math.log10(floor)
    domain = [10 ** math.floor(low), 1.0]
    axes = {axis: alt.Scale(type="log", domain=domain, nice=False) for axis in ("own", "other")}
    return (
        alt.Chart(alt.Data(values=points))
        .mark_point(filled=True, size=34)
        .encode(
            x=alt.X("own:Q", title="density on its own delta", scale=axes["own"]),
            y=alt.Y("other:Q", title="density on the other's delta", scale=axes["other"]),
            color=colour,
            shape=alt.Shape(
                "found:N",
                title=None,
                scale=alt.Scale(
                    domain=["active in one only", "other latents"], range=["diamond", "circle"]
                ),
                legend=alt.Legend(orient="top"),
            ),
            opacity=alt.Opacity(
                "found:N",
                scale=alt.Scale(domain=["active in one only", "other latents"], range=[1, 0.3]),
                legend=None,
            ),
        )
        .properties(width=420, height=360)
    )


def _thinned(latents: pd.DataFrame) -> pd.DataFrame:
    """Every latent listed, and of the others no more than a figure can show."""
    listed = latents["only_here"].astype(bool)
    others = latents[~listed]
    step = max(1, -(-len(others) // _POINTS))
    return pd.concat([others.iloc[::step], latents[listed]])
