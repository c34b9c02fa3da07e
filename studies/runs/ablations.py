"""Ablation studies: one thing varied, everything else held, each with held-out values and intervals.

A study is a list of settings. For each setting traces are recorded (or found again in the run directory), graphs are
searched on the search split, and replayed on the test split. Replay is exact (docs/method.md), so no model runs beyond
the recordings; ``benchmarks/identity.py`` holds replay and runtime together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from calibrate.bundled import DOMAINS
from calibrate.files import write_csv
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.progress import Reporter, SilentReporter
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.readings import READINGS
from drafting.trie import PrefixTrie
from figures.records.ablation import ALL_DOMAINS, ARROW, Ablation, AblationRow
from figures.records.record import save_record
from figures.records.run import RESULTS_NAME, Split
from studies.runs.configuration import CalibrationConfig, encoded_splits
from studies.runs.recordings import decode_config, record_split, recording_facts
from studies.runs.run_directory import TRACES, open_run, slug
from studies.statistics.intervals import interval_columns
from verify.layout import exactness
from verify.policies.specification import make_policy, without_sampling

#: Columns of a study's CSV, in order.
COLUMNS = (
    "study", "setting", "method", "reading", "budget", "nodes", "split", "prompts", "accepted_drafts",
    "accepted_drafts_low", "accepted_drafts_high", "nfe_reduction", "nfe_reduction_low", "nfe_reduction_high",
    "tokens_per_forward", "forwards_plain", "forwards_predicted", "bound", "gap", "search_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One cell of a study: a configuration with one policy, and perhaps a test set that is not its own.

    Attributes:
        label: how the cell is named in tables.
        config: its configuration; ``config.policies[0]`` is the policy.
        test_prompts_from: prompt source of the test split when it differs from that of the search split.
    """

    label: str
    config: CalibrationConfig
    test_prompts_from: str | None = None


def _one(base: CalibrationConfig, **changes: Any) -> CalibrationConfig:
    return replace(base, **changes)


def _policy(base: CalibrationConfig) -> Iterator[Setting]:
    for spec in ("static:1", "static:2", "threshold:0.95", "threshold:0.9", "threshold:0.8", "threshold:0.7"):
        yield Setting(spec, _one(base, policies=(spec,)))


def _block_length(base: CalibrationConfig) -> Iterator[Setting]:
    for length in (8, 16, 32):
        yield Setting(str(length), _one(base, block_length=length))


def _temperature(base: CalibrationConfig) -> Iterator[Setting]:
    for temperature in (0.0, 0.25, 0.5, 0.75, 1.0):
        policies = tuple(map(without_sampling, base.policies))
        yield Setting(f"{temperature:g}", _one(base, policies=policies, temperature=temperature))


def _domain(base: CalibrationConfig) -> Iterator[Setting]:
    sources = {domain: f"bundled/{domain}" for domain in DOMAINS} | {ALL_DOMAINS: "bundled"}
    for made_on, search in sources.items():
        for run_on, test in sources.items():
            yield Setting(f"{made_on}{ARROW}{run_on}", _one(base, prompts=search), test)


def _accumulation(base: CalibrationConfig) -> Iterator[Setting]:
    yield Setting(base.policies[0], _one(base, methods=tuple(f"published:{reading.rule}" for reading in READINGS)))


def _method(base: CalibrationConfig) -> Iterator[Setting]:
    for spec in ("static:1", "threshold:0.9"):
        yield Setting(spec, _one(base, policies=(spec,)))


@dataclass(frozen=True)
class Study:
    """A named study: what it asks, its settings, and the methods and budgets it uses unless told otherwise."""

    question: str
    settings: Callable[[CalibrationConfig], Iterator[Setting]]
    methods: tuple[str, ...] = ("chain", "published", "greedy")
    budgets: tuple[int, ...] = (3, 5, 8, 10, 16, 32)


STUDIES: dict[str, Study] = {
    "method": Study(
        "Which search finds the better graph for a budget?",
        _method,
        ("chain", "tree_greedy", "sequoia", "published", "greedy", "cut", "exact"),
    ),
    "accumulation": Study("Which reading of the published rule does best?", _accumulation),
    "domain": Study("What does a graph found on one domain do on another?", _domain, ("chain", "greedy"), (5, 10, 16)),
    "temperature": Study("What is left of the gain when tokens are sampled?", _temperature, budgets=(5, 10, 16)),
    "block-length": Study("How does the gain depend on the block length?", _block_length, budgets=(3, 5, 10, 16)),
    "policy": Study("How much is left to win under faster decode rules?", _policy, budgets=(3, 5, 10, 16)),
}  # fmt: skip


class StudyError(ValueError):
    """A study that is not known."""


def run_study(
    name: str,
    base: CalibrationConfig,
    out: str | Path,
    *,
    methods: Sequence[str] | None = None,
    budgets: Sequence[int] | None = None,
    overwrite: bool = False,
    overwrite_traces: bool = False,
    reporter: Reporter | None = None,
) -> list[AblationRow]:
    """Run a study into a run directory (``results.json``, ``study.csv``); a study that was stopped goes on.

    Args:
        name: one of :data:`STUDIES`.
        base: what is held; the study changes one thing of it. Its methods and budgets play no part.
        out: the run directory.
        methods: instead of the study's own.
        budgets: likewise.
        overwrite, overwrite_traces: as in ``studies.runs.run_directory.open_run``.
        reporter: shows progress.

    Returns:
        rows with :data:`COLUMNS`, of both splits.

    Raises:
        StudyError: no such study.
        ValueError: (and its subclasses) as in ``studies.runs.calibration.calibrate``.
    """
    if name not in STUDIES:
        raise StudyError(f"unknown study {name!r}, expected one of {', '.join(STUDIES)}")
    study = STUDIES[name]
    reporter = reporter or SilentReporter()
    base = replace(base, methods=tuple(methods or study.methods), budgets=tuple(budgets or study.budgets))
    if name == "accumulation" and methods:
        raise StudyError(
            "the accumulation study varies the readings of the published rule; --methods has no place there"
        )
    base.check()
    if not any(budget > 0 for budget in base.budgets):
        raise StudyError(f"a study needs a budget above 0, got {list(base.budgets)}")
    checkpoint = load_checkpoint(base.model, dtype=base.dtype, device=base.device, mask_token_id=base.mask_token_id)
    base, note = base.settled(checkpoint)
    decode = decode_config(base, checkpoint)
    if not exactness(decode.cache, decode.backend).exact:
        raise StudyError(
            f"cache {base.cache!r} with back-end {base.backend!r} is near-lossless, so a replay would not be what "
            "the runtime needs; use dual or block_causal, or --backend expanded"
        )
    settings = list(study.settings(base))
    for setting in settings:
        setting.config.check()
    reporter.say(note)
    facts = {"study": name, **asdict(base), "tool_version": tool_version(), "model_revision": checkpoint.revision}
    parts = [part for setting in settings for part in _recordings(setting, checkpoint)]
    recordings = {
        part.folder: recording_facts(part.config, part.config.policies[0], checkpoint, part.ids) for part in parts
    }
    path = open_run(out, facts, recordings, overwrite=overwrite, overwrite_traces=overwrite_traces)
    rows: list[AblationRow] = []
    for setting in settings:
        rows += _run_setting(name, setting, checkpoint, path, reporter)
        save_record(Ablation(tuple(rows), facts, study.question), path / RESULTS_NAME)
        write_csv(path / "study.csv", COLUMNS, rows)
    return rows


@dataclass(frozen=True)
class _Recording:
    """One split of a setting: its configuration, trace folder in the run, and prompts as token ids."""

    config: CalibrationConfig
    split: Split
    folder: str
    ids: Sequence[Sequence[int]]


def _recordings(setting: Setting, checkpoint: Checkpoint) -> list[_Recording]:
    config, test_source = setting.config, setting.test_prompts_from
    search_ids, test_ids = encoded_splits(replace(config, held_out=test_source or config.held_out), checkpoint)
    found = []
    parts: tuple[tuple[Split, Sequence[Sequence[int]], str], ...] = (
        ("search", search_ids, config.prompts),
        ("test", test_ids, test_source or "own"),
    )
    for split, ids, source in parts:
        # Recordings are shared between settings that decode the same prompts by the same rule.
        length = decode_config(config, checkpoint).block_length
        rule = make_policy(config.policies[0], config.temperature)
        plain = without_sampling(rule.spec)
        left = [part for part in rule.spec.removeprefix(plain).split(",") if part.startswith(("top_", "@top_"))]
        drawn = "-".join([f"T{rule.temperature:g}", *(slug(part.removeprefix("@")) for part in left)])
        name = "-".join([slug(plain), f"L{length}", drawn, split, slug(source)])
        found.append(_Recording(config, split, f"{TRACES}/{name}", ids))
    return found


def _run_setting(
    name: str, setting: Setting, checkpoint: Checkpoint, path: Path, reporter: Reporter
) -> list[AblationRow]:
    config = setting.config
    tables: dict[Split, AnchorTable] = {}
    for part in _recordings(setting, checkpoint):
        label = f"{setting.label}, {part.split}"
        spec, folder = config.policies[0], path / part.folder
        traces = record_split(config, spec, checkpoint, part.ids, folder, reporter, label)
        tables[part.split] = AnchorTable.from_traces(traces, max_depth=None)
    budgets = sorted(budget for budget in set(config.budgets) if budget > 0)
    trie = PrefixTrie.from_anchors(tables["search"])
    step_size = make_policy(config.policies[0], config.temperature).step_size
    problem = SearchInput(trie, decode_config(config, checkpoint).block_length, step_size)
    rows = []
    for method in config.methods:
        for budget, found in find_graphs(method, problem, budgets, certify=True).items():
            for split, anchors in tables.items():
                value = replay(found.nodes, anchors)
                columns: dict[str, Any] = interval_columns(value, seed=config.seed)
                row = AblationRow(
                    study=name,
                    setting=setting.label,
                    method=method,
                    budget=budget,
                    nodes=len(found.nodes),
                    reading=found.chosen or None if method.startswith("published") else None,
                    split=split,
                    **value.row(),
                    **columns,
                    bound=found.bound if split == "search" else None,
                    gap=found.gap if split == "search" else None,
                    search_seconds=found.seconds,
                )
                rows.append(row)
    return rows
