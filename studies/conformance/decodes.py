"""Checks of whole decodes: they end, drafts change nothing, replays predict them, and rejected drafts leave no mark."""

from __future__ import annotations

import copy
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from calibrate.recording.states import can_be_logged, record_states
from drafting.anchors import AnchorTable
from drafting.pruned_replay import PrunedReplay
from drafting.replay import ReplayResult, replay
from drafting.state_replay import replay_states
from studies.conformance.drafters import DRAFTERS, Meddler, graph_of, pruned
from studies.conformance.failures import Nonconformance, same
from studies.conformance.stage import MASK_ID, PROMPTS, Decoded, config_of, decoded, stage_checkpoint
from verify.decoding import DecodeConfig
from verify.drafters.informed import InformedDrafter
from verify.layout import SequenceLayout
from verify.policies.contract import BlockView, Commits, Policy
from verify.policies.randomness import StepRandom

#: Prompts of a decode of one sequence at a time; a batch has them all.
ALONE = 2
#: What single decodes are compared in, for messages.
_COUNTED = ("tokens", "steps")


def check_progress(policy: Policy, context: tuple[str, str]) -> None:
    """Plain decodes end, with every position committed; every step commits, where the policy says so."""
    found = decoded(policy, context)
    for key, commits in found.commits().items():
        if not commits and not policy.may_do_nothing:
            raise Nonconformance(f"policy {policy.spec} committed nothing in step {key}, which it says it never does")
    for number, result in found.results.items():
        if MASK_ID in result.tokens or result.forwards != result.steps:
            raise Nonconformance(f"prompt {number} under {policy.spec}: {result} is no whole plain decode")


def check_lossless(policy: Policy, context: tuple[str, str], drafter: str, batch: int) -> None:
    """With drafts, and several sequences at a time, the steps are those of plain decoding: the same tokens at the same
    positions in the same order.

    Args:
        policy: the policy.
        context: cache mode and back-end, one of :data:`~studies.conformance.stage.EXACT`.
        drafter: one of :data:`~studies.conformance.drafters.DRAFTERS`.
        batch: sequences at a time.
    """
    prompts = PROMPTS if batch > 1 else PROMPTS[:ALONE]
    plain = decoded(policy, context, prompts=prompts)
    fast = decoded(policy, context, DRAFTERS[drafter](policy), batch=batch, prompts=prompts)
    _expect_equal(policy, plain, fast, f"with {drafter}, {batch} at a time ({' '.join(context)})")


def check_replayed(policy: Policy, context: tuple[str, str]) -> None:
    """The forwards that a replay of plain traces predicts for a graph, a chain and a pruned graph are those counted."""
    plain = decoded(policy, context)
    traces = plain.traces.build()
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    for name in ("random graph", "chain", "pruned graph"):
        drafter = pruned(policy)
        nodes = DRAFTERS["chain"](policy) if name == "chain" else graph_of(policy)
        if name == "pruned graph":
            predicted: ReplayResult = PrunedReplay(traces).replay(drafter.pruner)
        else:
            predicted = replay(nodes, anchors)  # type: ignore[arg-type]
        fast = decoded(policy, context, drafter if name == "pruned graph" else nodes, batch=4)
        _expect_equal(policy, plain, fast, f"with a {name} ({' '.join(context)})")
        counted = [fast.results[number].forwards for number in sorted(fast.results)]
        if predicted.forwards_per_prompt.tolist() != counted:
            raise Nonconformance(
                f"policy {policy.spec} with a {name} ({' '.join(context)}): a replay of its traces predicts "
                f"{predicted.forwards_per_prompt.tolist()} forwards by prompt, but {counted} were counted"
            )


def check_replayed_states(policy: Policy, context: tuple[str, str]) -> None:
    """The forwards that a replay of a state log predicts for an informed drafter are those counted; passes for a policy
    that reads logits, which no log holds.
    """
    if not can_be_logged(policy):
        return
    drafter, config, prompts = InformedDrafter(4), config_of(policy, context), PROMPTS[:3]
    with TemporaryDirectory() as folder:
        log = record_states(stage_checkpoint(), prompts, policy, config, folder, drafter, batch_size=3)
    try:
        predicted = replay_states(log, drafter)
    except Exception as error:
        raise Nonconformance(
            f"the state log of a decode under {policy.spec} cannot be replayed: {type(error).__name__}: {error}"
        ) from error
    results = decoded(policy, context, drafter, prompts=prompts).results
    counted = [results[number].forwards for number in sorted(results)]
    if not predicted.exact or predicted.forwards_per_prompt.tolist() != counted:
        raise Nonconformance(
            f"policy {policy.spec} with informed drafts ({' '.join(context)}): a replay of its state log predicts "
            f"{predicted.forwards_per_prompt.tolist()} forwards by prompt ({predicted.missed} states missed), but "
            f"{counted} were counted"
        )


def check_rejected_drafts(policy: Policy, context: tuple[str, str], batch: int = 4) -> None:
    """Drafts that are rejected, and questions about states that are never reached, leave no mark: the decode asks the
    policy once a step, with the very state that follows from the steps before it alone.
    """
    plain = decoded(policy, context)
    for remembers in (False, True):
        noting, untouched = _Noting(policy), copy.deepcopy(policy)
        meddler = Meddler(policy, _reached(plain, config_of(policy, context)), remembers=remembers)
        fast = decoded(noting, context, meddler, batch=batch)
        where = f"with many wrong drafts, {batch} at a time ({' '.join(context)})"
        noting.expect_no_marks(untouched, where)
        _expect_equal(policy, plain, fast, where)
        several = any(len(states) > 3 for states in meddler.reached.values())
        if several and not meddler.asked:
            raise AssertionError("the meddler asked nothing; this check would prove nothing")
        longest = max(max(result.accepted) for result in fast.results.values())
        if several and not longest and not policy.may_do_nothing:
            raise Nonconformance(
                f"policy {policy.spec} {where}: drafts of the very states that plain decoding reaches were never "
                "accepted"
            )


class _Noting:
    """A policy that is asked by a decode, with what it was asked at every step; a drafter asks the policy inside."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.calls: dict[tuple[int, int, int], list[tuple[BlockView, Any, StepRandom]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        key = rng.prompt_index, rng.block, rng.step
        self.calls.setdefault(key, []).append((view, copy.deepcopy(state), rng))
        return self._policy.step(view, state, rng)

    def expect_no_marks(self, untouched: Policy, where: str) -> None:
        """Ask a policy that saw no draft the same questions again: to the bit, its states are those of the decode."""
        expected: dict[int, Any] = {}
        for key, calls in sorted(self.calls.items()):
            view, state, rng = calls[0]
            before = expected[key[0]] if key[0] in expected else untouched.initial_state()
            if len(calls) > 1 or not same(state, before):
                raise Nonconformance(
                    f"policy {untouched.spec} {where}: at (prompt, block, step) {key} it was asked {len(calls)} times, "
                    f"with the state {state!r}, but {before!r} follows from the steps before; a rejected draft or a "
                    "question about one must leave no mark"
                )
            _, expected[key[0]] = untouched.step(view, before, rng)


def _reached(plain: Decoded, config: DecodeConfig) -> dict[tuple[int, int], list[np.ndarray]]:
    """By prompt and block: the block as it began, perhaps with a tail of the prompt, and after every step."""
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for (number, block, _), commits in sorted(plain.commits().items()):
        if (number, block) not in found:
            prompt = np.array(PROMPTS[number])
            start = SequenceLayout.make(
                len(prompt), config.generation_length, config.block_length, config.cache
            ).block_starts[block]
            began = np.full(config.block_length, MASK_ID, dtype=np.int64)
            tail = prompt[start : start + config.block_length]
            began[: len(tail)] = tail
            found[number, block] = [began]
        state = found[number, block][-1].copy()
        state[list(commits)] = list(commits.values())
        found[number, block].append(state)
    return found


def _expect_equal(policy: Policy, plain: Decoded, fast: Decoded, where: str) -> None:
    before, now = plain.commits(), fast.commits()
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise Nonconformance(
                f"policy {policy.spec} {where} parts from plain decoding at (prompt, block, step) {key}: it commits "
                f"{now.get(key)}, plain decoding {before.get(key)}"
            )
    for number, result in plain.results.items():
        for name in _COUNTED:
            first, second = getattr(result, name), getattr(fast.results[number], name)
            if first != second:
                raise Nonconformance(
                    f"policy {policy.spec} {where}: prompt {number} has {name} {second}, plain decoding {first}"
                )
