"""Policies that are broken in one way each, and the check that is meant for it."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from drafting.replay import replay
from drafting.state_replay import replay_states
from studies.conformance import decodes
from studies.conformance.declarations import check_attributes, check_spec
from studies.conformance.decodes import (
    check_lossless,
    check_progress,
    check_rejected_drafts,
    check_replayed,
    check_replayed_states,
)  # fmt: skip
from studies.conformance.failures import Nonconformance, same
from studies.conformance.stage import MASK_ID
from studies.conformance.steps import (
    check_declared_needs,
    check_expected_views,
    check_mask_token,
    check_purity,
    check_thresholds,
    check_views_to_the_end,
    side_of,
)  # fmt: skip
from verify.drafters.informed import InformedDrafter
from verify.policies.base import BasePolicy
from verify.policies.confidence import Dynamic, StaticTopK, Threshold
from verify.policies.contract import Commits
from verify.policies.parameters import Number
from verify.policies.specification import make_policy

DUAL = ("dual", "packed")


class Broken:
    """static:1 as somebody would write it without our base class."""

    spec, needs, ranks, monotone, may_do_nothing = "static:1", "ranks", 1, True, False
    step_size, temperature = None, 0.0

    def initial_state(self):
        return 0

    def step(self, view, state, rng):
        count, state = self.count(view, state, rng)
        return Commits(view.positions[:count], view.tokens[:count, 0]), state

    def count(self, view, state, rng):
        return 1, state


class Dice(Broken):
    """Draws from the global generator."""

    def count(self, view, state, rng):
        return int(np.random.randint(1, 4)), state


class Counting(Broken):
    """Counts its own steps, in itself."""

    seen = 0

    def count(self, view, state, rng):
        self.seen += 1
        return 1 + self.seen % 2, state


class ClassCounting(Broken):
    """Counts its own steps where every copy sees them."""

    seen = 0

    def count(self, view, state, rng):
        ClassCounting.seen += 1
        return 1 + ClassCounting.seen % 3, state


class InPlace(Broken):
    """Appends to the list that it was given."""

    def initial_state(self):
        return []

    def count(self, view, state, rng):
        state.append(rng.step)
        return 1 + len(state) % 2, state


class Drifting(Broken):
    """Moves its state in place by less than float32 rounds, and commits the same."""

    def initial_state(self):
        return np.zeros(1)

    def count(self, view, state, rng):
        state += 1e-9
        return 1, state


class NewStateFromNothing(Broken):
    """The same commits, another state every time."""

    def count(self, view, state, rng):
        return 1, np.random.random()


class Incomparable(Broken):
    """A state that says nothing of itself."""

    def initial_state(self):
        return object()


class Scribbling(Broken):
    """Sorts in the view."""

    def count(self, view, state, rng):
        view.probabilities[:, 0] = 0.0
        return 1, state


class Idle(Broken):
    """Commits nothing where it is unsure."""

    def count(self, view, state, rng):
        return int(view.probabilities[0, 0] > 0.9), state


class Waiting(Idle):
    """The same, and says so; it waits for ever."""

    may_do_nothing = True


class Masking(Broken):
    """Leaves what it is unsure of masked, as rules do that commit an arg-max that is the mask token."""

    def step(self, view, state, rng):
        unsure = view.probabilities[:1, 0] < 0.9
        return Commits(view.positions[:1], np.where(unsure, MASK_ID, view.tokens[:1, 0])), state


class Committed(Broken):
    """Commits a position that is not masked."""

    def step(self, view, state, rng):
        return Commits(np.array([state]), view.tokens[:1, 0]), state + 1


class Liar(Broken):
    """Commits one, and says two."""

    step_size = 2


class Margin(Broken):
    """Reads the second token, and does not say so."""

    def count(self, view, state, rng):
        return 1 + int(view.probabilities[0, 0] - view.probabilities[0, 1] > 0.2), state


class Sums(Broken):
    """Its answer depends on how many vocabulary ranks were kept."""

    def count(self, view, state, rng):
        return 1 + int(view.probabilities[0].sum() > 0.8), state


class Entropic(Broken):
    """Reads entropies, and does not say so."""

    def count(self, view, state, rng):
        return 1 + int(view.entropies()[0] < 1.0), state


class Raising(Margin):
    """Declares the second token, but a view without one is a TypeError."""

    ranks = 2

    def count(self, view, state, rng):
        if view.tokens.shape[1] < 2:
            raise TypeError("no second rank")
        return super().count(view, state, rng)


class Leaking(Broken):
    """Remembers the last question, whoever asked it: once it was asked out of turn it goes another way."""

    last = None

    def count(self, view, state, rng):
        turn = (rng.prompt_index, rng.block, rng.step)
        jumped = rng.step > 1 and self.last != (rng.prompt_index, rng.block, rng.step - 1)
        self.last = turn
        return 1 + int(jumped), state


class PerBatch(Broken):
    """Remembers in itself how many were masked when the block began: right for one sequence at a time."""

    masked = 0

    def count(self, view, state, rng):
        if rng.step == 1:
            self.masked = len(view.positions) + rng.prompt_index
        return 1 + self.masked % 2, state


@dataclass(frozen=True)
class Rounded(Threshold):
    """Writes its threshold with one digit."""

    @property
    def spec(self):
        return f"threshold:{self.tau:.1f}"


@dataclass(frozen=True)
class Third(BasePolicy):
    """At its threshold it does a third thing."""

    tau: float
    name = "third"
    parameters = (Number("tau"),)

    def choose(self, found, state, rng):
        equal, above = found.confidences == self.tau, found.confidences > self.tau
        return (3 if equal.any() else max(1, int(above.sum()))), state


def named(**changes):
    policy = Broken()
    for name, value in changes.items():
        setattr(policy, name, value)
    return policy


ALONE_AND_FOUR = partial(check_lossless, context=DUAL, drafter="no drafts", batch=4)
REJECTED = partial(check_rejected_drafts, context=DUAL, batch=1)
PROGRESS = partial(check_progress, context=DUAL)

BROKEN = [
    (named(needs="all"), check_attributes, "needs is 'all', expected one of ranks, entropy, logits"),
    (named(ranks=0), check_attributes, "ranks is 0, expected an integer of at least 1"),
    (named(step_size=0), check_attributes, "step_size is 0, expected None or"),
    (named(temperature=float("nan")), check_attributes, "temperature is nan"),
    (named(spec="nowhere:1"), check_spec, "cannot be made again from its own spec: unknown policy 'nowhere:1'"),
    (named(), check_spec, "gives StaticTopK.*, expected the very same policy"),
    (Rounded(0.87), check_spec, "names every parameter to its last bit"),
    (Dice(), check_purity, "is not pure: commits"),
    (Counting(), check_purity, "is not pure: commits"),
    (ClassCounting(), check_purity, "is not pure: commits"),
    (NewStateFromNothing(), check_purity, "is not pure: new state"),
    (Incomparable(), check_purity, "is not equal to its own copy"),
    (InPlace(), check_purity, r"changed the state that it was given, from \[\] to \[1\]"),
    (InPlace(), REJECTED, "must leave no mark"),
    (Drifting(), REJECTED, "must leave no mark"),
    (Scribbling(), check_purity, "changed the probabilities of the view"),
    (Idle(), check_views_to_the_end, "committed nothing, which it declares it never does"),
    (Idle(), PROGRESS, "committed nothing, which it declares it never does"),
    (Waiting(), check_views_to_the_end, "committed nothing in 64 steps in a row"),
    (Waiting(), PROGRESS, "it would never end"),
    (Masking(), check_views_to_the_end, "committed the mask token 1; it is never a candidate"),
    (Masking(), PROGRESS, "committed the mask token 1"),
    (Committed(), check_views_to_the_end, "expected distinct ones of the masked"),
    (Liar(), check_views_to_the_end, "committed 1 of 2 positions, but declares step_size 2"),
    (Margin(), check_declared_needs, "fails on a view with 1 vocabulary ranks and 'ranks'"),
    (Sums(), check_declared_needs, "with no more vocabulary ranks than it declares"),
    (Entropic(), check_declared_needs, "reads entropies, but its `needs` is 'ranks'"),
    (Margin(), check_expected_views, "raised IndexError: .*; expected an answer or a PolicyError"),
    (Raising(), check_expected_views, "raised TypeError: no second rank"),
    (Third(0.6), check_thresholds, "at a threshold a rule does what it does on one of its sides"),
    (Leaking(), REJECTED, "parts from plain decoding at|must leave no mark"),
    (PerBatch(), ALONE_AND_FOUR, "with no drafts, 4 at a time .* parts from plain decoding"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "check", "message"),
    BROKEN,
    ids=[f"{type(policy).__name__}-{getattr(check, 'func', check).__name__}" for policy, check, _ in BROKEN],
)
def test_the_check_that_is_meant_for_it_fails(policy, check, message):
    with pytest.raises(Nonconformance, match=message):
        check(policy)


SOUND = [check for _, check, _ in BROKEN if check is not check_spec]


@pytest.mark.parametrize("check", [*dict.fromkeys(SOUND), check_mask_token])
def test_what_is_not_broken_passes(check):
    check(Broken())


def test_a_mask_token_that_reached_the_view_would_be_seen(monkeypatch):
    """The runtime takes it out; a view that holds it stands for a runtime, or a policy, that does not."""
    from studies.conformance import steps

    whole, low = steps.masked_best_views()["a whole block"]
    tokens = whole.tokens.copy()
    tokens[0, 0] += 1
    monkeypatch.setattr(steps, "masked_best_views", lambda: {"a whole block": (replace(whole, tokens=tokens), low)})
    with pytest.raises(Nonconformance, match="the arg-max is the mask token"):
        check_mask_token(Broken())


def test_a_wrong_prediction_is_seen(monkeypatch):
    policy = make_policy("static:1")
    monkeypatch.setattr(decodes, "replay", lambda nodes, anchors: replay([], anchors))
    with pytest.raises(Nonconformance, match=r"a replay of its traces predicts \[.*\] forwards by prompt, but \["):
        check_replayed(policy, DUAL)
    monkeypatch.setattr(decodes, "replay_states", lambda log, drafter: replay_states(log, InformedDrafter(1)))
    with pytest.raises(Nonconformance, match="a replay of its state log predicts"):
        check_replayed_states(policy, DUAL)


def test_drafts_of_the_truth_that_are_never_accepted_are_seen(monkeypatch):
    monkeypatch.setattr(decodes, "_reached", lambda plain, config: Shifted(decodes_reached(plain, config)))
    with pytest.raises(Nonconformance, match="were never accepted"):
        check_rejected_drafts(StaticTopK(1), DUAL)


decodes_reached = decodes._reached


class Shifted(dict):
    """As if the drafter's truth were one step late: nothing that it proposes is ever reached."""

    def __getitem__(self, key):
        states = super().__getitem__(key)
        return [state if (state == MASK_ID).all() else np.where(state == MASK_ID, MASK_ID, 47) for state in states]


def test_the_side_of_a_threshold():
    assert side_of(Threshold(0.7), "tau") == ">=" and side_of(Threshold(1.0), "tau") == ">="
    assert side_of(Dynamic(0.7), "tau") == ">" and side_of(Dynamic(1.0), "tau") is None
    assert side_of(make_policy("dream:confidence:4:0.5"), "eps") is None
    with pytest.raises(KeyError, match="beta"):
        side_of(Threshold(0.7), "beta")


@dataclass(frozen=True)
class Sharp(BasePolicy):
    """Commit the most confident position, and every one below so many nats."""

    most: float
    name = "sharp"
    parameters = (Number("most", high=None),)
    reads = "entropy"

    def choose(self, found, state, rng):
        low = found.entropies() < self.most
        low[0] = True
        return np.flatnonzero(low), state


def test_the_side_of_an_entropy():
    assert side_of(Sharp(1.5), "most") == "<"


@dataclass(eq=False)
class State:
    rows: np.ndarray
    notes: dict


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (State(np.zeros(2), {"a": [1]}), State(np.zeros(2), {"a": [1]}), True),
        (State(np.zeros(2), {"a": [1]}), State(np.zeros(2), {"a": [2]}), False),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.zeros(2), np.zeros(2, dtype=np.float32), False),
        (np.zeros(2), np.zeros((2, 1)), False),
        ((1, 2), [1, 2], False),
        ((1, 2), (1,), False),
        (float("nan"), float("nan"), True),
        (None, None, True),
        (1, True, False),
    ],
)  # fmt: skip
def test_equal_states(one, other, equal):
    assert same(one, other) == equal
