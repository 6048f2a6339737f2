"""Progress shown while a run goes on: bars with units, rates and time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from lorascope.printing import Console

Advance = Callable[[int], None]
# Columns that a bar's line takes beside title, bar and time elapsed. What is left is the
# title's; below a usual width the bar is short, and of times only that left is shown.
_BESIDE_TITLE = 44
_WIDE = 100


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
    """Prints the stages of a run to stderr; says nothing when quiet.

    Attributes:
        track: where the stages' training is written beside it, "tensorboard" or "wandb"; nowhere
            where it is empty.
    """

    def __init__(self, quiet: bool = False, track: str = "") -> None:
        self.track = track
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._shown: Progress | None = None

    def say(self, line: str) -> None:
        """One plain line."""
        self.console.print(line, markup=False)

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """A progress bar of `total` units; yields the function that moves it.

        Within `stages` it goes once it is done: what stays is the bar of its kind of stage.
        """
        if self._shown is not None:
            yield from _row(self._shown, f"  {title}", total, unit)
            return
        with self._progress() as progress:
            task = progress.add_task(title, total=total, unit=unit)
            yield lambda count: progress.update(task, advance=count)

    @contextmanager
    def stages(self, totals: Mapping[str, int]) -> Iterator[Callable[[str, int], None]]:
        """A bar for each kind of stage, shown once the first of its stages is made.

        Args:
            totals: {title: how many stages of that kind are to be made}.

        Yields:
            a function that moves the bar of a title.
        """
        rows: dict[str, TaskID] = {}
        with self._progress() as progress:

            def advance(title: str, count: int) -> None:
                if title not in rows:
                    rows[title] = progress.add_task(title, total=totals[title], unit="stages")
                progress.update(rows[title], advance=count)

            self._shown = progress
            try:
                yield advance
            finally:
                self._shown = None

    def _progress(self) -> Progress:
        width = self.console.width
        wide = width >= _WIDE
        bar = 24 if wide else min(8, max(1, width - 70))
        title = max(12, width - _BESIDE_TITLE - bar - (8 if wide else 0))
        return Progress(
            SpinnerColumn(),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", max_width=title),
            ),
            BarColumn(bar_width=bar),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Rate(table_column=Column(no_wrap=True)),
            *([TimeElapsedColumn()] if wide else []),
            TimeRemainingColumn(compact=not wide),
            console=self.console,
            disable=self.console.quiet,
        )


def _row(progress: Progress, title: str, total: int, unit: str) -> Iterator[Advance]:
    task = progress.add_task(title, total=total, unit=unit)
    try:
        yield lambda count: progress.update(task, advance=count)
    finally:
        progress.remove_task(task)
