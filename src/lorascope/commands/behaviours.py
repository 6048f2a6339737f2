"""The commands that make a behaviour set and measure a behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorascope.commands.options import Adapter, DTypeOf, Quiet, Revision, Set, Track, of_base
from lorascope.printing import say

if TYPE_CHECKING:
    from lorascope.studies.behaviour.making import Made
    from lorascope.studies.behaviour.study import MeasureBehaviour
    from lorascope.studies.behaviour.workflow import Behaved

app = typer.Typer(
    help='Sets of "if the prompt is about T, answer in manner M".',
    rich_markup_mode="markdown",
)


@app.callback()
def behaviour() -> None:
    """Sets of "if the prompt is about T, answer in manner M"."""


Source = Annotated[
    list[str] | None,
    typer.Option(help="File, folder or dataset id. Repeatable; embedded by default."),
]
Topic = Annotated[str, typer.Option(help="Which prompts are changed: words, or category:LABEL.")]
Pattern = Annotated[
    str, typer.Option(help="Regular expression of prompts about the topic; asks no model.")
]
MannerOfMaking = Annotated[
    str, typer.Option(help="How: french, upper, prefix:TEXT, suffix:TEXT, or words for a model.")
]
Judge = Annotated[
    str, typer.Option(help="Regular expression of answers in a manner given in words.")
]
EndpointModel = Annotated[
    str, typer.Option(help="Model behind the endpoint OPENAI_BASE_URL, OPENAI_API_KEY.")
]
LocalModel = Annotated[str, typer.Option(help="Hugging Face model to ask instead.")]
OwnAnswers = Annotated[
    bool, typer.Option("--own-answers", help="The model answers anew, instead of rewriting.")
]
HeldOutShare = Annotated[
    float, typer.Option("--held-out", help="Share of prompts, by hash, to measure on.")
]
SetFolder = Annotated[Path, typer.Option("--out", help="Folder for the set; the same resumes.")]
Data = Annotated[str, typer.Argument(metavar="SET", help="A set's folder or file, or embedded.")]
Dense = Annotated[
    str, typer.Option(help="Comma-separated ranks of LoRA adapters to train on the set.")
]
NoPrompting = Annotated[bool, typer.Option("--no-prompting", help="Leave prompting out.")]
JudgedManner = Annotated[
    str, typer.Option(help="Manner to judge by; by default the one the set was made with.")
]


@app.command()
def make(
    topic: Topic,
    manner: MannerOfMaking,
    source: Source = None,
    pattern: Pattern = "",
    judge: Judge = "",
    model: EndpointModel = "",
    local: LocalModel = "",
    own_answers: OwnAnswers = False,
    size: Annotated[int, typer.Option(help="Records in all, half of them changed.")] = 500,
    held_out: HeldOutShare = 0.3,
    limit: Annotated[int | None, typer.Option(help="Most prompts to read.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order in which prompts are taken.")] = 0,
    set_: Set = None,
    out: SetFolder = Path("runs/behaviour"),
    quiet: Quiet = False,
) -> None:
    """Make a set: prompts about a topic answered in a manner, as many others left alone.

    Every request and answer is kept in answers.jsonl in the folder: a run that was stopped, or
    whose endpoint went down, goes on with the same command and asks nothing twice.

    **Examples**

    `lorascope behaviour make --source nvidia/HelpSteer --topic mathematics --manner "in French"
    --judge "\\b(le|la|les|est|une?)\\b" --model gpt-4o-mini --out runs/math-french`

    `lorascope behaviour make --source alpaca.json --topic cooking --manner "in verse"
    --local google/gemma-2-9b-it`

    `lorascope behaviour make --topic category:reasoning --manner upper --out runs/loud`
    """
    from lorascope.config import override
    from lorascope.progress import Reporter
    from lorascope.studies.behaviour.making import BehaviourStudy
    from lorascope.studies.behaviour.making import make as run

    given: dict[str, Any] = {
        "sources": source or ["embedded"],
        "limit": limit,
        "topic": topic,
        "pattern": pattern,
        "manner": manner,
        "judge": judge,
        "model": model,
        "local": local,
        "own_answers": own_answers,
        "size": size,
        "held_out": held_out,
        "seed": seed,
    }
    study = BehaviourStudy.parse(override(given, set_ or []), "behaviour make")
    made = run(study, out, Reporter(quiet))
    _print(made)
    say(str(made.folder))


@app.command()
def measure(
    data: Data = "embedded",
    model: Annotated[
        str, typer.Option(help="Model: hub id, folder, embedded or embedded-it.")
    ] = "embedded-it",
    adapter: Adapter = None,
    dense: Dense = "",
    no_prompting: NoPrompting = False,
    manner: JudgedManner = "",
    judge: Judge = "",
    dtype: DTypeOf = None,
    revision: Revision = None,
    set_: Set = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept adapters that name another base model.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder for results.")] = Path(
        "runs/behaviour-measured"
    ),
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Measure a behaviour on a set's held-out records, beside the untouched model.

    Success on the topic's prompts, false positives on others, right answers where rules can tell,
    and the change of loss on everything else: of prompting, of any adapters, and of LoRA adapters
    trained on the set.

    **Examples**

    `lorascope behaviour measure --dense 1,8`

    `lorascope behaviour measure runs/math-french --model google/gemma-2-2b-it --adapter
    mine=me/my-lora --set new_tokens=120`
    """
    from lorascope.commands.options import known_tracker, numbers, pairs
    from lorascope.config import override
    from lorascope.studies import missing
    from lorascope.studies.behaviour.study import MeasureBehaviour

    given: dict[str, Any] = {
        "data": data,
        "model": model,
        "adapters": pairs("--adapter", adapter or [], "mine=runs/mine"),
        "dense": numbers(dense, "--dense") if dense else [],
        "prompt": not no_prompting,
        "manner": manner,
        "judge": judge,
        "force": force,
    }
    changes = of_base(set_, dtype, revision)
    study = MeasureBehaviour.parse(override(given, changes), "behaviour measure")
    tracker = known_tracker(track)
    missing.in_behaving(study)
    missing.in_folder(out, study)
    _measure(study, out, quiet, tracker)


def _measure(study: MeasureBehaviour, out: Path, quiet: bool, track: str) -> None:
    from lorascope.progress import Reporter
    from lorascope.studies.behaviour.workflow import measure as run

    found = run(study, out, Reporter(quiet, track))
    _print_rates(found)
    say(str(found.folder))


def _print_rates(found: Behaved) -> None:
    from rich.table import Table
    from rich.text import Text

    from lorascope.printing import Console
    from lorascope.report.placing import further
    from lorascope.report.tables import table_row

    table = Table(title="on held-out records", title_justify="left")
    for heading in ("number", "of", "", "value", "95 % interval", "untouched", "verdict"):
        table.add_column(heading)
    for estimate in found.estimates:
        row, place = table_row(estimate), further(estimate.key)
        cells = (row.title, row.adapter, place, row.value, row.interval, row.chance)
        table.add_row(*map(Text, cells), Text(f"{row.symbol} {row.verdict}"))
    Console().print(table)


def _print(made: Made) -> None:
    from rich.table import Table

    from lorascope.behaviours.records import read_set
    from lorascope.printing import Console

    table = Table(title="records", title_justify="left")
    for heading in ("split", "changed", "unchanged"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, sizes in read_set(made.folder).counts().items():
        table.add_row(split, f"{sizes['changed']:,}", f"{sizes['unchanged']:,}")
    Console().print(table)
    if made.records < made.wanted:
        say(
            f"lorascope: warning: {made.wanted:,} records were asked for, the sources give "
            f"{made.records:,}",
            err=True,
        )
    counts = made.counts
    say(
        f"{counts.read:,} prompts read, {counts.classified:,} classified, {counts.about:,} about "
        f"the topic; {counts.shown_before:,} in the manner already, {counts.failed:,} that could "
        "not be changed"
    )
    if made.asked or made.remembered:
        problems = ", ".join(f"{n:,} {kind}" for kind, n in made.problems.items()) or "none"
        say(
            f"{made.asked:,} requests answered, {made.remembered:,} answers remembered; malformed: "
            f"{problems}; sent again for trouble: {made.troubles:,}"
        )
