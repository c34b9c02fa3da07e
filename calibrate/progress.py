"""Progress of long work, told to whoever shows it: how much is done, how fast, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Seconds over which the rate is averaged: prompts of a batch are done in bursts, and one may take minutes.
_RATE_PERIOD = 1800.0


class Reporter(Protocol):
    """Shows tasks of known size."""

    def task(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A task of ``total`` parts; the yielded function is told how many are done."""
        ...

    def say(self, sentence: str) -> None:
        """Show a sentence that stays."""
        ...


class SilentReporter:
    """Shows nothing."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: None

    def say(self, sentence: str) -> None:
        pass


class RateColumn(ProgressColumn):
    """Parts per second, or per minute where that is the readable number."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        if speed >= 100:
            return Text(f"{float(f'{speed:.3g}'):,.0f}/s")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")


class RichReporter:
    """A progress bar per task, with rate, time passed and time left."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("{task.description:<32}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, speed_estimate_period=_RATE_PERIOD) as progress:
            bar = progress.add_task(description, total=total)
            yield lambda done: progress.update(bar, completed=done)

    def say(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False, markup=False)
