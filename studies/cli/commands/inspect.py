"""``inspect``: what a recording, a graph or drafter file, or a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studies.cli import printing
from studies.cli.drafters import read_file
from studies.cli.guard import command

#: Facts of a recording in the order shown; others of its manifest (hashes, versions) are for programs.
_FACTS = (
    "model", "model_revision", "dtype", "device_name", "policy", "temperature", "block_length", "schedule",
    "generation_length", "cache", "top_j", "seed", "batch_size", "chat", "prompt_source", "tool_version",
)  # fmt: skip

#: What a file says about for whom it is valid.
_VALIDITY = {
    "model": "model", "revision": "model_revision", "policy": "policy", "temperature": "temperature",
    "block length": "block_length", "schedule": "schedule", "cache": "cache", "ranks recorded": "top_j",
}  # fmt: skip


@command()
def inspect_command(
    path: Annotated[
        Path, typer.Argument(help="A trace folder or state log, a graph or drafter file, or a run directory.")
    ],
) -> None:
    """Say what a recording, a graph, a drafter or a run is, for whom it is valid, what it won, and how sure."""
    from calibrate.traces.state_log import is_state_log
    from calibrate.traces.table import MANIFEST_NAME

    if not path.exists():
        raise ValueError(
            f"there is nothing at {path}; expected a recording, a graph or drafter file, or a run directory"
        )
    if path.is_dir() and (path / MANIFEST_NAME).exists():
        (_show_states if is_state_log(path) else _show_traces)(path)
    elif path.is_dir() and not (path / "results.json").exists():
        raise ValueError(
            f"{path} is no trace folder (it has no {MANIFEST_NAME}) and no run directory (it has no results.json); "
            "name a folder or a graph file inside it"
        )
    elif path.is_dir():
        _show_run(path)
    else:
        _show_file(path)


def _facts(title: str, facts: dict[str, Any]) -> None:
    """Print names and values, those that are not known left out."""
    table = printing.plain_table(title, {"": "left", " ": "left"})
    table.show_header = False
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, str(value))
    printing.show(table)


def _show_traces(path: Path) -> None:
    from calibrate.traces.table import read_traces

    traces = read_traces(path, partial=True)
    recorded = len(set(traces.prompt_index.tolist()))
    more = {"denoising steps": traces.n_steps}
    _show_recording(f"{path}: traces of plain decoding", traces.metadata, recorded, more, traces.trace_hash())


def _show_states(path: Path) -> None:
    from calibrate.traces.state_log import read_states
    from calibrate.traces.table import shard_paths

    log = read_states(path, partial=True)
    recorded = len(log.prompt_indices)
    size = sum(shard.stat().st_size for shard in shard_paths(path)) / 1024
    more = {
        "drafter": "; ".join(map(_drafter_words, log.metadata["drafter"])),
        "evaluated states": f"{log.states}, {log.states / recorded:.0f} per prompt",
        "on disk": f"{size / recorded:.1f} KB per prompt",
        "back-end": log.metadata.get("backend"),
    }
    _show_recording(f"{path}: a state log of decodes with drafts", log.metadata, recorded, more)
    printing.say("`draftgraph evaluate` replays drafters that learn over it, and graphs.")


def _drafter_words(stated: dict[str, Any]) -> str:
    """A drafter as a manifest describes it: ``informed, drafts 16, ...``; of its formulas, how many."""
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in stated.items() if not isinstance(value, list)]
    counts = [f"{len(value)} {name}" for name, value in stated.items() if isinstance(value, list) and value]
    return ", ".join([*facts, *counts]).removeprefix("drafter ")


def _show_recording(
    title: str, run: dict[str, Any], recorded: int, more: dict[str, Any], trace_hash: str | None = None
) -> None:
    """The facts of a recording of ``recorded`` prompts; ``more`` are those of its kind."""
    prompts = run.get("prompts")
    known = {name.replace("_", " "): run.get(name) for name in _FACTS}
    _facts(
        title,
        {
            "prompts": prompts if recorded == prompts else f"{recorded} of {prompts}",
            **more,
            **known,
            "trace hash": None if trace_hash is None else trace_hash[:12],
        },
    )
    if recorded != prompts:
        printing.say(
            printing.yellow("The recording was stopped."), " Run the same `draftgraph record` again to go on with it."
        )


def _show_file(path: Path) -> None:
    asked = read_file(path)
    valid, made, file = asked.validity, asked.provenance or {}, asked.graph
    title = f"an informed drafter of at most {asked.drafter.max_drafts} drafts"
    if file is not None:
        title = f"a draft graph of {file.budget} drafts, depth {max(file.depths)}"
    _facts(
        f"{path}: {title}",
        {
            "settings": None if file is not None else _drafter_words(asked.drafter.describe()),
            **{words: getattr(valid, name, None) for words, name in _VALIDITY.items()},
            "found by": made.get("search"),
            "on prompts": made.get("prompts"),
            "of trace": str(made["trace_hash"])[:12] if "trace_hash" in made else None,
            "tool version": made.get("tool_version"),
            "latency": None if file is None or file.latency is None else f"measured on {file.latency.get('device')}",
        },
    )
    if valid is None:
        printing.say("It does not say for whom it was tuned, so it may be run with anything.")
    for split, stated in asked.values.items():
        printing.say(f"on {split} prompts: {_worth(stated)}")
    if file is not None and set(asked.values) <= {"search"}:
        printing.say(
            "These are the prompts that the graph was made from, so the numbers are too good; `draftgraph evaluate` "
            "values it on others."
        )


def _worth(values: Any) -> str:
    """What a graph won on one split, as far as its file says so."""
    if not isinstance(values, dict) or not isinstance(values.get("nfe_reduction"), (int, float)):
        return "nothing that this version can read"
    reduction = f"{values['nfe_reduction']:.2f} times fewer forward passes"
    ends = values.get("nfe_reduction_interval")
    if isinstance(ends, (list, tuple)) and len(ends) == 2 and all(isinstance(end, (int, float)) for end in ends):
        reduction += f" (95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
        reduction += f" over {values['prompts']} prompts)" if "prompts" in values else ")"
    if isinstance(values.get("accepted_drafts"), (int, float)):
        reduction += f", {values['accepted_drafts']:.2f} drafts accepted per anchor"
    if isinstance(values.get("gap"), (int, float)):
        gap = values["gap"]
        reduction += (
            ", proved optimal there" if gap == 0 else f", at most {100 * gap:.1f} % short of the best of its size"
        )
    return reduction


def _show_run(path: Path) -> None:
    from figures.records.run import FigureDataError, best_row, load_run

    run = load_run(path)
    names = ("model", "prompts", "block_length", "generation_length", "cache", "dtype", "seed", "tool_version")
    _facts(
        f"{run.directory}: a run with {len(run.rows)} results",
        {name.replace("_", " "): run.config.get(name) for name in names}
        | {"policies": ", ".join(run.policies()), "methods": ", ".join(dict.fromkeys(row.method for row in run.rows))},
    )
    for policy in run.policies():
        try:
            best = best_row(run, run.select(policy=policy))
        except FigureDataError:
            printing.say(printing.bold(policy), ": no graph was found")
            continue
        tested = run.select(policy=policy, method=best.method, reading=best.reading, budget=best.budget, split="test")
        printing.say(printing.bold(policy), f": {best.method} with {best.budget} drafts ", *_tested(tested))
        if best.graph is not None:
            printing.say(f"graph   {run.directory / best.graph}")


def _tested(rows: list[Any]) -> list[str]:
    """What the chosen graph won on prompts that no search saw."""
    if not rows or rows[0].nfe_reduction is None:
        return ["was chosen; it was valued on no other prompts"]
    row = rows[0]
    sure = ", without an interval"
    if row.nfe_reduction_low is not None:
        sure = f" (95 % interval {row.nfe_reduction_low:.2f} to {row.nfe_reduction_high:.2f})"
    return [f"needs {row.nfe_reduction:.2f} times fewer forward passes{sure} on {row.prompts} test prompts"]
