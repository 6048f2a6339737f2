"""The latents of a run's delta dictionaries in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.errors import InputError, did_you_mean
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.report.latents import Browsed

# What can be sorted by, and whether the largest stand first.
_SORTS = {
    "written": True,
    "density": True,
    "mean": True,
    "strength": True,
    "loss": True,
    "foretold": True,
    "kl": True,
    "cosine": True,
    "latent": False,
}
_SYMBOLS = {"above": "▲", "within": "=", "below": "▼"}


def features(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    site: Annotated[str | None, typer.Option(help="Site, layers.5 for instance.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the dictionary.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many latents.")] = 20,
    sort: Annotated[
        str, typer.Option(help=f"By what: {', '.join(_SORTS)}. Largest first.")
    ] = "written",
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Neuronpedia export of the base dictionary at --site, a file or a folder of "
            "batch-*.jsonl.gz: kept in the run."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Plain JSON, records included.")] = False,
) -> None:
    """List the latents of a delta dictionary: where they fire, what they write and resemble.

    Reads the run's results alone. Each latent's largest cosine with the base dictionary stands
    against that of single random directions with the deltas' covariance. Labels that are given
    once are in the report too when it is made again.

    **Examples**

    `lorascope features runs/demo --site layers.5 --adapter r4 --top 20`

    `lorascope features runs/demo --site layers.5 --adapter r4 --sort cosine --json`

    `lorascope features runs/gemma --site layers.20 --adapter r8 --labels explanations/`
    """

    from lorascope.printing import Console
    from lorascope.report.labels import read_labels
    from lorascope.report.latents import choose, choose_site, read_latents

    if sort not in _SORTS:
        raise InputError(
            f"--sort {sort}: there is no such column; give one of {', '.join(_SORTS)}."
            f"{did_you_mean(sort, _SORTS)}"
        )
    found = read_latents(run)
    if not found:
        raise InputError(
            f"{run}: has no latents to list; give the folder of a finished audit of this version"
        )
    if labels is not None:
        site = _labelled(run, choose_site(found, site), labels)
    chosen = choose(found, site, adapter, seed)
    named = read_labels(run).get(chosen.head["site"], {})
    rows = _rows(chosen, sort, top, named)
    if json_:
        records = [{**row, "details": _details(chosen, row.pop("place"))} for row in rows]
        say_json({**chosen.head, "latents": records})
        return
    _print(chosen, rows, bool(named), Console())


def _labelled(run: Path, site: str, labels: Path) -> str:
    """Keep an export's labels in the run and say so; returns the site."""
    from lorascope.report.formatting import plural
    from lorascope.report.labels import import_labels

    kept = import_labels(run, site, labels)
    say(
        f"lorascope: {plural(kept, 'label')} of the base dictionary at {site} kept; "
        f"lorascope report {run} puts them on the page",
        err=True,
    )
    return site


def _rows(chosen: Browsed, sort: str, top: int, named: dict[str, str]) -> list[dict[str, Any]]:
    """The first `top` latents in order; those without the value stand last."""
    columns, largest = chosen.columns, _SORTS[sort]
    # A run of before may lack a column.
    values = columns.get(sort, [None] * len(chosen))

    def key(place: int) -> tuple[bool, float]:
        value = values[place]
        return value is None, 0.0 if value is None else -value if largest else value

    order = sorted(range(len(chosen)), key=key)[:top]
    rows: list[dict[str, Any]] = []
    for place in order:
        row = {name: column[place] for name, column in columns.items()}
        rows.append({**row, "label": named.get(str(row["base"]), ""), "place": place})
    return rows


def _details(chosen: Browsed, place: int) -> dict[str, Any]:
    from lorascope.report.latents import BLOCK

    return chosen.block(place // BLOCK)[place % BLOCK]


def _print(chosen: Browsed, rows: list[dict[str, Any]], labelled: bool, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from lorascope.report.formatting import number, visible

    head, chance = chosen.head, chosen.head["chance"]
    console.print(
        Text(
            f"{head['adapter']} at {head['site']}, seed {head['seed']}: {len(chosen)} of "
            f"{head['n_latents']} latents fire on {head['rows']:,} held-out tokens. Max cosine by "
            f"chance: {number(chance['level'])} [{number(chance['low'])}, "
            f"{number(chance['high'])}] ({chance['null']}); "
            f"{chosen.columns['verdict'].count('above')} above, "
            f"{number(0.025 * len(chosen))} by chance."
        )
    )
    headings = [
        "latent",
        "density",
        "mean",
        "writes",
        "loss",
        *(["first order"] if "foretold" in chosen.columns else []),
        "max cosine",
        "base",
        "against chance",
    ]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in headings:
        # A word a line: numbers must leave a narrow terminal room for what a latent fires on.
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for heading in ("fires on", "promotes", *(["label of the base latent"] if labelled else [])):
        table.add_column(heading)
    for row in rows:
        shown = ("density", "mean", "written", "loss", "foretold", "cosine")
        numbers = [_signed(row, name) for name in shown if name in row]
        verdict = f"{_SYMBOLS[row['verdict']]} {row['verdict'].split()[0]}"
        words = [" ".join(visible(token) for token in row[name]) for name in ("fires", "promotes")]
        cells = [str(row["latent"]), *numbers, str(row["base"]), verdict, *words]
        table.add_row(*map(Text, cells + ([visible(row["label"])] if labelled else [])))
    console.print(table)


def _signed(row: dict[str, Any], name: str) -> str:
    """A printed number; a first-order effect with its side of random directions'."""
    from lorascope.report.formatting import number

    value = row[name]
    if value is None:
        return "–"
    if name != "foretold":
        return number(value)
    chance = row["foretold_chance"]
    return f"{'▲' if value > chance else '▼' if value < -chance else '='} {number(value)}"
