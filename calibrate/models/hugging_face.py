"""Hugging Face causal language models as denoisers that serve many sequences from static buffers.

What a forward over the rows of one sequence is stands in ``verify.runtimes.transformers_model``.
"""

from __future__ import annotations

from functools import cached_property, partial

import torch
from transformers import PreTrainedModel

from calibrate.models.cuda_graphs import GraphedForward
from calibrate.models.slot_cache import SlotMemory, compiled_decoder, forward_slots
from verify.denoiser import SlotRows
from verify.runtimes.transformers_model import TransformersDenoiser


class HuggingFaceDenoiser(TransformersDenoiser):
    """A transformers model behind the protocols of ``verify.denoiser``: row by row, and over slots.

    Args:
        model, mask_token_id, logits_shift: as in :class:`verify.runtimes.transformers_model.TransformersDenoiser`,
            which tells the errors too.
        cuda_graphs: replay step forwards over slots from CUDA graphs; no effect elsewhere.
        compile_backend: compile step forwards over slots with this backend of ``torch.compile`` ("inductor"); the first
            few forwards then take up to minutes. None compiles nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        mask_token_id: int,
        logits_shift: int = 0,
        *,
        cuda_graphs: bool = False,
        compile_backend: str | None = None,
    ) -> None:
        super().__init__(model, mask_token_id, logits_shift)
        self.cuda_graphs, self.compile_backend = cuda_graphs, compile_backend

    @property
    def step_forwards(self) -> str:
        """How step forwards over slots are run: ``eager``, ``compiled``, ``CUDA graphs`` or both of these."""
        ways = ["compiled"] if self.compile_backend is not None else []
        ways += ["CUDA graphs"] if self.cuda_graphs and self.device.type == "cuda" else []
        return " + ".join(ways) or "eager"

    def make_slots(self, slots: int, cached_rows: int, live_rows: int) -> SlotMemory:
        """See :meth:`verify.denoiser.SlotDenoiser.make_slots`; buffers are allocated in the first forward."""
        memory = SlotMemory(self._layers, slots, cached_rows, live_rows)
        if self.compile_backend is not None:
            memory.run_step = compiled_decoder(self.compile_backend)
        if self.cuda_graphs and self.device.type == "cuda":
            memory.graphs = GraphedForward(partial(memory.run_step, self.model, memory.cache))
        return memory

    @cached_property
    def offers_slots(self) -> bool:
        """Whether slots compute what the model computes; decoding goes row by row where they do not.

        They apply the head to scattered rows, so the head must be all that stands between the last hidden states and
        the logits (no cap, no scale), and its result the same bits. And they pad: rotary frequencies that depend on
        the longest position of a forward ("dynamic", "longrope") would depend on the batch. Costs one forward over
        two rows, once.
        """
        rotary = getattr(self.model.config, "rope_parameters", None) or {}
        if isinstance(rotary, dict) and rotary.get("rope_type") in ("dynamic", "longrope"):
            return False
        head, seen = self.model.get_output_embeddings(), dict[str, torch.Tensor]()
        hook = head.register_forward_hook(lambda _, inputs, result: seen.update(hidden=inputs[0], result=result))
        tokens = torch.tensor([[self.mask_token_id, 0]], device=self.device)
        try:
            with torch.inference_mode():
                logits = self.model(tokens, use_cache=False).logits
                hidden = self.model.get_decoder()(tokens, use_cache=False).last_hidden_state
        finally:
            hook.remove()
        return "result" in seen and torch.equal(seen["result"], logits) and torch.equal(seen["hidden"], hidden)

    def move_slot(self, memory: SlotMemory, source: int, target: int) -> None:
        """See :meth:`verify.denoiser.SlotDenoiser.move_slot`."""
        with torch.inference_mode():
            memory.move(source, target)

    def move_columns(self, memory: SlotMemory, slot: int, source: int, target: int, count: int) -> None:
        """See :meth:`verify.denoiser.SlotDenoiser.move_columns`."""
        with torch.inference_mode():
            memory.move_columns(slot, source, target, count)

    def clear_slot(self, memory: SlotMemory, slot: int) -> None:
        """See :meth:`verify.denoiser.SlotDenoiser.clear_slot`."""
        with torch.inference_mode():
            memory.clear(slot)

    @property
    def few_shapes(self) -> bool:
        """See :class:`verify.denoiser.SlotDenoiser`: a CUDA graph serves one shape."""
        return self.cuda_graphs and self.device.type == "cuda"

    def prepare_mask(self, attention_mask: torch.Tensor) -> torch.Tensor:
        """[b, 1, r, c]: the attention mask itself, or for eager attention and on CUDA the addends it stands for.

        CUDA kernels take addends; a boolean mask would be turned into them in every layer of every forward.
        """
        if self._additive or attention_mask.device.type == "cuda":
            # Filled, not chosen with torch.where: a scalar of the host would be sent over, and waited for.
            addends = torch.zeros(attention_mask.shape, dtype=self.model.dtype, device=attention_mask.device)
            attention_mask = addends.masked_fill_(~attention_mask, torch.finfo(self.model.dtype).min)
        return attention_mask[:, None]

    @torch.inference_mode()
    def forward_slots(self, memory: SlotMemory, rows: SlotRows) -> torch.Tensor:
        """See :meth:`verify.denoiser.SlotDenoiser.forward_slots`."""
        return forward_slots(self.model, memory, rows, self.logits_shift)
