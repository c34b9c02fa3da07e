"""Draft rows in SGLang's paged cache: further rows of a batch over the same prefix, with a page of their own each.

A row of SGLang's batch is a row of ``req_to_token`` (where the keys and values of each position lie) and a block of
tokens. A draft row shares the prefix of its request, position by position, and writes its own block to slots that are
taken for one forward. Nothing of SGLang is imported: what is handed in is used (checked with release 0.5.23: pools in
``srt/mem_cache``, the batch in ``srt/model_executor/forward_batch_info.py``, the plan of locations in
``srt/mem_cache/kv_loc_plan.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

#: Fields of a batch with one entry a request.
_TENSORS = ("seq_lens", "seq_lens_cpu", "orig_seq_lens", "extend_seq_lens", "extend_prefix_lens")
_LISTS = (
    "extend_prefix_lens_cpu", "extend_seq_lens_cpu", "extend_logprob_start_lens_cpu", "rids", "lora_ids", "mm_inputs",
)  # fmt: skip


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many of ``room`` rows each request gets of those it wants: one after the other, in turns.

    >>> shares([5, 1, 3], 6)
    [3, 1, 2]
    """
    granted = [0] * len(wanted)
    while room > 0 and granted != list(wanted):
        for index, most in enumerate(wanted):
            if granted[index] < most and room > 0:
                granted[index] += 1
                room -= 1
    return granted


@dataclass(eq=False)
class DraftRows:
    """The draft rows of one forward, and what they hold of the pools until :meth:`release`.

    Attributes:
        runner: SGLang's model runner.
        batch: the requests' own rows, a ``ForwardBatch`` of ``B`` blocks of ``size`` tokens.
        size: positions in a block.
        owner: per draft row, the request that it drafts for.
        rows: per draft row, its row of ``req_to_token``.
        pages: int64 [R, size], the slots that it writes.
    """

    runner: Any
    batch: Any
    size: int
    owner: list[int]
    rows: list[int]
    pages: torch.Tensor

    @classmethod
    def reserve(cls, runner: Any, batch: Any, size: int, wanted: Sequence[int], most: int) -> DraftRows:
        """Take rows and slots for ``wanted`` drafts (one number a request); fewer where the pools are short.

        Whoever gets none decodes plainly in this forward, so a full server only loses its speed-up.

        Args:
            most: rows of the forward at most, those of the requests included.
        """
        pool, allocator = runner.req_to_token_pool, runner.token_to_kv_pool_allocator
        room = min(most - batch.batch_size, pool.available_size(), allocator.available_size() // size)
        granted = shares(wanted, max(0, room))
        owner = [request for request, count in enumerate(granted) for _ in range(count)]
        pages = allocator.alloc(len(owner) * size) if owner else None
        if pages is None:
            return cls(runner, batch, size, [], [], torch.zeros((0, size), dtype=torch.int64))
        rows = cls(runner, batch, size, owner, pool.alloc_rows(len(owner)), pages.reshape(-1, size))
        table = pool.req_to_token
        for row, request, page in zip(rows.rows, owner, rows.pages, strict=True):
            start, end = rows._span(request)
            table[row, :start] = table[batch.req_pool_indices[request], :start]
            table[row, start:end] = page.to(table.dtype)
        return rows

    def _span(self, request: int) -> tuple[int, int]:
        """First position of the request's block, and the first one behind it."""
        end = int(self.batch.seq_lens_cpu[request])
        return end - self.size, end

    def pack(self, states: torch.Tensor) -> Any:
        """The batch with the draft rows behind the requests' own.

        Args:
            states: [R, size], the drafts in the order of ``owner``.

        The location plan is made anew, as SGLang makes it for a batch of its own; attention metadata follow from it.
        """
        batch, device = self.batch, self.batch.input_ids.device
        owner = torch.tensor(self.owner, device=device)
        rows = torch.tensor(self.rows)
        count = batch.batch_size + len(self.owner)
        changed: dict[str, Any] = {}
        for name in _TENSORS:
            value = getattr(batch, name)
            if value is not None:
                changed[name] = torch.cat([value, value[owner.to(value.device)]])
        for name in _LISTS:
            value = getattr(batch, name)
            if value is not None:
                changed[name] = [*value, *(value[request] for request in self.owner)]
        for name in ("req_pool_indices", "req_pool_indices_cpu"):
            value = getattr(batch, name)
            if value is not None:
                changed[name] = torch.cat([value, rows.to(value)])
        positions, prompt = batch.positions, batch.dllm_prompt_mask
        start = batch.extend_start_loc
        packed = replace(
            batch,
            **changed,
            batch_size=count,
            input_ids=torch.cat([batch.input_ids, states.reshape(-1).to(batch.input_ids)]),
            positions=torch.cat([positions, positions.view(-1, self.size)[owner].reshape(-1)]),
            dllm_prompt_mask=None if prompt is None else torch.cat([prompt, prompt[owner]]),
            seq_lens_sum=int(changed["seq_lens_cpu"].sum()),
            extend_num_tokens=count * self.size,
            extend_start_loc=torch.arange(count, dtype=start.dtype, device=start.device) * self.size,
            forward_metadata_ready=False,
        )
        bind(self.runner, packed, torch.cat([write_window(batch), self.pages.reshape(-1).to(write_window(batch))]))
        packed._init_num_token_non_padded(device=self.runner.device, is_draft_worker=False)
        return packed

    def adopt(self, row: int) -> None:
        """The request of draft row number ``row`` goes on with that row's keys and values; its own page is given back.

        So a finished block needs no further forward that stores it.
        """
        request = self.owner[row]
        start, end = self._span(request)
        table = self.runner.req_to_token_pool.req_to_token
        own = self.batch.req_pool_indices[request]
        previous, adopted = table[own, start:end].to(self.pages.dtype), self.pages[row].clone()
        table[own, start:end] = adopted.to(table.dtype)
        self.pages[row] = previous
        # A synchronous batch may go on with other requests, and then rewrites this block: where it lies now.
        window = write_window(self.batch).clone()
        window[request * self.size : (request + 1) * self.size] = adopted.to(window)
        bind(self.runner, self.batch, window)

    def release(self) -> None:
        """Give rows and slots back to the pools."""
        if self.owner:
            self.runner.req_to_token_pool.free_rows(self.rows)
            self.runner.token_to_kv_pool_allocator.free(self.pages.reshape(-1))


def write_window(batch: Any) -> torch.Tensor:
    """The slots that the batch writes, int64 [tokens], as the allocator names them."""
    return batch.out_cache_loc if batch.out_cache_loc_virtual is None else batch.out_cache_loc_virtual


def bind(runner: Any, batch: Any, window: torch.Tensor) -> None:
    """Plan anew where the batch reads and writes; ``window`` as :func:`write_window`."""
    batch.out_cache_loc = window
    translator = runner.kv_index_translator
    translator.own_plan(batch).bind(batch, translator)
