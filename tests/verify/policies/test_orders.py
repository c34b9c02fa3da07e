"""Orders of static top-k and quotas: which score, which ties, and noise that is keyed."""

import numpy as np
import pytest

from tests.support.views import committed, view_of
from verify.graph.validity import edge_step
from verify.policies.confidence import Quota, StaticTopK
from verify.policies.contract import PolicyError
from verify.policies.dream import Dream
from verify.policies.orders import ORDERS
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling
from verify.policies.specification import make_policy, step_sizes

#: By confidence 0, 1, 2; by margin 1, 2, 0; by entropy 2, 1, 0.
NUMBERS = dict(second=[0.5, 0.1, 0.2])
CONFIDENCES = [0.5, 0.45, 0.4]
ENTROPIES = [1.5, 1.25, 1.0]


@pytest.mark.parametrize(
    ("name", "policy", "spec"),
    [
        ("static:2:confidence", StaticTopK(2), "static:2"),
        ("static:2:margin", StaticTopK(2, "margin"), "static:2:margin"),
        ("quota:8/32:entropy", StaticTopK(4, "entropy"), "static:4:entropy"),
        ("quota:5:left_to_right", Quota(5, order="left_to_right"), "quota:5:left_to_right"),
        ("quota:3/4:random", Quota(3, 4, "random"), "quota:3/4:random"),
        ("quota:3/4:confidence", Quota(3, 4), "quota:3/4"),
        ("random:8/32", StaticTopK(4, "random"), "static:4:random"),
        ("random:5/32", Quota(5, order="random"), "quota:5:random"),
        ("sequential:2/4", StaticTopK(2, "left_to_right"), "static:2:left_to_right"),
        ("sequential:3/4", Quota(3, 4, "left_to_right"), "quota:3/4:left_to_right"),
    ],
)
def test_one_policy_has_one_text(name, policy, spec):
    assert make_policy(name) == policy and make_policy(name).spec == spec and make_policy(spec) == policy
    assert step_sizes(spec) == edge_step(spec) == (policy.k if isinstance(policy, StaticTopK) else None)


@pytest.mark.parametrize("rule", ["static:2", "quota:8/32"])
def test_a_bad_order_is_named(rule):
    for order in ("best", "", "2"):
        with pytest.raises(PolicyError, match=f"order is '{order}', expected one of {', '.join(ORDERS)}"):
            make_policy(f"{rule}:{order}")


def test_what_they_read():
    for order, needs, ranks in (
        ("confidence", "ranks", 1), ("margin", "ranks", 2), ("entropy", "entropy", 1), ("left_to_right", "ranks", 1),
        ("random", "ranks", 1),
    ):  # fmt: skip
        for policy in (make_policy(f"static:2:{order}"), make_policy(f"quota:5:{order}")):
            assert (policy.needs, policy.ranks, policy.temperature) == (needs, ranks, 0.0)
        drawn = make_policy(f"static:2:{order}", 0.7)
        assert (drawn.needs, drawn.ranks) == ("logits", 1)
    # What tokens are left out does not matter to an argmax rule that scores by the whole distribution.
    assert make_policy("static:2:margin@top_p=0.5").needs == "ranks"
    assert make_policy("dream:margin:2@top_p=0.5").needs == "logits"


@pytest.mark.parametrize(
    ("order", "first", "two"),
    [("confidence", 0, [0, 1]), ("margin", 1, [1, 2]), ("entropy", 2, [1, 2]), ("left_to_right", 0, [0, 1])],
)
def test_the_highest_score_goes_first(order, first, two):
    entropies = ENTROPIES if order == "entropy" else None
    view = view_of(CONFIDENCES, entropies=entropies, **NUMBERS)
    assert committed(make_policy(f"static:1:{order}"), view) == {first: 100 + first}
    assert list(committed(make_policy(f"static:2:{order}"), view)) == two
    assert list(committed(make_policy(f"static:9:{order}"), view)) == [0, 1, 2]
    assert list(committed(make_policy(f"quota:2:{order}"), view)) == two  # three positions in two steps: two first
    if order in ("confidence", "margin", "entropy"):  # Dream shares the orders: three in two steps, one first
        assert list(committed(Dream(order, 2), view)) == [first]


def test_ties_go_by_position():
    view = view_of([0.5] * 3, second=[0.25] * 3, entropies=[1.0] * 3, positions=[4, 6, 9])
    for order in ("confidence", "margin", "entropy", "left_to_right"):
        assert list(committed(make_policy(f"static:2:{order}"), view)) == [4, 6]


def test_left_to_right_is_by_position_whatever_is_confident():
    view = view_of([0.1, 0.9, 0.5], positions=[3, 10, 11])
    assert list(committed(make_policy("static:1:left_to_right"), view)) == [3]
    assert list(committed(make_policy("sequential:2/4"), view)) == [3, 10]


def test_margins_need_two_ranks():
    with pytest.raises(PolicyError, match="keep at least two vocabulary ranks"):
        committed(make_policy("static:1:margin"), view_of([0.5, 0.4]))


def test_random_orders_are_noise_of_their_address():
    view = view_of([0.9, 0.1, 0.5, 0.4])
    firsts = [next(iter(committed(make_policy("static:1:random"), view, seed=seed))) for seed in range(200)]
    again = [next(iter(committed(make_policy("static:1:random"), view, seed=seed))) for seed in range(200)]
    assert firsts == again
    # 50 expected of each, with a standard deviation of 6.1.
    assert all(25 <= firsts.count(position) <= 75 for position in range(4))
    steps = {next(iter(committed(make_policy("static:1:random"), view, step=step))) for step in range(1, 30)}
    assert steps == {0, 1, 2, 3}


def test_a_random_order_does_not_hang_on_the_other_positions():
    """A draft of the state has fewer masks, or more: of the positions that both have, the same one comes first."""
    policy = make_policy("static:32:random")
    for seed in range(20):
        many = view_of(np.linspace(0.2, 0.9, 8))
        few = view_of([0.5, 0.6, 0.7], positions=[1, 4, 6])
        order = _in_order(policy, many, seed)
        assert [p for p in order if p in (1, 4, 6)] == _in_order(policy, few, seed)


def _in_order(policy, view, seed):
    return policy.step(view, policy.initial_state(), StepRandom(seed, 0, 0, 1))[0].positions.tolist()


def test_a_random_order_draws_no_other_tokens():
    """The noise of the order is not that of the tokens: drawn tokens are those of the order by confidence."""
    logits = np.random.default_rng(0).normal(size=(3, 6))
    view = view_of([0.5, 0.4, 0.3], logits=logits)
    for seed in range(10):
        found = [
            committed(StaticTopK(3, order, sampling=Sampling(1.0)), view, seed=seed)
            for order in ("confidence", "random", "entropy")
        ]
        assert found[0] == found[1] == found[2]


def test_drawn_tokens_are_scored_by_the_whole_distribution_and_dreams_by_the_tempered_one():
    """Position 0: two near-equal tokens; position 1: one token and a flat tail, which a low temperature removes.

    Position 2 is never first; of three positions Dream commits one in the first of two steps.
    """
    logits = np.log(np.array([[0.5, 0.49, 0.005, 0.005], [0.4, 0.2, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]]))
    view = view_of([0.5, 0.4, 0.25], logits=logits)
    cold = Sampling(0.1)
    assert list(committed(StaticTopK(1, "entropy", sampling=cold), view)) == [0]
    assert list(committed(Dream("entropy", 2, sampling=cold), view)) == [1]
    assert list(committed(StaticTopK(1, "margin", sampling=cold), view)) == [1]
