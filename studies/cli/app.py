"""The application object, its shared options, and how errors reach a person."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from calibrate.recording.stopping import Terminated, signals_held, termination_as_interrupt
from calibrate.recording.workers import PeerFailedError, current_workers
from calibrate.version import tool_version

console = Console()
errors = Console(stderr=True)

app = typer.Typer(
    name="draftgraph",
    help="Calibrate, search, certify and export draft graphs for diffusion language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

EXIT_BAD_INPUT = 1
EXIT_NOT_IDENTICAL = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

#: Errors whose own message is meant for a person.
_EXPECTED = (ValueError, RuntimeError, OSError, ArithmeticError, MemoryError)

Command = TypeVar("Command", bound=Callable[..., Any])


def _show_version(asked: bool) -> None:
    if asked:
        console.print(f"draftgraph {tool_version()}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Calibrate, search, certify and export draft graphs for diffusion language models."""


def command(name: str, resumes: bool = False, together: bool = False) -> Callable[[Command], Command]:
    """Register a command whose errors become one message and an exit code.

    Every error exits with 1 and says what went wrong; Ctrl-C exits with 130, SIGTERM (which then keeps what Ctrl-C
    would keep) with 143. ``DRAFTGRAPH_DEBUG=1`` shows tracebacks. What concerns all workers of a launch is said once.

    Args:
        name: of the command.
        resumes: whether a stopped command keeps what is done and goes on when it is run again.
        together: whether several processes of one launch share the work; others are refused, as each would do it all.
    """

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                if not together and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
                    raise ValueError(
                        f"{name} is work for one process, but this is one of {os.environ['WORLD_SIZE']} (WORLD_SIZE); "
                        "start it without torchrun"
                    )
                with termination_as_interrupt():
                    return function(*args, **kwargs)
            except (typer.Exit, typer.Abort):  # typer.Exit is a RuntimeError: an exit code, not a failure
                raise
            except KeyboardInterrupt as stop:
                again = "again, without --overwrite," if kwargs.get("overwrite") else "again"
                kept = f" What is finished is kept; run the same command {again} to go on." if resumes else ""
                how = " by SIGTERM" if isinstance(stop, Terminated) else ""
                others = " (launchers send it when another worker failed)" if how and current_workers() else ""
                with signals_held():  # under a launcher Ctrl-C comes twice
                    _complain(f"[yellow]stopped{how}{others}.[/]{kept}")
                raise typer.Exit(EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED) from None
            except PeerFailedError:  # the other worker has said why
                raise typer.Exit(EXIT_BAD_INPUT) from None
            except Exception as error:
                if os.environ.get("DRAFTGRAPH_DEBUG"):
                    raise
                said = escape(str(error) or type(error).__name__)
                if not isinstance(error, _EXPECTED):
                    said = f"{type(error).__name__}: {said} (not foreseen; DRAFTGRAPH_DEBUG=1 shows where)"
                _complain(f"[bold red]error:[/] {said}")
                raise typer.Exit(EXIT_BAD_INPUT) from None

        app.command(name)(guarded)
        return function

    return register


def _complain(message: str) -> None:
    """Print ``message`` on stderr; of several workers with the same message only the first does."""
    workers = current_workers()
    if workers is not None:
        workers.fail(message)
        if not workers.says_first(message):
            return
        message = f"worker {workers.number} of {workers.count}: {message}"
    errors.print(message, highlight=False, soft_wrap=True)


ModelOption = Annotated[
    str, typer.Option("--model", help="'bundled', a local folder in Hugging Face layout, or a hub id.")
]
PromptsOption = Annotated[
    str,
    typer.Option(
        "--prompts",
        help="'bundled', 'bundled/DOMAIN', a JSONL file of {\"prompt\": text} or {\"tokens\": ids}, or "
        "'datasets:NAME' (gsm8k, math500, humaneval, mbpp; see docs/recording.md).",
    ),
]
PolicyOption = Annotated[
    str,
    typer.Option("--policy", help="Unmasking policy: static:k or threshold:tau, for example threshold:0.9."),
]
BlockLengthOption = Annotated[int, typer.Option("--block-length", min=1, help="Positions per block.")]
GenerationLengthOption = Annotated[int, typer.Option("--generation-length", min=1, help="Positions to generate.")]
CacheOption = Annotated[
    str,
    typer.Option("--cache", help="What is cached while a block is solved: none, prefix, dual or block_causal."),
]
BackendOption = Annotated[
    str, typer.Option("--backend", help="How drafts enter a forward: packed (rows) or expanded (batch).")
]
TopJOption = Annotated[int, typer.Option("--top-j", min=1, help="Vocabulary ranks to record.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of stochastic policies.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes argmax tokens.")]
#: Short names that are accepted beside torch's own.
DTYPE_ALIASES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_name(text: str) -> str:
    """``bf16`` -> ``bfloat16``, and so on; what is no alias is given back as it is."""
    return DTYPE_ALIASES.get(text, text)


DtypeOption = Annotated[
    str,
    typer.Option("--dtype", callback=dtype_name, help="float32 (exact), bfloat16 or float16; or fp32, bf16, fp16."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="A torch device; cuda is each worker's own one under torchrun.")
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model. [default: main]")
]
ChatOption = Annotated[bool, typer.Option("--chat", help="Put text prompts into the model's chat template.")]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Prompts decoded at a time; in float32 the tokens are the same.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile step forwards with torch.compile; the first take up to minutes.")
]
GraphsOption = Annotated[bool, typer.Option("--cuda-graphs", help="Replay step forwards from CUDA graphs.")]
MaskOption = Annotated[int | None, typer.Option("--mask-token-id", help="For checkpoints that do not name theirs.")]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use the first prompts only.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def plain_table(title: str, headings: dict[str, str], caption: str | None = None) -> Table:
    """A table for terminals of 80 columns; ``headings`` maps each heading to "left" or "right"."""
    table = Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title_justify="left",
        caption_justify="left",
    )
    for heading, side in headings.items():
        table.add_column(heading, justify="left" if side == "left" else "right", overflow="fold")
    return table


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file that is there, and make its folder, before any work is done.

    Raises:
        ValueError: the file exists and ``overwrite`` is off.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; give another --out, or --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)


def draw(run: Path, folder: Path | None = None) -> list[Path]:
    """Draw every figure of ``run`` (into ``folder``); what cannot be drawn is said in one line each."""
    from figures import draw_all

    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        drawn = draw_all(run, folder)
    for warning in left_out:
        errors.print(f"[yellow]note:[/] {escape(str(warning.message))}", highlight=False, soft_wrap=True)
    return drawn


def parse_list(
    text: str, convert: Callable[[str], Any], name: str, example: str = "0,3,5,8,10", least: int | None = None
) -> tuple[Any, ...]:
    """Parse ``a,b,c``.

    Args:
        text: what was given.
        convert: makes a value of a part.
        name: of the option.
        example: of such a list, for messages.
        least: the smallest number that is taken.

    Raises:
        ValueError: an empty list, a part that does not convert, or a number below ``least``.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        values = tuple(convert(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"{name}: cannot read {text!r} ({error}); expected for example {example}") from error
    if not values:
        raise ValueError(f"{name} is empty; expected for example {example}")
    if least is not None and min(values) < least:
        raise ValueError(f"{name} must be at least {least}, got {min(values)}")
    return values


def load_commands() -> None:
    """Import every module of this package that is named ``*_command`` or ``*_commands``; each registers its own."""
    package = Path(__file__).parent
    for path in sorted(package.glob("*_command*.py")):
        importlib.import_module(f"{__package__}.{path.stem}")


def main() -> None:
    """Entry point of the ``draftgraph`` command."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    load_commands()
    app()
