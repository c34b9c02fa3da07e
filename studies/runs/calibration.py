"""The whole path: record, search, predict, export, verify. One function, one run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.progress import Reporter, SilentReporter
from calibrate.recording.workers import Workers
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.graph import DraftGraph
from drafting.provenance import search_provenance, trace_validity
from drafting.replay import per_prompt
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.readings import READINGS
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from figures.records.record import save_record
from figures.records.run import RESULTS_NAME, Histogram, RankCounts, ReadingRow, ResultRow, Run, Split
from studies.runs.configuration import INFORMED, CalibrationConfig, encode_splits, prompt_splits
from studies.runs.evaluation import Measurement, measure, rank_counts, recorded_outputs
from studies.runs.informed import count_informed, log_facts, log_folder
from studies.runs.policy_run import Candidate, PolicyRun, compare_on_test
from studies.runs.recordings import decode_config, record_split, recording_facts, share_split
from studies.runs.run_directory import TRACES, open_run, slug
from studies.statistics.intervals import interval_columns, interval_fields
from verify.graph.file import save_graph
from verify.policies.specification import make_policy

SPLITS: tuple[Split, ...] = ("search", "test")


def calibrate(
    config: CalibrationConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    overwrite_traces: bool = False,
    reporter: Reporter | None = None,
    workers: Workers | None = None,
) -> Run | None:
    """Run the whole path and write the run directory; a run that was stopped goes on, also with more budgets, methods
    or policies.

    With ``workers`` all of them record, and then the leader goes on alone: what follows is a search on the host and a
    measurement whose time is compared. ``overwrite`` and ``overwrite_traces`` are those of
    ``studies.runs.run_directory.open_run``.

    Returns:
        what ``results.json`` holds; None on workers that do not lead.

    Raises:
        ValueError: (and its subclasses) a configuration that does not fit, see the parts.
        calibrate.recording.workers.WorkerError: a worker that failed or is lost; the recording goes on where it
            stopped.
    """
    reporter = reporter or SilentReporter()
    config.check()
    budgets = sorted(set(config.budgets))
    splits = prompt_splits(config)
    checkpoint = load_checkpoint(
        config.model,
        dtype=config.dtype,
        device=config.device if workers is None else workers.device(config.device),
        mask_token_id=config.mask_token_id,
        revision=config.revision,
    )
    config, note = config.settled(checkpoint)
    if workers is None or workers.leads:
        reporter.say(note)
    search_ids, test_ids = encode_splits(splits, checkpoint, chat=config.chat)
    plain_config = {**asdict(config), "tool_version": tool_version(), "model_revision": checkpoint.revision}
    del plain_config["batch_size"]  # a run may be continued with another; the shards say which it was
    parts = list(product(config.policies, (("search", search_ids), ("test", test_ids))))
    path = Path(out)
    if workers is None or workers.leads:
        recordings = {
            _trace_folder(spec, split): recording_facts(config, spec, checkpoint, ids) for spec, (split, ids) in parts
        } | {
            str(log_folder(_traces(spec), drafts, split)): log_facts(config, spec, checkpoint, ids, drafts)
            for spec, (split, ids) in parts
            for drafts in _informed_budgets(config)
        }
        open_run(path, plain_config, recordings, overwrite=overwrite, overwrite_traces=overwrite_traces)
    if workers is not None:
        for spec, (split, ids) in parts:
            folder = path / _trace_folder(spec, split)
            share_split(config, spec, checkpoint, ids, folder, reporter, f"{spec}, {split}", workers)
        if not workers.leads:
            return None
    results = Run((), plain_config, directory=path)
    for spec in config.policies:
        run = _record_policy(config, spec, checkpoint, search_ids, test_ids, path, reporter)
        _search_policy(config, run, checkpoint, test_ids, path, reporter, budgets)
        counts = rank_counts(run.search, run.decode.block_length, run.search_traces.top_j)
        results = replace(
            results,
            rows=(*results.rows, *run.rows),
            comparisons=(*results.comparisons, *run.comparisons),
            readings=(*results.readings, *run.readings),
            histograms=(*results.histograms, *run.histograms),
            rank_counts=(*results.rank_counts, RankCounts(spec, "search", **counts)),
        )
        save_record(results, path / RESULTS_NAME)
    return results


def _traces(spec: str) -> Path:
    """The recordings of a policy, in the run directory."""
    return Path(TRACES) / slug(spec)


def _trace_folder(spec: str, split: str) -> str:
    return (_traces(spec) / split).as_posix()


def _informed_budgets(config: CalibrationConfig) -> list[int]:
    """The budgets of which state logs are recorded, ascending."""
    return sorted({budget for budget in config.budgets if budget > 0}) if INFORMED in config.methods else []


def _record_policy(
    config: CalibrationConfig,
    spec: str,
    checkpoint: Checkpoint,
    search_ids: Sequence[Sequence[int]],
    test_ids: Sequence[Sequence[int]],
    path: Path,
    reporter: Reporter,
) -> PolicyRun:
    traces = {
        split: record_split(
            config, spec, checkpoint, ids, path / _trace_folder(spec, split), reporter, f"{spec}, {split}"
        )
        for split, ids in (("search", search_ids), ("test", test_ids))
    }
    search = AnchorTable.from_traces(traces["search"], max_depth=None)
    informed = {
        (drafts, split): count_informed(
            config, spec, checkpoint, ids, path / log_folder(_traces(spec), drafts, split), drafts, reporter, split
        )
        for drafts in _informed_budgets(config)
        for split, ids in (("search", search_ids), ("test", test_ids))
    }
    return PolicyRun(
        policy=make_policy(spec, config.temperature),
        decode=decode_config(config, checkpoint),
        search=search,
        test=AnchorTable.from_traces(traces["test"], max_depth=None),
        trie=PrefixTrie.from_anchors(search),
        search_traces=traces["search"],
        plain=recorded_outputs(traces["test"], len(test_ids)),
        informed=informed,
    )


def _search_policy(
    config: CalibrationConfig,
    run: PolicyRun,
    checkpoint: Checkpoint,
    test_ids: Sequence[Sequence[int]],
    path: Path,
    reporter: Reporter,
    budgets: Sequence[int],
) -> None:
    problem = SearchInput(run.trie, run.decode.block_length, run.policy.step_size)
    drafting = [budget for budget in budgets if budget > 0]
    graphs: list[Candidate] = []
    for method in config.methods:
        if method == INFORMED:
            graphs += [Candidate(INFORMED, None, budget, SearchResult(INFORMED, budget)) for budget in drafting]
            continue
        found = find_graphs(method, problem, drafting, certify=config.certify)
        graphs += [Candidate(method, graph.chosen if method == "published" else None, budget, graph)
                   for budget, graph in found.items()]  # fmt: skip
        if method == "published":
            _value_readings(run, problem, drafting)
    if 0 in budgets:
        graphs.insert(0, Candidate("plain", None, 0, SearchResult("plain", 0)))
    measured_ids = test_ids[: config.measured_prompts]
    with reporter.task(f"verify {run.policy.spec}", len(graphs) * len(measured_ids)) as advance_to:
        done = 0

        def one_more() -> None:
            nonlocal done
            done += 1
            advance_to(done)

        for graph in graphs:
            measured = measured_ids and measure(
                checkpoint, measured_ids, run.policy, run.decode, graph.drafter(), run.plain,
                batch_size=config.batch_size,
                cache=path / "measured" / f"{graph.stem(run.policy)}.json", on_prompt=one_more,
            )  # fmt: skip
            _report(config, run, path, graph, measured or None)
    run.comparisons += compare_on_test(run, graphs, config.seed)


def _value_readings(run: PolicyRun, problem: SearchInput, budgets: Sequence[int]) -> None:
    """Every reading of the published rule with all states as candidates, replayed on both splits: only reported."""
    for reading in READINGS:
        for budget, found in find_graphs(f"published:{reading.rule}", problem, budgets).items():
            for split in SPLITS:
                value = run.replay(found.nodes, split)
                run.readings.append(ReadingRow(run.policy.spec, reading.rule, budget, split, **value.row()))


def _report(
    config: CalibrationConfig,
    run: PolicyRun,
    path: Path,
    graph: Candidate,
    measured: Measurement | None,
) -> None:
    nodes = graph.found.nodes
    counts = {split: run.counts(graph, split) for split in SPLITS}
    graph_path = None
    if nodes:
        graph_path = f"graphs/{graph.stem(run.policy)}.json"
        _export(config, run, path / graph_path, graph, counts)
    for split, found in counts.items():
        on_test = split == "test"
        columns: dict[str, Any] = interval_columns(found, seed=config.seed)
        row = ResultRow(
            method=graph.method,
            reading=graph.reading,
            budget=graph.budget,
            nodes=None if graph.method == INFORMED else len(nodes),
            policy=run.policy.spec,
            cache=run.decode.cache,
            split=split,
            **found.row(),
            **columns,
            bound=graph.found.bound if not on_test else None,
            gap=graph.found.gap if not on_test else None,
            search_seconds=None if graph.method == INFORMED else graph.found.seconds,
            measured_prompts=(measured.prompts if measured else 0) if on_test else None,
            **_measured_columns(measured if on_test else None, found),
            exact=config.exact,
            graph=graph_path,
        )
        run.rows.append(row)
        histogram = tuple(found.visited_histogram.tolist())
        run.histograms.append(Histogram(graph.method, graph.budget, run.policy.spec, split, histogram))


def _measured_columns(measured: Measurement | None, predicted: DecodeCounts) -> dict[str, Any]:
    """What the verifier counted, beside what replay predicts for the same prompts; all None where it did not run."""
    return {
        "forwards_measured": measured and measured.forwards,
        "forwards_predicted_measured": measured and int(predicted.forwards_per_prompt[: measured.prompts].sum()),
        "tokens_identical": measured and measured.tokens_identical,
        "query_tokens": measured and measured.query_tokens,
        "seconds": measured and measured.seconds,
    }


def _export(
    config: CalibrationConfig,
    run: PolicyRun,
    path: Path,
    graph: Candidate,
    counts: Mapping[Split, DecodeCounts],
) -> None:
    draft_graph = DraftGraph.from_formulas(graph.found.nodes, run.policy.step_size).annotate(run.trie)
    values: dict[str, dict[str, Any]] = {
        split: found.row()
        | interval_fields(found, seed=config.seed)
        | {"per_prompt": per_prompt(draft_graph.draft_nodes(), run.search if split == "search" else run.test)}
        for split, found in counts.items()
    }
    if graph.found.bound is not None:
        values["search"] |= {"bound": graph.found.bound, "gap": graph.found.gap}
    recorded = run.search_traces
    provenance = search_provenance(
        recorded.metadata,
        recorded.trace_hash(),
        graph.method,
        graph.budget,
        recorded.prompt_hashes(),
        reading=graph.reading,
        seed=config.seed,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_graph(draft_graph.to_graph_file(trace_validity(recorded.metadata), provenance, values), path)
