"""The numpy core of informed drafts: on real decodes it reaches the states and proposes the drafts of the drafter."""

import numpy as np
import pytest

from tests.support.models import END_ID, MASK_ID, tiny_denoiser
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.observing import ForwardFact
from verify.policies.specification import make_policy
from verify.runtimes import numpy_core
from verify.runtimes.numpy_informed import Informed

PROMPTS = ([5, 9, 14, 3, 22, 7], [30, 31, 8], [11])
#: Of a rule: its specification, and what the core is told.
RULES = {
    "static:1": {"least": 1},
    "static:2": {"least": 2},
    "static:3": {"least": 3},
    "threshold:0.2": {"tau": 0.2},
    "threshold:0.5": {"tau": 0.5},
    "threshold:1": {"tau": 1.0},
    "dynamic:0.3": {"tau": 0.3, "strict": True},
}


class Forwards(list[ForwardFact]):
    def on_forward(self, fact: ForwardFact) -> None:
        self.append(fact)


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser(seed=3)


def compared(denoiser, spec: str, drafts: int, prompt: list[int], **settings) -> tuple[int, int]:
    """Feed the forwards of a decode to the core; returns how many there were, and how many drafts were proposed."""
    seen = Forwards()
    drafter = InformedDrafter(drafts, InformedSettings(bridges=False, **settings))
    config = DecodeConfig(block_length=8, generation_length=24, end_token_ids=(END_ID,))
    list(decode_batch(denoiser, [(0, prompt)], make_policy(spec), config, drafter, forward_observer=seen))
    named = {"alternatives": settings.get("fill") != "none", "coefficient": settings.get("coefficient", 1.0)}
    core = Informed(drafts, MASK_ID, **RULES[spec], **named)
    block, proposed, state = -1, 0, np.zeros(0)
    for fact in seen:
        if fact.block != block:
            block = fact.block
            core.start_block()
        else:
            np.testing.assert_array_equal(fact.states[0], state)
            np.testing.assert_array_equal(fact.states[1:], core.propose())
            proposed += len(fact.states) - 1
        ranked = fact.ranked
        state = core.advance(fact.states, ranked.top_token[:, :, 0], ranked.top_probability[:, :, 0])
    assert (state != MASK_ID).all()
    return len(seen), proposed


@pytest.mark.parametrize("spec", RULES)
@pytest.mark.parametrize("drafts", [1, 4, 11])
def test_states_and_drafts_are_those_of_the_drafter(denoiser, spec: str, drafts: int) -> None:
    counts = [compared(denoiser, spec, drafts, prompt) for prompt in PROMPTS]
    forwards, proposed = map(sum, zip(*counts, strict=True))
    assert forwards >= 9 and proposed >= forwards // 6  # three blocks each; bold rules leave little to propose


@pytest.mark.parametrize("settings", [{"fill": "none"}, {"coefficient": 0.5}, {"coefficient": 0.0}], ids=str)
@pytest.mark.parametrize("spec", ["static:1", "threshold:0.2"])
def test_settings(denoiser, spec: str, settings: dict) -> None:
    compared(denoiser, spec, 6, PROMPTS[0], **settings)


def test_what_is_read_of_a_distribution_is_what_the_core_ranks() -> None:
    """No position that is not masked is read, and an accepted draft leads on for free."""
    logits = np.random.default_rng(0).normal(size=(1, 4, 9)).astype(np.float32)
    state = np.full((1, 4), 8)
    drafter = Informed(3, 8)
    ranks = numpy_core.rank(logits, state, 8, 1)
    first = drafter.advance(state, ranks.tokens[:, :, 0], ranks.confidence)
    np.testing.assert_array_equal(first, numpy_core.commit(ranks, state, numpy_core.Rule(1))[0])
    states = np.concatenate([first[None], drafter.propose()])
    assert len(states) == 4
    rows = np.repeat(logits, 4, axis=0)
    ranks = numpy_core.rank(rows, states, 8, 1)
    poisoned = np.where(states == 8, ranks.confidence, np.nan)
    reached = drafter.advance(states, np.where(states == 8, ranks.tokens[:, :, 0], 99), poisoned)
    assert (reached != 8).all()  # logits that never change lead through the whole chain


@pytest.mark.parametrize("wrong", [{"least": 0}, {"drafts": -1}])
def test_what_it_cannot_follow_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected at least 1 and at least 0"):
        Informed(**{"drafts": 2, "mask_token": 8} | wrong)
