"""The whole path: record, search, predict, export, verify. One function, one run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calibrate.checkpoints import Checkpoint, load_checkpoint
from calibrate.prompts import encode_prompts, load_prompt_set
from calibrate.recorder import record
from calibrate.traces import Traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.graph import DraftGraph
from drafting.trie import PrefixTrie
from drafting.values import accepted_histogram, alive_nodes
from studies.construction import Construction
from studies.evaluation import Measurement, Prediction, measure, predict, rank_counts, recorded_outputs
from studies.methods import PUBLISHED_READINGS, SearchInput, build_method, check_method
from studies.progress import Reporter, SilentReporter
from studies.run_directory import open_run, slug, write_results
from verify.decode import DecodeConfig
from verify.formulas import Formula
from verify.graph_file import Validity, save_graph
from verify.layout import SequenceLayout, exactness
from verify.policies import Policy, make_policy


@dataclass(frozen=True)
class CalibrationConfig:
    """Everything a calibration run depends on; written to ``config.json`` as it is.

    ``search_prompts`` and ``test_prompts`` cut the splits; None takes them whole. ``prompts`` and ``held_out`` are
    ``bundled`` or JSONL files; a file for ``prompts`` without one for ``held_out`` is cut in two, by prompt.
    """

    model: str = "bundled"
    prompts: str = "bundled"
    held_out: str | None = None
    policies: tuple[str, ...] = ("threshold:0.9",)
    temperature: float = 0.0
    block_length: int = 32
    generation_length: int = 96
    context: str = "dual"
    backend: str = "packed"
    budgets: tuple[int, ...] = (0, 3, 5, 8, 10)
    methods: tuple[str, ...] = ("chain", "published", "greedy")
    top_j: int = 8
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    search_prompts: int | None = 64
    test_prompts: int | None = 24
    mask_token_id: int | None = None


@dataclass(eq=False)
class PolicyRun:
    """One policy's part of a run: its traces and what became of them."""

    policy: Policy
    decode: DecodeConfig
    search: AnchorTable
    test: AnchorTable
    trie: PrefixTrie
    search_traces: Traces
    plain: list[list[int]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    readings: list[dict[str, Any]] = field(default_factory=list)
    histograms: list[dict[str, Any]] = field(default_factory=list)


def calibrate(
    config: CalibrationConfig, out: str | Path, *, overwrite: bool = False, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Run the whole path and write the run directory; a run that was stopped goes on.

    Returns:
        the content of ``results.json``.

    Raises:
        ValueError: (and its subclasses) a configuration that does not fit, see the parts.
    """
    reporter = reporter or SilentReporter()
    for spec in config.policies:
        make_policy(spec, config.temperature)
    exactness(config.context, config.backend)
    budgets = sorted(set(config.budgets))
    if not budgets or budgets[0] < 0:
        raise ValueError(f"budgets must be numbers of drafts of at least 0, got {list(config.budgets)}")
    for method in config.methods:
        if method != "published":
            check_method(method)
    SequenceLayout.make(1, config.generation_length, config.block_length, config.context)
    search_set, test_set = _prompt_sets(config)
    checkpoint = load_checkpoint(
        config.model, dtype=config.dtype, device=config.device, mask_token_id=config.mask_token_id
    )
    _check_attention(checkpoint, config.context)
    vocabulary = checkpoint.denoiser.vocabulary_size
    search_ids = encode_prompts(search_set, checkpoint.tokenizer, vocabulary)
    test_ids = encode_prompts(test_set, checkpoint.tokenizer, vocabulary)
    plain_config = {**asdict(config), "tool_version": tool_version(), "model_revision": checkpoint.revision}
    path = open_run(out, plain_config, overwrite)
    sections: dict[str, Any] = {"rows": [], "readings": [], "histograms": [], "rank_counts": []}
    for spec in config.policies:
        run = _record_policy(config, spec, checkpoint, search_ids, test_ids, path, reporter, max(budgets))
        _search_policy(config, run, checkpoint, test_ids, path, reporter, budgets)
        sections["rows"] += run.rows
        sections["readings"] += run.readings
        sections["histograms"] += run.histograms
        counts = rank_counts(run.search, config.block_length, run.search_traces.top_j)
        sections["rank_counts"].append({"policy": spec, "split": "search", **counts})
        write_results(path, plain_config, sections)
    return {"config": plain_config, **sections}


def _prompt_sets(config: CalibrationConfig) -> tuple[list[Any], list[Any]]:
    search = load_prompt_set(config.prompts, "calibration")
    if config.held_out is not None or config.prompts.partition("/")[0] == "bundled":
        test = load_prompt_set(config.held_out or config.prompts, "test")
    else:
        if len(search) < 2:
            raise ValueError(
                f"{config.prompts} holds one prompt; a search and a held-out split need at least two, "
                "or give --held-out"
            )
        search, test = search[::2], search[1::2]
    return search[: config.search_prompts], test[: config.test_prompts]


def _check_attention(checkpoint: Checkpoint, context: str) -> None:
    wanted = "block_causal" if context == "block_causal" else "bidirectional"
    if checkpoint.attention and wanted not in checkpoint.attention:
        raise ValueError(
            f"context {context!r} needs {wanted} attention, but {checkpoint.name} was trained for "
            f"{', '.join(checkpoint.attention)}"
        )


def _record_policy(
    config: CalibrationConfig,
    spec: str,
    checkpoint: Checkpoint,
    search_ids: Sequence[Sequence[int]],
    test_ids: Sequence[Sequence[int]],
    path: Path,
    reporter: Reporter,
    largest: int,
) -> PolicyRun:
    policy = make_policy(spec, config.temperature)
    decode_config = DecodeConfig(
        block_length=config.block_length,
        generation_length=config.generation_length,
        context=config.context,
        backend=config.backend,
        end_token_ids=checkpoint.end_token_ids,
        top_j=config.top_j,
        seed=config.seed,
    )
    traces = {}
    for split, ids in (("search", search_ids), ("test", test_ids)):
        with reporter.task(f"record {spec}, {split}", len(ids)) as advance_to:
            traces[split] = record(
                checkpoint, ids, policy, decode_config, path / "traces" / slug(spec) / split,
                on_prompt=lambda done, _: advance_to(done),
            )  # fmt: skip
    search = AnchorTable.from_traces(traces["search"], max_depth=None)
    return PolicyRun(
        policy=policy,
        decode=decode_config,
        search=search,
        test=AnchorTable.from_traces(traces["test"], max_depth=None),
        trie=PrefixTrie.from_anchors(search, max_depth=max(largest, 1)),
        search_traces=traces["search"],
        plain=recorded_outputs(traces["test"], len(test_ids)),
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
    given = SearchInput(run.trie, max(budgets), config.block_length, run.policy.step_size)
    built: list[tuple[str, str | None, Construction]] = []
    for method in config.methods:
        if method == "published":
            built.append((method, *_best_reading(run, given, budgets)))
        else:
            built.append((method, None, build_method(method, given)))
    graphs: list[tuple[str, str | None, int, tuple[Formula, ...]]] = []
    for method, reading, construction in built:
        for budget in budgets:
            if budget > 0:
                graphs.append((method, reading, budget, construction.order[:budget]))
    if 0 in budgets:
        graphs.insert(0, ("plain", None, 0, ()))
    with reporter.task(f"verify {run.policy.spec}", len(graphs) * len(test_ids)) as advance_to:
        done = 0

        def one_more() -> None:
            nonlocal done
            done += 1
            advance_to(done)

        for graph in graphs:
            name, _, budget, nodes = graph
            stem = f"{slug(run.policy.spec)}-{slug(name)}-D{budget}"
            measured = measure(
                checkpoint, test_ids, run.policy, run.decode, nodes, run.plain,
                cache=path / "measured" / f"{stem}.json", on_prompt=one_more,
            )  # fmt: skip
            _report(config, run, checkpoint, path, graph, measured, stem)


def _best_reading(run: PolicyRun, given: SearchInput, budgets: Sequence[int]) -> tuple[str, Construction]:
    """The reading of the published rule with the fewest forwards on the *search* split, summed over the budgets."""
    best: tuple[int, str, Construction] | None = None
    for reading in PUBLISHED_READINGS:
        construction = build_method(f"published:{reading}", given)
        total = 0
        for budget in budgets:
            nodes = construction.order[:budget]
            for split, anchors in (("search", run.search), ("test", run.test)):
                found = predict(nodes, anchors)
                total += found.forwards_predicted if split == "search" else 0
                run.readings.append(
                    {
                        "policy": run.policy.spec,
                        "reading": reading,
                        "budget": budget,
                        "split": split,
                        **asdict(found),
                    }
                )
        if best is None or total < best[0]:
            best = (total, reading, construction)
    assert best is not None
    return best[1], best[2]


def _report(
    config: CalibrationConfig,
    run: PolicyRun,
    checkpoint: Checkpoint,
    path: Path,
    graph: tuple[str, str | None, int, tuple[Formula, ...]],
    measured: Measurement,
    stem: str,
) -> None:
    name, reading, budget, nodes = graph
    predictions: dict[str, Prediction] = {
        "search": predict(nodes, run.search),
        "test": predict(nodes, run.test),
    }
    graph_path = None
    if nodes:
        graph_path = f"graphs/{stem}.json"
        _export(config, run, checkpoint, path / graph_path, graph, predictions)
    for split, found in predictions.items():
        counts = found.visited_counts
        row = {
            "method": name,
            "reading": reading,
            "budget": budget,
            "nodes": len(nodes),
            "policy": run.policy.spec,
            "context": config.context,
            "split": split,
            **{key: value for key, value in asdict(found).items() if key != "visited_counts"},
            "forwards_measured": measured.forwards if split == "test" else None,
            "tokens_identical": measured.tokens_identical if split == "test" else None,
            "rows_computed": measured.rows if split == "test" else None,
            "seconds": measured.seconds if split == "test" else None,
            "exact": exactness(config.context, config.backend).exact,
            "graph": graph_path,
        }
        run.rows.append(row)
        run.histograms.append(
            {"method": name, "budget": budget, "policy": run.policy.spec, "split": split, "counts": counts}
        )


def _export(
    config: CalibrationConfig,
    run: PolicyRun,
    checkpoint: Checkpoint,
    path: Path,
    graph: tuple[str, str | None, int, tuple[Formula, ...]],
    predictions: dict[str, Prediction],
) -> None:
    name, reading, budget, nodes = graph
    draft_graph = DraftGraph.from_formulas(nodes, run.policy.step_size)
    values = {
        split: {key: value for key, value in asdict(found).items() if key != "visited_counts"}
        for split, found in predictions.items()
    }
    ordered = draft_graph.draft_nodes()
    counts, reach = node_statistics(ordered, run.trie)
    provenance = {
        "tool": "draftgraph",
        "tool_version": tool_version(),
        "search": name,
        "reading": reading,
        "budget": budget,
        "seed": config.seed,
        "trace_hash": run.search_traces.trace_hash(),
        "prompt_set_hash": run.search_traces.metadata["prompt_set_hash"],
        "prompts": int(run.search_traces.metadata["prompts"]),
        "dtype": config.dtype,
        "generation_length": config.generation_length,
        "node_counts": [int(run.trie.total), *counts],
        "node_reach": [1.0, *reach],
        "accepted_histogram": accepted_histogram(ordered, run.search).tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_graph(draft_graph.to_graph_file(validity(config, run, checkpoint), provenance, values), path)


def validity(config: CalibrationConfig, run: PolicyRun, checkpoint: Checkpoint) -> Validity:
    """For whom a graph found in this run is valid."""
    return Validity(
        model=checkpoint.name,
        model_revision=checkpoint.revision,
        policy=run.policy.spec,
        block_length=config.block_length,
        context=config.context,
        temperature=config.temperature,
        top_j=run.search_traces.top_j,
    )


def node_statistics(nodes: Sequence[Formula], trie: PrefixTrie) -> tuple[list[int], list[float]]:
    """Per node: anchors whose chain contains it, and the share of anchors at which this graph accepts it."""
    alive = alive_nodes(nodes, trie)
    ids = trie.state_ids(nodes)
    counts, reach = [], []
    for state in ids.tolist():
        counts.append(int(trie.state_count[state]) if state >= 0 else 0)
        accepted = trie.count[alive & (trie.state == state)].sum() if state >= 0 else 0
        reach.append(float(accepted / trie.total) if trie.total else 0.0)
    return counts, reach
