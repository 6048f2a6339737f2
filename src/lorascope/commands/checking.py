"""The commands `check` and `scan`: one adapter in seconds, or folders of thousands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import Json, Quiet
from lorascope.errors import InputError
from lorascope.printing import say, say_json

if TYPE_CHECKING:
    from lorascope.checking.ranking import Ranked
    from lorascope.checking.settings import CheckSettings, ScanSettings

_GATES = "Gates: exit code 1 where missed"


_Adapter = Annotated[str, typer.Argument(help="Folder of a PEFT adapter, or its hub id.")]
_Model = Annotated[
    str | None, typer.Option(help="Try it on its base model too: hub id, folder or embedded.")
]
_Texts = Annotated[
    list[str] | None,
    typer.Option(help="Texts to try it on: file, folder or dataset id. Repeatable."),
]
_Documents = Annotated[int, typer.Option(help="How many of the texts.")]
_Tokens = Annotated[int, typer.Option(help="Most tokens of each.")]
_Draws = Annotated[int, typer.Option(help="Null adapters to hold it against, 16 or more.")]
_Seed = Annotated[int, typer.Option(help="Of the null adapters.")]
_Intruders = Annotated[
    int, typer.Option(help="Modules whose base weight is decomposed for intruder dimensions.")
]
_Reference = Annotated[
    str | None, typer.Option(help="Folder of ordinary adapters to hold it against, 16 or more.")
]
_Force = Annotated[
    bool, typer.Option("--force", help="On a model that its configuration does not name.")
]
_Require = Annotated[
    list[str] | None,
    typer.Option(help="live or whole (no errors). Repeatable.", rich_help_panel=_GATES),
]
_NormZ = Annotated[
    float | None,
    typer.Option(
        help="Largest |robust z| of a module's log norm in its kind.", rich_help_panel=_GATES
    ),
]
_Kl = Annotated[
    float | None, typer.Option(help="KL(adapted ‖ base), nats/token.", rich_help_panel=_GATES)
]
_Loss = Annotated[
    float | None, typer.Option(help="Rise of the loss, nats/token.", rich_help_panel=_GATES)
]
_Merge = Annotated[
    float | None,
    typer.Option(help="Of a logit, merged against unmerged.", rich_help_panel=_GATES),
]
_Sarif = Annotated[bool, typer.Option("--sarif", help="SARIF 2.1.0 on stdout.")]
_Junit = Annotated[bool, typer.Option("--junit", help="JUnit's XML on stdout.")]


def check(
    adapter: _Adapter,
    model: _Model = None,
    texts: _Texts = None,
    documents: _Documents = 8,
    tokens: _Tokens = 24,
    draws: _Draws = 20,
    seed: _Seed = 0,
    intruders: _Intruders = 4,
    reference: _Reference = None,
    force: _Force = False,
    require: _Require = None,
    max_norm_z: _NormZ = None,
    max_kl: _Kl = None,
    max_loss: _Loss = None,
    max_merge_difference: _Merge = None,
    json_: Json = False,
    sarif: _Sarif = False,
    junit: _Junit = False,
    quiet: Quiet = False,
) -> None:
    """Say in seconds whether an adapter is whole, live and larger than chance.

    Its files alone: damage, NaN, zeros, tensors that would not be loaded, and the exact norm and
    spectrum of every update beside random factors of the same shapes, and beside ordinary adapters.
    With --model: KL and loss beside null adapters, the curve over its scale, the base restored,
    merged and rounded copies against the adapter as it is, intruder dimensions.
    Exit code 1 where a gate is missed, 2 where the input is wrong.

    **Examples**

    `lorascope check runs/adapters/adapters/r8`

    `lorascope check me/alpaca-r8 --model google/gemma-2-2b --max-kl 0.5 --require live`

    `lorascope check out --require whole --sarif > check.sarif`
    """
    if json_ + sarif + junit > 1:
        raise InputError("give one of --json, --sarif and --junit")
    gates = {"require": tuple(require or ()), "max_norm_z": max_norm_z, "max_kl": max_kl}
    gates |= {"max_loss": max_loss, "max_merge_difference": max_merge_difference}
    given = {"model": model, "texts": tuple(texts or ("embedded",)), "documents": documents}
    given |= {"tokens": tokens, "draws": draws, "seed": seed, "force": force}
    given |= {"intruders": intruders, "reference": reference}
    how = "json" if json_ else "sarif" if sarif else "junit" if junit else ""
    if _check(adapter, _settings(adapter, given, gates), how, quiet):
        raise typer.Exit(1)


def _settings(adapter: str, given: dict[str, Any], gates: dict[str, Any]) -> CheckSettings:
    """The settings, once adapter and model are seen to be there."""
    from lorascope.checking.settings import CheckSettings, Gates
    from lorascope.models.places import CONFIG_FILE, adapter_folder, adapter_in, model_address
    from lorascope.studies import missing

    given["gates"] = Gates.parse(gates, "check")
    settings = CheckSettings.parse(given, "check")
    folder = adapter_folder(Path(adapter).name or adapter, adapter)
    if folder is not None and not (folder / CONFIG_FILE).is_file():
        adapter_in(folder.name, adapter, folder)
    if settings.model is not None:
        model_address(settings.model)
        missing.in_texts(settings.texts, settings.documents)
    return settings


def _check(adapter: str, settings: CheckSettings, how: str, quiet: bool) -> int:
    """Check and print; how many gates were missed."""
    from lorascope.checking import formats
    from lorascope.checking.check import check_adapter
    from lorascope.checking.terminal import print_check
    from lorascope.progress import Reporter

    found = check_adapter(adapter, settings, Reporter(quiet or bool(how)))
    if how == "json":
        say_json(found.plain())
    elif how == "sarif":
        say_json(formats.sarif(found))
    elif how == "junit":
        say(formats.junit(found))
    else:
        print_check(found)
    for gate in found.missed:
        say(f"lorascope: missed {gate.option}: {gate.message}", err=True)
    return len(found.missed)


def scan(
    folders: Annotated[list[Path], typer.Argument(help="Folders with adapters in or below them.")],
    out: Annotated[
        Path, typer.Option("--out", help="Where the table goes; the same folder goes on.")
    ] = Path("runs/scan"),
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    rate: Annotated[
        float, typer.Option(help="Share of those named that may be named by chance.")
    ] = 0.05,
    least: Annotated[
        int, typer.Option(help="Fewest adapters of one base and shape to hold together.")
    ] = 8,
    top: Annotated[int, typer.Option(min=0, help="Rows to print.")] = 20,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read thousands of adapters and name those that stand out among their like.

    Held against the others of the same base and shape: norm, effective rank, and the share of the
    largest module. The table (CSV, parquet, HTML) is sorted by what stands out, at a stated false
    discovery rate, with the command that looks more closely. Stopped, the same command goes on.

    **Examples**

    `lorascope scan downloads/adapters --workers 2`

    `lorascope scan team-a team-b --out runs/scan-may --rate 0.01`
    """
    from lorascope.checking.settings import ScanSettings
    from lorascope.models.places import no_folder

    given = {"workers": workers, "rate": rate, "least": least}
    settings = ScanSettings.parse(given, "scan")
    for folder in folders:
        if not folder.is_dir():
            raise no_folder("folder", folder)
    _say_repeated(folders)
    _scan(folders, out, settings, top, json_, quiet)


def _say_repeated(folders: list[Path]) -> None:
    """Folders that are given twice, or lie in another one: their adapters are read once."""
    places = [folder.resolve() for folder in folders]
    for number, (folder, place) in enumerate(zip(folders, places, strict=True)):
        others = [o for at, o in enumerate(places) if at < number or (at > number and o != place)]
        if place in others:
            said = "is given twice"
        elif within := next((o for o in others if o in place.parents), None):
            said = f"lies in {folders[places.index(within)]}"
        else:
            continue
        say(f"lorascope: {folder} {said}; its adapters are read once", err=True)


def _scan(
    folders: list[Path], out: Path, settings: ScanSettings, top: int, json_: bool, quiet: bool
) -> None:
    from lorascope.checking.scan import escalation, scan_folders
    from lorascope.progress import Reporter

    found = scan_folders(folders, out, settings, Reporter(quiet or json_))
    if json_:
        say_json([one.plain() for one in found.adapters])
        return
    for sentence in found.sentences():
        say(sentence)
    if top:
        _print_top(found.adapters[:top])
    for one in found.review[:top]:
        for command in escalation(one):
            say(command)
    say(str(found.tables["html"]))


def _print_top(adapters: tuple[Ranked, ...]) -> None:
    from lorascope.checking.terminal import number
    from lorascope.printing import Column, Console, say_table

    rows = [one.plain() for one in adapters]
    columns = [Column("adapter", [str(row["path"]) for row in rows], 0, wraps=True)]
    shown = ("q", "z_norm", "z_effective_rank", "z_largest_share", "norm", "effective_rank")
    for rank, name in enumerate(shown, 1):
        cells = [number(row[name]) for row in rows]
        columns.append(Column(name.replace("_", " "), cells, rank))
    errors = [row["errors"] or ("unreadable" if row["refused"] else "") for row in rows]
    columns.append(Column("errors", errors, len(shown) + 1, wraps=True))
    say_table(columns, Console())
