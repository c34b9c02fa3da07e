"""``study``: Optuna tunes a graph, with as many workers as join."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli.guard import EXIT_BAD_INPUT, EXIT_INTERRUPTED, command
from studies.cli.lists import parse_list

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from studies.tuning.optuna_study import StudyConfig
    from studies.tuning.study_data import StudyInput


JOURNAL_NAME = "study.journal"


@command()
def study_command(
    traces: Annotated[Path, typer.Argument(help="A trace folder written by `draftgraph record`.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory for study.json and the graphs; none: only work.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Test recording; by default a quarter of the prompts is kept apart.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind", help="forwards; query_tokens (Pareto: against their cost); domains (Pareto: two domains)."
        ),
    ] = "forwards",
    budgets: Annotated[str, typer.Option("--budgets", help="Draft nodes, 3,5,10 or 0-16.")] = "3,5,8,10,16",
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Finished trials, over all workers; may end with workers - 1 more.")
    ] = 200,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Parts the search prompts are cut into.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the folds and of the sampler.")] = 0,
    prune: Annotated[
        float | None, typer.Option("--prune", help="Wilcoxon-prune trials at this p-value, for example 0.1.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="A journal file, sqlite:///, postgresql://, grpc://HOST:PORT; default memory."),
    ] = None,
    study_name: Annotated[str, typer.Option("--study-name", help="Name of the study in its storage.")] = "draftgraph",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes to start on this machine.")] = 1,
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="The prompt set that was recorded, for its domains.")
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Tune the parametric constructor with Optuna; started again, or elsewhere, it joins the study in the storage.

    Every worker ends the trial it is in when --trials are finished, so the study may hold up to one more per other
    worker.
    """
    import optuna

    from calibrate.progress import RichReporter
    from figures.records.study import STUDY_NAME
    from studies.tuning.optuna_study import StudyConfig, run_study, study_facts
    from studies.tuning.pareto import pareto_results
    from studies.tuning.shared_study import StudyError, finished_trials
    from studies.tuning.storage import is_shared, shown
    from studies.tuning.study_data import load_study_input
    from studies.tuning.study_results import check_study_output, study_results, write_study

    chosen: Any = kind
    config = StudyConfig(
        kind=chosen, budgets=parse_list(budgets, int, "--budgets"), folds=folds, seed=seed, prune=prune
    )
    if workers > 1 and not is_shared(storage):
        if out is None:
            raise StudyError("several workers need a storage they share; give --storage, or --out for a journal there")
        storage = str(out / JOURNAL_NAME)
    source = load_study_input(traces, config, test=test, prompts=prompts)
    facts = study_facts(source.data, config)
    if out is not None:
        check_study_output(out / STUDY_NAME, facts["config"], facts["trace_hash"], overwrite)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _say_what_is_there(source, config)
    others = _start_workers(workers - 1, traces, test, prompts, config, trials, storage, study_name)
    try:
        with RichReporter(printing.console).task(f"study {kind}", trials) as advance_to:
            done = run_study(
                source.data, config, trials,
                storage=storage, name=study_name, on_trial=advance_to,
            )  # fmt: skip
    finally:
        for process in others:
            process.join()
    printing.say(f"{finished_trials(done.study)} trials finished in {shown(storage)}, {done.own} of them here")
    if out is None:
        return
    if config.kind != "forwards":
        results = pareto_results(source, config, done.study)
        path = write_study(out, results, overwrite)
        _print_front(results)
    else:
        results = study_results(source, config, done.study)
        path = write_study(out, results, overwrite)
        _write_graphs(out, source, results)
        _print_results(results)
    printing.say("saved in ", printing.bold(path))


def work(
    traces: Path,
    test: Path | None,
    prompts: str | None,
    config: StudyConfig,
    trials: int,
    storage: str,
    name: str,
) -> None:
    """One more local worker; what goes wrong is said on the standard error output."""
    import optuna

    from studies.tuning.optuna_study import run_study
    from studies.tuning.study_data import load_study_input

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        source = load_study_input(traces, config, test=test, prompts=prompts)
        run_study(source.data, config, trials, storage=storage, name=name)
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except (ValueError, RuntimeError, OSError) as error:
        printing.complain(printing.red("a worker stopped: "), str(error))
        raise SystemExit(EXIT_BAD_INPUT) from None


def _start_workers(count: int, *arguments: Any) -> Sequence[BaseProcess]:
    # spawn, not fork: a fork of a process with open connections and threads shares them.
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    return processes


def _say_what_is_there(source: StudyInput, config: StudyConfig) -> None:
    objective = source.data.objective
    printing.say(
        f"{len(objective.prompt_indices)} search prompts in {len(objective.held_out)} folds, "
        f"{len(source.test.prompt_indices())} test prompts kept apart, {len(objective.names)} parameters"
    )
    if objective.states < objective.budgets[-1]:
        printing.say(
            printing.yellow(
                f"the smallest fold leaves {objective.states} candidate states; "
                f"graphs of a larger budget than that hold them all"
            )
        )


def _write_graphs(out: Path, source: StudyInput, results: dict[str, Any]) -> None:
    from drafting.graph import DraftGraph
    from drafting.provenance import search_provenance, trace_validity
    from studies.runs.run_directory import slug
    from studies.tuning.study_results import OPTUNA
    from verify.graph.file import save_graph

    validity = trace_validity(source.facts)
    step_size = source.data.objective.step_size
    nodes = [tuple((int(i), int(j)) for i, j in node) for node in results["best"]["nodes"]]
    values = {(row["method"], row["budget"], row["split"]): row for row in results["baselines"]}
    for budget in source.data.objective.budgets:
        graph = DraftGraph.from_formulas(nodes[:budget], step_size)
        provenance = search_provenance(
            source.facts,
            source.data.trace_hash,
            OPTUNA,
            budget,
            [source.facts["prompt_hashes"][prompt_index] for prompt_index in source.data.objective.prompt_indices],
            params=results["best"]["params"],
            trials=len(results["trials"]),
        )
        forwards = {
            split: {key: values[OPTUNA, budget, split][key] for key in ("forwards", "forwards_plain", "nfe_reduction")}
            for split in ("validation", "test")
        }
        path = out / "graphs" / f"{slug(validity.policy)}-{OPTUNA}-D{budget}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_graph(graph.to_graph_file(validity, provenance, forwards), path)


def _print_results(results: dict[str, Any]) -> None:
    from studies.tuning.study_results import BASELINES, OPTUNA

    rows = [row for row in results["baselines"] if row["split"] == "test"]
    budgets = sorted({row["budget"] for row in rows})
    headings = {"method": "left"} | {f"D = {budget}": "right" for budget in budgets}
    table = printing.plain_table("NFE reduction on test prompts", headings)
    value = {(row["method"], row["budget"]): row["nfe_reduction"] for row in rows}
    for method in (*BASELINES, OPTUNA):
        table.add_row(method, *[f"{value[method, budget]:.3f}" for budget in budgets])
    printing.show(table)
    for method in ("published", "greedy", "exact"):
        printing.say(results["comparisons"][method]["sentence"])


def _print_front(results: dict[str, Any]) -> None:
    from studies.tuning.study_results import OPTUNA

    axes = [f"{axis['name']} {axis.get('domain', '')}".strip() for axis in results["axes"]]
    table = printing.plain_table("Pareto front of the study", dict.fromkeys([*axes, "on test prompts"], "right"))
    for row in results["pareto"]:
        if row["method"] == OPTUNA:
            tested = ", ".join(f"{value:.3f}" for value in row["test_values"] or ()) or "-"
            table.add_row(*[f"{value:.3f}" for value in row["values"]], tested)
    printing.show(table)
