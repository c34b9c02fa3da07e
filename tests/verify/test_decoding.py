"""The decode loop: against a naive decoder, and speculation against plain decoding."""

from dataclasses import replace

import pytest

from tests.support.models import MASK_ID, CountingDenoiser, random_formulas, tiny_denoiser
from tests.support.observing import Facts, books_balance, same_facts
from tests.support.oracle import naive_decode
from verify.decoding import DecodeConfig, DecodeError, decode
from verify.drafters.graph import GraphDrafter
from verify.drafts import DraftFiller
from verify.layout import BACKENDS, CACHE_MODES, LayoutError, exactness
from verify.policies.specification import make_policy, step_sizes
from verify.ranked import AnchorRanks, LaggedRanker

EXACT = [(c, b) for c in CACHE_MODES for b in BACKENDS if exactness(c, b).exact]
# A random model is unsure: at 0.3 hardly any step commits two tokens, at 0.2 most do.
POLICIES = ("static:1", "static:2", "threshold:0.3", "threshold:0.2")
PROMPT = (5, 9, 13, 17, 21)
CONFIG = DecodeConfig(block_length=8, generation_length=24, top_j=4)


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


# ---------------------------------------------------------------- plain decoding against the oracle


@pytest.mark.parametrize("cache", CACHE_MODES)
@pytest.mark.parametrize("policy", ["static:1", "static:3", "threshold:0.3", "threshold:0.2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_plain_decoding_equals_the_naive_decoder(seed, policy, cache):
    own = tiny_denoiser(seed)
    for length in (3, 8, 13):  # within the first block, just one block, and over its border
        prompt = list(range(5, 5 + length))
        tokens, forwards = naive_decode(own.model, MASK_ID, prompt, policy, 8, 16, cache)
        result = decode(own, prompt, make_policy(policy), DecodeConfig(8, 16, cache))
        assert result.tokens == tokens
        assert result.forwards == result.steps == forwards
        assert result.accepted == [0] * forwards
        assert MASK_ID not in tokens


@pytest.mark.parametrize("cache", CACHE_MODES)
def test_early_stop_equals_the_naive_decoder(denoiser, cache):
    whole, _ = naive_decode(denoiser.model, MASK_ID, PROMPT, "static:2", 8, 24, cache)
    stops = set()
    for end in (whole[0], next(token for token in whole[8:16] if token not in whole[:8]), whole[-1]):
        expected = naive_decode(denoiser.model, MASK_ID, PROMPT, "static:2", 8, 24, cache, (end,))
        config = replace(CONFIG, cache=cache, end_token_ids=(end,))
        result = decode(denoiser, PROMPT, make_policy("static:2"), config)
        assert (result.tokens, result.forwards) == expected
        assert result.end == result.tokens.index(end)
        stops.add(len(result.tokens))
    assert len(stops) > 1


def test_without_an_end_token_everything_is_generated(denoiser):
    result = decode(denoiser, PROMPT, make_policy("static:2"), CONFIG)
    assert result.end == len(result.tokens) == 24


def test_an_end_token_of_the_prompts_tail_does_not_stop(denoiser):
    """Block-causal: the first block begins with the prompt's last five tokens."""
    config = replace(CONFIG, cache="block_causal")
    free = decode(denoiser, PROMPT, make_policy("static:1"), config)
    end = next(token for token in PROMPT if token not in free.tokens)
    stopped = decode(denoiser, PROMPT, make_policy("static:1"), replace(config, end_token_ids=(end,)))
    assert stopped.tokens == free.tokens
    assert stopped.end == len(free.tokens)


def test_events(denoiser):
    whole = decode(denoiser, PROMPT, make_policy("static:4"), CONFIG).tokens
    seen = Facts()
    end = next(token for token in whole[8:16] if token not in whole[:8])
    decode(denoiser, PROMPT, make_policy("static:4"), replace(CONFIG, end_token_ids=(end,)), observer=seen)
    assert [(f.block, f.step, f.event) for f in seen.steps] == [
        (0, 1, "refresh"), (0, 2, "block_end"), (1, 1, "refresh"), (1, 2, "early_stop"),
    ]  # fmt: skip


def test_a_block_complete_after_its_refresh_forward_says_both(denoiser):
    seen = Facts()
    decode(denoiser, PROMPT, make_policy("static:8"), CONFIG, observer=seen)
    assert [(f.block, f.step, f.event) for f in seen.steps] == [(block, 1, "refresh+block_end") for block in range(3)]
    seen = Facts()
    end = decode(denoiser, PROMPT, make_policy("static:8"), CONFIG).tokens[0]
    decode(denoiser, PROMPT, make_policy("static:8"), replace(CONFIG, end_token_ids=(end,)), observer=seen)
    assert [f.event for f in seen.steps] == ["refresh+early_stop"]


# ---------------------------------------------------------------- speculation is lossless


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("policy", POLICIES)
def test_speculation_is_lossless(denoiser, policy, cache, backend):
    config = replace(CONFIG, cache=cache, backend=backend)
    seen = Facts()
    plain = decode(denoiser, PROMPT, make_policy(policy), config, observer=seen)
    assert plain.exactness.exact
    saved = 0
    for graph in range(4):
        formulas = random_formulas(graph, 12, step_sizes(policy), ranks=6)
        drafted = Facts()
        result = decode(denoiser, PROMPT, make_policy(policy), config, formulas, observer=drafted)
        assert result.tokens == plain.tokens
        assert result.steps == plain.steps
        same_facts(drafted.steps, seen.steps)
        books_balance(result)
        saved += plain.forwards - result.forwards
    assert saved > 0


@pytest.mark.parametrize("cache", ["none", "prefix"])
def test_packing_beside_a_live_suffix_does_not_claim_exactness(denoiser, cache):
    config = replace(CONFIG, cache=cache, backend="packed")
    result = decode(denoiser, PROMPT, make_policy("static:1"), config, [[(1, 1)]])
    assert not result.exactness.exact
    assert "real block, not the draft" in result.exactness.reason
    books_balance(result)


@pytest.mark.parametrize(("cache", "backend"), [("dual", "packed"), ("block_causal", "packed"), ("none", "expanded")])
@pytest.mark.parametrize("policy", ["static:1", "threshold:0.2"])
def test_sampled_speculation_is_lossless_token_by_token(denoiser, policy, cache, backend):
    drawn = set()
    saved = 0
    for seed in range(2):
        config = replace(CONFIG, cache=cache, backend=backend, seed=seed)
        rule = make_policy(policy, temperature=0.7)
        plain = decode(denoiser, PROMPT, rule, config, prompt_index=4)
        for graph in range(3):
            # A sampled token is often not the most probable one, so a graph needs breadth to be hit.
            result = decode(
                denoiser, PROMPT, rule, config, random_formulas(graph, 24, step_sizes(policy)), prompt_index=4
            )
            assert result.tokens == plain.tokens
            saved += plain.forwards - result.forwards
        drawn.add(tuple(plain.tokens))
        assert decode(denoiser, PROMPT, rule, config, prompt_index=4).tokens == plain.tokens
        assert decode(denoiser, PROMPT, rule, config, prompt_index=5).tokens != plain.tokens
    assert len(drawn) == 2
    assert saved > 0


def test_a_prepared_filler_is_the_same_graph(denoiser):
    formulas = random_formulas(0, 12)
    policy = make_policy("static:1")
    one, other = (decode(denoiser, PROMPT, policy, CONFIG, graph) for graph in (formulas, DraftFiller(formulas)))
    assert (one.tokens, one.accepted, one.query_tokens) == (other.tokens, other.accepted, other.query_tokens)


def test_a_subset_match_is_not_enough(denoiser):
    """Under static:2 a draft of one pair names a state that is never reached, however right its token is."""
    plain = decode(denoiser, PROMPT, make_policy("static:2"), CONFIG)
    result = decode(denoiser, PROMPT, make_policy("static:2"), CONFIG, [[(i, 1)] for i in range(1, 7)])
    assert result.tokens == plain.tokens
    assert result.accepted == [0] * plain.forwards


# ---------------------------------------------------------------- what a forward is, and what it costs


@pytest.mark.parametrize(("cache", "backend"), [(c, b) for c in CACHE_MODES for b in BACKENDS])
@pytest.mark.parametrize("budget", [0, 10])
def test_forwards_and_rows_are_those_of_the_model(denoiser, cache, backend, budget):
    counting = CountingDenoiser(denoiser)
    config = replace(CONFIG, cache=cache, backend=backend)
    result = decode(counting, PROMPT, make_policy("static:1"), config, random_formulas(1, budget))
    assert (result.forwards, result.query_tokens) == (counting.calls, counting.rows)
    books_balance(result)


@pytest.mark.parametrize("cache", CACHE_MODES)
@pytest.mark.parametrize("policy", ["static:8", "static:100", "threshold:1e-9"])
def test_a_block_that_ends_on_its_refresh_forward_pays_no_other(denoiser, policy, cache):
    counting = CountingDenoiser(denoiser)
    prompt = PROMPT + PROMPT[:3]  # eight tokens: no cache mode begins with half a block
    config = replace(CONFIG, cache=cache)
    result = decode(counting, prompt, make_policy(policy), config, random_formulas(0, 5))
    assert counting.calls == result.forwards == result.steps == 3
    assert result.accepted == [0, 0, 0]


def test_the_last_forward_of_a_block_carries_no_drafts(denoiser):
    """With one position masked every draft would complete the block."""
    counting = CountingDenoiser(denoiser)
    config = DecodeConfig(block_length=2, generation_length=2)
    result = decode(counting, PROMPT, make_policy("static:1"), config, [[(1, 1)], [(1, 2)]])
    assert (result.forwards, result.query_tokens) == (2, (5 + 2) + 2)


def test_a_refresh_forward_drafts_nothing(denoiser):
    formulas = random_formulas(0, 12)
    seen = Facts()
    result = decode(denoiser, PROMPT, make_policy("static:1"), CONFIG, formulas, observer=seen)
    position = 0
    for accepted in result.accepted:
        if seen.steps[position].step == 1:
            assert accepted == 0
        # a forward never reaches into the next block
        assert len({fact.block for fact in seen.steps[position : position + 1 + accepted]}) == 1
        position += 1 + accepted
    assert position == len(seen.steps)


# ---------------------------------------------------------------- rankers, and arguments that do not fit


def test_any_ranker_is_lossless_and_sees_all_distributions_of_the_forward(denoiser):
    class Backwards:
        origin = "backwards"
        seen = ()

        def rank(self, ranked, used, masked):
            self.seen = (*self.seen, (len(ranked.top_token), used))
            lagged = LaggedRanker().rank(ranked, used, masked)
            return AnchorRanks(lagged.positions[::-1], lagged.tokens[::-1])

    formulas = [[(i, 1)] for i in range(1, 8)]  # every next commit of one position, wherever it is ranked
    ranker = Backwards()
    plain = decode(denoiser, PROMPT, make_policy("static:1"), CONFIG)
    result = decode(denoiser, PROMPT, make_policy("static:1"), CONFIG, GraphDrafter(formulas, ranker))
    assert result.tokens == plain.tokens
    assert sum(result.accepted) > 0
    assert len(ranker.seen) == result.forwards - 3  # after every forward but the last one of each block
    assert any(used > 0 for _, used in ranker.seen)
    assert max(drafts for drafts, _ in ranker.seen) == 1 + 7


def test_a_graph_beyond_top_j_is_refused(denoiser):
    with pytest.raises(LayoutError, match="read vocabulary rank 5, but only top_j=4 are kept"):
        decode(denoiser, PROMPT, make_policy("static:1"), CONFIG, [[(1, 5)]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_j": 0}, "top_j is 0, expected at least 1"),
        ({"generation_length": 20}, "no multiple of block length"),
        ({"cache": "kv"}, "unknown cache mode 'kv'"),
        ({"backend": "tree"}, "unknown back-end 'tree'"),
    ],
)
def test_lengths_and_modes_that_do_not_fit_are_refused(denoiser, change, message):
    with pytest.raises(LayoutError, match=message):
        decode(denoiser, PROMPT, make_policy("static:1"), replace(CONFIG, **change))


def test_an_empty_prompt_is_refused(denoiser):
    with pytest.raises(LayoutError, match="the prompt length is 0"):
        decode(denoiser, (), make_policy("static:1"), CONFIG)


@pytest.mark.parametrize(
    ("token", "message"), [(MASK_ID, "the mask token 1"), (48, "vocabulary has 48"), (-1, "id -1")]
)
def test_a_prompt_that_the_model_cannot_take_is_refused(denoiser, token, message):
    with pytest.raises(DecodeError, match=message):
        decode(denoiser, (5, 6, token), make_policy("static:1"), CONFIG)
