"""Many adapters of one base against one another, from their weights and the base's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.errors import InputError
from lorascope.printing import Column, Console, say, say_json, say_table

if TYPE_CHECKING:
    from lorascope.resembling.resemble import Resemblance
    from lorascope.resembling.settings import ResembleSettings

_PANEL = "Adapters: updates of one base"
_OUT = Path("runs/resemblance")

Model = Annotated[
    str | None,
    typer.Option(
        help="Their base, where it is not what they name: hub id, folder or embedded. Arguments "
        "are adapters then, hub ids too.",
        rich_help_panel=_PANEL,
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        help="What updates are weighted by: file, folder or dataset id. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
Documents = Annotated[int, typer.Option(help="How many of the texts.", rich_help_panel=_PANEL)]
Tokens = Annotated[int, typer.Option(help="Most tokens of each.", rich_help_panel=_PANEL)]
Draws = Annotated[
    int, typer.Option(help="Null adapters of each, 10 or more.", rich_help_panel=_PANEL)
]
Alike = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME,NAME: taught the same from other seeds, the upper reference. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
# Options of this way alone.
OPTIONS = ("model", "texts", "documents", "tokens", "draws", "alike")


def are_adapters(given: list[str], model: str | None) -> bool:
    """Whether these are adapters: all hold an adapter's configuration, or a base is named."""
    from lorascope.foreign import local_path
    from lorascope.models.places import CONFIG_FILE

    held = [one for one in given if (local_path(one) / CONFIG_FILE).is_file()]
    if held and len(held) < len(given) and model is None:
        others = next(one for one in given if one not in held)
        raise InputError(
            f'"{held[0]}" is an adapter and "{others}" is none: give adapters alone (with --model '
            "hub ids too), or runs alone"
        )
    return bool(held) or model is not None


def resemble(
    given: dict[str, Any],
    paths: list[str],
    out: Path | None,
    json_: bool,
    quiet: bool,
    command: str,
) -> None:
    """Compare, write and print."""
    from lorascope.models.places import adapter_folder, model_address
    from lorascope.resembling.settings import ResembleSettings
    from lorascope.studies import missing

    groups = [tuple(n.strip() for n in one.split(",") if n.strip()) for one in given["alike"] or ()]
    texts = tuple(given["texts"] or ("embedded",))
    settings = ResembleSettings.parse({**given, "texts": texts, "alike": tuple(groups)}, "compare")
    if len(paths) < 2:
        raise InputError(f"{len(paths)} adapter: give two or more of one base model")
    seen: set[Path | None] = set()
    for path in paths:
        folder = adapter_folder(Path(path).name or path, path)
        if folder is not None and folder.resolve() in seen:
            raise InputError(f'adapter "{path}" is given twice: leave one out')
        seen.add(folder and folder.resolve())
    if settings.model is not None:
        model_address(settings.model)
    missing.in_texts(settings.texts, settings.documents)
    missing.in_output(out or _OUT)
    _resemble(paths, settings, out or _OUT, json_, quiet, command)


def _resemble(
    paths: list[str],
    settings: ResembleSettings,
    out: Path,
    json_: bool,
    quiet: bool,
    command: str,
) -> None:
    from lorascope.progress import Reporter
    from lorascope.resembling import page
    from lorascope.resembling.resemble import resemble_adapters

    found = resemble_adapters(paths, settings, Reporter(quiet or json_))
    written = page.write(found, out, command)
    if json_:
        say_json({**found.plain(), "report": str(written)})
        return
    _print(found)
    say(str(written))


def _print(found: Resemblance) -> None:
    from lorascope.report.formatting import interval, number
    from lorascope.resembling.page import sentences
    from lorascope.resembling.resemble import MEASURES, other
    from lorascope.results import ADAPTER

    rows = [(name, found.neighbours(name)[0]) for name in found.names if found.neighbours(name)]
    values = {
        (e.measure, frozenset((e.key.adapter, e.key.compared))): e.value for e in found.estimates
    }

    def beside(measure: str) -> list[str]:
        pairs = [frozenset((name, other(one, name))) for name, one in rows]
        return [number(values.get((measure, pair), float("nan"))) for pair in pairs]

    headlines = [one.headline for _, one in rows]
    columns = [
        Column("adapter", [name for name, _ in rows], 0, wraps=True),
        Column("most like", [other(one, name) for name, one in rows], 1, wraps=True),
        Column("over inputs", [number(one.value) for _, one in rows], 2),
        Column("95 %", [interval(*one.interval) for _, one in rows], 6),
        Column(ADAPTER, [interval(h.low, h.high) if h else "" for h in headlines], 3),
        Column("verdict", [one.verdict for _, one in rows], 4),
        *(
            Column(title, beside(measure), rank)
            for measure, title, rank in zip(
                MEASURES[1:], ("weights", "written", "read"), (5, 7, 8), strict=True
            )
        ),
    ]
    say_table(columns, Console())
    for line in sentences(found):
        if line.startswith("Taught"):
            say(line)
