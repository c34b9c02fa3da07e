"""How many positions a step commits, where a published loop fixes that beforehand.

A schedule is a tuple of counts, one per denoising step of a block, each at least 1. It depends on the number of
positions masked when the block begins and on nothing that the model says.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def even_quotas(positions: int, steps: int) -> tuple[int, ...]:
    """``positions`` spread over ``steps`` steps, the first ones taking one more (LLaDA's num_transfer_tokens; SDAR's).

    With more steps than positions the later steps have nothing to commit and are left out.
    """
    base, more = divmod(positions, steps)
    return tuple(base + (step < more) for step in range(steps) if base + (step < more))


@lru_cache(maxsize=1024)
def timed_quotas(positions: int, steps: int, eps: float) -> tuple[int, ...]:
    """Dream's schedule: time falls evenly from 1 to ``eps``, a step from t to s commits ``int(masked * (1 - s / t))``.

    The last step commits what is left. Steps that commit nothing (often the first one) are left out: the state and so
    the distribution stay as they are, and the same forward would be paid again. In float32, as the source computes it;
    one rounding more or less moves a commit to another step.
    """
    import torch  # here, so that naming a policy (reading a graph file) costs no import of torch

    time = torch.linspace(1, eps, steps + 1)
    quotas, masked = [], positions
    for step in range(steps):
        share = torch.tensor(masked, dtype=torch.float32) * (1 - time[step + 1] / time[step])
        count = masked if step == steps - 1 else int(share)
        quotas.append(count)
        masked -= count
    return tuple(count for count in quotas if count)


def quota(quotas: tuple[int, ...], step: int) -> int:
    """The count of a 1-based step; a block that outlives its schedule goes on with the last count."""
    return quotas[min(step, len(quotas)) - 1]
