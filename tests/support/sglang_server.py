"""A driver of SGLang's diffusion algorithms: requests, blocks and pages as its scheduler (``srt/dllm/mixin``) has them.

It serves the stand-in of ``tests.support.sglang_stub`` and the real package alike: who drives says how a batch is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(eq=False)
class Request:
    """One request.

    Attributes:
        prompt: its tokens.
        limit: tokens after which it is finished, at the end of a block.
        output: what was generated.
        offset: where its block begins; what lies before is cached.
        partial: the block as it stands, where a forward left it unfinished.
        state: what the algorithm keeps of it meanwhile.
        forwards: forwards that it took part in.
        row: its row of ``req_to_token``.
    """

    prompt: list[int]
    limit: int
    output: list[int] = field(default_factory=list)
    offset: int = 0
    partial: list[int] | None = None
    state: Any = None
    forwards: int = 0
    row: int | None = None

    @property
    def finished(self) -> bool:
        return len(self.output) >= self.limit


class Server:
    """Runs requests through an algorithm until all are finished.

    Args:
        runner: SGLang's model runner, or what stands for it.
        algorithm: a diffusion algorithm.
        make_batch: makes a ``ForwardBatch`` of keyword arguments, see :meth:`_batch`.
    """

    def __init__(self, runner: Any, algorithm: Any, make_batch: Callable[..., Any]) -> None:
        self.runner, self.algorithm, self.make_batch = runner, algorithm, make_batch
        self.size = algorithm.block_size

    def run(self, prompts: Sequence[Sequence[int]], limit: int) -> list[Request]:
        requests = [Request(list(prompt), limit) for prompt in prompts]
        waiting = list(requests)
        while waiting:
            prompts_left = [one for one in waiting if one.offset + self.size <= len(one.prompt) + len(one.output)]
            batch = prompts_left or waiting  # whole blocks of prompts come first, as in SGLang
            self._round(batch)
            for request in batch:
                if request.finished:
                    self._free(request)
            waiting = [one for one in waiting if not one.finished]
        return requests

    def _round(self, requests: list[Request]) -> None:
        batch = self._batch(requests)
        before = self.runner.forwards
        states = [one.state for one in requests] if self.algorithm.fdfo else None
        _, tokens, accepted, kept, _ = self.algorithm.run(self.runner, batch, states)
        for index, request in enumerate(requests):
            request.forwards += self.runner.forwards - before
            if self.algorithm.fdfo:
                if accepted[index] == 0:
                    request.partial, request.state = tokens[index], kept[index]
                    continue
                request.partial = request.state = None
                block = tokens[index]
            else:
                block = batch.input_ids.view(-1, self.size)[index].tolist()
            new = max(0, request.offset + self.size - len(request.prompt) - len(request.output))
            if not self.algorithm.fdfo:
                assert (tokens[index].tolist() if tokens else []) == block[self.size - new :]
            request.output += block[self.size - new :] if new else []
            request.offset += self.size

    def _batch(self, requests: list[Request]) -> Any:
        pool, allocator = self.runner.req_to_token_pool, self.runner.token_to_kv_pool_allocator
        tokens, window, literal = [], [], []
        for request in requests:
            end = request.offset + self.size
            if request.row is None:
                (request.row,) = pool.alloc_rows(1)
            known = (request.prompt + request.output)[request.offset : end]
            literal.append([n < len(known) for n in range(self.size)])
            if request.partial is None:
                slots = allocator.alloc(self.size)
                pool.req_to_token[request.row, request.offset : end] = slots.to(torch.int32)
                tokens += known + [self.algorithm.mask_id] * (self.size - len(known))
            else:
                tokens += request.partial
            window.append(pool.req_to_token[request.row, request.offset : end].long())
        starts = [request.offset for request in requests]
        has_literal = any(self.algorithm.mask_id in one.prompt for one in requests)
        return self.make_batch(
            self.runner, self.size, tokens, torch.cat(window), starts, [one.row for one in requests],
            torch.tensor(literal) if has_literal else None,
        )  # fmt: skip

    def _free(self, request: Request) -> None:
        pool = self.runner.req_to_token_pool
        self.runner.token_to_kv_pool_allocator.free(pool.req_to_token[request.row, : request.offset].long())
        pool.free_rows([request.row])


def fields_of(
    size: int, tokens: list[int], window: torch.Tensor, starts: list[int], rows: list[int], prompt: torch.Tensor | None
) -> dict[str, Any]:
    """The fields of a ``ForwardBatch`` of blocks of ``size`` tokens that begin at ``starts``."""
    count, ends = len(rows), [start + size for start in starts]
    return {
        "batch_size": count,
        "input_ids": torch.tensor(tokens),
        "req_pool_indices": torch.tensor(rows),
        "req_pool_indices_cpu": torch.tensor(rows),
        "seq_lens": torch.tensor(ends),
        "seq_lens_cpu": torch.tensor(ends),
        "orig_seq_lens": torch.tensor(ends, dtype=torch.int32),
        "seq_lens_sum": sum(ends),
        "out_cache_loc": window,
        "positions": torch.tensor([n for start in starts for n in range(start, start + size)], dtype=torch.int32),
        "dllm_prompt_mask": prompt,
        "extend_num_tokens": count * size,
        "extend_seq_lens": torch.full((count,), size, dtype=torch.int32),
        "extend_prefix_lens": torch.tensor(starts, dtype=torch.int32),
        "extend_start_loc": torch.arange(count, dtype=torch.int32) * size,
        "extend_prefix_lens_cpu": list(starts),
        "extend_seq_lens_cpu": [size] * count,
        "extend_logprob_start_lens_cpu": [0] * count,
        "rids": [str(row) for row in rows],
    }


def schedule(costs: Sequence[Sequence[tuple[bool, int]]], fdfo: bool) -> tuple[int, list[int]]:
    """The forwards of a server, and those that each request takes part in, from what its blocks cost alone.

    Args:
        costs: per request its blocks in order, each (whether it is a whole block of the prompt, forwards).
    """
    left = [[*one] for one in costs]
    total, each = 0, [0] * len(costs)
    while any(left):
        batch = [n for n, one in enumerate(left) if one and one[0][0]] or [n for n, one in enumerate(left) if one]
        spent = 1 if fdfo else max(left[n][0][1] for n in batch)
        total += spent
        for n in batch:
            each[n] += spent
            prompt, cost = left[n][0]
            left[n][0] = prompt, cost - spent
            if left[n][0][1] <= 0:
                left[n].pop(0)
    return total, each


def blocks_of(prompt: Sequence[int], limit: int, size: int) -> Iterator[bool]:
    """The blocks of a request: whether each is a whole block of its prompt."""
    done = 0
    while (done := done + size) <= len(prompt):
        yield True
    while True:
        yield False
        if done - len(prompt) >= limit:
            return
        done += size
