"""The memory of a block: which states stay known."""

import numpy as np

from verify.drafters.memory import StateMemory
from verify.ranked import RankedBlocks


def forward(*states):
    states = np.array(states, dtype=np.int64)
    shape = (*states.shape, 1)
    return states, RankedBlocks(np.zeros(shape, np.int32), np.full(shape, 0.5), None, np.zeros(states.shape, np.int64))


def test_only_the_newest_forwards_are_kept():
    memory = StateMemory(forwards=2)
    for number in range(3):
        memory.add(*forward([number, 0], [number, 1]))
    assert len(memory) == 4
    assert memory.find(np.array([0, 1])) is None
    found = memory.find(np.array([2, 1]))
    assert found is not None and found.index == 1 and found.tokens.tolist() == [2, 1]


def test_a_state_that_is_evaluated_again_stays_as_long_as_its_newest_forward():
    memory = StateMemory(forwards=2)
    memory.add(*forward([7, 7]))
    memory.add(*forward([7, 7], [1, 1]))
    memory.add(*forward([2, 2]))
    assert memory.find(np.array([7, 7])) is not None
    memory.add(*forward([3, 3]))
    assert memory.find(np.array([7, 7])) is None
