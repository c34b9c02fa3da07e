"""What the runtime verifier really needs with a graph, beside what replay predicts; and counts of recorded ranks."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint
from calibrate.traces.table import Traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.contract import Drafter
from verify.policies.contract import Policy


@dataclass(frozen=True)
class Measurement:
    """What the runtime verifier needed on recorded prompts.

    Attributes:
        prompts: prompts decoded.
        differing: (index, tokens) of the prompts whose tokens are not those of the recorded plain decode.
        forwards: forward passes counted.
        query_tokens: query tokens over all forwards.
        steps: denoising steps.
        seconds: wall time, on whatever machine this was; no claim rests on it.
        forwards_per_prompt: per prompt, in the order given.
    """

    prompts: int
    differing: list[tuple[int, list[int]]]
    forwards: int
    query_tokens: int
    steps: int
    seconds: float
    forwards_per_prompt: list[int]

    @property
    def identical(self) -> int:
        """Prompts whose tokens equal the recorded plain decode, token by token."""
        return self.prompts - len(self.differing)

    @property
    def tokens_identical(self) -> float:
        return self.identical / self.prompts if self.prompts else 1.0


def recorded_outputs(traces: Traces, prompts: int) -> list[list[int]]:
    """Generated tokens of each of the first ``prompts`` recorded decodes, as ``DecodeResult.tokens`` gives them."""
    written = traces.committed_blocks()
    outputs = []
    for prompt_index in range(prompts):
        tokens: list[int] = []
        block = 0
        while (prompt_index, block) in written:
            tokens += [token for _, token in sorted(written[prompt_index, block].items())]
            block += 1
        outputs.append(tokens)
    return outputs


def measure(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    drafter: Drafter,
    plain: Sequence[Sequence[int]],
    *,
    batch_size: int = 1,
    cache: Path | None = None,
    on_prompt: Callable[[], None] | None = None,
) -> Measurement:
    """Decode ``prompts`` with ``drafter`` and compare with the recorded plain tokens.

    In float32 tokens and forwards of a prompt do not depend on the batch it is decoded in; only ``seconds`` do.

    Args:
        checkpoint: the model.
        prompts: token ids, the same as recorded, in the same order (a prompt's index keys its noise).
        policy: the unmasking policy.
        config: lengths, cache mode, back-end.
        drafter: what is evaluated beside the real block.
        plain: the recorded tokens per prompt.
        batch_size: prompts decoded at a time.
        cache: a JSON file; a whole measurement of the same drafter, batch and tool version found there is used instead
            of a new one.
        on_prompt: called after every prompt.
    """
    key = _measurement_key(drafter, prompts, config, batch_size)
    known = _read_measurement(cache, key) if cache is not None else None
    if known is not None:
        for _ in prompts if on_prompt else ():
            on_prompt()  # type: ignore[misc]
        return known
    differing: list[tuple[int, list[int]]] = []
    query_tokens = steps = 0
    forwards = [0] * len(prompts)
    start = time.perf_counter()
    for prompt_index, result in decode_batch(
        checkpoint.denoiser, list(enumerate(prompts)), policy, config, drafter, batch_size=batch_size
    ):
        if result.tokens != list(plain[prompt_index]):
            differing.append((prompt_index, result.tokens))
        query_tokens += result.query_tokens
        steps += result.steps
        forwards[prompt_index] = result.forwards
        if on_prompt is not None:
            on_prompt()
    seconds = time.perf_counter() - start
    measurement = Measurement(len(prompts), differing, sum(forwards), query_tokens, steps, seconds, forwards)
    if cache is not None:
        write_json(cache, {"key": key, **asdict(measurement)})
    return measurement


def _read_measurement(cache: Path, key: str) -> Measurement | None:
    """The measurement in ``cache`` if it is whole and of the same ``key``; a damaged one is measured again."""
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
        return Measurement(**found) if found.pop("key", None) == key else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _measurement_key(drafter: Drafter, prompts: Sequence[Sequence[int]], config: DecodeConfig, batch_size: int) -> str:
    facts: Any = [drafter.describe(), [list(prompt) for prompt in prompts], asdict(config), batch_size, tool_version()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def rank_counts(anchors: AnchorTable, block_length: int, top_j: int, max_depth: int = 32) -> dict[str, Any]:
    """How often each (position rank, vocabulary rank) is committed by the next step, and each position rank at depth d.

    Returns:
        ``position_by_vocabulary`` [L][J] and ``position_by_depth`` [L][depth], counts of anchors.
    """
    depth_of_state = np.arange(len(anchors.code)) - np.repeat(anchors.chain_ptr[:-1], anchors.lengths())
    depth = np.repeat(depth_of_state, np.diff(anchors.pair_ptr))
    i, j = anchors.pair_i.astype(np.int64) - 1, anchors.pair_j.astype(np.int64) - 1
    first = depth == 0
    by_vocabulary = np.zeros((block_length, top_j), dtype=np.int64)
    np.add.at(by_vocabulary, (i[first], j[first]), 1)
    by_depth = np.zeros((block_length, max_depth), dtype=np.int64)
    shallow = depth < max_depth
    np.add.at(by_depth, (i[shallow], depth[shallow]), 1)
    tables = {"position_by_vocabulary": by_vocabulary, "position_by_depth": by_depth}
    return {name: tuple(map(tuple, table.tolist())) for name, table in tables.items()}
