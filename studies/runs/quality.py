"""Quality against forward passes: what an unmasking rule costs in valid answers, and what drafts save of its forwards.

Every rule decodes the held-out prompts once without drafts, and a checker says of every answer whether it is valid
(:mod:`calibrate.prompts.checking`). In an exact mode drafts change no token, so the share of valid answers is that of
the plain decode, and forwards come from replay: of the plain traces for graphs, of state logs for informed drafts. Both
are put to the test on some prompts, which are really decoded with every drafter. Where no identity is promised, and
for a drafter that no state log can hold, all prompts are decoded with the drafts and those answers are checked.

One graph per rule and budget is searched on the search prompts of all tasks together: a server has one, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.files import write_csv
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.progress import Reporter, SilentReporter
from calibrate.prompts.checking import CheckError, checker_for
from calibrate.prompts.prompt import Prompt
from calibrate.recording.states import can_be_logged
from calibrate.traces.table import Traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.result import SearchResult
from drafting.trie import PrefixTrie
from figures.records.quality import PLAIN, QUALITY_COLUMNS, QUALITY_NAME, LeftOut, Quality, QualityRow
from figures.records.record import save_record
from studies.runs.configuration import INFORMED, CalibrationConfig, encode_splits, prompt_splits
from studies.runs.evaluation import Measurement, measure, recorded_outputs
from studies.runs.informed import count_informed, log_facts, log_folder
from studies.runs.policy_run import Candidate
from studies.runs.recordings import decode_config, record_split, recording_facts
from studies.runs.run_directory import TRACES, open_run, slug
from studies.statistics.intervals import PromptBootstrap
from studies.statistics.shares import Share
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy

#: The task of prompts that name none.
NO_DOMAIN = "all prompts"
CSV_NAME = "quality.csv"


class QualityError(ValueError):
    """A study that cannot say what an answer is worth."""


def all_rules(block_length: int) -> tuple[str, ...]:
    """A rule of every kind that the library has, for blocks of ``block_length``, from few commits a step to many."""
    half, most = max(1, block_length // 2), max(1, 3 * block_length // 4)
    several = (
        "static:1", "static:2", "static:4",
        *(f"threshold:{tau}" for tau in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)),
        f"quota:{most}", "dynamic:0.9:2", *(f"dream:{order}:{half}" for order in ("confidence", "margin", "entropy")),
    )  # fmt: skip
    there = {spec.partition(":")[0] for spec in several} | {"learn2pd"}  # a learned filter fits one model only
    return several + tuple(
        rule.examples[0] for rule in BUILT_IN.values() if not rule.stands_for and rule.name not in there
    )


def measure_quality(
    config: CalibrationConfig,
    out: str | Path,
    *,
    run_code: bool = False,
    overwrite: bool = False,
    overwrite_traces: bool = False,
    reporter: Reporter | None = None,
) -> Quality:
    """Run the study into a run directory (``quality.json``, ``quality.csv``); one that was stopped goes on.

    Args:
        config: what is decoded, and how; ``policies`` are the rules (none: :func:`all_rules`), ``methods`` and
            ``budgets`` the drafters. ``measured_prompts`` of the test prompts are decoded with every drafter; all of
            them where no identity is promised.
        out: the run directory.
        run_code: whether programs that the model wrote may run here.
        overwrite, overwrite_traces: as in ``studies.runs.run_directory.open_run``.
        reporter: shows progress.

    Raises:
        QualityError: no answer can be checked, the model has no tokenizer, or no budget above 0.
        ValueError: (and its subclasses) as in ``studies.runs.calibration.calibrate``.
    """
    reporter = reporter or SilentReporter()
    replace(config, policies=config.policies or ("static:1",), methods=_searched(config)).check()
    if not any(config.budgets):
        raise QualityError(f"drafts need a budget above 0, got {list(config.budgets)}")
    search, test = prompt_splits(config)
    test, left_out = checkable(test, run_code)
    for group in left_out:
        reporter.say(f"left out {group.prompts} of {len(test) + sum(g.prompts for g in left_out)} held-out prompts: "
                     f"{group.reason}")  # fmt: skip
    if not test:
        raise QualityError(
            "no held-out prompt has answers that can be checked: " + "; ".join(group.reason for group in left_out)
        )
    checkpoint = load_checkpoint(
        config.model, dtype=config.dtype, device=config.device, mask_token_id=config.mask_token_id,
        revision=config.revision,
    )  # fmt: skip
    if checkpoint.tokenizer is None:
        raise QualityError(f"{checkpoint.name} has no tokenizer, so its answers are no text that could be checked")
    rules, note = _rules(config, checkpoint)
    reporter.say(note)
    search_ids, test_ids = encode_splits((search, test), checkpoint, chat=config.chat)
    study = _Study(checkpoint, Path(out), reporter, test, search_ids, test_ids)
    facts = {"study": "quality", **asdict(rules[0]), "policies": [rule.policies[0] for rule in rules],
             "run_code": run_code, "tool_version": tool_version(), "model_revision": checkpoint.revision}  # fmt: skip
    facts |= {"methods": list(config.methods)}  # of the first rule some may be missing
    del facts["batch_size"]  # a run may be continued with another; the shards say which it was
    recordings = {folder: found for rule in rules for folder, found in study.recordings(rule)}
    open_run(out, facts, recordings, overwrite=overwrite, overwrite_traces=overwrite_traces)
    quality = Quality((), facts, left_out)
    for rule in rules:
        quality = replace(quality, rows=(*quality.rows, *study.rows(rule, config.methods, run_code)))
        save_record(quality, study.path / QUALITY_NAME)
        write_csv(study.path / CSV_NAME, QUALITY_COLUMNS, quality.rows)
    return quality


def checkable(prompts: Sequence[Prompt], run_code: bool) -> tuple[list[Prompt], tuple[LeftOut, ...]]:
    """The prompts whose answers can be checked, and how many of the others there are by reason."""
    kept, reasons = [], dict[str, int]()
    for prompt in prompts:
        try:
            checker_for(prompt, run_code=run_code)
        except CheckError as error:
            reasons[str(error)] = reasons.get(str(error), 0) + 1
        else:
            kept.append(prompt)
    return kept, tuple(LeftOut(reason, count) for reason, count in reasons.items())


def _searched(config: CalibrationConfig) -> tuple[str, ...]:
    return tuple(method for method in config.methods if method != INFORMED)


def _rules(config: CalibrationConfig, checkpoint: Checkpoint) -> tuple[list[CalibrationConfig], str]:
    """One configuration per rule, all with the blocks and the cache of the first, and a line that says which."""
    first, note = replace(config, policies=config.policies[:1] or ("static:1",), methods=_searched(config)).settled(
        checkpoint
    )
    specs = config.policies or all_rules(decode_config(first, checkpoint).block_length)
    rules = {}
    for spec in specs:
        rule, _ = replace(first, policies=(spec,), temperature=config.temperature).settled(checkpoint)
        if INFORMED in config.methods and can_be_logged(make_policy(spec, config.temperature)):
            rule = replace(rule, methods=(*rule.methods, INFORMED))
        rules[rule.policies[0]] = rule
    return list(rules.values()), note


@dataclass(eq=False)
class _Study:
    """What all rules of a study share; the answers that were checked are not checked again."""

    checkpoint: Checkpoint
    path: Path
    reporter: Reporter
    test: Sequence[Prompt]
    search_ids: Sequence[Sequence[int]]
    test_ids: Sequence[Sequence[int]]
    _checked: dict[tuple[int, tuple[int, ...]], bool] = field(default_factory=dict)

    def recordings(self, rule: CalibrationConfig) -> Iterator[tuple[str, dict[str, object]]]:
        """Trace folder in the run, and the facts of its recording, of everything that a rule needs."""
        spec = rule.policies[0]
        for split, ids in (("search", self.search_ids), ("test", self.test_ids)):
            if split == "test" or _searched(rule):
                yield _folder(spec, split), recording_facts(rule, spec, self.checkpoint, ids)
        if INFORMED in rule.methods:
            for drafts in _budgets(rule):
                folder = log_folder(Path(TRACES) / slug(spec), drafts, "test").as_posix()
                yield folder, log_facts(rule, spec, self.checkpoint, self.test_ids, drafts)

    def rows(self, rule: CalibrationConfig, methods: Sequence[str], run_code: bool) -> list[QualityRow]:
        """The rows of one rule: by task, without drafts and with each drafter."""
        spec = rule.policies[0]
        traces = self._record(rule, "test", self.test_ids)
        anchors = AnchorTable.from_traces(traces, max_depth=None)
        plain = recorded_outputs(traces, len(self.test))
        steps = replay((), anchors).forwards_per_prompt
        valid = self._valid(spec, plain, run_code)
        rows = [self._row(rule, _NO_DRAFTS, where, domain, steps, steps, valid) for domain, where in self._domains()]
        for candidate in self._candidates(rule, methods):
            counts = self._counts(rule, candidate, anchors)
            replayed = counts is not None and rule.exact
            measured = self._measure(rule, candidate, plain, rule.measured_prompts if replayed else None)
            answers = list(plain)
            for number, tokens in measured.differing:
                answers[number] = tokens
            forwards = np.array(measured.forwards_per_prompt)
            if replayed and counts is not None:
                forwards, own = counts.forwards_per_prompt, valid
            else:
                own = self._valid(f"{spec}, {candidate.method} {candidate.budget}", answers, run_code)
            for domain, where in self._domains():
                rows.append(
                    self._row(rule, candidate, where, domain, steps, forwards, own, measured, replayed=replayed)
                )
        return sorted(rows, key=lambda row: [domain for domain, _ in self._domains()].index(row.domain))

    def _domains(self) -> list[tuple[str, np.ndarray]]:
        """Every task with the indices of its prompts, in the order of the prompts."""
        names = [prompt.domain or NO_DOMAIN for prompt in self.test]
        return [(name, np.flatnonzero(np.array(names) == name)) for name in dict.fromkeys(names)]

    def _record(self, rule: CalibrationConfig, split: str, ids: Sequence[Sequence[int]]) -> Traces:
        spec = rule.policies[0]
        folder = self.path / _folder(spec, split)
        return record_split(rule, spec, self.checkpoint, ids, folder, self.reporter, f"{spec}, {split}")

    def _candidates(self, rule: CalibrationConfig, methods: Sequence[str]) -> Iterator[Candidate]:
        problem = None
        for method in methods:
            if method == INFORMED:
                for budget in _budgets(rule):
                    yield Candidate(INFORMED, None, budget, SearchResult(INFORMED, budget))
                continue
            if problem is None:
                trie = PrefixTrie.from_anchors(
                    AnchorTable.from_traces(self._record(rule, "search", self.search_ids), max_depth=None)
                )
                step_size = make_policy(rule.policies[0], rule.temperature).step_size
                problem = SearchInput(trie, decode_config(rule, self.checkpoint).block_length, step_size)
            for budget, found in find_graphs(method, problem, _budgets(rule)).items():
                yield Candidate(method, None, budget, found)

    def _counts(self, rule: CalibrationConfig, candidate: Candidate, anchors: AnchorTable) -> DecodeCounts | None:
        """What recordings say of a drafter; None where they cannot."""
        if candidate.method != INFORMED:
            return replay(candidate.found.nodes, anchors)
        if INFORMED not in rule.methods or not rule.exact:
            return None
        spec, drafts = rule.policies[0], candidate.budget
        folder = self.path / log_folder(Path(TRACES) / slug(spec), drafts, "test")
        return count_informed(rule, spec, self.checkpoint, self.test_ids, folder, drafts, self.reporter, "test")

    def _measure(
        self, rule: CalibrationConfig, candidate: Candidate, plain: Sequence[Sequence[int]], limit: int | None
    ) -> Measurement:
        policy = make_policy(rule.policies[0], rule.temperature)
        ids, done = self.test_ids[:limit], 0
        if not ids:
            return Measurement(0, [], 0, 0, 0, 0.0, [])
        with self.reporter.task(f"decode {policy.spec}, {candidate.method} {candidate.budget}", len(ids)) as advance_to:

            def one_more() -> None:
                nonlocal done
                done += 1
                advance_to(done)

            return measure(
                self.checkpoint, ids, policy, decode_config(rule, self.checkpoint), candidate.drafter(), plain,
                batch_size=rule.batch_size, cache=self.path / "measured" / f"{candidate.stem(policy)}.json",
                on_prompt=one_more,
            )  # fmt: skip

    def _valid(self, label: str, outputs: Sequence[Sequence[int]], run_code: bool) -> np.ndarray:
        """Whether each answer is valid: bool [M]. An answer ends before its first end token."""
        found = np.zeros(len(outputs), dtype=bool)
        task = self.reporter if run_code else SilentReporter()  # only running code takes time
        with task.task(f"check {label}", len(outputs)) as advance_to:
            for number, (prompt, tokens) in enumerate(zip(self.test, outputs, strict=True)):
                end = next((k for k, token in enumerate(tokens) if token in self.checkpoint.end_token_ids), None)
                answer = list(tokens[:end])
                key = (number, tuple(answer))
                if key not in self._checked:
                    check = checker_for(prompt, run_code=run_code)
                    self._checked[key] = check(prompt, self.checkpoint.text(answer) or "")
                found[number] = self._checked[key]
                advance_to(number + 1)
        return found

    def _row(
        self,
        rule: CalibrationConfig,
        candidate: Candidate,
        where: np.ndarray,
        domain: str,
        steps: np.ndarray,
        forwards: np.ndarray,
        valid: np.ndarray,
        measured: Measurement | None = None,
        replayed: bool = False,
    ) -> QualityRow:
        """One row: of the prompts ``where`` (int [N]), from columns [M] over all prompts."""
        share = Share.of(valid[where].tolist())
        plain, own = steps[where], forwards[where]
        intervals: dict[str, Any] = {}
        if len(where) > 1:
            bootstrap = PromptBootstrap(len(where), seed=rule.seed)
            for name, found in (("forwards", bootstrap.ratio(own, np.ones(len(where)))),
                                ("nfe_reduction", bootstrap.ratio(plain, own))):  # fmt: skip
                intervals |= {f"{name}_low": found.low, f"{name}_high": found.high}
        row = QualityRow(
            domain=domain, policy=rule.policies[0], method=candidate.method, budget=candidate.budget,
            prompts=share.prompts, valid=share.count, valid_low=share.low, valid_high=share.high,
            forwards=float(own.mean()), nfe_reduction=float(plain.sum() / own.sum()), exact=rule.exact,
            replayed=replayed, nodes=len(candidate.found.nodes) or None, **intervals,
        )  # fmt: skip
        if measured is None:
            return row
        decoded = where[where < measured.prompts]
        differing = {number for number, _ in measured.differing}
        return replace(
            row,
            measured_prompts=len(decoded),
            measured_identical=sum(number not in differing for number in decoded.tolist()),
            forwards_measured=int(np.array(measured.forwards_per_prompt, dtype=np.int64)[decoded].sum()),
            forwards_predicted=int(forwards[decoded].sum()) if replayed else None,
        )


_NO_DRAFTS = Candidate(PLAIN, None, 0, SearchResult(PLAIN, 0))


def _folder(spec: str, split: str) -> str:
    return f"{TRACES}/{slug(spec)}/{split}"


def _budgets(rule: CalibrationConfig) -> list[int]:
    return sorted({budget for budget in rule.budgets if budget > 0})
