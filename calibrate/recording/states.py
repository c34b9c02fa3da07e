"""Recording state logs: a decode with drafts, observed, with every state that its forwards evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from calibrate.models.checkpoint import Checkpoint
from calibrate.recording.recorder import RecordingSpeed, Share, record_alone, run_facts
from calibrate.traces.state_log import STATE_SCHEMA, StateLog, log_schema, read_states
from calibrate.traces.table import TraceError
from verify.decoding import DecodeConfig, ForwardFact, StepFact
from verify.denoiser import offers_copies
from verify.drafters.contract import Drafter
from verify.policies.contract import Policy


class StateLogBuilder:
    """An observer that turns forwards into rows of a state log; forwards of several prompts may come interleaved.

    Args:
        schema: its columns (:func:`calibrate.traces.state_log.log_schema`).
    """

    def __init__(self, schema: pa.Schema = STATE_SCHEMA) -> None:
        self.schema = schema
        self._forwards: dict[int, list[ForwardFact]] = {}
        self._commits: dict[tuple[int, int], dict[int, int]] = {}

    def on_step(self, fact: StepFact) -> None:
        """Note what was committed: how a block really ended is told by nothing else."""
        written = self._commits.setdefault((fact.prompt_index, fact.block), {})
        written.update(zip(fact.commit_position.tolist(), fact.commit_token.tolist(), strict=True))

    def on_forward(self, fact: ForwardFact) -> None:
        # The loop hands over arrays that it does not change afterwards, so references are enough.
        self._forwards.setdefault(fact.prompt_index, []).append(fact)

    def drop_prompts(self, prompt_indices: Iterable[int]) -> None:
        """Forget prompts that are written, or that were not finished."""
        for prompt_index in prompt_indices:
            self._forwards.pop(prompt_index, None)
            for key in [key for key in self._commits if key[0] == prompt_index]:
                del self._commits[key]

    def table(self, prompt_indices: Iterable[int]) -> pa.Table:
        """The states of ``prompt_indices`` as they are written, each once, in the order of their forwards.

        Those that a decode reached come before those that a draft or a bridge evaluated: in a near-lossless mode the
        distributions differ, and the decode went on with the first.
        """
        columns: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        for prompt_index in sorted(prompt_indices):
            facts = self._forwards[prompt_index]
            ends = self._ends(prompt_index, facts[0].states[0])
            seen: set[tuple[int, bytes, bytes]] = set()
            for fact in facts:
                self._add(columns, seen, fact, 0, fact.block, fact.states[0][:0], fact.states[0])
            for fact in facts:
                for number, state in enumerate(fact.states[1:], start=1):
                    self._add(columns, seen, fact, number, fact.block, state[:0], state)
                for number, (complete, state) in enumerate(fact.bridges, start=len(fact.states)):
                    behind = complete[:0] if (complete == ends[fact.block]).all() else complete
                    self._add(columns, seen, fact, number, fact.block + 1, behind, state)
            for block, end in ends.items():
                row: dict[str, Any] = dict(prompt_index=prompt_index, block=block, behind=end[:0], state=end)
                for name, column in columns.items():
                    column.append(row.get(name, []))
        return pa.Table.from_pydict(columns, schema=self.schema)

    def _ends(self, prompt_index: int, first: np.ndarray) -> dict[int, np.ndarray]:
        """How the blocks of a prompt ended; ``first`` (int64 [L]): its first one, perhaps with a tail of the prompt."""
        ends = {}
        for (owner, block), written in sorted(self._commits.items()):
            if owner == prompt_index:
                # Of later blocks every position is written.
                ends[block] = first.copy() if block == 0 else np.empty(len(written), dtype=np.int64)
                ends[block][list(written)] = list(written.values())
        return ends

    def _add(
        self,
        columns: dict[str, list[Any]],
        seen: set[tuple[int, bytes, bytes]],
        fact: ForwardFact,
        number: int,
        block: int,
        behind: np.ndarray,
        state: np.ndarray,
    ) -> None:
        key = block, behind.tobytes(), state.tobytes()
        if key in seen:
            return
        seen.add(key)
        masked = ~np.isnan(fact.ranked.top_probability[number, :, 0])
        columns["prompt_index"].append(fact.prompt_index)
        columns["block"].append(block)
        columns["behind"].append(behind)
        columns["state"].append(state)
        columns["top_token"].append(fact.ranked.top_token[number, masked].reshape(-1))
        columns["top_probability"].append(fact.ranked.top_probability[number, masked].reshape(-1))
        if "entropy" in columns:
            assert fact.ranked.entropy is not None  # the policy reads them
            columns["entropy"].append(fact.ranked.entropy[number, masked])


def can_be_logged(policy: Policy) -> bool:
    """Whether a state log holds all that ``policy`` reads."""
    return policy.needs != "logits"


def check_logged(policy: Policy) -> None:
    """Refuse a policy whose steps a state log cannot repeat.

    Raises:
        TraceError: it reads all logits, of which a log keeps the best only.
    """
    if not can_be_logged(policy):
        raise TraceError(
            f"a state log keeps the best tokens of every state, but policy {policy.spec} reads all logits; decode with "
            "the drafter instead, `draftgraph verify` counts"
        )


def state_facts(
    checkpoint: Checkpoint,
    policy: Policy,
    config: DecodeConfig,
    prompts: Sequence[Sequence[int]],
    drafter: Drafter,
    *,
    chat: bool = False,
    prompt_source: str | None = None,
) -> dict[str, Any]:
    """The facts that a state log is valid for: those of a trace, the drafter, the back-end and lengths of prompts,
    whether the model offers copies, and ``entropies`` where they are logged.

    Raises:
        TraceError: as in :func:`check_logged` and :func:`calibrate.recording.recorder.run_facts`.
    """
    check_logged(policy)
    described = drafter.describe()
    facts = run_facts(checkpoint, policy, config, prompts, chat=chat, prompt_source=prompt_source, drafter=described)
    if policy.needs == "entropy":
        facts["entropies"] = True
    return {
        **facts,
        "prompt_lengths": [len(prompt) for prompt in prompts],
        "backend": config.backend,
        "offers_copies": offers_copies(checkpoint.denoiser),
    }


def record_states(
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    config: DecodeConfig,
    folder: str | Path,
    drafter: Drafter,
    *,
    batch_size: int = 1,
    chat: bool = False,
    prompt_source: str | None = None,
    shard_prompts: int = 4,
    on_prompt: Callable[[int, int], None] | None = None,
    on_end: Callable[[RecordingSpeed], None] | None = None,
) -> StateLog:
    """Decode ``prompts`` with ``drafter`` and log every evaluated state into ``folder``; go on after a stop.

    ``config.top_j`` vocabulary ranks are kept of every masked position; 12 bytes each before compression. In
    blocks of 32 with ``top_j = 1``, 96 tokens of the bundled model take 18, 21 and 28 KB at ``D = 4``, 8 and 16.

    Args:
        drafter: it decides which states are evaluated, so what a replay of the log knows.
        checkpoint, prompts, policy, config, folder, batch_size, chat, prompt_source, shard_prompts, on_prompt, on_end:
            as in :func:`calibrate.recording.recorder.record`.

    Raises:
        TraceError: as in ``record``; or a policy that reads all logits, of which a log keeps the best only.
    """
    facts = state_facts(checkpoint, policy, config, prompts, drafter, chat=chat, prompt_source=prompt_source)
    folder = Path(folder)
    share = Share(
        checkpoint, prompts, policy, config, folder,
        batch_size=batch_size, shard_prompts=shard_prompts, builder=StateLogBuilder(log_schema(facts)), drafts=drafter,
    )  # fmt: skip
    record_alone(share, facts, on_prompt, on_end)
    return read_states(folder)
