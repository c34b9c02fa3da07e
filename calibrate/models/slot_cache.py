"""Static key and value buffers of many sequences, as a cache that transformers' models write to and read from.

A step forward writes its keys behind the cached columns and hands attention one view over both; a refresh forward
writes the rows that it caches. Buffers are made once, zeroed (a masked column is multiplied by 0, so it must hold
numbers), and never grow, so a forward over them has the same addresses every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from calibrate.models.cuda_graphs import GraphedForward
from verify.denoiser import SlotRows

#: Compilations kept of a step forward. Batch sizes, caches and block lengths come to a dozen; torch's own limit is
#: eight, behind which it runs eagerly and says so in a log only.
_RECOMPILE_LIMIT = 64


@dataclass(eq=False)
class _Plan:
    """What the layers of a memory share; no layer knows the memory, so that dropping it frees the buffers at once."""

    slots: int
    cached_rows: int
    live_rows: int
    rows: SlotRows | None = None


class SlotMemory:
    """The buffers of all layers, and for shifted models the last hidden state of the row before each slot's block.

    Args:
        layers: of the model.
        slots: sequences, ``S``.
        cached_rows: cached columns per sequence.
        live_rows: columns behind them, for the rows of the forward being run.

    Attributes:
        edge: [S, width], last hidden states; None for models without a shift.
        graphs: replays step forwards; None runs them.
        run_step: runs step forwards, as :func:`run_decoder` does.
    """

    def __init__(self, layers: int, slots: int, cached_rows: int, live_rows: int) -> None:
        self._plan = _Plan(slots, cached_rows, live_rows)
        self.layers = [_SlotLayer(self._plan) for _ in range(layers)]
        self.cache = Cache(layers=list(self.layers))
        self.edge: torch.Tensor | None = None
        self.graphs: GraphedForward | None = None
        self.run_step: Callable[..., torch.Tensor] = run_decoder

    @property
    def bytes(self) -> int:
        """Bytes that the keys and values take; 0 before the first forward."""
        return sum(2 * layer.keys.nbytes for layer in self.layers if layer.keys is not None)

    def set_rows(self, rows: SlotRows | None) -> None:
        """Say what the forward to come is about; None when it is over, so that its tensors can go."""
        self._plan.rows = rows

    def move(self, source: int, target: int) -> None:
        """Copy slot ``source`` to slot ``target``; only cached columns, as live ones do not outlast a forward."""
        for buffer in self._buffers():
            buffer[target, :, : self._plan.cached_rows] = buffer[source, :, : self._plan.cached_rows]
        if self.edge is not None:
            self.edge[target] = self.edge[source]

    def move_columns(self, slot: int, source: int, target: int, count: int) -> None:
        """Copy ``count`` columns of ``slot`` from ``source`` on to ``target`` on; they must not overlap."""
        for buffer in self._buffers():
            buffer[slot, :, target : target + count] = buffer[slot, :, source : source + count]

    def clear(self, slot: int) -> None:
        """Forget what stood in ``slot``: a masked NaN would still be a NaN."""
        for buffer in self._buffers():
            buffer[slot, :, : self._plan.cached_rows] = 0
        if self.edge is not None:
            self.edge[slot] = 0

    def _buffers(self) -> list[torch.Tensor]:
        both = [buffer for layer in self.layers for buffer in (layer.keys, layer.values)]
        return [buffer for buffer in both if buffer is not None]


class _SlotLayer(DynamicLayer):
    """One layer's keys and values, [S, heads, cached + live columns, head width]."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self.plan = plan
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def get_seq_length(self) -> int:
        return 0 if self.plan.rows is None else self.plan.rows.columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.plan.rows
        assert rows is not None  # forward_slots sets them
        if self.keys is None or self.values is None:
            self.keys, self.values = self._new(key_states), self._new(value_states)
            self.is_initialized = True
        if rows.cache_rows is not None and rows.cache_columns is not None:
            batch = torch.arange(len(key_states), device=key_states.device)[:, None]
            slots = batch if rows.slots is None else rows.slots[:, None]
            self.keys[slots, :, rows.cache_columns] = key_states[batch, :, rows.cache_rows]
            self.values[slots, :, rows.cache_columns] = value_states[batch, :, rows.cache_rows]
        if rows.slots is not None:
            if rows.columns == 0:
                return key_states, value_states
            # A refresh of some slots that builds on what they hold: gathered once per block, not per draft.
            return (
                torch.cat([self.keys[rows.slots, :, : rows.columns], key_states], dim=2),
                torch.cat([self.values[rows.slots, :, : rows.columns], value_states], dim=2),
            )
        batch_size, live = key_states.shape[0], slice(rows.columns, rows.columns + key_states.shape[2])
        self.keys[:batch_size, :, live] = key_states
        self.values[:batch_size, :, live] = value_states
        return self.keys[:batch_size, :, : live.stop], self.values[:batch_size, :, : live.stop]

    def _new(self, like: torch.Tensor) -> torch.Tensor:
        plan = self.plan
        return like.new_zeros(plan.slots, like.shape[1], plan.cached_rows + plan.live_rows, like.shape[3])


def run_decoder(
    model: Any, cache: Cache, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Last hidden states [b, r, width] of the rows that the memory of ``cache`` was told of (``set_rows``)."""
    return model.get_decoder()(
        input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state


@cache
def compiled_decoder(backend: str = "inductor") -> Callable[..., torch.Tensor]:
    """:func:`run_decoder` through ``torch.compile``, for step forwards.

    Their shapes take few values, which dynamic shapes cover with a few compilations per batch size and context;
    refreshes, one per block and of any length, are left as they are. There is one of it per process, as compilations
    are kept by function.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
    return torch.compile(run_decoder, backend=backend, dynamic=True)


def forward_slots(model: Any, memory: SlotMemory, rows: SlotRows, shift: int) -> torch.Tensor:
    """Run ``model`` on ``rows``; logits [n, V] of the wanted rows.

    The head is applied to the wanted rows alone. A shifted model predicts a row's token in the row before it, or in
    the hidden state that was kept of it when it was cached.
    """
    memory.set_rows(rows)
    try:
        inputs = rows.tokens, rows.positions, rows.mask
        if rows.slots is not None or rows.cache_rows is not None:
            # A graph would write to the columns that it was captured with, or to none.
            hidden = run_decoder(model, memory.cache, *inputs)
        elif memory.graphs is not None:
            hidden = memory.graphs((rows.columns,), *inputs)
        else:
            hidden = memory.run_step(model, memory.cache, *inputs)
    finally:
        memory.set_rows(None)
    batch, count, width = hidden.shape
    flat = hidden.reshape(batch * count, width)
    if not shift:
        return model.get_output_embeddings()(flat[rows.logit_rows])
    slot = rows.logit_rows // count
    owner = slot if rows.slots is None else rows.slots[slot]
    if memory.edge is None:
        memory.edge = hidden.new_zeros(memory._plan.slots, width)
    if rows.edge_rows is not None:
        numbers = torch.arange(batch, device=hidden.device)
        place = numbers if rows.slots is None else rows.slots
        new = hidden[numbers, rows.edge_rows.clamp(min=0)]
        memory.edge[place] = torch.where((rows.edge_rows >= 0)[:, None], new, memory.edge[place])
    source = torch.where((rows.before < 0)[:, None], memory.edge[owner], flat[rows.before.clamp(min=0)])
    return model.get_output_embeddings()(source)
