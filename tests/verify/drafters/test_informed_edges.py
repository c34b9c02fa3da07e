"""Informed drafts where loops break: short blocks, tails of prompts, ends, histories, noise, hostile proposals."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.support.models import END_ID, MASK_ID, tiny_denoiser, tiny_llama
from tests.support.observing import Facts, books_balance, same_facts
from tests.support.oracle import naive_decode
from verify.decoding import DecodeConfig, DecodeError, decode, decode_batch, make_engine
from verify.drafters.contract import Proposal
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.layout import SequenceLayout
from verify.policies.contract import Commits
from verify.policies.specification import make_policy

PROMPT = [5, 9, 14, 3, 22, 7, 31, 12, 40]
CAUSAL = DecodeConfig(block_length=4, generation_length=16, cache="block_causal", end_token_ids=(END_ID,), top_j=3)
DUAL = replace(CAUSAL, cache="dual")
COPIES = InformedSettings(copies=True)
#: Where a chain leads on into the next block.
CROSSING = [(CAUSAL, InformedSettings()), (DUAL, COPIES)]
crossing = pytest.mark.parametrize(("config", "settings"), CROSSING, ids=["bridges", "copies"])
EXACT = [
    ("dual", "packed"),
    ("dual", "expanded"),
    ("block_causal", "packed"),
    ("block_causal", "expanded"),
    ("none", "expanded"),
    ("prefix", "expanded"),
]


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser(seed=3)


def agrees(denoiser, prompt, policy, config, drafter, **options):
    """The decode with ``drafter``, after it was held against the plain one: tokens, end, every step, the books."""
    seen, drafted = Facts(), Facts()
    plain = decode(denoiser, prompt, policy, config, observer=seen, **options)
    found = decode(denoiser, prompt, policy, config, drafter, observer=drafted, **options)
    assert (found.tokens, found.end, found.steps) == (plain.tokens, plain.end, plain.steps)
    same_facts(drafted.steps, seen.steps)
    books_balance(found)
    assert found.forwards <= plain.forwards
    return found, plain


@pytest.mark.parametrize("tail", range(8))
@pytest.mark.parametrize("backend", ["packed", "expanded"])
def test_a_tail_of_the_prompt_in_the_first_block(denoiser, tail, backend):
    """Under block-causal attention up to all but one position of the first block belong to the prompt."""
    config = replace(CAUSAL, block_length=8, generation_length=14, backend=backend)
    found, plain = agrees(denoiser, PROMPT[:8] + PROMPT[:tail], make_policy("static:1"), config, InformedDrafter(6))
    assert found.forwards < plain.forwards


def test_an_end_token_that_the_prompt_brought_ends_nothing(denoiser):
    prompt = [*PROMPT[:5], END_ID]
    config = replace(CAUSAL, block_length=8)
    found, _ = agrees(denoiser, prompt, make_policy("static:1"), config, InformedDrafter(6))
    assert len(found.tokens) > 2


@crossing
@pytest.mark.parametrize("length", [2, 4])
@pytest.mark.parametrize("spec", ["static:1", "threshold:0.2"])
def test_a_sequence_ends_wherever_its_end_token_stands(denoiser, spec, length, config, settings):
    """Every generated token in turn is the end token, so the end comes in every block, also in one that was bridged."""
    config, policy = replace(config, block_length=length, generation_length=12), make_policy(spec)
    tokens = decode(denoiser, PROMPT, policy, config).tokens
    ends = set()
    for token in dict.fromkeys(tokens):
        drafter = InformedDrafter(6, settings)
        found, _ = agrees(denoiser, PROMPT, policy, replace(config, end_token_ids=(token,)), drafter)
        ends.add(len(found.tokens))
    assert len(ends) > 2


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("length", [1, 2])
def test_blocks_of_one_and_two_positions(denoiser, cache, backend, length):
    config = replace(CAUSAL, cache=cache, backend=backend, block_length=length, generation_length=6)
    for spec in ("static:1", "static:2", "threshold:0.3"):
        for drafts in (1, 5):
            agrees(denoiser, PROMPT, make_policy(spec), config, InformedDrafter(drafts, COPIES))


@pytest.mark.parametrize("length", [1, 2, 4])
def test_an_independent_decoder_says_the_same_of_short_blocks(length):
    model, config = tiny_llama(3), replace(CAUSAL, block_length=length, generation_length=8)
    tokens, _ = naive_decode(model, MASK_ID, PROMPT, "static:1", length, 8, "block_causal", (END_ID,))
    found = decode(tiny_denoiser(3), PROMPT, make_policy("static:1"), config, InformedDrafter(5))
    assert found.tokens == tokens


@pytest.mark.parametrize(("cache", "backend"), EXACT)
def test_more_drafts_than_the_block_has_states(denoiser, cache, backend):
    config = replace(CAUSAL, cache=cache, backend=backend, generation_length=8)
    found, plain = agrees(denoiser, PROMPT, make_policy("static:1"), config, InformedDrafter(40))
    assert found.forwards < plain.forwards


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_no_draft_costs_nothing_and_one_already_saves_forwards(denoiser, cache):
    config, policy = replace(CAUSAL, cache=cache, block_length=8), make_policy("static:1")
    nothing, plain = agrees(denoiser, PROMPT, policy, config, InformedDrafter(0))
    assert (nothing.forwards, nothing.query_tokens) == (plain.forwards, plain.query_tokens)
    one, _ = agrees(denoiser, PROMPT, policy, config, InformedDrafter(1))
    assert one.forwards < plain.forwards


@dataclass
class Counting:
    """Commits two positions in every third step of the sequence: a history that goes on from block to block."""

    spec = "counting"
    needs = "ranks"
    ranks = 1
    monotone = True
    may_do_nothing = False
    step_size = None
    temperature = 0.0

    def initial_state(self):
        return 0

    def step(self, view, state, rng):
        count = 1 + (state % 3 == 2)
        return Commits(view.positions[:count], view.tokens[:count, 0]), state + 1


@dataclass
class Hesitating:
    """Commits what is at least ``tau / (1 + w)`` sure after ``w`` empty steps in a row; nothing where nothing is."""

    tau: float

    spec = "hesitating"
    needs = "ranks"
    ranks = 1
    monotone = True
    may_do_nothing = True
    step_size = None
    temperature = 0.0

    def initial_state(self):
        return 0

    def step(self, view, state, rng):
        sure = view.probabilities[:, 0] >= self.tau / (1 + state)
        chosen = Commits(view.positions[sure], view.tokens[sure, 0])
        return chosen, 0 if len(chosen.positions) else state + 1


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("rule", [Counting(), Hesitating(0.9), Hesitating(0.4)], ids=["counting", "0.9", "0.4"])
def test_a_history_and_thresholds_with_empty_steps(denoiser, rule, cache, backend):
    config = replace(CAUSAL, cache=cache, backend=backend)
    for drafts in (1, 7):
        agrees(denoiser, PROMPT[:7], rule, config, InformedDrafter(drafts, COPIES))


@crossing
def test_these_rules_do_cross_bridges_and_do_wait(denoiser, config, settings):
    """What the test above is about really happens in it."""
    counting, _ = agrees(denoiser, PROMPT[:7], Counting(), config, InformedDrafter(7, settings))
    staying, _ = agrees(denoiser, PROMPT[:7], Counting(), config, InformedDrafter(7, InformedSettings(bridges=False)))
    assert counting.forwards < staying.forwards
    seen = Facts()
    decode(denoiser, PROMPT[:7], Hesitating(0.9), CAUSAL, observer=seen)
    assert any(len(fact.commit_position) == 0 for fact in seen.steps)


def test_a_rule_that_waits_for_ever_is_given_up_as_without_drafts(denoiser):
    for drafts in ((), InformedDrafter(5)):
        with pytest.raises(DecodeError, match="hesitating committed nothing in 64 steps in a row"):
            decode(denoiser, PROMPT, Hesitating(1e9), CAUSAL, drafts)


@pytest.mark.parametrize(("cache", "backend"), [("block_causal", "packed"), ("dual", "packed"), ("prefix", "expanded")])
@pytest.mark.parametrize("spec", ["static:1", "static:3", "threshold:0.3"])
def test_temperature_one_in_short_blocks(denoiser, spec, cache, backend):
    policy = make_policy(spec, temperature=1.0)
    for length, seed in ((2, 0), (4, 1)):
        config = replace(CAUSAL, cache=cache, backend=backend, block_length=length, generation_length=8, seed=seed)
        agrees(denoiser, PROMPT[:7], policy, config, InformedDrafter(5, COPIES), prompt_index=3)


class Hostile(InformedDrafter):
    """Informed drafts, every one twice, the real block among them, and states that no decode reaches."""

    def __init__(self, drafts):
        super().__init__(drafts)
        self.proposed = 0

    @property
    def max_drafts(self):
        return 2 * super().max_drafts + 4

    @property
    def max_bridges(self):
        return 2 * super().max_bridges + 2

    def for_sequence(self):
        inner, outer, rng = super().for_sequence(), self, np.random.default_rng(0)
        propose = inner.propose

        def doubled(evidence):
            proposal, block = propose(evidence), evidence.block
            junk = rng.integers(3, 40, (3, len(block)))
            junk[:, rng.integers(len(block))] = evidence.mask_token_id
            drafts = np.concatenate([junk, block[None], proposal.drafts, proposal.drafts])
            bridges = np.concatenate([proposal.bridges, proposal.bridges])
            if evidence.ahead is not None:  # behind a block that cannot be, and behind one twice
                wrong = np.stack([junk[0], np.full_like(block, evidence.mask_token_id)])
                bridges = np.concatenate([bridges, wrong[None], wrong[None]])
            outer.proposed += len(drafts)
            return Proposal(drafts, bridges)

        inner.propose = doubled
        return inner


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("spec", ["static:1", "threshold:0.3"])
def test_whatever_is_proposed_the_tokens_are_those_of_plain_decoding(denoiser, spec, cache, backend):
    hostile = Hostile(3)
    agrees(denoiser, PROMPT, make_policy(spec), replace(CAUSAL, cache=cache, backend=backend), hostile)
    assert hostile.proposed


class Watched:
    """An engine that notes in which situations a block began that a bridge had computed."""

    def __init__(self, inner):
        self.inner, self.denoiser = inner, inner.denoiser
        self.check, self.open = inner.check, inner.open
        self.moved, self.refreshed, self.carrying, self.slots = set(), set(), set(), 0
        self.events = set()

    def move(self, source, target):
        self.moved.add(target)
        self.inner.move(source, target)

    def refresh(self, slots, sequences, starts):
        self.refreshed.update(slots)
        return self.inner.refresh(slots, sequences, starts)

    def cross(self, slot, sequence, start):
        self.events |= {"moved before"} if slot in self.moved else set()
        self.events |= {"others refreshed before"} if self.refreshed - {slot} else set()
        self.carrying.add(slot)
        self.inner.cross(slot, sequence, start)

    def step(self, slots, states, bridges=None):
        self.events |= {"some carry, some do not"} if 0 < len(self.carrying) < len(slots) else set()
        self.moved, self.refreshed, self.carrying = set(), set(), set()
        return self.inner.step(slots, states, bridges)


@crossing
@pytest.mark.parametrize("backend", ["packed", "expanded"])
def test_sequences_of_a_batch_end_while_others_carry_a_finished_block(denoiser, backend, config, settings):
    rng = np.random.default_rng(1)
    prompts = [(k, rng.integers(3, 40, 3 + 2 * k).tolist()) for k in range(8)]
    policy, config = make_policy("static:1"), replace(config, backend=backend, generation_length=24)
    whole = [decode(denoiser, prompt, policy, config, prompt_index=k).tokens for k, prompt in prompts]
    # The token at which these sequences end in the most different places, and none at once.
    places = {t: {tokens.index(t) if t in tokens else 24 for tokens in whole} for t in range(3, 48)}
    end = max((t for t in places if min(places[t]) > 3), key=lambda t: len(places[t]))
    config = replace(config, end_token_ids=(end,))
    drafter = InformedDrafter(6, settings)
    alone = {k: decode(denoiser, prompt, policy, config, drafter, prompt_index=k) for k, prompt in prompts}
    layouts = [SequenceLayout.make(len(prompt), 24, 4, config.cache) for _, prompt in prompts]
    engine = Watched(make_engine(denoiser, config, layouts, 3, drafter.max_drafts, drafter.max_bridges))
    together = dict(decode_batch(denoiser, prompts, policy, config, drafter, batch_size=3, engine=engine))
    assert engine.events == {"moved before", "others refreshed before", "some carry, some do not"}
    assert len({len(result.tokens) for result in together.values()}) > 2
    for number, prompt in prompts:
        found = together[number]
        assert found.tokens == decode(denoiser, prompt, policy, config, prompt_index=number).tokens
        assert (found.tokens, found.forwards, found.query_tokens, found.accepted) == (
            alone[number].tokens, alone[number].forwards, alone[number].query_tokens, alone[number].accepted,
        )  # fmt: skip


def test_the_same_prompt_twice_in_a_batch_is_decoded_twice_alike(denoiser):
    policy = make_policy("static:1")
    found = dict(decode_batch(denoiser, [(0, PROMPT), (1, PROMPT)], policy, CAUSAL, InformedDrafter(4), batch_size=2))
    assert (found[0].tokens, found[0].forwards, found[0].accepted) == (
        found[1].tokens, found[1].forwards, found[1].accepted,
    )  # fmt: skip
