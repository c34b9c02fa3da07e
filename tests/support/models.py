"""Tiny random models of real architectures, for tests that need a model but no competence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from calibrate.models.checkpoint import Checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from verify.graph.formulas import Formula, formula

MASK_ID = 1
END_ID = 2


def tiny_llama(seed: int = 0, vocabulary: int = 48) -> LlamaForCausalLM:
    """Two layers, width 32, grouped keys; large random weights, so that neighbours matter and confidences spread."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, pad_token_id=None,
        bos_token_id=None, eos_token_id=END_ID, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_denoiser(seed: int = 0, vocabulary: int = 48) -> HuggingFaceDenoiser:
    return HuggingFaceDenoiser(tiny_llama(seed, vocabulary), MASK_ID)


class CountingDenoiser:
    """Counts calls and rows of another denoiser, so that a decode's own books can be checked against it."""

    def __init__(self, inner: HuggingFaceDenoiser) -> None:
        self.inner, self.calls, self.rows = inner, 0, 0
        self.mask_token_id, self.vocabulary_size, self.device = inner.mask_token_id, inner.vocabulary_size, inner.device

    def __call__(self, tokens: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        self.rows += tokens.numel()
        return self.inner(tokens, *args, **kwargs)


def random_formulas(seed: int, count: int, step_size: int | None = 1, ranks: int = 5, top_j: int = 3) -> list[Formula]:
    """A random draft graph that grows from the root by ``step_size`` pairs a step (None: one to three); root left out.

    Low ranks are likelier, as they are in life; otherwise hardly any draft would ever be accepted.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Formula] = [()]
    position_weight = 0.6 ** np.arange(ranks)
    token_weight = 0.25 ** np.arange(top_j)
    for _ in range(50 * count):
        if len(nodes) > count:
            break
        parent = nodes[rng.integers(len(nodes))]
        free = [i for i in range(1, ranks + 1) if i not in {i for i, _ in parent}]
        size = step_size or int(rng.integers(1, 4))
        if size > len(free):
            continue
        weight = np.array([position_weight[i - 1] for i in free])
        chosen = rng.choice(free, size=size, replace=False, p=weight / weight.sum())
        tokens = 1 + rng.choice(top_j, size=size, p=token_weight / token_weight.sum())
        child = formula([*parent, *zip(chosen.tolist(), tokens.tolist(), strict=True)])
        if child not in nodes:
            nodes.append(child)
    return nodes[1:]


def tiny_checkpoint(seed: int = 0, denoiser: Any = None, **changes: Any) -> Checkpoint:
    """A checkpoint of a tiny random model, as if loaded; ``denoiser`` may be a wrapper of one."""
    facts: dict[str, Any] = {
        "name": "tiny",
        "revision": f"seed-{seed}",
        "denoiser": denoiser or tiny_denoiser(seed),
        "tokenizer": None,
        "end_token_ids": (END_ID,),
        "block_length": 8,
        "attention": (),
        "dtype": "float32",
    }
    return Checkpoint(**{**facts, **changes})
