"""Influence on literal numbers."""

import numpy as np

from verify.drafters.influence import Influences, Outlook
from verify.ranked import RankedBlocks

MASK = 9
NAN = float("nan")


def ranked(*rows):
    """Ranked blocks from rows of (token, log-odds) per offset; None where a token is committed."""
    token = np.array([[0 if cell is None else cell[0] for cell in row] for row in rows], dtype=np.int32)
    odds = np.array([[NAN if cell is None else cell[1] for cell in row] for row in rows])
    return RankedBlocks(token[:, :, None], (1 / (1 + np.exp(-odds)))[:, :, None], None, np.zeros((1, 1)))


def expected(influences, base, offsets, tokens):
    found = influences.expect(base, np.array(offsets), np.array(tokens))
    return found.token.tolist(), [None if np.isnan(value) else round(value, 9) for value in found.odds]


def test_a_difference_is_added_and_a_changed_token_replaces():
    influences = Influences()
    states = np.array([[MASK, MASK, MASK], [5, MASK, MASK]])
    influences.learn(states, ranked([(5, 2.0), (6, 1.0), (7, 0.5)], [None, (6, 1.8), (8, -0.5)]), 1, MASK)
    assert len(influences) == 1
    base = Outlook(np.array([5, 6, 7]), np.array([2.0, 0.25, 3.0]))
    # Offset 1: the token stays, +0.8. Offset 2: the token changed from 7 to 8, so 8 with its own log-odds.
    assert expected(influences, base, [0], [5]) == ([5, 6, 8], [2.0, 1.05, -0.5])


def test_a_whole_set_goes_before_its_pairs_and_unknown_pairs_change_nothing():
    influences = Influences()
    states = np.array([[MASK] * 3, [5, MASK, MASK], [MASK, 6, MASK], [5, 6, MASK]])
    views = ranked(
        [(5, 2.0), (6, 1.0), (7, 0.0)], [None, (6, 1.0), (7, 1.0)], [(5, 2.0), None, (7, 2.0)], [None, None, (7, 5.0)]
    )
    influences.learn(states, views, 2, MASK)
    base = Outlook(np.array([5, 6, 7]), np.array([2.0, 1.0, 0.0]))
    assert expected(influences, base, [0, 1], [5, 6])[1][2] == 5.0
    singles = Influences()
    # The last state shows what {6} does after {5}: +4, and its base is farther from the reached state than the root,
    # whose +2 stays.
    singles.learn(states, views, 1, MASK)
    assert expected(singles, base, [0, 1], [5, 6])[1][2] == 3.0
    assert expected(singles, base, [2], [4]) == ([5, 6, 7], [2.0, 1.0, 0.0])


def test_the_newest_forward_wins_and_a_new_block_forgets():
    influences = Influences()
    base = Outlook(np.array([5, 6]), np.array([2.0, 1.0]))
    states = np.array([[MASK, MASK], [5, MASK]])
    influences.learn(states, ranked([(5, 2.0), (6, 1.0)], [None, (6, 2.0)]), 1, MASK)
    influences.learn(states, ranked([(5, 2.0), (6, 1.0)], [None, (6, 0.5)]), 1, MASK)
    assert expected(influences, base, [0], [5])[1][1] == 0.5
    influences.forget()
    assert expected(influences, base, [0], [5])[1][1] == 1.0


def test_certainty_stays_finite():
    found = RankedBlocks(np.zeros((1, 2, 1)), np.array([[[1.0], [1e-300]]]), None, np.zeros((1, 1))).log_odds
    assert found.tolist() == [[36.0, -36.0]]
