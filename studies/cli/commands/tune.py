"""``tune``: Optuna tunes the settings of informed drafts on state logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.cli import options, printing
from studies.cli.guard import command
from studies.cli.outputs import check_output

if TYPE_CHECKING:
    from calibrate.traces.state_log import StateLog
    from studies.tuning.informed_study import Tuned, TuningConfig
    from verify.graph.file import GraphFile


@command()
def tune_command(
    logs: Annotated[list[Path], typer.Argument(help="State logs of the prompts to tune on; of the same decodes.")],
    test: Annotated[
        list[Path], typer.Option("--test", help="State logs of prompts that no trial sees; may come several times.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The drafter file to write.")],
    drafts: Annotated[int, typer.Option("--drafts", min=1, help="Drafts per forward.")] = 10,
    graph: Annotated[
        Path | None, typer.Option("--graph", help="A graph file whose formulas may get rows beside the chain.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Finished trials, over all workers.")] = 60,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampler.")] = 0,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="A journal file, sqlite:///, postgresql://, grpc://HOST:PORT; default memory."),
    ] = None,
    study_name: Annotated[str, typer.Option("--study-name", help="Name of the study in its storage.")] = "tune",
    overwrite: options.OverwriteOption = False,
) -> None:
    """Tune informed drafts with Optuna on state logs, without a model; judge them on other prompts.

    Record the logs with --drafts and more, for example `record --drafter informed --drafts 20,10`: settings that
    propose states which no log knows are judged too low. Started again with a storage, it goes on.
    """
    import optuna

    from calibrate.progress import RichReporter
    from calibrate.traces.state_log import read_states
    from studies.runs.splits import check_disjoint, check_same_run
    from studies.tuning.informed_study import TuningConfig, judge, tuning_question
    from studies.tuning.shared_study import work_on

    check_output(out, overwrite)
    log, held = read_states(logs), read_states(test)
    check_same_run([("the logs to tune on", log.metadata), ("--test", held.metadata)])
    asked = None if graph is None else _graph(graph, logs[0], log)
    searched = sorted({*log.prompt_hashes(), *_searched(asked)})
    check_disjoint([("the logs to tune on, or the graph's own prompts,", searched), ("--test", held.prompt_hashes())])
    config = TuningConfig(drafts, () if asked is None else asked.nodes[1:], seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with RichReporter(printing.console).task("tune", trials) as advance_to:
        done = work_on(
            tuning_question(log, config), trials, storage=storage, name=study_name, on_trial=advance_to
        )  # fmt: skip
    found = judge(done.study, log, held, config)
    _save(found, config, log, held, searched, out)
    _say(found, config, log)
    printing.say("drafter ", printing.bold(out))


def _graph(path: Path, folder: Path, log: StateLog) -> GraphFile:
    """A graph file that fits the log in ``folder``; how many vocabulary ranks were recorded plays no part."""
    from drafting.provenance import trace_validity
    from studies.cli.drafters import drafter_of_graph

    asked, run = drafter_of_graph(path), trace_validity(log.metadata)
    assert asked.graph is not None and asked.validity is not None
    asked.check_recording(replace(run, top_j=max(run.top_j, asked.validity.top_j)), folder)
    return asked.graph


def _searched(graph: GraphFile | None) -> list[str]:
    """The hashes of the prompts that a graph was found on, as far as its file says so."""
    from drafting.provenance import SEARCHED_PROMPTS

    named = graph.provenance.get(SEARCHED_PROMPTS) if graph is not None else None
    return [found for found in named if isinstance(found, str)] if isinstance(named, list) else []


def _save(
    found: Tuned, config: TuningConfig, log: StateLog, held: StateLog, searched: Sequence[str], out: Path
) -> None:
    from calibrate.version import tool_version
    from drafting.provenance import SEARCHED_PROMPTS, trace_validity
    from studies.statistics.intervals import interval_fields
    from verify.drafters.file import DrafterFile, save_drafter

    difference = found.comparison.nfe_reduction_difference
    values = {
        "search": {"nfe_reduction": 1 / found.value, "nfe_reduction_default": 1 / found.default_value},
        "test": {
            **found.chosen.row(),
            **interval_fields(found.chosen, seed=config.seed),
            "missed": found.chosen.missed,
            "nfe_reduction_default": found.default.nfe_reduction,
            "nfe_reduction_difference_interval": difference.pair(),
        },
    }
    provenance = {
        "search": "tune",
        "trial": found.trial,
        "seed": config.seed,
        "log_hashes": [log.log_hash(), held.log_hash()],
        SEARCHED_PROMPTS: list(searched),
        "tool_version": tool_version(),
    }
    formulas = config.formulas if found.settings.uses_graph else ()
    save_drafter(
        DrafterFile(config.drafts, found.settings, formulas, trace_validity(log.metadata), values, provenance), out
    )


def _say(found: Tuned, config: TuningConfig, log: StateLog) -> None:
    from studies.tuning.informed_study import changes

    usual = asdict(found.settings)
    changed = changes(found.settings)
    named = ", ".join(f"{name} {usual[name]}" for name in changed) or "the default settings"
    printing.say(f"trial {found.trial} is the best on the {len(log.prompt_indices)} prompts tuned on: {named}")
    table = printing.plain_table(
        f"{config.drafts} informed drafts on {found.chosen.prompts} test prompts",
        {"settings": "left", "forwards": "right", "nfe\nreduction": "right", "drafted\nblocks": "right",
         "states\nmissed": "right"},
    )  # fmt: skip
    for name, count in (("default", found.default), ("tuned", found.chosen)):
        table.add_row(
            name, str(count.forwards), f"{count.nfe_reduction:.3f}", f"{count.drafted_blocks:.2f}",
            f"{count.missed} of {count.proposed}",
        )  # fmt: skip
    printing.show(table)
    printing.say(found.comparison.sentence("tuned settings", "default settings"))
    if not found.exact:
        printing.say(
            "The test log does not know every state that was proposed, so these forwards are too many rather than too "
            "few. For the exact count record the test prompts with the tuned drafter (record --drafter FILE) and "
            "evaluate that log."
        )
