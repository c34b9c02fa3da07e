"""Watching decodes in tests: an observer that keeps everything, and comparisons of what it saw."""

import numpy as np


class Facts:
    """An observer that keeps everything."""

    def __init__(self):
        self.steps = []

    def on_step(self, fact):
        self.steps.append(fact)


def same_facts(one, other):
    assert [(f.prompt_index, f.block, f.step, f.event) for f in one] == [
        (f.prompt_index, f.block, f.step, f.event) for f in other
    ]
    for a, b in zip(one, other, strict=True):
        for name in ("masked_position", "top_token", "commit_position", "commit_token"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_allclose(a.top_probability, b.top_probability, rtol=1e-4)


def books_balance(result):
    assert len(result.accepted) == result.forwards
    assert sum(1 + accepted for accepted in result.accepted) == result.steps
