"""A small stand-in for what the plug-in touches of SGLang: plain loops, pools, location plan, a model on a paged cache.

Written from what sglang 0.5.23 does, and strict where it only goes wrong later: slots that were given back hold NaN, a
row may write only slots that are its own, and nothing is given back twice. The model computes in float64, so that its
distributions do not hang on the shape of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

MASK = 0


@dataclass
class StubBatch:
    """The fields of SGLang's ``ForwardBatch`` that a denoising forward has."""

    batch_size: int
    input_ids: torch.Tensor
    req_pool_indices: torch.Tensor
    seq_lens: torch.Tensor
    out_cache_loc: torch.Tensor
    seq_lens_sum: int
    orig_seq_lens: torch.Tensor | None = None
    out_cache_loc_virtual: torch.Tensor | None = None
    seq_lens_cpu: torch.Tensor | None = None
    req_pool_indices_cpu: torch.Tensor | None = None
    mm_inputs: list | None = None
    lora_ids: list | None = None
    rids: list | None = None
    positions: torch.Tensor | None = None
    dllm_prompt_mask: torch.Tensor | None = None
    extend_num_tokens: int | None = None
    extend_seq_lens: torch.Tensor | None = None
    extend_prefix_lens: torch.Tensor | None = None
    extend_start_loc: torch.Tensor | None = None
    extend_prefix_lens_cpu: list | None = None
    extend_seq_lens_cpu: list | None = None
    extend_logprob_start_lens_cpu: list | None = None
    global_num_tokens_cpu: list | None = None
    global_num_token_non_padded_cpu: int | None = None
    forward_metadata_ready: bool = False
    kv_loc_plan: Any = field(default=None)

    def _init_num_token_non_padded(self, *, device: str, is_draft_worker: bool) -> None:
        self.global_num_token_non_padded_cpu = len(self.input_ids)


class StubRowPool:
    """Rows of ``req_to_token``; row 0 is padding."""

    def __init__(self, size: int, context: int) -> None:
        self.size = size
        self.req_to_token = torch.zeros((size + 1, context), dtype=torch.int32)
        self.free_slots = list(range(1, size + 1))

    def available_size(self) -> int:
        return len(self.free_slots)

    def alloc_rows(self, count: int) -> list[int] | None:
        if count > len(self.free_slots):
            return None
        taken = self.free_slots[len(self.free_slots) - count :]
        del self.free_slots[len(self.free_slots) - count :]
        return taken

    def free_rows(self, rows: list[int]) -> None:
        assert not set(rows) & set(self.free_slots), "a row is given back twice"
        self.free_slots += rows


class StubSlots:
    """Slots in pages; what is given back is poisoned. Page 0 is padding."""

    def __init__(self, pages: int, page_size: int) -> None:
        self.size, self.page_size = pages * page_size, page_size
        self.free_pages = list(range(1, pages + 1))
        self.poisoned: list[torch.Tensor] = []

    def available_size(self) -> int:
        return len(self.free_pages) * self.page_size

    def alloc(self, need: int) -> torch.Tensor | None:
        assert need % self.page_size == 0
        count = need // self.page_size
        if count > len(self.free_pages):
            return None
        pages, self.free_pages = self.free_pages[:count], self.free_pages[count:]
        return (torch.tensor(pages)[:, None] * self.page_size + torch.arange(self.page_size)).reshape(-1)

    def free(self, slots: torch.Tensor) -> None:
        pages = sorted(set((slots // self.page_size).tolist()))
        assert len(pages) * self.page_size == len(slots), "a page is given back in part"
        assert not set(pages) & set(self.free_pages), "a page is given back twice"
        self.free_pages += pages
        for cache in self.poisoned:
            cache[:, slots] = torch.nan


class StubPlan:
    """What says where a batch writes; a batch that nobody planned cannot run."""

    def __init__(self, batch: StubBatch) -> None:
        self.window = batch.out_cache_loc

    def bind(self, batch: StubBatch, translator: Any) -> None:
        batch.kv_loc_plan, batch.out_cache_loc = self, self.window


class StubTranslator:
    def own_plan(self, batch: StubBatch) -> StubPlan:
        return StubPlan(batch)


class StubRunner:
    """A random transformer of two layers over a paged cache, and SGLang's names for what holds it."""

    device = "cpu"
    is_hybrid_swa = False

    def __init__(
        self, *, rows: int = 64, pages: int = 400, page_size: int = 4, vocabulary: int = 24, seed: int = 0
    ) -> None:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        width, layers, context = 16, 2, 256
        self.embedding, self.place, self.head = (
            drawn(vocabulary, width),
            drawn(context, width),
            drawn(width, vocabulary),
        )
        self.head[:, MASK] = -8.0  # the mask token is hardly ever the likeliest
        self.weights = [[drawn(width, width) / width**0.5 for _ in range(4)] for _ in range(layers)]
        self.req_to_token_pool = StubRowPool(rows, context)
        self.token_to_kv_pool_allocator = StubSlots(pages, page_size)
        slots = (pages + 1) * page_size
        self.keys = torch.full((layers, slots, width), torch.nan, dtype=torch.float64)
        self.values = self.keys.clone()
        self.token_to_kv_pool_allocator.poisoned = [self.keys, self.values]
        self.kv_index_translator = StubTranslator()
        self.max_running_requests = rows
        self.model_config = SimpleNamespace(hf_config=SimpleNamespace())
        self.forwards = self.evaluated = 0

    def forward(self, batch: StubBatch, pp_proxy_tensors: Any = None) -> Any:
        assert batch.kv_loc_plan is not None and batch.kv_loc_plan.window is batch.out_cache_loc
        assert len(set(batch.out_cache_loc.tolist())) == len(batch.input_ids) == batch.global_num_token_non_padded_cpu
        self.forwards += 1
        self.evaluated += batch.batch_size
        size = len(batch.input_ids) // batch.batch_size
        table = self.req_to_token_pool.req_to_token
        x = self.embedding[batch.input_ids] + self.place[batch.positions.long()]
        for layer, (to_query, to_key, to_value, out) in enumerate(self.weights):
            normal = torch.nn.functional.layer_norm(x, x.shape[-1:])
            self.keys[layer, batch.out_cache_loc] = normal @ to_key
            self.values[layer, batch.out_cache_loc] = normal @ to_value
            query, read = normal @ to_query, []
            for row in range(batch.batch_size):
                end = int(batch.seq_lens[row])
                assert end - size == batch.extend_prefix_lens_cpu[row] == int(batch.extend_prefix_lens[row])
                seen = table[batch.req_pool_indices[row], :end].long()
                mine = slice(row * size, (row + 1) * size)
                assert torch.equal(seen[end - size :], batch.out_cache_loc[mine])
                assert torch.equal(batch.positions[mine].long(), torch.arange(end - size, end))
                weight = torch.softmax(query[mine] @ self.keys[layer, seen].T / 4, dim=-1)
                read.append(weight @ self.values[layer, seen])
            x = x + torch.cat(read) @ out
        logits = (3 * torch.nn.functional.layer_norm(x, x.shape[-1:]) @ self.head / 4).float()
        assert not logits.isnan().any(), "a row read a slot that was given back or never written"
        return SimpleNamespace(logits_output=SimpleNamespace(full_logits=logits), can_run_graph=False)


class StubLowConfidence:
    """SGLang's rule and its two plain loops, as the stand-in for its ``LowConfidence``."""

    def __init__(self, config: Any) -> None:
        self.block_size, self.mask_id = config.block_size, config.mask_id
        self.fdfo = config.first_done_first_out_mode
        self.threshold = config.algorithm_config.get("threshold", 0.95)

    def run(self, runner: Any, batch: StubBatch, carried: list | None = None) -> tuple:
        return self._run_fdfo(runner, batch, carried) if self.fdfo else self._run_sync(runner, batch)

    def _open(self, batch: StubBatch) -> torch.Tensor:
        masked = batch.input_ids.view(-1, self.block_size) == self.mask_id
        return masked if batch.dllm_prompt_mask is None else masked & ~batch.dllm_prompt_mask

    def _block_start_list(self, batch: StubBatch) -> list[int]:
        prompt = batch.dllm_prompt_mask
        if prompt is None:
            prompt = batch.input_ids.view(-1, self.block_size) != self.mask_id
        return prompt.sum(dim=1).tolist()

    def step(self, batch: StubBatch, logits: torch.Tensor, states: list) -> list[bool]:
        masked = self._open(batch)
        tokens = batch.input_ids.view(-1, self.block_size)
        probability, best = torch.softmax(logits.view(*tokens.shape, -1), dim=-1).max(dim=-1)
        probability = probability.masked_fill(~masked, -torch.inf)
        chosen = probability > self.threshold
        for row in range(len(tokens)):
            if not chosen[row].any():
                chosen[row, probability[row].argmax()] = True
        batch.input_ids.copy_(torch.where(chosen & masked, best, tokens).view(-1))
        return (~masked.any(dim=1)).tolist()

    def _run_sync(self, runner: Any, batch: StubBatch) -> tuple:
        starts = self._block_start_list(batch)
        out = runner.forward(batch)
        if all(start == self.block_size for start in starts):
            return out.logits_output, [], None, None, False
        for _ in range(self.block_size + 1):
            if all(self.step(batch, out.logits_output.full_logits, [])):
                break
            out = runner.forward(batch)
        rows = batch.input_ids.view(-1, self.block_size)
        return out.logits_output, [row[start:] for row, start in zip(rows, starts, strict=True)], None, None, False

    def _run_fdfo(self, runner: Any, batch: StubBatch, carried: list | None) -> tuple:
        out = runner.forward(batch)
        done = self.step(batch, out.logits_output.full_logits, [])
        tokens = batch.input_ids.view(-1, self.block_size).tolist()
        return out.logits_output, tokens, [self.block_size if one else 0 for one in done], [None] * len(done), False
