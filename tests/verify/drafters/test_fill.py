"""Who gets the rows that the chain leaves; whoever it is, the tokens are those of plain decoding."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.support.models import END_ID, MASK_ID, random_formulas, tiny_denoiser
from tests.support.watching import Watching
from verify.decoding import DecodeConfig, decode, decode_batch
from verify.drafters.contract import Evidence
from verify.drafters.informed import InformedDrafter
from verify.drafters.memory import KnownState, StateMemory
from verify.drafters.settings import FILLS, InformedSettings
from verify.layout import LayoutError
from verify.policies.randomness import StepRandom
from verify.policies.specification import make_policy
from verify.ranked import RankedBlocks

PROMPTS = [(k, [*[5, 9, 14, 3, 22, 7][: 3 + k], 30 + k]) for k in range(3)]
#: Every value of every setting, and most pairs of values, over the grid below.
OTHERS = [
    {},
    {"hedges": 3, "width": 3, "follow": 1, "beyond": True},
    {"coefficient": 0.5, "horizon": 2, "width": 2},
    {"bridges": False, "hedges": 1, "follow": 3, "width": 4},
    {"coefficient": 0.0, "hedges": 9, "beyond": True, "follow": 2},
]


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser(seed=3)


@pytest.mark.parametrize("length", [4, 8, 16])
@pytest.mark.parametrize("cache", ["dual", "block_causal"])
@pytest.mark.parametrize(("spec", "step_size"), [("static:1", 1), ("static:2", 2), ("threshold:0.3", None)])
def test_tokens_are_those_of_plain_decoding_under_all_settings(denoiser, spec, step_size, cache, length):
    config = DecodeConfig(length, max(16, 2 * length), cache, end_token_ids=(END_ID,), top_j=4)
    policy, graph = make_policy(spec), random_formulas(length, 8, step_size)
    plain = dict(decode_batch(denoiser, PROMPTS, policy, config, batch_size=3))
    for number, (fill, others) in enumerate(zip(FILLS, OTHERS[length % 5 :] + OTHERS[: length % 5], strict=True)):
        watching = Watching(7, InformedSettings(fill=fill, **others), graph)
        found = dict(decode_batch(denoiser, PROMPTS, policy, config, watching, batch_size=3 if number % 2 else 1))
        for k, one in plain.items():
            assert (found[k].tokens, found[k].steps) == (one.tokens, one.steps), (fill, others)
            assert found[k].forwards <= one.forwards
        if cache == "dual" or not others.get("bridges", True):
            assert watching.bridges == 0


def test_all_settings_together_on_one_short_decode(denoiser):
    """Every combination of fill, hedges, follow and beyond."""
    config = DecodeConfig(4, 8, "block_causal", end_token_ids=(END_ID,), top_j=4)
    policy, graph, prompt = make_policy("static:1"), random_formulas(1, 6), PROMPTS[0][1]
    plain = decode(denoiser, prompt, policy, config)
    for fill, hedges, follow, beyond in product(FILLS, (0, 2), (0, 2), (False, True)):
        settings = InformedSettings(fill=fill, hedges=hedges, width=2, follow=follow, beyond=beyond)
        assert decode(denoiser, prompt, policy, config, Watching(5, settings, graph)).tokens == plain.tokens, settings


def test_rows_that_the_chain_leaves_go_to_whom_the_settings_name(denoiser):
    """More rows are used with every further part, and never more than there are (see ``Watching``)."""
    config = DecodeConfig(8, 24, "dual", end_token_ids=(END_ID,), top_j=4)
    graph = random_formulas(2, 12)
    used = {}
    for name, settings in {
        "none": InformedSettings(fill="none"),
        "alternatives": InformedSettings(),
        "wide": InformedSettings(width=3),
        "both": InformedSettings(width=3, fill="alternatives+graph"),
    }.items():
        result = decode(denoiser, PROMPTS[1][1], make_policy("static:1"), config, InformedDrafter(12, settings, graph))
        used[name] = result.query_tokens / result.forwards
    assert used["none"] < used["alternatives"] < used["wide"] < used["both"]


def ranked(*blocks):
    """Distributions of blocks from rows of (probability of rank 1, token of rank 1, token of rank 2)."""
    rows = np.array(blocks, dtype=float)
    probability = np.stack([rows[..., 0], (1 - rows[..., 0]) / 2], axis=-1)
    token = rows[..., 1:].astype(np.int32)
    return RankedBlocks(token, probability, None, np.full(token.shape[:2], -1))


def evidence(cache_ahead=None, known=(), policy="static:1", length=4):
    """An anchor: the block began masked, and offset 0 was committed with its best token, 10."""
    block = np.full(length, MASK_ID, dtype=np.int64)
    rows = [(0.9 - 0.1 * k, 10 + k, 20 + k) for k in range(length)]
    distribution = ranked(rows, rows)
    base = KnownState(block.copy(), distribution, 0)
    memory = StateMemory()
    for state in known:
        memory.put(np.array(state), distribution, 1)
    block[0] = 10
    rule = make_policy(policy)
    return Evidence(
        block, np.arange(1, length), base, memory, rule, rule.initial_state(), StepRandom(0, 0, 0, 2), MASK_ID,
        cache_ahead, lambda complete: False,
    )  # fmt: skip


def proposed(drafts, settings, graph=(), **changes):
    proposal = InformedDrafter(drafts, settings, graph).for_sequence().propose(evidence(**changes))
    return proposal.drafts.tolist(), [complete.tolist() for complete, _ in proposal.bridges]


M = MASK_ID


def test_the_chain_comes_first_then_the_nodes_in_their_order():
    graph = [((3, 1),), ((1, 2),), ((1, 1),), ((1, 1), (2, 1), (3, 1))]
    chain = [[10, 11, M, M], [10, 11, 12, M]]
    nodes = [[10, M, M, 13], [10, 21, M, M]]  # {1:1} is the chain's already, the last node completes the block
    assert proposed(9, InformedSettings(fill="graph"), graph) == (chain + nodes, [])
    swaps = [[10, 11, M, 13], [10, M, 12, M]]  # confidences 0.7 and 0.6 are nearer than 0.8 and 0.7
    assert proposed(9, InformedSettings(fill="alternatives+graph"), graph)[0] == chain + swaps + nodes
    assert proposed(5, InformedSettings(fill="graph+alternatives"), graph)[0] == chain + nodes + swaps[:1]
    assert proposed(9, InformedSettings(fill="none"), graph)[0] == chain


def test_hedges_are_kept_back_from_the_chain_and_go_back_to_it():
    graph = [((1, 1),), ((3, 1),)]
    hedged = InformedSettings(fill="none", hedges=1)
    assert proposed(2, hedged, graph)[0] == [[10, 11, M, M], [10, M, M, 13]]
    only_chain = [((1, 1),), ((1, 1), (2, 1))]
    assert proposed(2, hedged, only_chain)[0] == [[10, 11, M, M], [10, 11, 12, M]]


def test_a_node_that_completes_the_block_is_a_bridge_where_there_can_be_one():
    graph = [((1, 1), (2, 2), (3, 1))]
    found, bridges = proposed(9, InformedSettings(fill="graph"), graph, cache_ahead={})
    assert found == [[10, 11, M, M], [10, 11, 12, M]] and bridges == [[10, 11, 12, 13], [10, 11, 22, 13]]
    assert proposed(9, InformedSettings(fill="graph", bridges=False), graph, cache_ahead={})[1] == []


def test_a_graph_grows_again_from_the_successor_of_a_known_state():
    """The state of 10 and 11 is known: its own ranks name what may follow its successor."""
    graph = [((1, 1),), ((1, 2),), ((2, 1),)]  # the first node is that known state, and from its successor the chain's
    drafts, _ = proposed(9, InformedSettings(fill="graph"), graph, known=[[10, 11, M, M, M]], length=5)
    assert drafts[:2] == [[10, 11, 12, M, M], [10, 11, 12, 13, M]]
    # First the second node of both roots, then the third one of both.
    assert drafts[2:] == [[10, 21, M, M, M], [10, 11, 12, 23, M], [10, M, 12, M, M], [10, 11, 12, M, 14]]


def test_horizon_width_and_follow_bound_what_they_say():
    swaps = [[10, M, 12, M], [10, M, M, 13]]
    assert proposed(9, InformedSettings(horizon=1, width=2))[0] == [[10, 11, M, M], *swaps]
    # Beyond the second swap the policy takes the best position, 1; beyond the first that is where the chain went.
    followed = proposed(9, InformedSettings(horizon=1, width=2, follow=1))[0]
    assert followed == [[10, 11, M, M], swaps[0], [10, 11, 12, M], swaps[1], [10, 11, M, 13]]


def test_a_threshold_takes_more_or_fewer():
    """Two of four reach the threshold; one more and one fewer are the alternatives, the nearer one first."""
    drafts, _ = proposed(9, InformedSettings(), policy="threshold:0.65", length=6)
    assert drafts[0] == [10, 11, 12, M, M, M]
    assert [10, 11, 12, 13, M, M] in drafts and [10, 11, M, M, M, M] in drafts


def test_ranks_that_a_graph_reads_must_be_kept(denoiser):
    config = DecodeConfig(8, 16, end_token_ids=(END_ID,), top_j=2)
    drafter = InformedDrafter(3, InformedSettings(fill="graph"), [((1, 3),)])
    with pytest.raises(LayoutError, match="read vocabulary rank 3, but only top_j=2 are kept"):
        decode(denoiser, PROMPTS[0][1], make_policy("static:1"), config, drafter)
    assert decode(denoiser, PROMPTS[0][1], make_policy("static:1"), replace(config, top_j=3), drafter).tokens
