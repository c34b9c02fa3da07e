"""From what a decode tells its observers to the table of a shard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from calibrate.traces.table import TRACE_SCHEMA, Traces, traces_to_table
from verify.observing import StepFact


class Builder(Protocol):
    """Collects what a decode tells and makes the tables of shards from it.

    Attributes:
        schema: of the tables.
    """

    @property
    def schema(self) -> pa.Schema: ...

    def on_step(self, fact: StepFact) -> None: ...

    def table(self, prompt_indices: Iterable[int]) -> pa.Table:
        """What was told of some prompts, as it is written."""
        ...

    def drop_prompts(self, prompt_indices: Iterable[int]) -> None:
        """Forget prompts that are written, or that were not finished."""
        ...


class TraceBuilder:
    """An observer that turns denoising steps into trace columns; steps of several prompts may come interleaved."""

    schema = TRACE_SCHEMA

    def __init__(self) -> None:
        self._facts: dict[int, list[StepFact]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._facts.values()))

    def on_step(self, fact: StepFact) -> None:
        # The loop hands over arrays that it does not change afterwards, so references are enough.
        self._facts.setdefault(fact.prompt_index, []).append(fact)

    def drop_prompts(self, prompt_indices: Iterable[int]) -> None:
        """Forget the steps of prompts that are written, or that were not finished."""
        for prompt_index in prompt_indices:
            self._facts.pop(prompt_index, None)

    def build(self, metadata: dict[str, Any] | None = None, prompt_indices: Iterable[int] | None = None) -> Traces:
        """The steps of ``prompt_indices`` (None: of all) as :class:`Traces`; at least one step is needed."""
        facts = self._ordered(prompt_indices)
        masked = [fact.masked_position for fact in facts]
        commits = [fact.commit_position for fact in facts]
        return Traces(
            prompt_index=np.array([fact.prompt_index for fact in facts], dtype=np.int32),
            block=np.array([fact.block for fact in facts], dtype=np.int32),
            step=np.array([fact.step for fact in facts], dtype=np.int32),
            masked_ptr=np.cumsum([0, *map(len, masked)], dtype=np.int64),
            masked_position=np.concatenate(masked).astype(np.int16),
            top_token=np.concatenate([fact.top_token for fact in facts]).astype(np.int32),
            top_probability=np.concatenate([fact.top_probability for fact in facts]).astype(np.float32),
            commit_ptr=np.cumsum([0, *map(len, commits)], dtype=np.int64),
            commit_position=np.concatenate(commits).astype(np.int16),
            commit_token=np.concatenate([fact.commit_token for fact in facts]).astype(np.int32),
            metadata=metadata or {},
        )

    def table(self, prompt_indices: Iterable[int] | None = None) -> pa.Table:
        """The steps of ``prompt_indices`` (None: of all) as they are written."""
        return traces_to_table(
            self.build(prompt_indices=prompt_indices), [fact.event for fact in self._ordered(prompt_indices)]
        )

    def _ordered(self, prompt_indices: Iterable[int] | None) -> list[StepFact]:
        return [
            fact
            for prompt_index in sorted(self._facts if prompt_indices is None else prompt_indices)
            for fact in self._facts[prompt_index]
        ]
