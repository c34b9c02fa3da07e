"""What a step of a rule costs beside a forward: which rules are measured where, and what is made of the times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import rule_cost
from benchmarks.rule_cost import DRAWN, STATES, Chain, Job, State, jobs_of, measure, recorded_states, run, step_seconds
from calibrate.models.shapes import LLADA_TINY
from verify.policies.contract import BlockView, Commits
from verify.policies.randomness import StepRandom
from verify.policies.registry import BUILT_IN
from verify.policies.specification import make_policy
from verify.ranking import rank_rows

LENGTH, MASK = 4, 1


def states() -> list[State]:
    """Four positions masked down to one, seven tokens."""
    logits = torch.randn(LENGTH, 7, generator=torch.Generator().manual_seed(1))
    return [State(np.arange(first, LENGTH), logits[first:]) for first in range(LENGTH)]


@pytest.fixture
def chains() -> list[Chain]:
    return [Chain(STATES, states(), MASK, width) for width in (9, 40)]


@dataclass
class Time:
    """A clock that goes on only where it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """A rule whose step takes a second per masked position, and one more for each step that it remembers."""

    spec, ranks, monotone, may_do_nothing, step_size, temperature = "slow", 1, True, False, 1, 0.0

    def __init__(self, time: Time, needs: str) -> None:
        self.time, self.needs = time, needs

    def initial_state(self) -> int:
        return 0

    def step(self, view: BlockView, state: int, rng: StepRandom) -> tuple[Commits, int]:
        assert rng.step == state + 1
        self.time.now += len(view.positions) + state
        return Commits(view.positions[:1], view.tokens[:1, 0]), state + 1


def test_every_example_is_measured_at_every_width_that_it_notices(chains: list[Chain]) -> None:
    own = [Chain("klass:0.9", states(), MASK, 9)]
    found = [(job.policy.spec, job.chain.name, job.chain.vocabulary) for job in jobs_of(chains, own) if job.registered]
    expected = set()
    for rule in BUILT_IN.values():
        for policy in map(make_policy, rule.examples):
            widths = (40,) if policy.needs == "ranks" else (9, 40)
            expected |= {(policy.spec, STATES, width) for width in widths}
    assert len(found) == len(set(found)) and set(found) == expected | {("klass:0.9", "klass:0.9", 9)}
    drawn = [job for job in jobs_of(chains) if not job.registered]
    assert [job.policy.spec for job in drawn] == [make_policy(text).spec for text in DRAWN for _ in chains]


def test_states_are_a_decode_of_the_bundled_model_one_position_after_the_other() -> None:
    seen, mask = recorded_states("static:1", 8)
    assert [len(state.masked) for state in seen] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert all(set(after.masked) < set(before.masked) for before, after in pairwise(seen))
    assert all(torch.isneginf(state.logits[:, mask]).all() for state in seen)
    faster, _ = recorded_states("threshold:0.5", 8)
    assert len(faster) < 8


def test_a_wider_vocabulary_leaves_confidences_and_entropies_as_they_are(chains: list[Chain]) -> None:
    for number, state in enumerate(states()):
        view = chains[1].view(number, True)
        tokens, probability, entropies = rank_rows(state.logits, MASK, 2, True)
        rows = view.positions - state.masked[0]
        assert view.logits().shape == (LENGTH - number, 40)
        np.testing.assert_array_equal(view.tokens, tokens[rows])
        np.testing.assert_allclose(view.probabilities, probability[rows], rtol=1e-6)
        assert entropies is not None
        np.testing.assert_allclose(view.entropies(), entropies[rows], atol=1e-6)
    with pytest.raises(ValueError, match="the vocabulary is 6, expected at least the 7"):
        Chain(STATES, states(), MASK, 6)


def test_history_is_handed_on_from_state_to_state(chains: list[Chain]) -> None:
    time = Time()
    assert step_seconds(Slow(time, "ranks"), chains[0], range(4), time) == [4.0, 4.0, 4.0, 4.0]
    assert step_seconds(Slow(time, "ranks"), chains[0], [0, 3], time) == [4.0, 2.0]


def test_shares_are_of_the_forward_before_and_entropies_are_charged(
    chains: list[Chain], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    forwards: Iterator[float] = iter([1.0] * 2 + [100.0] * 2 + [200.0] * 2 + [400.0] * 2)

    def rank(logits: torch.Tensor, mask: int, top_j: int, entropies: bool) -> Any:
        time.now += 3.0 + 10.0 * entropies
        return rank_rows(logits, mask, top_j, entropies)

    monkeypatch.setattr(rule_cost, "rank_rows", rank)
    jobs = [Job(Slow(time, needs), chains[0], True) for needs in ("ranks", "entropy")]
    plain, charged = measure(jobs, lambda: next(forwards), 3, time)
    assert next(forwards, None) is None
    assert (plain["step_ms"], plain["entropies_ms"], plain["dearest_state_ms"]) == (4000.0, 0.0, 4000.0)
    assert (plain["share_of_a_forward"], plain["quartiles"]) == (0.02, [0.015, 0.03])
    assert plain["within_limit"] and plain["vocabulary"] is None
    assert (charged["step_ms"], charged["entropies_ms"], charged["dearest_state_ms"]) == (4000.0, 10000.0, 14000.0)
    assert charged["share_of_a_forward"] == 0.07 and not charged["within_limit"] and charged["vocabulary"] == 9


def test_a_run_says_what_missed_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_cost, "LENGTH", 8)
    monkeypatch.setattr(rule_cost, "LIMIT", 0.5)
    ticks = count()
    found = run(LLADA_TINY, [80, 90], 2, clock=lambda: next(ticks))  # a step takes as long as a forward
    assert found["masked"][STATES] == [8, 7, 6, 5, 4, 3, 2, 1] and not found["passed"]
    rows = [row for row in found["rows"] if row["registered"]]
    assert found["missed"] == [[row["policy"], row["vocabulary"], row["states_of"]] for row in rows]
    assert {row["vocabulary"] for row in rows if row["reads"] == "logits"} == {80, 90}
    assert {row["states_of"] for row in rows} == {STATES, "credit:0.9", "klass:0.9"}
    assert all(row["share_of_a_forward"] == 1.0 and row["entropies_ms"] == 0.0 for row in found["rows"])
