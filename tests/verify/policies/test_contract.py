"""Policies from elsewhere: broken contracts, steps without commits, history."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.support.models import MASK_ID, CountingDenoiser, random_formulas, tiny_denoiser
from tests.support.observing import Facts, books_balance, same_facts
from verify.decoding import MAX_EMPTY_STEPS, DecodeConfig, DecodeError, decode
from verify.drafters.informed import InformedDrafter
from verify.graph.file import GraphFile, Validity
from verify.layout import LayoutError
from verify.policies.base import BasePolicy
from verify.policies.contract import Commits, PolicyError
from verify.policies.parameters import Number
from verify.policies.sampling import Sampling, read_sampling
from verify.policies.specification import make_policy
from verify.verifier import Verifier

PROMPT = (5, 9, 13, 17, 21)
CONFIG = DecodeConfig(block_length=8, generation_length=24, top_j=4)


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@dataclass
class Odd:
    """A policy made of one function of (view, state): returns positions, tokens and the next state."""

    rule: object
    may_do_nothing: bool = False
    spec = "odd:1"
    needs = "ranks"
    ranks = 1
    monotone = True
    step_size = None
    temperature = 0.0

    def initial_state(self):
        return 0

    def step(self, view, state, rng):
        positions, tokens, state = self.rule(view, state)
        return Commits(positions, tokens), state


def best(view, state):
    return view.positions[:1], view.tokens[:1, 0], state + 1


VIOLATIONS = {
    "nothing": (lambda v, s: (v.positions[:0], v.tokens[:0, 0], s), "committed nothing, which it declares"),
    "one twice": (lambda v, s: (v.positions[[0, 0]], v.tokens[[0, 0], 0], s), "not masked, or one twice"),
    "outside": (lambda v, s: (np.array([8]), np.array([3]), s), "outside the block of 8: \\[8\\]"),
    "negative": (lambda v, s: (np.array([-1]), np.array([3]), s), "outside the block of 8: \\[-1\\]"),
    "the mask": (lambda v, s: (v.positions[:1], np.array([MASK_ID]), s), "committed the mask token 1"),
    "no such token": (lambda v, s: (v.positions[:1], np.array([48]), s), "outside the vocabulary of 48: \\[48\\]"),
    "negative token": (lambda v, s: (v.positions[:1], np.array([-3]), s), "outside the vocabulary of 48: \\[-3\\]"),
    "lengths": (lambda v, s: (v.positions[:2], v.tokens[:1, 0], s), "shape \\(2,\\) and tokens of shape \\(1,\\)"),
    "a matrix": (lambda v, s: (v.positions[None], v.tokens[None, :, 0], s), "expected one list each"),
    "fractions": (lambda v, s: (v.positions[:1] * 1.0, v.tokens[:1, 0], s), "float64 positions"),
    "masks as positions": (lambda v, s: (v.positions > 3, v.tokens[:, 0], s), "bool positions"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_broken_contract_ends_the_decode(denoiser, name):
    rule, message = VIOLATIONS[name]
    with pytest.raises(DecodeError, match=f"policy odd:1 .*{message}"):
        decode(denoiser, PROMPT, Odd(rule), CONFIG)


def test_committing_a_position_again_ends_the_decode(denoiser):
    def stubborn(view, state):
        return (view.positions[:1], view.tokens[:1, 0], int(view.positions[0])) if not state else ([state], [3], state)

    with pytest.raises(DecodeError, match="not masked, or one twice"):
        decode(denoiser, PROMPT, Odd(stubborn), CONFIG)


def test_lists_are_as_good_as_arrays(denoiser):
    def lists(view, state):
        return view.positions[:1].tolist(), view.tokens[:1, 0].tolist(), state

    seen = Facts()
    result = decode(denoiser, PROMPT, Odd(lists), CONFIG, random_formulas(0, 8), observer=seen)
    assert result.tokens == decode(denoiser, PROMPT, make_policy("static:1"), CONFIG).tokens
    assert all(isinstance(fact.commit_position, np.ndarray) for fact in seen.steps)


def hesitant(pause):
    """Commits the best position in every ``pause``-th step only, by the history it carries."""

    def rule(view, state):
        return best(view, state) if state % pause == pause - 1 else (view.positions[:0], view.tokens[:0, 0], state + 1)

    return Odd(rule, may_do_nothing=True)


@pytest.mark.parametrize("graph", [[], random_formulas(0, 12)], ids=["plain", "drafts"])
def test_a_policy_that_may_do_nothing_ends(denoiser, graph):
    """Two empty steps before every commit: each pays its forward, as the root is no draft."""
    seen = Facts()
    result = decode(denoiser, PROMPT, hesitant(3), CONFIG, graph, observer=seen)
    assert result.tokens == decode(denoiser, PROMPT, make_policy("static:1"), CONFIG).tokens
    assert result.steps == 24 * 3
    assert sum(len(fact.commit_position) == 0 for fact in seen.steps) == 24 * 2
    books_balance(result)
    # A commit's state is never reached in the step after it, so at most one draft per forward is accepted.
    assert result.forwards >= 24 * 2


def test_speculation_with_history_advances_it_by_accepted_steps_only(denoiser):
    """One, two, three, one, ... tokens: with one step too many or too few in the history the tokens would differ."""

    def waltz(view, state):
        count = 1 + state % 3
        return view.positions[:count], view.tokens[:count, 0], state + 1

    seen, drafted = Facts(), Facts()
    plain = decode(denoiser, PROMPT, Odd(waltz), CONFIG, observer=seen)
    assert [len(fact.commit_position) for fact in seen.steps[:4]] == [1, 2, 3, 1]
    result = decode(denoiser, PROMPT, Odd(waltz), CONFIG, random_formulas(3, 40, step_size=None), observer=drafted)
    assert result.tokens == plain.tokens
    assert result.forwards < plain.forwards
    same_facts(drafted.steps, seen.steps)


def test_a_policy_that_never_commits_is_given_up(denoiser):
    counting = CountingDenoiser(denoiser)

    def never(view, state):
        return view.positions[:0], view.tokens[:0, 0], state

    with pytest.raises(
        DecodeError, match=rf"odd:1 committed nothing in {MAX_EMPTY_STEPS} steps in a row \(block 0, 8 pos"
    ):
        decode(counting, PROMPT, Odd(never, may_do_nothing=True), CONFIG)
    assert counting.calls == MAX_EMPTY_STEPS


def test_the_longest_pause_allowed_is_one_step_less(denoiser):
    config = DecodeConfig(block_length=1, generation_length=1)
    assert decode(denoiser, PROMPT, hesitant(MAX_EMPTY_STEPS), config).forwards == MAX_EMPTY_STEPS
    with pytest.raises(DecodeError, match="it would never end"):
        decode(denoiser, PROMPT, hesitant(MAX_EMPTY_STEPS + 1), config)


def test_a_policy_that_takes_positions_back_is_refused(denoiser):
    """By the loop, whatever drafts; by the verifier of a graph before it decodes; by a replay that runs the loop."""
    policy = Odd(best)
    policy.monotone = False
    message = "policy odd:1 takes committed positions back"
    counting = CountingDenoiser(denoiser)
    for drafts in ((), random_formulas(0, 8), InformedDrafter(3)):
        with pytest.raises(DecodeError, match=message):
            decode(counting, PROMPT, policy, CONFIG, drafts)
    validity = Validity("tiny", None, "odd:1", 8, "dual", 0.0, 4)
    with pytest.raises(DecodeError, match=message):
        Verifier(GraphFile.from_nodes([((1, 1),)], validity), counting, policy, CONFIG, model="tiny")
    assert counting.calls == 0


def test_ranks_that_a_policy_reads_are_kept(denoiser):
    with pytest.raises(LayoutError, match="policy dream:margin:4 reads 2 vocabulary ranks, but only top_j=1 are kept"):
        decode(denoiser, PROMPT, make_policy("dream:margin:4"), replace(CONFIG, top_j=1))
    for spec in ("dream:margin:4@temperature=1", "dream:entropy:4"):  # these read the whole distribution instead
        decode(denoiser, PROMPT, make_policy(spec), replace(CONFIG, top_j=1))


def test_entropies_are_there_for_those_who_ask(denoiser):
    """Computed on the device for "entropy"; from the logits for "logits", and equal; a PolicyError for "ranks"."""
    seen = {needs: [] for needs in ("entropy", "logits")}

    def noting(view, state):
        found = view.entropies()
        seen[policy.needs].append(found)
        return best(view, state)

    for needs in seen:
        policy = Odd(noting)
        policy.needs = needs
        decode(denoiser, PROMPT, policy, CONFIG)
    assert len(seen["entropy"]) == 24 and all((one > 0).all() for one in seen["entropy"])
    for one, other in zip(seen["entropy"], seen["logits"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    policy = Odd(noting)
    with pytest.raises(PolicyError, match="this view has no entropies"):
        decode(denoiser, PROMPT, policy, CONFIG)


@dataclass(frozen=True)
class Sharp(BasePolicy):
    """Commit the sharpest position, and every one of at most ``most`` nats; at the same, the more confident first."""

    most: float
    name = "sharp"
    parameters = (Number("most", high=None),)
    reads = "entropy"

    def choose(self, found, state, rng):
        entropies = found.entropies()
        order = np.argsort(entropies, kind="stable")
        return order[: max(1, int(np.count_nonzero(entropies <= self.most)))], state


@pytest.mark.parametrize("sampling", ["", "@temperature=0.7", "@temperature=0.7,top_p=0.8,top_k=20"])
@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_a_rule_by_entropies_is_lossless(denoiser, cache, sampling):
    policy = Sharp(2.8, sampling=Sampling(**read_sampling(sampling[1:])) if sampling else Sampling())
    assert policy.spec == f"sharp:2.8{sampling}" and policy.needs == ("logits" if sampling else "entropy")
    config = replace(CONFIG, cache=cache)
    plain = decode(denoiser, PROMPT, policy, config)
    assert plain.steps < 24, "it commits more than one position in some step"
    graph, informed = (
        decode(denoiser, PROMPT, policy, config, drafts)
        for drafts in (random_formulas(3, 40, step_size=None), InformedDrafter(6))
    )
    assert graph.tokens == informed.tokens == plain.tokens
    assert graph.steps == informed.steps == plain.steps
    assert max(graph.forwards, informed.forwards) < plain.forwards or sampling
