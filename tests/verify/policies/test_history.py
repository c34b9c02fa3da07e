"""Rules with a history in the loop: speculated without changing a token, and only accepted steps enter the history."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from calibrate.recording.recorder import TraceBuilder
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from tests.support.models import END_ID, MASK_ID, random_formulas, tiny_denoiser
from tests.support.observing import Facts, books_balance, same_facts
from verify.decoding import DecodeConfig, decode, decode_batch
from verify.drafters.contract import Proposal
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.policies.specification import make_policy

PROMPT = (5, 9, 13, 17, 21)
CONFIG = DecodeConfig(block_length=8, generation_length=24, top_j=4)
# A random model is unsure and changes its mind: at the published numbers every step would commit one position.
SPECS = ["credit:0.3", "credit:0.4:2:0.9:0.5", "klass:0.2:3", "klass:0.2:2:1"]
EXACT = [("dual", "packed"), ("dual", "expanded"), ("block_causal", "packed"), ("none", "expanded")]


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@pytest.fixture(scope="module")
def plain(denoiser):
    """Plain decodes, each with what was seen of it."""
    found = {}

    def of(spec, config):
        if (spec, config) not in found:
            seen = Facts()
            found[spec, config] = decode(denoiser, PROMPT, make_policy(spec), config, observer=seen), seen.steps
        return found[spec, config]

    return of


@pytest.mark.parametrize("spec", SPECS)
def test_these_numbers_use_the_history(plain, spec):
    """Steps of several positions, and other steps than the rule without its history would take."""
    result, steps = plain(spec, CONFIG)
    sizes = [len(fact.commit_position) for fact in steps]
    assert max(sizes) > 1 and min(sizes) == 1
    if spec.startswith("credit"):
        tau = spec.split(":")[1]
        assert (
            result.steps
            != plain(f"credit:{tau}:{spec.split(':')[2] if spec.count(':') > 1 else 0.7}:0", CONFIG)[0].steps
        )
    else:
        assert all(len(fact.commit_position) == 1 for fact in steps if fact.step == 1)


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("spec", SPECS)
def test_speculation_is_lossless(denoiser, plain, spec, cache, backend):
    config = replace(CONFIG, cache=cache, backend=backend)
    expected, steps = plain(spec, config)
    saved = 0
    drafters = [random_formulas(seed, 40, step_size=None, ranks=6) for seed in (1, 3)]
    for drafts in (*drafters, InformedDrafter(6)):
        seen = Facts()
        result = decode(denoiser, PROMPT, make_policy(spec), config, drafts, observer=seen)
        assert (result.tokens, result.steps) == (expected.tokens, expected.steps)
        same_facts(seen.steps, steps)
        books_balance(result)
        saved += expected.forwards - result.forwards
    assert saved > 0


@pytest.mark.parametrize("spec", ["credit:0.3", "klass:0.2:3"])
@pytest.mark.parametrize("drafter", ["graph", "informed", "copies"])
def test_sequences_of_a_batch_keep_their_histories_apart(denoiser, spec, drafter):
    prompts = [(5, 9, 13), (7, 8, 21, 22, 23, 24, 25, 26), (11, 12, 13, 14, 15), (3, 4), PROMPT]
    drafts = {
        "graph": random_formulas(3, 40, step_size=None),
        "informed": InformedDrafter(6),
        "copies": InformedDrafter(6, InformedSettings(copies=True)),
    }[drafter]
    policy = make_policy(spec)
    alone = {k: decode(denoiser, prompt, policy, CONFIG, prompt_index=k) for k, prompt in enumerate(prompts)}
    for k, result in decode_batch(denoiser, list(enumerate(prompts)), policy, CONFIG, drafts, batch_size=4):
        assert (result.tokens, result.steps) == (alone[k].tokens, alone[k].steps)


@pytest.mark.parametrize("spec", [*SPECS, "credit:0.3@temperature=0.7", "klass:0.2:3@temperature=0.5"])
def test_predicted_is_counted(denoiser, spec):
    policy, config = make_policy(spec), replace(CONFIG, end_token_ids=(END_ID,))
    builder, prompts = TraceBuilder(), [PROMPT, (5, 9, 13), (3, 4)]
    for k, prompt in enumerate(prompts):
        decode(denoiser, prompt, policy, config, prompt_index=k, observer=builder)
    anchors = AnchorTable.from_traces(builder.build())
    nodes = greedy(PrefixTrie.from_anchors(anchors), 24).nodes
    predicted = replay(nodes, anchors)
    counted = [
        decode(denoiser, prompt, policy, config, nodes, prompt_index=k).forwards for k, prompt in enumerate(prompts)
    ]
    assert predicted.forwards_per_prompt.tolist() == counted
    assert predicted.forwards < predicted.plain_forwards


class Spy:
    """Proposes states that are wrong, some that are right, and asks the policy about all that was evaluated.

    Whatever is asked, the state handed over must stay as it was. ``seen`` is that state at every anchor, by block and
    step.

    Args:
        wrong: how many wrong states at an anchor; 0 proposes nothing at all.
        right: states that the decode reaches, as bytes, in the order of the decode.
        tokens: what wrong states are filled with, tokens that the decode never commits.
    """

    max_bridges, max_vocabulary_rank, copies, remembers = 0, 1, False, False

    def __init__(self, wrong, right=(), tokens=()):
        self.max_drafts = wrong + 2
        self.wrong, self.right, self.tokens, self.seen, self.asked = wrong, list(right), list(tokens), {}, 0

    def for_sequence(self):
        return self

    def start_block(self):
        pass

    def learn(self, states, ranked, policy, mask_token_id):
        pass

    def propose(self, evidence):
        state, kept = evidence.policy_state, copy.deepcopy(evidence.policy_state)
        self.seen[evidence.random.block, evidence.random.step] = kept
        for known in evidence.known._known.values():
            masked = np.flatnonzero(known.tokens == MASK_ID)
            view = known.view(masked, MASK_ID)
            random, after = evidence.random, state
            for _ in range(3):
                _, after = evidence.policy.step(view, after, random)
                random = random.after()
                self.asked += 1
        assert same_state(state, kept), "the state was changed in place"
        if not self.wrong:
            return Proposal.of(evidence.block[None][:0])
        drafts = {}
        for real in self.right:
            ahead = np.frombuffer(real, dtype=np.int64)
            left = ahead == MASK_ID
            reached = (evidence.block == MASK_ID) | (ahead == evidence.block)
            if left.any() and reached.all() and left.sum() < len(evidence.masked) and len(drafts) < 2:
                drafts[real] = ahead.copy()
        rng = np.random.default_rng(evidence.random.step)
        while len(drafts) < self.max_drafts and len(evidence.masked) > 1:
            draft = evidence.block.copy()
            chosen = rng.choice(evidence.masked, size=rng.integers(1, len(evidence.masked)), replace=False)
            draft[chosen] = rng.choice(self.tokens, size=len(chosen))
            drafts.setdefault(draft.tobytes(), draft)
        found = [draft for key, draft in drafts.items() if key != evidence.block.tobytes()]
        return Proposal.of(np.array(found, dtype=np.int64).reshape(-1, len(evidence.block)))


def same_state(one, other):
    """Whether two states hold the same numbers, bit for bit."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same_state, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return vars(one).keys() == vars(other).keys() and all(same_state(vars(one)[k], vars(other)[k]) for k in vars(one))


def nearly_same(one, other):
    """The same but for what another shape of the forward does to the last bits of float32."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(nearly_same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=1e-3)
    return all(nearly_same(vars(one)[k], vars(other)[k]) for k in vars(one))


def states_reached(steps, length):
    """The states of a recorded decode, as bytes, in order."""
    block, number, found = None, -1, []
    for fact in steps:
        if fact.block != number:
            block, number = np.full(length, MASK_ID, dtype=np.int64), fact.block
        block[fact.commit_position] = fact.commit_token
        found.append(block.tobytes())
    return found


def never(result):
    """Tokens that a decode did not commit."""
    return sorted(set(range(3, 48)) - set(result.tokens))


@pytest.mark.parametrize("spec", [*SPECS, "credit:0.3@temperature=0.7", "klass:0.2:3@temperature=0.5"])
def test_rejected_drafts_never_touch_the_state(denoiser, spec):
    """Wrong drafts by the dozen beside right ones: at every anchor the history is that of plain decoding."""
    policy, steps, quiet = make_policy(spec), Facts(), Spy(0)
    expected = decode(denoiser, PROMPT, policy, CONFIG, quiet, observer=steps)
    spy = Spy(12, states_reached(steps.steps, CONFIG.block_length), never(expected))
    found = decode(denoiser, PROMPT, policy, CONFIG, spy)
    assert (found.tokens, found.steps) == (expected.tokens, expected.steps)
    assert sum(found.accepted) > 0 and spy.asked > 9 * len(spy.seen)
    assert spy.seen.keys() < quiet.seen.keys()
    assert all(nearly_same(spy.seen[anchor], quiet.seen[anchor]) for anchor in spy.seen)


@pytest.mark.parametrize("spec", ["credit:0.3", "klass:0.2:3"])
def test_drafts_that_are_all_wrong_cost_rows_alone(denoiser, spec):
    policy, quiet = make_policy(spec), Spy(0)
    expected = decode(denoiser, PROMPT, policy, CONFIG, quiet)
    spy = Spy(20, tokens=never(expected))
    found = decode(denoiser, PROMPT, policy, CONFIG, spy)
    assert (found.tokens, found.steps, found.forwards) == (expected.tokens, expected.steps, expected.forwards)
    assert spy.seen.keys() == quiet.seen.keys() and found.query_tokens > expected.query_tokens
    assert all(nearly_same(spy.seen[anchor], quiet.seen[anchor]) for anchor in spy.seen)
