"""Fast-dLLM's dual-cache decode with drafts: its arguments, its result, its way of counting.

Read: github NVlabs/Fast-dLLM, ``llada/generate.py``, ``generate_with_dual_cache`` at commits 24cc59e (June 2025) and
f6b35ec. A block begins with a forward over the whole sequence; every further forward computes the block alone, on keys
and values of all else. The first version makes the second forward of a block before it looks whether masks are left,
so it counts two at least; the second one looks first.

Whoever calls that function gets drafts by importing this one, with a model of transformers' own classes in the place of
its modelling file (docs/models.md: ``load_checkpoint`` loads LLaDA's weights into one).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from verify.decoding import DecodeConfig, Drafts, decode_batch
from verify.denoiser import Denoiser, offers_copies
from verify.drafters.contract import most_bridges
from verify.drafters.file import DrafterFile, drafter_of
from verify.graph.file import GraphFile
from verify.observing import ForwardFact
from verify.policies.parameters import number_text
from verify.policies.specification import make_policy
from verify.runtimes.profiles import FAST_DLLM
from verify.runtimes.transformers import denoiser_for
from verify.verifier import ValidityMismatchError, run_validity


class _Blocks:
    """Counts the forwards of every block of every prompt."""

    def __init__(self) -> None:
        self.forwards: Counter[tuple[int, int]] = Counter()

    def on_forward(self, fact: ForwardFact) -> None:
        self.forwards[fact.prompt_index, fact.block] += 1


@torch.no_grad()
def generate_with_dual_cache(
    model: Any,
    prompt: torch.Tensor,
    steps: int = 128,
    gen_length: int = 128,
    block_length: int = 128,
    temperature: float = 0.0,
    remasking: str = "low_confidence",
    mask_id: int = 126336,
    threshold: float | None = None,
    factor: float | None = None,
    *,
    drafts: str | Path | GraphFile | DrafterFile | Drafts = (),
    least_forwards: int = FAST_DLLM.least_per_block,
    denoiser: Denoiser | None = None,
) -> tuple[torch.Tensor, int]:
    """Decode a prompt; the arguments up to ``factor`` are those of the published function, in its order.

    Tokens are those of its loop where no confidence lies on a border of float64 and the model never predicts its mask
    (the loop may write the mask as a token; here it is left out).

    Args:
        model: a ``*ForCausalLM`` of transformers that computes LLaDA (logits not shifted).
        prompt: int64 [1, P].
        steps: denoising steps over all blocks, where neither ``threshold`` nor ``factor`` is given.
        gen_length: tokens to generate, a multiple of ``block_length``; none is left out behind an end token.
        temperature, remasking: 0 and ``low_confidence`` only.
        threshold: commit the best and all of at least this confidence, ``threshold:tau``.
        factor: ``factor_code:f``; it goes before ``threshold``.
        drafts: a graph or drafter file, loaded or by its path, or a drafter or formulas; nothing decodes plainly.
        least_forwards: what a block counts at least: 2 as at 24cc59e, 1 as at f6b35ec. A forward that the loop would
            make on a complete block is counted, not made: it computes nothing that is used.
        denoiser: the model behind the runtime's protocol, where it is at hand.

    Returns:
        (x, nfe): int64 [1, P + gen_length], and the forwards that the loop counts.

    Raises:
        ValueError: another temperature or remasking, more than one prompt, lengths or steps that do not divide, or
            drafts that lead over the end of a block.
        verify.verifier.ValidityMismatchError: a file that was made for another policy, block length or cache.
        The errors of :func:`verify.decoding.decode_batch`.
    """
    if temperature != 0 or remasking != "low_confidence":
        raise ValueError(
            f"temperature is {temperature} and remasking {remasking!r}; only 0 and 'low_confidence' are decoded here, "
            "as drawn tokens follow the noise of that loop"
        )
    if prompt.ndim != 2 or len(prompt) != 1:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}, expected [1, P]; call once for every prompt")
    if block_length < 1 or gen_length % block_length:
        raise ValueError(f"gen_length is {gen_length}, expected a multiple of block_length, which is {block_length}")
    blocks = gen_length // block_length
    if steps % blocks:
        raise ValueError(f"steps is {steps}, expected a multiple of the {blocks} blocks")
    policy = make_policy(_spec(steps // blocks, block_length, threshold, factor))
    drafter, valid = drafter_of(drafts)
    top_j = max(drafter.max_vocabulary_rank, policy.ranks, valid.top_j if valid is not None else 1)
    config = DecodeConfig(block_length=block_length, generation_length=gen_length, cache="dual", top_j=top_j)
    if valid is not None:
        wrong = valid.mismatches(
            run_validity(valid.model, valid.model_revision, policy, config), "the drafts were made"
        )
        if wrong:
            raise ValidityMismatchError("the drafts do not fit this call: " + "; ".join(wrong))
    seen = _Blocks()
    denoiser = denoiser_for(model, denoiser, mask_id)
    if most_bridges(drafter, "dual", offers_copies(denoiser)):
        raise ValueError(
            "the drafts lead over the end of a block, which that loop, with a refresh for every block, has no way to "
            "count; give drafter settings without copies"
        )
    rows = [(0, prompt[0].tolist())]
    ((_, result),) = decode_batch(denoiser, rows, policy, config, drafter, forward_observer=seen)
    tail = torch.tensor([result.tokens], dtype=prompt.dtype, device=prompt.device)
    nfe = sum(max(least_forwards, made) for made in seen.forwards.values())
    return torch.cat([prompt, tail], dim=1), nfe


def _spec(steps: int, block_length: int, threshold: float | None, factor: float | None) -> str:
    """The policy that the published arguments ask for."""
    if factor is not None:
        return f"factor_code:{number_text(factor)}"
    if threshold is not None:
        return f"threshold:{number_text(threshold)}"
    return f"low_confidence:{steps}/{block_length}"
