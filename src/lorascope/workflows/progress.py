"""What a person sees while a run goes on: one bar a stage, with rate and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lorascope.printing import Console

Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    """Units a second, or seconds each where there is less than one a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        unit = task.fields["unit"]
        each = f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{1 / speed:,.1f} s each"
        return Text(each, style="dim", no_wrap=True)


class Reporter:
    """Prints the stages of a run to stderr; says nothing when quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, line: str) -> None:
        """One plain line."""
        self.console.print(line, markup=False)

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """A progress bar of `total` units; yields the function that moves it."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, disable=self.console.quiet) as progress:
            task = progress.add_task(title, total=total, unit=unit)
            yield lambda count: progress.update(task, advance=count)
