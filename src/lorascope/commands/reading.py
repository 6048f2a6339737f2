"""The command `read`: what an adapter learned, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import (
    DTypeOf,
    Json,
    Quiet,
    Revision,
    Set,
    known_dtype,
    numbers,
)
from lorascope.commands.running import command_line
from lorascope.errors import InputError
from lorascope.folder_contents import READING
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.models.adapted import AdaptedModel
    from lorascope.reading.result import Read
    from lorascope.reading.settings import Reading

# Where a judge's answers are kept below --out.
_ANSWERS = "answers.jsonl"
# Most rows of a table on the terminal.
_SHOWN = 12


_Model = Annotated[
    str | None,
    typer.Option(
        help="Base model: hub id, folder, GGUF file or embedded. By default the one that the "
        "adapter's files name."
    ),
]
_Prompts = Annotated[
    Path | None,
    typer.Option(help="Prompts of your own: one a line, or .jsonl with prompt and kind."),
]
_Texts = Annotated[
    list[str] | None,
    typer.Option(help="Ordinary text: file, folder or dataset. Repeatable; embedded by default."),
]
_Ranks = Annotated[
    str | None, typer.Option(help="Read the update cut to these ranks too, as in 1,2.")
]
_Reference = Annotated[
    list[str] | None,
    typer.Option(help="Another adapter: what it says too is not counted. Repeatable."),
]
_Judge = Annotated[
    str | None,
    typer.Option(
        help="A language model that says it in a sentence, scored beside null adapters: its id at "
        "OPENAI_BASE_URL, or local:MODEL. With --out. None by default."
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Accept an adapter that names another base.")]


def read(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder or hub id.")],
    model: _Model = None,
    prompts: _Prompts = None,
    texts: _Texts = None,
    strengths: Annotated[
        str, typer.Option(help="Amplifications between commas; 0 is plain sampling.")
    ] = "0,2",
    ranks: _Ranks = None,
    nulls: Annotated[int, typer.Option(help="Null adapters, each read as the adapter is.")] = 3,
    reference: _Reference = None,
    judge: _Judge = None,
    seed: Annotated[int, typer.Option(help="Of sampling and of null adapters.")] = 0,
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    force: _Force = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the page and the tables.")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say in words what an adapter learned, beside what null adapters seem to have learned.

    Samples after vague prompts, plain and with the adapter's effect amplified; phrases that come
    back beyond null adapters' of the same spectrum; words that gain and lose on ordinary text; what
    the first deltas point to. Needs no judge, network or GPU.

    **Examples**

    `lorascope read runs/adapters/adapters/r4`

    `lorascope read me/mine --ranks 1 --out runs/read-mine`

    `lorascope read suspect --model base --reference benign --set tokens=48 --json`
    """
    from lorascope.progress import Reporter
    from lorascope.studies.audit.defaults import base_of_adapters

    named = _named([adapter, *(reference or [])])
    given: dict[str, Any] = {
        "strengths": _strengths(strengths),
        "ranks": numbers(ranks, "--ranks") if ranks else [],
        "nulls": nulls,
        "references": list(named)[1:],
        "seed": seed,
        **({"texts": list(texts)} if texts else {}),
        **({"judge": judge} if judge is not None else {}),
    }
    settings = _settings(given, prompts, set_ or [])
    _require_usable(named, settings, out, asked=judge is not None)
    base = base_of_adapters(named) if model is None else model
    if model is None:
        _require_there(base)
    of_model = {"dtype": known_dtype(dtype), "revision": revision, "force": force}
    _run(base, named, settings, out, json_, Reporter(quiet or json_), of_model)


def _settings(given: dict[str, Any], prompts: Path | None, changes: list[str]) -> Reading:
    from lorascope.config import override
    from lorascope.reading.prompt_files import read_prompts
    from lorascope.reading.settings import Reading

    if prompts is not None:
        texts, kinds = read_prompts(prompts)
        given = {**given, "prompts": texts, "kinds": kinds}
    return Reading.parse(override(given, changes), "read")


def _run(
    model: str,
    named: dict[str, str],
    settings: Reading,
    out: Path | None,
    json_: bool,
    reporter: Any,
    of_model: dict[str, Any],
) -> None:
    from lorascope.latent_adapters.loading import load
    from lorascope.printing import Console
    from lorascope.reading.running import judged, read_unjudged

    loaded: AdaptedModel = load(model, named, **of_model)
    found, trouble = read_unjudged(loaded, next(iter(named)), settings, reporter), None
    if settings.judge and out is not None:
        # Whatever comes of the judge, the reading is there.
        _write(found, out)
        try:
            found = judged(found, settings, reporter, out / _ANSWERS)
        except InputError as error:
            trouble = InputError(f"{error}. The reading without the judge is in {out}")
    page = None if out is None else _write(found, out)
    if json_:
        say_json({**found.plain(), "report": str(page) if page else None})
    else:
        _print(found, Console())
        if page is not None:
            say(str(page))
    if trouble is not None:
        raise trouble


def _write(found: Read, out: Path) -> Path:
    """Tables and the page."""
    from lorascope.studies.audit.sections.reading import write_page

    found.write(out)
    return write_page(found, out, command_line())


def _require_usable(
    named: dict[str, str], settings: Reading, out: Path | None, *, asked: bool
) -> None:
    """Refuse what needs no model to be refused: judge, folder, adapters, texts, ranks."""
    from lorascope.studies import missing

    if asked or settings.judge:
        _require_judge(settings.judge, out)
    if out is not None:
        _require_free(out)
    missing.in_reading(named, settings, out)


def _require_there(base: str) -> None:
    """Refuse the folder of a base that adapters name and that is not there."""
    if base.startswith(("/", ".", "~")) and not Path(base).expanduser().exists():
        raise InputError(
            f"the adapter's files name the base {base}, which is not here; give --model"
        )


def _require_judge(judge: str, out: Path | None) -> None:
    """Refuse a judge that cannot be asked, or whose answers would not be kept."""
    from lorascope.behaviours.answerers import answerer

    answerer(judge)
    if out is None:
        raise InputError(f"--judge {judge}: give --out FOLDER too, where its answers are kept")


def _strengths(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--strengths {text}: expected numbers, as in --strengths 0,2") from None


def _named(paths: list[str]) -> dict[str, str]:
    """{name: path}: each called by the last part of its path."""
    found: dict[str, str] = {}
    for path in paths:
        last = re.sub(r"[^A-Za-z0-9._-]+", "-", path.rstrip("/").rpartition("/")[2]) or "adapter"
        name = last if last != "base" else "base-adapter"
        number = 2
        while name in found:
            name, number = f"{last}-{number}", number + 1
        if path in found.values():
            raise InputError(f"--reference {path}: is the adapter itself, or given twice")
        found[name] = path
    return found


def _require_free(folder: Path) -> None:
    """Refuse a folder that holds something else than a reading."""
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give --out a folder")
    held = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
    if held - {_ANSWERS} and READING not in held:
        raise InputError(f"{folder}: not empty and no reading; give --out another folder")


def _print(found: Read, console: Any) -> None:
    from rich.text import Text

    from lorascope.report.formatting import plural
    from lorascope.studies.audit.sections.reading import sentences

    _print_example(found, console)
    _print_phrases(found, console)
    _print_changed(found, console)
    for line in sentences(found):
        console.print(Text(line))
    for line in found.cautions:
        say(f"lorascope: caution: {line}", err=True)
    strengths = ", ".join(f"{s:g}" for s in found.settings["strengths"])
    cut = "".join(f"; cut to rank {rank} too" for rank in found.settings["ranks"])
    say(f"{plural(found.prompts, 'prompt')}, strengths {strengths}{cut}; {found.seconds} s")


def _print_example(found: Read, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    example = found.example
    if example is None:
        return
    table = Table(title=f"after “{example.prompt}”", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for who, text in (
        ("base", example.base),
        (found.adapter, example.plain),
        ("amplified", example.amplified),
    ):
        table.add_row(Text(who), Text(" ".join(text.split())))
    console.print(table)


def _print_phrases(found: Read, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from lorascope.report.formatting import number
    from lorascope.results.null_names import ADAPTER

    if not found.phrases:
        return
    table = Table(title="phrases that come back", title_justify="left")
    table.add_column("phrase")
    for heading in ("prompts", "continuations", ADAPTER, "base", "q"):
        table.add_column(heading, justify="right")
    for phrase in found.phrases[:_SHOWN]:
        counts = (phrase.prompts, phrase.total, ", ".join(map(str, phrase.nulls)) or "–")
        cells = (*map(str, counts), str(phrase.base), number(phrase.q))
        table.add_row(Text(phrase.text), *cells)
    console.print(table)


def _print_changed(found: Read, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from lorascope.report.formatting import number, visible
    from lorascope.studies.audit.sections.reading import sides

    if not found.changed:
        return
    table = Table(title="words on ordinary text", title_justify="left")
    table.add_column("word")
    for heading in ("base", "adapted", "null adapter, largest change", "texts"):
        table.add_column(heading, justify="right")
    gains, losses = sides(found.changed)
    for word in (*gains[: _SHOWN // 2], *losses[: _SHOWN // 2]):
        cells = (number(word.before), number(word.after), number(word.null), str(word.documents))
        table.add_row(Text(visible(word.word)), *cells)
    console.print(table)
