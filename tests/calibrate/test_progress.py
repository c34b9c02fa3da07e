"""Progress: what is shown of rate and time left, also when a task goes on where it stopped."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from calibrate.progress import RateColumn, RichReporter, SilentReporter


@pytest.mark.parametrize(
    "seconds, shown", [(0.5, "2.0/s"), (1.0, "1.0/s"), (30.0, "2.0/min"), (1 / 109328.1, "109,000/s")]
)
def test_the_rate_leaves_out_what_was_there_before(seconds: float, shown: str) -> None:
    now = [0.0]
    progress = Progress(
        RateColumn(), get_time=lambda: now[0], speed_estimate_period=1800, console=Console(file=io.StringIO())
    )
    progress.add_task("record", total=50)
    (task,) = progress.tasks
    assert str(RateColumn().render(task)) == ""
    progress.update(task.id, completed=40)  # found in whole shards
    for done in range(41, 45):
        now[0] += seconds
        progress.update(task.id, completed=done)
    assert str(RateColumn().render(task)) == shown
    assert task.time_remaining == pytest.approx(6 * seconds, abs=1)


def test_a_reporter_shows_the_end_and_what_is_said() -> None:
    console = Console(file=io.StringIO(), width=120)
    reporter = RichReporter(console)
    with reporter.task("record static:1", 3) as advance_to:
        for done in range(4):
            advance_to(done)
    reporter.say("recorded 3 prompts")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "record static:1" in text and "3/3" in text and "left" in text and "recorded 3 prompts" in text


def test_silence() -> None:
    with SilentReporter().task("anything", 1) as advance_to:
        advance_to(1)
    SilentReporter().say("anything")
