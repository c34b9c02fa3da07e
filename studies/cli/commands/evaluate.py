"""``evaluate``: graphs are replayed over recorded traces, any drafter over state logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from studies.cli import options, printing
from studies.cli.drafters import AskedDrafter, read_drafter, read_file
from studies.cli.graphs import short_names
from studies.cli.guard import command
from studies.cli.states import certainty, show_states, state_row

if TYPE_CHECKING:
    from calibrate.traces.state_log import StateLog


@command()
def evaluate_command(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Graph or drafter files; with --drafter or --graph, the state logs of the same decodes."),
    ],
    traces: Annotated[
        Path | None,
        typer.Option("--traces", help="For files: a trace folder or a state log, best one that no search has seen."),
    ] = None,
    graph: options.DrafterGraphOption = None,
    drafter: options.DrafterOption = None,
    drafts: options.DraftsOption = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", help="Count as this runtime counts (docs/runtimes.md), for graphs over a trace."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Replay drafts over what was recorded: accepted drafts and forward passes, without a model.

    Graphs are replayed over a trace (evaluate GRAPH --traces TRACES). Informed drafts learn from rejected ones, so they
    need state logs (evaluate LOG LOG --drafter informed --drafts 16); graphs can be replayed over those too.
    """
    from calibrate.traces.state_log import is_state_log, read_states

    asked = read_drafter(drafter, graph, drafts)
    if runtime is not None and (asked is not None or traces is None or is_state_log(traces)):
        raise ValueError(
            "--runtime counts for graphs over a trace of plain decoding; give graph files and --traces FOLDER"
        )
    if asked is not None:
        if traces is not None:
            raise ValueError("with --drafter or --graph the state logs are the arguments; leave --traces out")
        _over_states(read_states(paths), paths, [asked], [asked.name], as_json)
    elif traces is None:
        raise ValueError("files are replayed over a recording; give --traces FOLDER, or state logs with --drafter")
    elif is_state_log(traces):
        _over_states(read_states(traces), [traces], list(map(read_file, paths)), short_names(*paths), as_json)
    else:
        _over_traces(traces, list(map(read_file, paths)), short_names(*paths), runtime, as_json)


def _over_traces(
    traces: Path, asked: Sequence[AskedDrafter], names: Sequence[str], runtime: str | None, as_json: bool
) -> None:
    """Graphs over a trace of plain decoding."""
    from calibrate.traces.table import read_traces
    from drafting.anchors import AnchorTable
    from drafting.provenance import trace_validity
    from drafting.replay import replay
    from drafting.runtime_replay import runtime_count
    from studies.runs.splits import searched_note
    from verify.runtimes.profiles import find_profile

    found = read_traces(traces)
    run = trace_validity(found.metadata)
    profile = find_profile(runtime) if runtime is not None else None
    if profile is not None:
        profile.check(run.policy, run.cache)
    anchors = AnchorTable.from_traces(found, max_depth=None)
    table = printing.plain_table(
        f"replay on {found.metadata['prompts']} prompts, {run.policy}, {run.cache} cache",
        {
            "graph": "left",
            "D": "right",
            "accepted\ndrafts": "right",
            "forwards\nplain": "right",
            "forwards\ngraph": "right",
            "nfe\nreduction": "right",
            "tokens per\nforward": "right",
            **({} if profile is None else {f"{profile.name}\nplain": "right", f"{profile.name}\ngraph": "right"}),
        },
    )
    notes, rows = [], []
    for one, name in zip(asked, names, strict=True):
        if one.graph is None:
            raise ValueError(
                f"{one.path} holds drafts that learn from rejected ones, which {traces}, a trace of plain decoding, "
                "does not know; record a state log (`draftgraph record --drafter`) and give that"
            )
        one.check_recording(run, traces)
        notes += [note] if (note := searched_note(one.said, one.provenance or {}, found)) else []
        value = replay(one.graph.nodes[1:], anchors)
        row: dict[str, Any] = {"graph": one.said, "drafts": one.graph.budget, **value.row()}
        counted: list[str] = []
        if profile is not None:
            count = runtime_count(one.graph.nodes[1:], found, profile, anchors)
            row["runtime"] = {"forwards_plain": count.plain_forwards, "forwards_predicted": count.forwards}
            counted = [str(count.plain_forwards), str(count.forwards)]
        rows.append(row)
        table.add_row(
            name,
            str(one.graph.budget),
            f"{value.accepted_drafts:.3f}",
            str(value.plain_forwards),
            str(value.forwards),
            f"{value.nfe_reduction:.3f}",
            f"{value.tokens_per_forward:.2f}",
            *counted,
        )
    if profile is not None:
        extra = profile.added_per_prompt
        saved = ", but to none that an accepted draft completes" if profile.adopts_complete else ""
        notes.append(
            f"{profile.name} counts at least {profile.least_per_block} forwards in a block and adds "
            f"{profile.added_per_block} to each{saved} ({profile.source})"
            + ("" if extra == "none" else f"; not counted here: {extra}")
        )
    if as_json:
        facts = {"traces": str(traces), "trace_hash": found.trace_hash(), "validity": asdict(run), "rows": rows}
        facts |= {} if profile is None else {"runtime": profile.name}
        printing.say(json.dumps(facts, indent=2))
    else:
        printing.show(table)
    _say(notes, as_json)


def _over_states(
    log: StateLog, folders: Sequence[Path], asked: Sequence[AskedDrafter], names: Sequence[str], as_json: bool
) -> None:
    """Any drafters over state logs."""
    from calibrate.progress import RichReporter
    from drafting.provenance import trace_validity
    from drafting.state_replay import replay_states
    from studies.runs.splits import searched_note

    run = trace_validity(log.metadata)
    for one in asked:
        # How many vocabulary ranks were recorded plays no part here: the replay asks for those that the drafter reads.
        kept = one.validity.top_j if one.validity is not None else run.top_j
        one.check_recording(replace(run, top_j=max(run.top_j, kept)), folders[0])
    rows = []
    for one, name in zip(asked, names, strict=True):
        with RichReporter(printing.errors).task(f"replay {name}", len(log.prompt_indices)) as advance_to:
            rows.append(state_row(one, replay_states(log, one.drafter, on_prompt=advance_to), log))
    if as_json:
        facts: dict[str, Any] = {"logs": list(map(str, folders)), "validity": asdict(run), "rows": rows}
        printing.say(json.dumps(facts, indent=2))
    else:
        show_states(log, names, rows)
    found = [searched_note(one.said, one.provenance, cast(Any, log)) for one in asked if one.provenance is not None]
    _say([*(note for note in found if note), *map(partial(certainty, log=log), asked, rows)], as_json)


def _say(notes: Sequence[str], as_json: bool) -> None:
    for note in notes:
        (printing.complain if as_json else printing.say)(note)
