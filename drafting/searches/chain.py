"""The confidence chain: always guess that the next steps commit the best positions with their best tokens.

Needs no traces. This is what SSD (arXiv 2510.04147) and FreeDave (arXiv 2510.00294) draft, in their
block-state form.
"""

from __future__ import annotations

from drafting.searches.result import SearchResult, check_budget


def confidence_chain(budget: int, block_length: int, step_size: int | None = 1) -> SearchResult:
    """The chain {1..k}, {1..2k}, ... of position ranks, every position with vocabulary rank 1.

    Args:
        budget: draft nodes asked for.
        block_length: positions in a block, ``L``. Before the first anchor at least ``k`` positions are
            committed, and a draft that completes the block is worthless; so a node has at most ``L - k - 1``
            pairs, and there are ``(L - k - 1) // k`` nodes at most.
        step_size: ``k`` of ``static:k``. None (a threshold rule): each node has one pair more than the one
            before. A step that commits two pairs skips a node and accepts the next.

    Returns:
        A :class:`SearchResult` without gains.

    Raises:
        ValueError: a negative budget, a block length or step size below 1.
    """
    check_budget(budget)
    step = 1 if step_size is None else step_size
    if block_length < 1 or step < 1:
        raise ValueError(f"block_length and step_size must be at least 1, got {block_length} and {step_size}")
    longest = max(0, (block_length - step - 1) // step)
    order = tuple(tuple((i, 1) for i in range(1, step * depth + 1)) for depth in range(1, min(budget, longest) + 1))
    return SearchResult("chain", budget, order)
