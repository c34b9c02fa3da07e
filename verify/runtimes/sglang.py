"""Draft graphs in SGLang's server, as a diffusion algorithm of its own (``--dllm-algorithm DraftGraph``).

SGLang finds :func:`register` by the entry point ``sglang.srt.plugins`` and calls it in every process. The algorithm is
SGLang's ``LowConfidence``: its own step decides what is committed, in every row. Beside each request's block run its
drafts, as further rows of the batch over the same prefix (``verify.runtimes.sglang_rows``). Where a step turns a row
into the state of another row, the distribution that the plain loop would compute next is there already, and the walk
goes on (``verify.runtimes.sglang_block``); so the tokens are those of the plain loop.

A plain block costs one forward a step, and one more that stores the finished block. A draft that is the finished block
has stored it: its page is adopted, and that forward falls away too.

Read and tested with sglang 0.5.23: ``srt/dllm/algorithm/base.py`` (both loops), ``srt/dllm/algorithm/
low_confidence.py``, ``srt/dllm/mixin``, ``srt/plugins``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from verify.runtimes.sglang_block import BlockProgress
from verify.runtimes.sglang_config import ALGORITHM, RuntimeConfigError, ServerDrafts, read_sglang_config
from verify.runtimes.sglang_rows import DraftRows

ARCHITECTURES = ("LLaDA2MoeModelLM", "SDARForCausalLM", "SDARMoeForCausalLM")


def register() -> None:
    """Make ``--dllm-algorithm DraftGraph`` known to SGLang; its plug-in interface calls this."""
    from sglang.srt.dllm import algorithm

    algorithm.algo_name_to_cls[ALGORITHM] = algorithm_class()


@cache
def algorithm_class() -> type:
    """The algorithm as a class of SGLang."""
    from sglang.srt.dllm.algorithm.low_confidence import LowConfidence

    return type(ALGORITHM, (SpeculativeLoops, LowConfidence), {"supported_architectures": ARCHITECTURES})


class SpeculativeLoops:
    """SGLang's two loops with drafts; mixed with ``LowConfidence``, whose ``step`` it calls on all rows at once.

    Attributes:
        counts: what was done so far: ``forwards``, ``rows`` (blocks that they evaluated), ``drafts`` among them,
            ``steps``, ``blocks`` that were solved, and those whose finished page was ``adopted``.

    Raises:
        RuntimeConfigError: a configuration that drafts cannot run with; at the first forward also a model.
    """

    block_size: int
    mask_id: int

    def __init__(self, config: Any) -> None:
        self.drafts: ServerDrafts = read_sglang_config(config.algorithm_config, config.block_size)
        super().__init__(config)  # type: ignore[call-arg]
        self.counts: Counter[str] = Counter()
        self._checked = False

    @classmethod
    def configure_server_args(cls, server_args: Any) -> None:
        """Refuse when the server starts what would be refused at its first forward."""
        from sglang.srt.arg_groups.overrides import resolving_view
        from sglang.srt.configs.model_config import ModelConfig
        from sglang.srt.dllm.config import DllmConfig

        settings = resolving_view(server_args)
        config = DllmConfig.from_server_args(server_args)
        read_sglang_config(config.algorithm_config, config.block_size)
        model = ModelConfig.from_server_args(
            server_args, model_path=settings.model_path, model_revision=settings.revision
        )
        check_model(model.hf_config, bool(model.is_hybrid_swa), bool(settings.enable_dp_attention))

    def _begin(self) -> BlockProgress:
        return BlockProgress(self.drafts, self.mask_id)

    def _run_sync(self, model_runner: Any, forward_batch: Any) -> tuple[Any, list[Any], None, None, bool]:
        """One block of every request, until all of them are finished."""
        size, batch = self.block_size, forward_batch
        starts = self._block_start_list(batch)  # type: ignore[attr-defined]
        blocks: list[BlockProgress | None] = [self._begin() for _ in range(batch.batch_size)]
        while any(block is not None for block in blocks):
            out, ends, _ = self._round(model_runner, batch, blocks)
            # A block that a step leaves as it is, with masks in it (the mask token is the likeliest), would stay so:
            # the plain loop repeats that until its steps are used up, and hands the block out like this.
            blocks = [None if end is not None else block for block, end in zip(blocks, ends, strict=True)]
        if all(start == size for start in starts):  # a piece of the prompt: nothing was generated
            return out.logits_output, [], None, None, out.can_run_graph
        tokens = batch.input_ids.view(-1, size)
        generated = [row[start:] for row, start in zip(tokens, starts, strict=True)]
        return out.logits_output, generated, None, None, out.can_run_graph

    def _run_fdfo(
        self, model_runner: Any, forward_batch: Any, algo_states: Sequence[Any] | None
    ) -> tuple[Any, list[Any], list[int], list[Any], bool]:
        """One forward of every request; a block that is finished is handed out, the others come again."""
        batch = forward_batch
        carried = algo_states or [None] * batch.batch_size
        blocks = [self._begin() if block is None else block for block in carried]
        out, _, done = self._round(model_runner, batch, blocks)
        tokens = batch.input_ids.view(-1, self.block_size).tolist()
        accepted = [self.block_size if finished else 0 for finished in done]
        states = [None if finished else block for block, finished in zip(blocks, done, strict=True)]
        return out.logits_output, tokens, accepted, states, out.can_run_graph

    def _round(
        self, runner: Any, batch: Any, blocks: Sequence[BlockProgress | None]
    ) -> tuple[Any, list[int | None], list[bool]]:
        """One forward over every block and its drafts, and of each block all steps that it allows.

        ``batch.input_ids`` then holds the blocks as they stand.

        Args:
            blocks: per request; None where its block has ended.

        Returns:
            What the runner returned; per request the row at which the block ended, None where it goes on; and whether
            it is complete.
        """
        self._check(runner, batch)
        size = self.block_size
        roots = batch.input_ids.view(-1, size).cpu().numpy().astype(np.int64)
        proposals = self._proposals(batch, roots, blocks)
        most = min(self.drafts.max_rows or runner.max_running_requests, runner.max_running_requests)
        rows = DraftRows.reserve(runner, batch, size, [len(drafts) for drafts in proposals], most)
        try:
            granted = Counter(rows.owner)
            states = np.concatenate([roots, *(drafts[: granted[n]] for n, drafts in enumerate(proposals))])
            packed = rows.pack(torch.from_numpy(states[len(roots) :])) if rows.owner else batch
            out = runner.forward(packed, pp_proxy_tensors=None)
            logits = out.logits_output.full_logits
            done = self.step(packed, logits, [None] * len(states))  # type: ignore[attr-defined]
            after = packed.input_ids.view(-1, size).cpu().numpy().astype(np.int64)
            self.counts.update(forwards=1, rows=len(states), drafts=len(rows.owner))
            ends: list[int | None] = [None] * len(roots)
            reached = roots.copy()
            for request, block in enumerate(blocks):
                if block is None:
                    continue
                mine = [request, *(len(roots) + n for n, owner in enumerate(rows.owner) if owner == request)]
                before = block.steps
                ends[request] = end = block.walk(mine, states, after, done, logits)
                reached[request] = block.reached
                self.counts["steps"] += block.steps - before
                if end is not None and end != request:
                    rows.adopt(end - len(roots))
                    self.counts["adopted"] += 1
                self.counts["blocks"] += end is not None and block.steps > 0
            batch.input_ids.copy_(torch.from_numpy(reached).reshape(-1))
        finally:
            rows.release()
        return out, ends, [end is not None and done[end] for end in ends]

    def _proposals(self, batch: Any, roots: np.ndarray, blocks: Sequence[BlockProgress | None]) -> list[np.ndarray]:
        """The drafts of every request, each int64 [D, L]."""
        literal = np.zeros(len(roots), dtype=bool)
        if batch.dllm_prompt_mask is not None:
            # A prompt may hold the mask token as a token like any other; such blocks, which are few, have no drafts.
            literal = ((roots == self.mask_id) & batch.dllm_prompt_mask.cpu().numpy()).any(axis=1)
        return [
            roots[:0] if block is None or plain else block.propose(root)
            for block, root, plain in zip(blocks, roots, literal, strict=True)
        ]

    def _check(self, runner: Any, batch: Any) -> None:
        """Refuse what drafts cannot run with, at the first forward."""
        if self._checked:
            return
        check_model(runner.model_config.hf_config, runner.is_hybrid_swa, batch.global_num_tokens_cpu is not None)
        page = runner.token_to_kv_pool_allocator.page_size
        if self.block_size % page:
            raise RuntimeConfigError(
                f"pages have {page} positions and blocks {self.block_size}; a draft needs whole pages: give "
                f"--page-size {self.block_size} or a divisor of it"
            )
        self._checked = True


def check_model(model: Any, sliding_window: bool, data_parallel: bool) -> None:
    """Refuse a model, or a way to run it, whose rows are not independent of each other.

    Args:
        model: the checkpoint's configuration.
        sliding_window: its cache has layers that forget.
        data_parallel: attention runs data-parallel, so that ranks must agree on the shape of every batch.

    Raises:
        RuntimeConfigError: with what is in the way.
    """
    wrong = []
    if getattr(model, "expert_capacity", None) is not None:
        wrong.append("its experts have a capacity, so what a row computes depends on the other rows of the batch")
    if sliding_window:
        wrong.append("its cache has layers with a sliding window, whose pages a draft cannot share")
    if data_parallel:
        wrong.append("attention runs data-parallel (--enable-dp-attention), where all ranks must have batches alike")
    if wrong:
        raise RuntimeConfigError(f"{ALGORITHM} cannot run this model: " + "; ".join(wrong))
