"""The application: which commands there are, in which groups. A command's module is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from calibrate.version import tool_version
from studies.cli.metavars import PlainCommand, name_values
from studies.cli.printing import say

RECORD, SEARCH, RUN, LOOK = "Record and calibrate", "Search and judge", "Run", "Look"


class Entry(NamedTuple):
    """A command in the list: the group it stands in, and the line beside it (the first of its docstring)."""

    group: str
    line: str


#: Every command in the order of ``draftgraph --help``. ``cross-validate`` is the function ``cross_validate_command`` of
#: the module ``studies.cli.commands.cross_validate``.
COMMANDS = {
    "calibrate": Entry(RECORD, "Record, search, predict, export and verify; the run directory holds everything."),
    "record": Entry(
        RECORD,
        "Record traces of plain decoding, or state logs of decodes with drafts; run it again to go on after a stop.",
    ),
    "latency": Entry(RECORD, "Measure forward time against the number of drafts on this device."),
    "memory": Entry(RECORD, "Predict the peak memory of a decode, and the largest budget that fits."),
    "search": Entry(SEARCH, "Find a draft graph for a budget in recorded traces."),
    "evaluate": Entry(
        SEARCH, "Replay drafts over what was recorded: accepted drafts and forward passes, without a model."
    ),
    "compare": Entry(
        SEARCH, "Tell two graphs apart on the same prompts: paired difference, its interval, and one sentence."
    ),
    "cross-validate": Entry(SEARCH, "Value search methods on every prompt by graphs that have not seen it."),
    "calibration-size": Entry(
        SEARCH, "Would more prompts help? Held-out value of graphs found on 5, 10, 20, ... prompts."
    ),
    "ablate": Entry(
        SEARCH,
        "Vary one thing (policy, block length, temperature, domain, ...) and hold the rest; held-out, with intervals.",
    ),
    "quality": Entry(
        SEARCH,
        "Set valid answers against forward passes: every unmasking rule, without drafts and with each drafter.",
    ),
    "study": Entry(
        SEARCH,
        "Tune the parametric constructor with Optuna; started again, or elsewhere, it joins the study in the storage.",
    ),
    "tune": Entry(
        SEARCH, "Tune informed drafts with Optuna on state logs, without a model; judge them on other prompts."
    ),
    "budget": Entry(
        SEARCH, "Price every budget with this device's latency and take the best; 0 means: do not speculate."
    ),
    "verify": Entry(
        RUN,
        "Decode prompts plainly and with drafts; compare tokens, and forwards counted with forwards predicted.",
    ),
    "decode": Entry(RUN, "Decode prompts, plainly, with a draft graph or with informed drafts, into JSONL."),
    "watch": Entry(
        RUN, "Test whether served requests still accept what the traces promised; exit code 3 says: calibrate again."
    ),
    "export": Entry(
        RUN,
        "Write a graph for another runtime or tool: static buffers, SGLang, Medusa paths, DOT, GraphML, CSV, JSON.",
    ),
    "inspect": Entry(
        LOOK,
        "Say what a recording, a graph, a drafter or a run is, for whom it is valid, what it won, and how sure.",
    ),
    "policies": Entry(
        LOOK, "List the unmasking rules: how each is written, its parameters, what it reads, where it comes from."
    ),
    "plot": Entry(LOOK, "Draw every figure of saved results: PNG, SVG and the data as CSV."),
    "report": Entry(
        LOOK, "Write a run as one self-contained HTML page: tables, figures, what to conclude and how sure."
    ),
}


class LazyCommands(TyperGroup):
    """The commands of :data:`COMMANDS`; one is imported when it is called, and none to list them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.line, rich_help_panel=entry.group))
        self._listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._listing or cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        name = cmd_name.replace("-", "_")
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(cmd_name, cls=PlainCommand)(
            getattr(import_module(f"studies.cli.commands.{name}"), f"{name}_command")
        )
        return get_command(alone)

    def get_params(self, ctx: Any) -> list[Any]:
        return name_values(super().get_params(ctx), {})

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with self._list():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        with self._list():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _list(self) -> Iterator[None]:
        """Within the context commands are names with a line, not modules."""
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


app = typer.Typer(
    name="draftgraph",
    cls=LazyCommands,
    help="Calibrate, search, certify and export draft graphs for diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"draftgraph {tool_version()}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Calibrate, search, certify and export draft graphs for diffusion language models."""
