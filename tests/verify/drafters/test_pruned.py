"""Drafts of a pruned graph: what is proposed, and that tokens stay those of plain decoding."""

import pytest

from tests.support.models import END_ID, random_formulas, tiny_denoiser
from verify.decoding import DecodeConfig, decode
from verify.drafters.graph import GraphDrafter
from verify.drafters.pruned import PrunedGraphDrafter
from verify.layout import LayoutError
from verify.policies.specification import make_policy

PROMPT = [5, 9, 14, 3, 22, 7]
CONFIG = DecodeConfig(block_length=8, generation_length=24, end_token_ids=(END_ID,), top_j=4)


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser(seed=3)


@pytest.mark.parametrize("score", ["own", "mean_child", "pooled"])
@pytest.mark.parametrize("spec", ["static:1", "static:2", "threshold:0.2"])
@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_tokens_are_those_of_plain_decoding(denoiser, cache, spec, score):
    policy, config = make_policy(spec), DecodeConfig(8, 24, cache, end_token_ids=(END_ID,), top_j=4)
    plain = decode(denoiser, PROMPT, policy, config)
    graph = random_formulas(1, 20, policy.step_size, ranks=6, top_j=4)
    found = decode(denoiser, PROMPT, policy, config, PrunedGraphDrafter(graph, 5, policy.step_size, score))
    assert (found.tokens, found.steps) == (plain.tokens, plain.steps)
    assert found.forwards <= plain.forwards


def test_no_more_than_the_best_are_evaluated(denoiser):
    """They are drafts of the large graph, and another few at another anchor."""
    policy, graph = make_policy("static:1"), random_formulas(2, 20, ranks=6, top_j=4)
    seen = []

    class Watching(PrunedGraphDrafter):
        def for_sequence(self):
            return self

        def propose(self, evidence):
            whole = GraphDrafter.propose(self, evidence).drafts
            proposal = super().propose(evidence)
            seen.append((len(whole), [whole.tolist().index(draft) for draft in proposal.drafts.tolist()]))
            return proposal

    drafter = Watching(graph, 4, 1)
    assert drafter.max_drafts == 4 and PrunedGraphDrafter(graph, 30, 1).max_drafts == 20
    decode(denoiser, PROMPT, policy, CONFIG, drafter)
    assert all(which == sorted(which) and len(which) == min(4, size) for size, which in seen if size != len(which))
    assert len({tuple(which) for size, which in seen if size == 20}) > 1


def test_keeping_all_is_the_graph_itself(denoiser):
    policy, graph = make_policy("static:1"), random_formulas(2, 12, ranks=6, top_j=4)
    whole = decode(denoiser, PROMPT, policy, CONFIG, graph)
    found = decode(denoiser, PROMPT, policy, CONFIG, PrunedGraphDrafter(graph, 12, 1))
    assert (found.tokens, found.forwards, found.query_tokens, found.accepted) == (
        whole.tokens, whole.forwards, whole.query_tokens, whole.accepted,
    )  # fmt: skip


def test_keeping_nothing_is_plain_decoding(denoiser):
    policy = make_policy("static:1")
    plain = decode(denoiser, PROMPT, policy, CONFIG)
    for drafter in (PrunedGraphDrafter([[(1, 1)]], 0, 1), PrunedGraphDrafter([], 3, 1)):
        found = decode(denoiser, PROMPT, policy, CONFIG, drafter)
        assert (found.forwards, found.query_tokens) == (plain.forwards, plain.query_tokens)


def test_a_rank_that_is_not_kept_by_the_decode_is_refused(denoiser):
    with pytest.raises(LayoutError, match="vocabulary rank 5"):
        decode(denoiser, PROMPT, make_policy("static:1"), CONFIG, PrunedGraphDrafter([[(1, 5)]], 1, 1))


def test_nothing_is_remembered_and_nothing_bridged():
    drafter = PrunedGraphDrafter([[(1, 1)], [(2, 3)]], 1, 1)
    assert (drafter.remembers, drafter.max_bridges, drafter.max_vocabulary_rank) == (False, 0, 3)
