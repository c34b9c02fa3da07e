"""The chain of predicted states, where it is cut short or a policy cannot read what is only expected."""

import numpy as np
import pytest

from tests.support.models import END_ID, tiny_denoiser
from verify.decoding import DecodeConfig, decode
from verify.drafters.chain import expected_view
from verify.drafters.influence import Outlook
from verify.drafters.informed import InformedDrafter
from verify.policies.confidence import StaticTopK
from verify.policies.contract import PolicyError

PROMPT = [5, 9, 14, 3, 22, 7]
CONFIG = DecodeConfig(block_length=8, generation_length=16, cache="block_causal", end_token_ids=(END_ID,), top_j=4)


def failing(error):
    """A rule from elsewhere: the best position by its lead, and ``error`` where there is no second rank to lead."""

    class ByLead(StaticTopK):
        asked = 0

        def step(self, view, state, rng):
            if view.tokens.shape[1] == 1:
                ByLead.asked += 1
                if error is not None:
                    raise error
            view.tokens[:, 1]  # an IndexError of its own, as careless code has it
            return super().step(view, state, rng)

    return ByLead(1)


@pytest.mark.parametrize(
    "error",
    [PolicyError("one rank"), ValueError("kth out of bounds"), KeyError("second"), ZeroDivisionError(), None],
    ids=repr,
)
def test_a_policy_that_cannot_read_an_expected_view_never_ends_a_decode(error):
    denoiser, policy = tiny_denoiser(seed=3), failing(error)
    plain = decode(denoiser, PROMPT, policy, CONFIG)
    assert policy.asked == 0
    result = decode(denoiser, PROMPT, policy, CONFIG, InformedDrafter(5))
    assert policy.asked > 0 and result.tokens == plain.tokens
    assert result.forwards < plain.forwards, "its steps are guessed, and some guesses are right"


@pytest.mark.parametrize("error", [TypeError("broken"), AttributeError("broken")], ids=repr)
def test_a_mistake_of_the_policy_is_not_hidden(error):
    with pytest.raises(type(error), match="broken"):
        decode(tiny_denoiser(seed=3), PROMPT, failing(error), CONFIG, InformedDrafter(5))


def test_influences_that_add_up_to_absurd_odds_are_still_probabilities():
    outlook = Outlook(np.zeros(3, dtype=np.int64), np.array([-2000.0, 0.0, 2000.0]))
    with np.errstate(all="raise", under="ignore"):
        view = expected_view(outlook, np.array([2, 1, 0]))
    assert view.probabilities[:, 0].tolist() == [1.0, 0.5, pytest.approx(0.0, abs=1e-300)]
