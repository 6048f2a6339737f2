"""The command that shows latents of a run's delta dictionaries in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.errors import InputError, did_you_mean
from lorascope.folder_contents import AUDIT, require_finished
from lorascope.printing import Column, say, say_json, say_table

if TYPE_CHECKING:
    from lorascope.report.latents import Browsed

# What can be sorted by, and whether the largest stand first.
_SORTS = {
    "written": True,
    "density": True,
    "mean": True,
    "strength": True,
    "loss": True,
    "attributed": True,
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
    """List the latents of delta dictionaries: where they fire, what they write and resemble.

    Those of every site, adapter and seed that is not named stand in one list. In a narrow terminal
    the columns that say most are shown; in a pipe all of them, with tabs between.

    Reads the run's results alone. Each latent's largest cosine with the base dictionary stands
    against that of single random directions with the deltas' covariance. Labels that are given
    once are in the report too when it is made again.

    **Examples**

    `lorascope features runs/demo --site layers.5 --adapter r4 --top 20`

    `lorascope features runs/demo --site layers.5 --adapter r4 --sort cosine --json`

    `lorascope features runs/gemma --site layers.20 --adapter r8 --labels explanations/`
    """

    from lorascope.printing import Console
    from lorascope.report.latents import choose_site, matching, read_latents
    from lorascope.studies.audit.sections.labels import read_labels

    if sort not in _SORTS:
        raise InputError(
            f"--sort {sort}: there is no such column; give one of {', '.join(_SORTS)}."
            f"{did_you_mean(sort, _SORTS)}"
        )
    found = read_latents(run)
    if not found:
        require_finished(run, AUDIT)
        raise InputError(
            f"{run}: has no latents to list; give the folder of a finished audit of this version"
        )
    if labels is not None:
        site = _labelled(run, choose_site(found, site), labels)
    chosen = matching(found, site, adapter, seed)
    named = read_labels(run)
    rows = _rows(chosen, sort, top, named)
    if json_:
        say_json(_plain(chosen, rows))
        return
    _print(chosen, rows, Console())


def _labelled(run: Path, site: str, labels: Path) -> str:
    """Keep an export's labels in the run and say so; returns the site."""
    from lorascope.report.formatting import plural
    from lorascope.studies.audit.sections.labels import import_labels

    kept = import_labels(run, site, labels)
    say(
        f"lorascope: {plural(kept, 'label')} of the base dictionary at {site} kept; "
        f"lorascope report {run} puts them on the page",
        err=True,
    )
    return site


@dataclass(frozen=True)
class _Row:
    """One latent of one dictionary: what its table says of it, and its place there."""

    of: Browsed
    place: int
    values: dict[str, Any]


def _rows(
    chosen: Sequence[Browsed], sort: str, top: int, named: Mapping[str, Mapping[str, str]]
) -> list[_Row]:
    """The first `top` latents of all dictionaries in order; those without the value stand last."""
    largest = _SORTS[sort]
    keyed: list[tuple[tuple[bool, float], Browsed, int]] = []
    for each in chosen:
        # A run of before may lack a column.
        for place, value in enumerate(each.columns.get(sort, [None] * len(each))):
            order = 0.0 if value is None else -value if largest else value
            keyed.append(((value is None, order), each, place))
    rows = []
    for _, each, place in sorted(keyed, key=lambda one: one[0])[:top]:
        values = {name: column[place] for name, column in each.columns.items()}
        labels = named.get(each.head["site"], {})
        rows.append(_Row(each, place, {**values, "label": labels.get(str(values["base"]), "")}))
    return rows


def _plain(chosen: Sequence[Browsed], rows: Sequence[_Row]) -> dict[str, Any]:
    """One dictionary's head and latents; of several their heads, and which each latent is of."""
    from lorascope.report.latents import BLOCK

    one = len(chosen) == 1
    latents = [
        {
            **({} if one else {name: row.of.head[name] for name in ("adapter", "site", "seed")}),
            **row.values,
            "details": row.of.block(row.place // BLOCK)[row.place % BLOCK],
        }
        for row in rows
    ]
    heads = chosen[0].head if one else {"dictionaries": [each.head for each in chosen]}
    return {**heads, "latents": latents}


def _print(chosen: Sequence[Browsed], rows: Sequence[_Row], console: Any) -> None:
    from rich.text import Text

    mark = "" if console.is_terminal else "# "
    for each in chosen:
        console.print(Text(f"{mark}{_about(each)}"), soft_wrap=not console.is_terminal)
    say_table(_columns(chosen, rows), console)


def _about(each: Browsed) -> str:
    from lorascope.report.formatting import number

    head, chance = each.head, each.head["chance"]
    return (
        f"{head['adapter']} at {head['site']}, seed {head['seed']}: {len(each)} of "
        f"{head['n_latents']} latents fire on {head['rows']:,} held-out tokens. Max cosine by "
        f"chance: {number(chance['level'])} [{number(chance['low'])}, "
        f"{number(chance['high'])}] ({chance['null']}); "
        f"{each.columns['verdict'].count('above')} above, {number(0.025 * len(each))} by chance."
    )


def _columns(chosen: Sequence[Browsed], rows: Sequence[_Row]) -> list[Column]:
    """By importance: which latent, what it fires on and promotes, how much it writes."""
    from lorascope.report.formatting import shown_token

    def texts(name: str) -> list[str]:
        return [" ".join(map(shown_token, row.values[name])) for row in rows]

    def numbers(heading: str, name: str, rank: int) -> list[Column]:
        if not any(name in row.values for row in rows):
            return []
        return [Column(heading, [_signed(row.values, name) for row in rows], rank)]

    verdicts = [row.values["verdict"] for row in rows]
    where = [f"{row.of.head['adapter']} {row.of.head['site']}" for row in rows]
    labelled = any(row.values["label"] for row in rows)
    return [
        *([Column("of", where, 1, wraps=True)] if len(chosen) > 1 else []),
        Column("latent", [str(row.values["latent"]) for row in rows], 0),
        Column("fires on", texts("fires"), 2, wraps=True),
        Column("promotes", texts("promotes"), 3, wraps=True),
        *([Column("label", [r.values["label"] for r in rows], 5, True)] if labelled else []),
        *numbers("writes", "written", 4),
        *numbers("density", "density", 6),
        *numbers("max cosine", "cosine", 7),
        Column("against chance", [f"{_SYMBOLS[v]} {v.split()[0]}" for v in verdicts], 8),
        *numbers("loss", "loss", 9),
        Column("base", [str(row.values["base"]) for row in rows], 10),
        *numbers("first order", "attributed", 11),
        *numbers("mean", "mean", 12),
    ]


def _signed(row: dict[str, Any], name: str) -> str:
    """A printed number; a first-order effect with its side of random directions'."""
    from lorascope.report.formatting import number

    value = row[name]
    if value is None:
        return "–"
    if name != "attributed":
        return number(value)
    chance = row["attributed_chance"]
    return f"{'▲' if value > chance else '▼' if value < -chance else '='} {number(value)}"
