"""Where policies are tried: a tiny random model, prompts for it, and every context that promises exactness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from calibrate.models.checkpoint import Checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from calibrate.recording.builder import TraceBuilder
from studies.conformance.failures import Nonconformance
from verify.decoding import DecodeConfig, Drafts, decode_batch
from verify.layout import BACKENDS, CACHE_MODES, exactness
from verify.observing import StepFact
from verify.policies.contract import Policy
from verify.sequence import DecodeResult

MASK_ID = 1
END_ID = 2

#: Cache mode and back-end of every context in which speculation promises to be lossless.
EXACT = tuple((cache, backend) for cache in CACHE_MODES for backend in BACKENDS if exactness(cache, backend).exact)

#: Within a block, just one block, over its border, and of a single token.
PROMPTS = ((5, 9, 13), (7, 8, 21, 22, 23, 24, 25, 26), (11, 12, 13, 14, 15, 30, 31, 32, 33, 34), (3,), (40, 41))
CONFIG = DecodeConfig(block_length=8, generation_length=16, end_token_ids=(END_ID,), top_j=4, seed=5)


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
    """A tiny random model behind the runtime's protocol."""
    return HuggingFaceDenoiser(tiny_llama(seed, vocabulary), MASK_ID)


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


#: What the logits of the model of all checks are multiplied by: its confidences lie all over 0 to 1, so that rules with
#: thresholds for trained models commit one position here and several there.
SHARPNESS = 4.0


@cache
def stage_checkpoint() -> Checkpoint:
    """The model of all checks, in float32."""
    with torch.random.fork_rng(devices=[]):
        model = tiny_llama(3)
    with torch.no_grad():
        model.lm_head.weight *= SHARPNESS
    return tiny_checkpoint(3, HuggingFaceDenoiser(model, MASK_ID))


@dataclass(eq=False)
class Decoded:
    """Decodes of some prompts, each beginning with number 0.

    Attributes:
        results: by prompt.
        steps: every denoising step, those of several prompts interleaved.
        traces: the same as a recording keeps them.
    """

    results: dict[int, DecodeResult] = field(default_factory=dict)
    steps: list[StepFact] = field(default_factory=list)
    traces: TraceBuilder = field(default_factory=TraceBuilder)

    def on_step(self, fact: StepFact) -> None:
        """See :class:`verify.observing.Observer`."""
        self.steps.append(fact)
        self.traces.on_step(fact)

    def commits(self) -> dict[tuple[int, int, int], dict[int, int]]:
        """By prompt, block and step: the committed tokens by offset."""
        return {
            (fact.prompt_index, fact.block, fact.step): dict(
                zip(fact.commit_position.tolist(), fact.commit_token.tolist(), strict=True)
            )
            for fact in self.steps
        }


def config_of(policy: Policy, context: tuple[str, str]) -> DecodeConfig:
    """The lengths of :data:`CONFIG` in a context, with as many vocabulary ranks as the policy reads."""
    cache_mode, backend = context
    return replace(CONFIG, cache=cache_mode, backend=backend, top_j=max(CONFIG.top_j, policy.ranks))


def decoded(
    policy: Policy,
    context: tuple[str, str],
    drafts: Drafts = (),
    *,
    batch: int = 1,
    prompts: Sequence[Sequence[int]] = PROMPTS,
) -> Decoded:
    """Decode ``prompts`` under ``policy``.

    Raises:
        Nonconformance: the decode failed, by a broken contract or an error of the policy.
    """
    found = Decoded()
    denoiser, config = stage_checkpoint().denoiser, config_of(policy, context)
    try:
        ended = decode_batch(
            denoiser, list(enumerate(prompts)), policy, config, drafts, batch_size=batch, observer=found
        )
        found.results.update(ended)
    except Exception as error:  # whatever it raises, the decode of a user would have ended so
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise Nonconformance(f"a decode under {policy.spec} ({' '.join(context)}) failed: {kind}{error}") from error
    return found
