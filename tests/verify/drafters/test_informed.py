"""Informed drafts: whatever is proposed, the tokens are those of plain decoding; and the proposals are worth it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.models import END_ID, MASK_ID, random_formulas, tiny_denoiser, tiny_llama
from tests.support.observing import Facts, same_facts
from tests.support.watching import Watching
from verify.decoding import DecodeConfig, decode, decode_batch, make_engine
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.engines.contract import EngineError
from verify.engines.copy_rows import CopyingRowEngine
from verify.engines.rows import RowEngine
from verify.layout import SequenceLayout
from verify.policies.contract import Commits
from verify.policies.specification import make_policy

PROMPT = [5, 9, 14, 3, 22, 7]
COPIES = InformedSettings(copies=True)
CONFIG = DecodeConfig(block_length=8, generation_length=24, end_token_ids=(END_ID,), top_j=4)
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


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize(
    "spec",
    [
        "static:1",
        "static:3",
        "threshold:0.2",
        "threshold:0.4",
        "quota:5/8",
        "dynamic:0.3",
        "dream:margin:5",
        "dream:entropy:6",
    ],
)
def test_tokens_steps_and_facts_are_those_of_plain_decoding(denoiser, spec, cache, backend):
    config = replace(CONFIG, cache=cache, backend=backend)
    seen = Facts()
    plain = decode(denoiser, PROMPT, make_policy(spec), config, observer=seen)
    for drafts in (1, 4, 11):
        drafted = Facts()
        result = decode(denoiser, PROMPT, make_policy(spec), config, InformedDrafter(drafts), observer=drafted)
        assert result.tokens == plain.tokens and result.steps == plain.steps
        same_facts(drafted.steps, seen.steps)
        assert result.forwards <= plain.forwards
        assert sum(1 + accepted for accepted in result.accepted) == result.steps


@pytest.mark.parametrize("spec", ["static:1", "threshold:0.2"])
def test_sampling_meets_the_same_noise(denoiser, spec):
    for seed in range(3):
        config = replace(CONFIG, seed=seed)
        rule = make_policy(spec, temperature=1.0)
        plain = decode(denoiser, PROMPT, rule, config, prompt_index=3)
        assert decode(denoiser, PROMPT, rule, config, InformedDrafter(6), prompt_index=3).tokens == plain.tokens


@dataclass
class Sure:
    """Commits the best position only when it was the best one in the step before, too: a history, and empty steps."""

    spec = "sure"
    needs = "ranks"
    ranks = 1
    monotone = True
    may_do_nothing = True
    step_size = None
    temperature = 0.0

    def initial_state(self):
        return (-1, -1)

    def step(self, view, state, rng):
        best = int(view.positions[0]), int(view.tokens[0, 0])
        if best != state:
            return Commits(view.positions[:0], view.tokens[:0, 0]), best
        return Commits(view.positions[:1], view.tokens[:1, 0]), best


def test_a_history_and_empty_steps_are_followed_exactly(denoiser):
    plain = decode(denoiser, PROMPT, Sure(), CONFIG)
    result = decode(denoiser, PROMPT, Sure(), CONFIG, InformedDrafter(5))
    assert result.tokens == plain.tokens and result.steps == plain.steps
    # An empty step leaves the state as it is, and what is known is not paid for again.
    assert result.forwards < plain.forwards / 2


@pytest.mark.parametrize(("cache", "backend"), EXACT)
def test_a_batch_decodes_as_every_prompt_alone(denoiser, cache, backend):
    prompts = [(k, [*PROMPT[: 2 + k], 30 + k]) for k in range(5)]
    policy, config = make_policy("static:1"), replace(CONFIG, block_length=4, cache=cache, backend=backend)
    together = dict(decode_batch(denoiser, prompts, policy, config, InformedDrafter(4), batch_size=3))
    for number, prompt in prompts:
        plain_engine = RowEngine(denoiser, cache, backend)
        alone = decode(denoiser, prompt, policy, config, InformedDrafter(4), prompt_index=number, engine=plain_engine)
        found = together[number]
        assert (found.tokens, found.forwards, found.query_tokens, found.accepted) == (
            alone.tokens, alone.forwards, alone.query_tokens, alone.accepted,
        )  # fmt: skip


def test_no_drafts_is_plain_decoding(denoiser):
    policy = make_policy("static:1")
    plain = decode(denoiser, PROMPT, policy, CONFIG)
    found = decode(denoiser, PROMPT, policy, CONFIG, InformedDrafter(0))
    assert (found.tokens, found.forwards, found.query_tokens) == (plain.tokens, plain.forwards, plain.query_tokens)


def test_proposals_are_new_distinct_and_never_complete(denoiser):
    for drafts in (3, 30):
        for spec in ("static:1", "threshold:0.2"):
            for cache in ("dual", "block_causal"):
                watching = Watching(drafts)
                decode(denoiser, PROMPT, make_policy(spec), replace(CONFIG, cache=cache), watching)
                assert max(len(forward) for block in watching.blocks for forward in block) <= 1 + drafts


def test_bridges_save_refresh_forwards_and_stop_at_the_end(denoiser):
    """With bridges fewer forwards, the same tokens; none leads past the last block or an end token (see
    ``Watching``).
    """
    policy, config = make_policy("static:1"), replace(CONFIG, block_length=4, cache="block_causal")
    plain = decode(denoiser, PROMPT, policy, config)
    crossing = decode(denoiser, PROMPT, policy, config, InformedDrafter(6))
    staying = decode(denoiser, PROMPT, policy, config, InformedDrafter(6, InformedSettings(bridges=False)))
    assert crossing.tokens == staying.tokens == plain.tokens
    assert crossing.forwards < staying.forwards
    ending = replace(config, end_token_ids=tuple(set(plain.tokens[:8])))
    stopped = decode(denoiser, PROMPT, policy, ending)
    watching = Watching(6)
    assert len(stopped.tokens) < len(plain.tokens)
    assert decode(denoiser, PROMPT, policy, ending, watching).tokens == stopped.tokens


@pytest.mark.parametrize("backend", ["packed", "expanded"])
@pytest.mark.parametrize("length", [4, 8, 16, 32])
def test_copies_change_no_token_and_no_step(denoiser, length, backend):
    """Several prompts at a time, which stand at different blocks, decode as plainly, and as each prompt alone."""
    prompts = [(k, [*PROMPT[: 2 + k], 30 + k]) for k in range(3)]
    config = replace(CONFIG, block_length=length, generation_length=2 * length, cache="dual", backend=backend)
    drafter = InformedDrafter(5, COPIES)
    rules = [make_policy("threshold:0.2"), make_policy("threshold:0.2", temperature=1.0), make_policy("static:1")]
    crossed = 0
    for policy in rules[: 3 if length < 16 else 2]:
        plain = dict(decode_batch(denoiser, prompts, policy, config))
        found = dict(decode_batch(denoiser, prompts, policy, config, drafter, batch_size=2))
        for number, prompt in prompts:
            engine = CopyingRowEngine(denoiser, "dual", backend)
            alone = decode(denoiser, prompt, policy, config, drafter, prompt_index=number, engine=engine)
            assert (found[number].tokens, found[number].steps) == (plain[number].tokens, plain[number].steps)
            for name in ("tokens", "forwards", "query_tokens", "accepted"):
                assert getattr(alone, name) == getattr(found[number], name)
        staying = dict(decode_batch(denoiser, prompts, policy, config, InformedDrafter(5), batch_size=2))
        crossed += sum(staying[k].forwards - found[k].forwards for k, _ in prompts)
    assert crossed > 0 or length > 8  # where blocks are long, few ends of a random model are foreseen


def test_copies_save_refresh_forwards_and_one_stands_behind_one_block(denoiser):
    policy, config = make_policy("static:1"), replace(CONFIG, block_length=4)
    plain = decode(denoiser, PROMPT, policy, config)
    watching = Watching(6, COPIES)
    copying = decode(denoiser, PROMPT, policy, config, watching)
    staying = decode(denoiser, PROMPT, policy, config, InformedDrafter(6))
    assert copying.tokens == staying.tokens == plain.tokens
    assert copying.forwards < staying.forwards
    ending = replace(config, end_token_ids=tuple(set(plain.tokens[:8])))
    assert decode(denoiser, PROMPT, policy, ending, watching).tokens == decode(denoiser, PROMPT, policy, ending).tokens
    # Here a block ends otherwise than was foreseen first, and a second copy takes the place of the first.
    decode(denoiser, PROMPT, policy, CONFIG, watching)


def test_where_no_copy_can_be_made_there_are_none():
    """A shifted model, and cache modes other than dual: the same decode as without the wish."""
    policy = make_policy("static:1")
    shifted = HuggingFaceDenoiser(tiny_llama(3), MASK_ID, logits_shift=1)
    for denoiser, cache in ((shifted, "dual"), (tiny_denoiser(3), "none"), (tiny_denoiser(3), "block_causal")):
        config = replace(CONFIG, cache=cache, block_length=4)
        wished, plain = (
            decode(denoiser, PROMPT, policy, config, InformedDrafter(4, settings))
            for settings in (COPIES, InformedSettings())
        )
        assert (wished.tokens, wished.query_tokens) == (plain.tokens, plain.query_tokens)


def test_a_history_crosses_bridges(denoiser):
    config = replace(CONFIG, block_length=4, cache="block_causal")
    plain = decode(denoiser, PROMPT, Sure(), config)
    assert decode(denoiser, PROMPT, Sure(), config, InformedDrafter(5)).tokens == plain.tokens
    rule = make_policy("static:1", temperature=1.0)
    plain = decode(denoiser, PROMPT, rule, config, prompt_index=3)
    assert decode(denoiser, PROMPT, rule, config, InformedDrafter(5), prompt_index=3).tokens == plain.tokens


def test_the_walk_goes_through_states_of_earlier_forwards(denoiser):
    """What an earlier forward evaluated is accepted later, without being paid: more steps than its own drafts."""
    found = 0
    for drafts in (1, 2, 3):
        watching = Watching(drafts)
        result = decode(denoiser, PROMPT, make_policy("static:1"), CONFIG, watching)
        own = [len(forward) - 1 for block in watching.blocks for forward in block]
        found += sum(accepted > count for accepted, count in zip(result.accepted, own, strict=True))
    assert found > 0


def test_it_needs_fewer_forwards_than_a_graph_of_as_many_drafts():
    """On a random model, eight prompts: not a promise, but a drafter that does not learn would not get there."""
    denoiser = tiny_denoiser(seed=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 40, 6).tolist() for _ in range(8)]
    policy = make_policy("static:1")
    chain = [tuple((i, 1) for i in range(1, depth + 1)) for depth in range(1, 7)]
    counted = {"chain": 0, "informed": 0, "random": 0}
    for number, prompt in enumerate(prompts):
        for name, drafts in (("chain", chain), ("informed", InformedDrafter(6)), ("random", random_formulas(1, 6))):
            counted[name] += decode(denoiser, prompt, policy, CONFIG, drafts, prompt_index=number).forwards
    assert counted["informed"] < min(counted["chain"], counted["random"])


@pytest.mark.parametrize(
    ("spec", "forwards"), [("static:1", 0), ("dream:entropy:6", 0), ("dream:entropy:6@temperature=1", 1)]
)
def test_logits_stay_on_the_device_only_where_they_are_read_and_then_of_one_forward(denoiser, spec, forwards):
    """Else every state that is remembered, in this block or ahead of it, would hold the logits of its whole forward."""
    held = []

    class Holding(InformedDrafter):
        def for_sequence(self):
            inner = super().for_sequence()
            propose = inner.propose

            def noted(evidence):
                memories = [evidence.known, *(evidence.ahead or {}).values()]
                known = [state for memory in memories for state in memory._known.values()]
                held.append(len({id(state.ranked) for state in known if state.ranked.logits is not None}))
                return propose(evidence)

            inner.propose = noted
            return inner

    config = replace(CONFIG, cache="block_causal", block_length=4)
    decode(denoiser, PROMPT, make_policy(spec), config, Holding(6))
    assert set(held) == {forwards}


def test_an_engine_without_room_for_bridges_is_refused_before_it_runs(denoiser):
    config = replace(CONFIG, cache="block_causal")
    layout = SequenceLayout.make(len(PROMPT), config.generation_length, config.block_length, config.cache)
    engine = make_engine(denoiser, config, [layout], 1, 6)
    with pytest.raises(EngineError, match=r"up to 6 drafts and 6 bridges at an anchor, but .* at most 6 and 0"):
        decode(denoiser, PROMPT, make_policy("static:1"), config, InformedDrafter(6), engine=engine)


@pytest.mark.parametrize("drafts", [-1, True, 2.0])
def test_a_number_of_drafts_is_a_whole_number(drafts):
    with pytest.raises(ValueError, match=f"drafts is {drafts!r}, expected a whole number of at least 0"):
        InformedDrafter(drafts)
