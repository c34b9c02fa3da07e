"""Static key and value buffers of many sequences, as a cache that transformers' models write to and read from.

A step forward writes its keys behind the frozen columns and hands attention one view over both; a refresh forward
writes the rows it freezes. Buffers are made once, zeroed (a masked column is multiplied by 0, so it must hold
numbers), and never grow, so a forward over them has the same addresses every time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from calibrate.cuda_graphs import GraphedForward
from verify.denoiser import SlotRows


class SlotMemory:
    """The buffers of all layers, and for shifted models the last hidden state of the row before each slot's block.

    Args:
        layers: of the model.
        slots: sequences, ``S``.
        frozen_rows: frozen columns per sequence.
        live_rows: columns behind them, for the rows of the forward being run.
    """

    def __init__(self, layers: int, slots: int, frozen_rows: int, live_rows: int) -> None:
        self.slots, self.frozen_rows, self.live_rows = slots, frozen_rows, live_rows
        self.layers = [_SlotLayer(self) for _ in range(layers)]
        self.cache = Cache(layers=list(self.layers))
        self.rows: SlotRows | None = None
        self.edge: torch.Tensor | None = None  # [S, width]
        self.graphs: GraphedForward | None = None
        self.run_step: Callable[..., torch.Tensor] = run_decoder

    @property
    def bytes(self) -> int:
        """Bytes that the keys and values take; 0 before the first forward."""
        return sum(2 * layer.keys.nbytes for layer in self.layers if layer.keys is not None)

    def move(self, source: int, target: int) -> None:
        """Copy slot ``source`` to slot ``target``; only frozen columns, as live ones do not outlast a forward."""
        for layer in self.layers:
            if layer.keys is not None and layer.values is not None:
                layer.keys[target, :, : self.frozen_rows] = layer.keys[source, :, : self.frozen_rows]
                layer.values[target, :, : self.frozen_rows] = layer.values[source, :, : self.frozen_rows]
        if self.edge is not None:
            self.edge[target] = self.edge[source]


class _SlotLayer(DynamicLayer):
    """One layer's keys and values, [S, heads, frozen + live columns, head width]."""

    def __init__(self, memory: SlotMemory) -> None:
        super().__init__()
        self.memory = memory
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def get_seq_length(self) -> int:
        return 0 if self.memory.rows is None else self.memory.rows.columns

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.memory.rows
        assert rows is not None  # forward_slots sets them
        if self.keys is None or self.values is None:
            self.keys, self.values = self._new(key_states), self._new(value_states)
            self.is_initialized = True
        if rows.freeze_rows is not None and rows.freeze_columns is not None and rows.slots is not None:
            slots = rows.slots[:, None]
            batch = torch.arange(len(key_states), device=key_states.device)[:, None]
            self.keys[slots, :, rows.freeze_columns] = key_states[batch, :, rows.freeze_rows]
            self.values[slots, :, rows.freeze_columns] = value_states[batch, :, rows.freeze_rows]
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
        memory = self.memory
        shape = (memory.slots, like.shape[1], memory.frozen_rows + memory.live_rows, like.shape[3])
        return like.new_zeros(shape)


def run_decoder(
    model: Any, memory: SlotMemory, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Last hidden states [b, r, width] of ``memory.rows``, whose tensors are handed in."""
    return model.get_decoder()(
        input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=memory.cache, use_cache=True
    ).last_hidden_state


@cache
def compiled_decoder(backend: str = "inductor") -> Callable[..., torch.Tensor]:
    """:func:`run_decoder` through ``torch.compile``, for step forwards.

    Their shapes take few values, which dynamic shapes cover with a handful of compilations; refreshes, one per block
    and of any length, are left as they are. There is one of it per process, as compilations are kept by function.
    """
    return torch.compile(run_decoder, backend=backend, dynamic=True)


def forward_slots(model: Any, memory: SlotMemory, rows: SlotRows, shift: int) -> torch.Tensor:
    """Run ``model`` on ``rows``; logits [n, V] of the wanted rows.

    The head is applied to the wanted rows alone. A shifted model predicts a row's token in the row before it, or in
    the hidden state that was kept of it when it was frozen.
    """
    memory.rows = rows
    inputs = rows.tokens, rows.positions, rows.mask
    if memory.graphs is not None and rows.slots is None:
        hidden = memory.graphs((rows.columns,), *inputs)
    else:
        run = memory.run_step if rows.slots is None else run_decoder
        hidden = run(model, memory, *inputs)
    batch, count, width = hidden.shape
    flat = hidden.reshape(batch * count, width)
    if not shift:
        return model.get_output_embeddings()(flat[rows.wanted])
    if rows.edge_rows is not None:
        if memory.edge is None:
            memory.edge = hidden.new_zeros(memory.slots, width)
        numbers = torch.arange(batch, device=hidden.device)
        memory.edge[numbers if rows.slots is None else rows.slots] = hidden[numbers, rows.edge_rows]
    source = flat[rows.before.clamp(min=0)]
    if memory.edge is not None:
        slot = rows.wanted // count
        kept = memory.edge[slot if rows.slots is None else rows.slots[slot]]
        source = torch.where((rows.before < 0)[:, None], kept, source)
    return model.get_output_embeddings()(source)
