"""The confidence chain."""

import pytest

from drafting.graph import DraftGraph
from drafting.searches.chain import confidence_chain


def test_static_one() -> None:
    chain = confidence_chain(3, block_length=32)
    assert chain.nodes == (((1, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1)))
    assert chain.complete
    assert chain.gains == ()
    assert DraftGraph.from_formulas(chain.nodes, 1).depths()[chain.nodes[2]] == 3


def test_static_two_adds_two_pairs_a_node() -> None:
    chain = confidence_chain(2, block_length=32, step_size=2)
    assert chain.nodes == (((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1), (4, 1)))
    DraftGraph.from_formulas(chain.nodes, 2)


def test_threshold_adds_one_pair_a_node() -> None:
    assert confidence_chain(5, 32, None).nodes == confidence_chain(5, 32, 1).nodes


@pytest.mark.parametrize(
    ("length", "step", "longest"),
    [(32, 1, 30), (32, None, 30), (32, 2, 14), (9, 2, 3), (8, 2, 2), (2, 1, 0), (1, 1, 0)],
)
def test_no_node_that_would_complete_the_block(length: int, step: int | None, longest: int) -> None:
    """At an anchor at most L - k positions are masked, and a draft leaves at least one of them so."""
    chain = confidence_chain(99, length, step)
    assert len(chain.nodes) == longest
    assert not chain.complete
    assert all(len(node) < length - (step or 1) for node in chain.nodes)


@pytest.mark.parametrize(("arguments", "message"), [((-1, 8), "at least 0, got -1"), ((1, 8, 0), "8 and 0")])
def test_nonsense_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confidence_chain(*arguments)
