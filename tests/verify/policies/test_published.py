"""The rules of published loops: what their names stand for, what they commit, and that drafts change nothing."""

from itertools import pairwise

import numpy as np
import pytest

from tests.support.models import random_formulas, tiny_denoiser
from verify.decoding import DecodeConfig, decode
from verify.graph.formulas import formula
from verify.policies.confidence import Dynamic, Quota, StaticTopK, Threshold
from verify.policies.contract import BlockView, PolicyError
from verify.policies.dream import Dream
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling, entropy, softmax
from verify.policies.schedules import even_quotas, timed_quotas
from verify.policies.specification import make_policy, stated_block_length, step_sizes

PROMPT = (5, 9, 13, 17, 21)


def at(step, block=0):
    return StepRandom(seed=0, prompt_index=0, block=block, step=step)


def view_of(confidences, second=None, logits=None):
    """A view in rank order: position ``p`` has ``confidences[p]`` for token ``100 + p``."""
    top = np.asarray(confidences, dtype=float)
    order = np.argsort(-top, kind="stable")
    runner_up = np.zeros_like(top) if second is None else np.asarray(second, dtype=float)
    tokens = np.stack([100 + order, 200 + order], axis=1).astype(np.int32)
    probabilities = np.stack([top[order], runner_up[order]], axis=1)

    def all_logits():
        assert logits is not None, "this policy must not ask for logits"
        return np.asarray(logits, dtype=float)[order]

    return BlockView(order, tokens, probabilities, all_logits, lambda: entropy(softmax(all_logits())))


def committed(policy, view, step=1, state=0):
    result, state = policy.step(view, state, at(step))
    return dict(zip(result.positions.tolist(), result.tokens.tolist(), strict=True)), state


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "policy", "spec"),
    [
        ("low_confidence:32/32", StaticTopK(1), "static:1"),
        ("low_confidence:8/32", StaticTopK(4), "static:4"),
        ("low_confidence:5/32", Quota(5), "quota:5"),
        ("low_confidence_static:2/4", StaticTopK(2), "static:2"),
        ("low_confidence_static:3/4", Quota(3, 4), "quota:3/4"),
        ("quota:5", Quota(5), "quota:5"),
        ("quota:4/8", StaticTopK(2), "static:2"),
        ("low_confidence_dynamic:0.85", Dynamic(0.85), "dynamic:0.85"),
        ("low_confidence_dynamic:0.9:4/4", Dynamic(0.9), "dynamic:0.9"),
        ("low_confidence_dynamic:0.9:2/4", Dynamic(0.9, 2), "dynamic:0.9:2"),
        ("low_confidence_dynamic:0.9:3/4", Dynamic(0.9, (3, 4)), "dynamic:0.9:3/4"),
        ("dynamic:1:2", Dynamic(1.0, 2), "dynamic:1:2"),
        ("confidence_threshold:0.9", Threshold(0.9), "threshold:0.9"),
        ("maskgit_plus:128", Dream("confidence", 128), "dream:confidence:128"),
        ("topk_margin:64", Dream("margin", 64), "dream:margin:64"),
        ("entropy:512", Dream("entropy", 512), "dream:entropy:512"),
        ("entropy:512:0.01", Dream("entropy", 512, 0.01), "dream:entropy:512:0.01"),
        ("dream:margin:7:0.001", Dream("margin", 7), "dream:margin:7"),
    ],
)
def test_a_name_stands_for_one_policy_with_one_specification(name, policy, spec):
    assert make_policy(name) == policy
    assert make_policy(name).spec == spec
    assert make_policy(spec) == policy
    assert make_policy(name, 0.5).temperature == 0.5


NO_LENGTH = "lacks the block length, expected S/L (S steps per block of L positions), for example 8/32"
WHOLE = "expected an integer of at least 1"
SHARE = "expected a number above 0 and at most 1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("low_confidence", "it has 0 parameters, expected 1"),
        ("low_confidence:8", f"'8' {NO_LENGTH}"),
        ("low_confidence:0/8", f"S is '0', {WHOLE}"),
        ("low_confidence:8/0", f"L is '0', {WHOLE}"),
        ("low_confidence:8/8/8", f"L is '8/8', {WHOLE}"),
        ("low_confidence:8:8", "it has 2 parameters, expected 1"),
        ("low_confidence:a/8", f"S is 'a', {WHOLE}"),
        ("low_confidence_static:4", f"'4' {NO_LENGTH}"),
        ("low_confidence_dynamic", "it has 0 parameters, expected 1 or 2"),
        ("low_confidence_dynamic:0", f"tau is '0', {SHARE}"),
        ("low_confidence_dynamic:1.1", f"tau is '1.1', {SHARE}"),
        ("low_confidence_dynamic:0.9:4", f"'4' {NO_LENGTH}"),
        ("dynamic:1.5", f"tau is '1.5', {SHARE}; the form is dynamic:tau[:k or :S/L]"),
        ("dynamic:nan", f"tau is 'nan', {SHARE}"),
        ("dynamic:0.9:0", f"k is '0', {WHOLE}"),
        ("dynamic:0.9:1:1", "it has 3 parameters, expected 1 or 2"),
        ("quota", "it has 0 parameters, expected 1"),
        ("quota:0", f"S is '0', {WHOLE}"),
        ("quota:1.5", f"S is '1.5', {WHOLE}"),
        ("confidence_threshold:0", f"tau is '0', {SHARE}; the form is confidence_threshold:tau"),
        ("dream:entropy", "it has 1 parameter, expected 2 or 3"),
        ("dream:best:8", "order is 'best', expected one of confidence, margin, entropy, origin"),
        ("dream:entropy:0", f"S is '0', {WHOLE}"),
        ("dream:entropy:8:0", f"eps is '0', {SHARE}"),
        ("dream:entropy:8:2", f"eps is '2', {SHARE}"),
        ("dream:entropy:8:0.1:1", "it has 4 parameters, expected 2 or 3"),
        ("entropy", "it has 0 parameters, expected 1 or 2"),
        ("entropy:x", f"S is 'x', {WHOLE}"),
    ],
)
def test_a_bad_parameter_of_a_published_rule_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)
    assert "unknown policy" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "length"),
    [("low_confidence:8/32", 32), ("quota:5/32", 32), ("quota:5", None), ("dynamic:0.9:3/4", 4),
     ("dynamic:0.9:2", None), ("low_confidence_dynamic:0.9:2/4", 4),
     ("static:1", None), ("threshold:0.9", None), ("maskgit_plus:8", None)],
)  # fmt: skip
def test_the_block_length_that_a_text_states(spec, length):
    assert stated_block_length(spec) == length
    with pytest.raises(PolicyError):
        stated_block_length("low_confidence:8/x")


def test_what_they_declare():
    for spec in ("quota:5", "dynamic:0.9", "dynamic:0.9:3/4", "dream:confidence:8", "dream:margin:8"):
        policy = make_policy(spec)
        assert (policy.monotone, policy.may_do_nothing, policy.step_size) == (True, False, None)
        assert (policy.needs, policy.ranks) == ("ranks", 2 if "margin" in spec else 1)
        assert (make_policy(spec, 0.7).needs, make_policy(spec, 0.7).ranks) == ("logits", 1)
    assert make_policy("dream:entropy:8").needs == "entropy"
    # A size that is the same in every step is known, so that graphs need no other.
    assert [step_sizes(s) for s in ("low_confidence:8/32", "low_confidence:5/32", "dynamic:0.9:2")] == [4, None, None]


# ---------------------------------------------------------------- schedules


def test_even_quotas():
    assert even_quotas(32, 8) == (4,) * 8
    assert even_quotas(32, 5) == (7, 7, 6, 6, 6)
    assert even_quotas(3, 8) == (1, 1, 1)
    for positions, steps in ((1, 1), (31, 4), (32, 32), (5, 9)):
        assert sum(even_quotas(positions, steps)) == positions


def test_timed_quotas():
    """16 positions in 16 steps: the first step's share is just below one, so the last one commits two."""
    assert timed_quotas(16, 16, 1e-3) == (1,) * 14 + (2,)
    assert timed_quotas(16, 1, 1e-3) == (16,)
    assert timed_quotas(8, 4, 1e-3) == (1, 2, 2, 3)
    for positions, steps, eps in ((128, 128, 1e-3), (64, 512, 1e-3), (31, 7, 0.1), (1, 5, 1e-3)):
        quotas = timed_quotas(positions, steps, eps)
        assert sum(quotas) == positions and min(quotas) >= 1 and len(quotas) <= min(positions, steps)


# ---------------------------------------------------------------- what is committed


def test_quota_counts_from_what_is_masked_at_the_blocks_start():
    policy = make_policy("quota:2")
    first, state = committed(policy, view_of([0.5, 0.9, 0.7]), step=1, state=99)
    assert first == {1: 101, 2: 102} and state == 3
    second, state = committed(policy, view_of([0.5]), step=2, state=state)
    assert second == {0: 100} and state == 3


def test_quota_of_a_full_block_ignores_the_prompts_tail():
    """SDAR: three steps over four positions are 2, 1, 1, also where only three are masked."""
    policy = make_policy("quota:3/4")
    sizes = [len(committed(policy, view_of([0.5, 0.9, 0.7]), step, 3)[0]) for step in (1, 2, 3, 4)]
    assert sizes == [2, 1, 1, 1]


def test_dynamic_is_strictly_greater():
    view = view_of([0.75, 0.5, 0.8])
    assert committed(make_policy("dynamic:0.75"), view)[0] == {2: 102}
    assert committed(make_policy("threshold:0.75"), view)[0] == {2: 102, 0: 100}
    assert committed(make_policy("dynamic:0.7"), view)[0] == {2: 102, 0: 100}
    assert committed(make_policy("dynamic:0.9"), view)[0] == {2: 102}
    assert committed(make_policy("dynamic:0.9:2"), view)[0] == {2: 102, 0: 100}
    assert committed(make_policy("dynamic:0.9:8"), view)[0] == {2: 102, 0: 100, 1: 101}
    assert committed(make_policy("dynamic:0.4:2"), view)[0] == {2: 102, 0: 100, 1: 101}


def test_dynamic_over_uneven_steps():
    policy = make_policy("dynamic:0.9:3/4")
    assert [len(committed(policy, view_of([0.5] * 4), step, 4)[0]) for step in (1, 2, 3)] == [2, 1, 1]


def test_margin_ranks_by_the_lead_and_breaks_ties_by_position():
    view = view_of([0.5, 0.6, 0.4, 0.5], second=[0.1, 0.4, 0.0, 0.1])
    policy = Dream("margin", steps=2)  # four positions: one, then three
    assert committed(policy, view)[0] == {0: 100}
    assert committed(policy, view, step=2, state=4)[0].keys() == {0, 2, 3}
    with pytest.raises(PolicyError, match="keep at least two vocabulary ranks"):
        policy.step(BlockView(view.positions, view.tokens[:, :1], view.probabilities[:, :1], view.logits), 0, at(1))


def test_entropy_ranks_by_the_whole_distribution():
    """Position 0 has the better top token, position 1 the sharper distribution."""
    first = np.log([0.5] + [0.5 / 63] * 63)
    second = np.log([0.45, 0.45] + [0.1 / 62] * 62)
    view = view_of([0.5, 0.45, 1 / 64], logits=[first, second, np.zeros(64)])  # two steps: one position, then two
    assert committed(Dream("entropy", steps=2), view)[0] == {1: 101}
    assert committed(Dream("confidence", steps=2), view)[0] == {0: 100}


def test_sampled_orders_use_the_tempered_distribution():
    logits = [[2.0, 0.0, 0.0], [0.0, 1.9, 0.0]]
    view = view_of([0.7, 0.6], logits=logits)
    for order in ("confidence", "margin", "entropy"):
        policy = Dream(order, 1, sampling=Sampling(0.01))
        assert committed(policy, view)[0] == {0: 0, 1: 1}  # near 0 the argmax is drawn
        assert committed(policy, view) == committed(policy, view)
    drawn = {
        tuple(Dream("margin", 1, sampling=Sampling(5.0)).step(view, 0, at(step))[0].tokens.tolist()) for step in [1] * 3
    }
    assert len(drawn) == 1  # noise is a function of its address
    drawn = {
        tuple(Dream("margin", 1, sampling=Sampling(5.0)).step(view, 0, StepRandom(seed, 0, 0, 1))[0].tokens.tolist())
        for seed in range(20)
    }
    assert len(drawn) > 2


# ---------------------------------------------------------------- in the loop


SPECS = ["quota:3", "quota:5", "quota:3/7", "dynamic:0.2", "dynamic:0.25:2", "dynamic:0.2:3/7", "dream:confidence:5",
         "dream:margin:8", "dream:entropy:5"]  # fmt: skip


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


class Facts:
    """An observer that keeps everything."""

    def __init__(self):
        self.steps = []

    def on_step(self, fact):
        self.steps.append(fact)


def what_happened(steps):
    """The formulas of each step's commits under the ranks of the step before: a graph that must be hit."""
    found = set()
    for one, other in pairwise(steps):
        if one.block == other.block:
            tokens = dict(zip(one.masked_position.tolist(), one.top_token.tolist(), strict=True))
            left = [p for p in one.masked_position.tolist() if p not in one.commit_position]
            commits = list(zip(other.commit_position.tolist(), other.commit_token.tolist(), strict=True))
            if all(token in tokens[p] for p, token in commits):
                found.add(formula([(left.index(p) + 1, tokens[p].index(token) + 1) for p, token in commits]))
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_speculation_is_lossless(denoiser, spec):
    saved = 0
    for cache, backend in (("dual", "packed"), ("block_causal", "packed"), ("none", "expanded")):
        config = DecodeConfig(block_length=8, generation_length=16, top_j=4, cache=cache, backend=backend)
        seen = Facts()
        plain = decode(denoiser, PROMPT, make_policy(spec), config, observer=seen)
        assert plain.forwards == plain.steps
        for formulas in (sorted(what_happened(seen.steps)), random_formulas(1, 40, step_size=None, ranks=6)):
            result = decode(denoiser, PROMPT, make_policy(spec), config, formulas)
            assert (result.tokens, result.steps) == (plain.tokens, plain.steps)
            saved += plain.forwards - result.forwards
    assert saved > 0


@pytest.mark.parametrize("spec", ["quota:3", "dynamic:0.2:2", "dream:margin:5", "dream:entropy:5"])
def test_sampled_speculation_is_lossless(denoiser, spec):
    config = DecodeConfig(block_length=8, generation_length=16, top_j=4, seed=1)
    rule = make_policy(spec, 0.7)
    plain = decode(denoiser, PROMPT, rule, config, prompt_index=4)
    result = decode(denoiser, PROMPT, rule, config, random_formulas(1, 40, step_size=None), prompt_index=4)
    assert (result.tokens, result.steps) == (plain.tokens, plain.steps)
    assert decode(denoiser, PROMPT, rule, config, prompt_index=5).tokens != plain.tokens


def test_steps_of_a_block_are_as_scheduled(denoiser):
    for spec, quotas in (("quota:3", (3, 3, 2)), ("dream:margin:4", timed_quotas(8, 4, 1e-3))):
        seen = Facts()
        decode(denoiser, PROMPT, make_policy(spec), DecodeConfig(8, 16), observer=seen)
        found = [(fact.block, len(fact.commit_position)) for fact in seen.steps]
        assert found == [(block, size) for block in (0, 1) for size in quotas]
