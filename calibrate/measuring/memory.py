"""How much memory a decode needs at its peak, from the model's sizes alone, and what to say when it is not there.

A decode over slots (``verify.engines.slots``) holds weights, keys and values of all slots, and the mask of a step. On
top of these it needs, for a moment each: the widest layer, the vocabulary projection, or the ranking of the logits, of
a refresh forward (all rows of all sequences) or of a step forward (the blocks and their drafts). The peak is what is
held plus the largest of these. docs/gpu.md lists the terms and holds them against measured peaks
(``benchmarks/memory.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from verify.decoding import DecodeConfig
from verify.engines.slots import COLUMN_STEP
from verify.engines.step_rows import StepRows
from verify.ranking import rows_at_once

if TYPE_CHECKING:
    from calibrate.models.hugging_face import HuggingFaceDenoiser

#: A search for the largest number of drafts, or for the largest batch, looks no further.
MOST_DRAFTS = 512
MOST_BATCH = 4096
GIB = 1 << 30


@dataclass(frozen=True)
class ModelSizes:
    """What of a model decides how much memory its forwards take.

    Attributes:
        parameters: number of weights.
        layers, width, inner: decoder layers, hidden width, width of the feed-forward part.
        heads, key_heads, head_width: attention.
        vocabulary: columns of the logits.
        itemsize: bytes of a weight and of an activation.
        device: ``cuda`` takes masks as addends of the model's dtype; elsewhere they are boolean and attention makes
            the addends.
    """

    parameters: int
    layers: int
    width: int
    inner: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int
    itemsize: int
    device: str

    @classmethod
    def of_config(cls, config: Any, parameters: int, itemsize: int, device: str) -> ModelSizes:
        """From a transformers configuration of a dense decoder."""
        heads = int(config.num_attention_heads)
        return cls(
            parameters=parameters,
            layers=int(config.num_hidden_layers),
            width=int(config.hidden_size),
            inner=int(config.intermediate_size),
            heads=heads,
            key_heads=int(config.num_key_value_heads),
            head_width=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            vocabulary=int(config.vocab_size),
            itemsize=itemsize,
            device=device,
        )

    @classmethod
    def of_denoiser(cls, denoiser: HuggingFaceDenoiser) -> ModelSizes:
        weights = list(denoiser.model.parameters())
        return cls.of_config(
            denoiser.model.config,
            sum(weight.numel() for weight in weights),
            weights[0].element_size(),
            denoiser.device.type,
        )


@dataclass(frozen=True)
class Load:
    """What is decoded at a time.

    Attributes:
        batch: sequences.
        context_length: cached rows of each.
        drafts: ``D``.
        block_length: ``L``.
        cache: the cache mode.
        backend: ``packed`` or ``expanded``.
        bridges: whether a draft may also be a bridge, which computes a state of the next block behind this one. Buffers
            then have room for ``D`` bridges beside ``D`` drafts, and for a finished block that is carried; forwards
            hold at most ``D`` of both together. In dual mode bridges are copies (``verify.engines.copies``): what is
            cached is there twice, and a forward may hold the whole sequence besides.
        live_rows: rows of a sequence that are computed in every forward; by default the block's.
        refresh_rows: rows of a sequence in the largest refresh forward; by default ``context_length + L``, which a
            bidirectional refresh always has and a block-causal one has at the first block.
    """

    batch: int = 1
    context_length: int = 256
    drafts: int = 10
    block_length: int = 32
    cache: str = "dual"
    backend: str = "packed"
    bridges: bool = False
    live_rows: int | None = None
    refresh_rows: int | None = None

    @classmethod
    def of_decode(
        cls, config: DecodeConfig, prompt_lengths: Sequence[int], batch: int, drafts: int, *, bridges: bool = False
    ) -> Load:
        """What decoding prompts of these lengths comes to: buffers are made for the longest.

        Args:
            config: lengths, cache mode and back-end.
            prompt_lengths: tokens of each prompt.
            batch: sequences at a time.
            drafts: the most drafts of the drafter (``Drafter.max_drafts``).
            bridges: whether it builds bridges in this cache mode (``verify.drafters.contract.most_bridges``).

        Raises:
            verify.layout.LayoutError: lengths or a cache mode that do not fit.
        """
        length = config.block_length
        layouts = [config.layout(one) for one in prompt_lengths or (1,)]
        longest = max(layout.length for layout in layouts)
        first = max(layout.block_starts[0] for layout in layouts)
        suffix = max(layout.length - layout.block_starts[0] for layout in layouts)
        return cls(
            batch=max(1, min(batch, len(layouts))),
            context_length=0 if config.cache == "none" else longest - (length if config.schedule is None else 1),
            drafts=drafts,
            block_length=length,
            cache=config.cache,
            backend=config.backend,
            bridges=bridges and config.cache in ("block_causal", "dual"),
            live_rows={"none": longest, "prefix": suffix}.get(config.cache, length),
            refresh_rows=first + length if config.cache == "block_causal" else longest,
        )

    @property
    def copies(self) -> bool:
        """Whether bridges are copies."""
        return self.bridges and self.cache == "dual"

    @property
    def columns(self) -> int:
        """Cached columns of a sequence for which buffers have room."""
        return -(-self.context_length // COLUMN_STEP) * COLUMN_STEP * (2 if self.copies else 1)

    @property
    def step_rows(self) -> int:
        """Rows of a sequence for which buffers have room in a step forward (``verify.engines.slots``)."""
        if self.copies:
            return 2 * (1 + self.drafts) * self.block_length + self.context_length
        live, bridges = self.live_rows or self.block_length, self.drafts if self.bridges else 0
        carried = self.block_length if bridges else 0
        return StepRows(self.block_length, live + carried, bridges, self.backend == "packed").count(self.drafts)

    @property
    def ranked_rows(self) -> int:
        """Rows of a sequence whose logits are ranked in a step forward, at most: the masked ones of all its states."""
        # A draft has a token more than the block; a next block may be masked whole, and a copy comes beside all drafts.
        if self.copies:
            return self.block_length * (2 + self.drafts)
        return self.block_length * (1 + self.drafts) - (0 if self.bridges else self.drafts)


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted bytes: what is held all the time, and the largest thing needed for a moment.

    Attributes:
        held: name -> bytes.
        moments: name -> bytes, of which only the largest counts.
    """

    held: dict[str, int]
    moments: dict[str, int]

    @property
    def peak(self) -> int:
        return sum(self.held.values()) + max(self.moments.values())

    @property
    def widest(self) -> str:
        """Which moment makes the peak."""
        return max(self.moments, key=lambda name: self.moments[name])

    def sentence(self) -> str:
        """The terms, largest first, in GiB."""
        terms = {**self.held, self.widest: self.moments[self.widest]}
        listed = sorted(terms.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {bytes_ / GIB:.2f} GiB" for name, bytes_ in listed)


def predict_memory(sizes: ModelSizes, load: Load) -> MemoryPlan:
    """Predict the peak of a decode over slots.

    Args:
        sizes: of the model.
        load: what is decoded at a time.

    Returns:
        The plan. Not in it: the allocator's own reserve, libraries' workspaces, captured CUDA graphs, and the CUDA
        cache (some 0.5 GiB outside torch's books).
    """
    batch, item = load.batch, sizes.itemsize
    refresh = load.refresh_rows or load.context_length + load.block_length
    columns, step = load.columns, load.step_rows
    key_row = sizes.key_heads * sizes.head_width * item
    addend = item if sizes.device == "cuda" else 1
    held = {
        "weights": sizes.parameters * item,
        "keys and values": 2 * sizes.layers * batch * (columns + step) * key_row,
        "mask of a step": batch * step * (columns + step) * addend,
    }
    moments = {
        "a layer of a step": _layer(sizes, batch, step, columns + step),
        "a layer of a refresh": _layer(sizes, batch, refresh, refresh, refresh * refresh * (1 + addend)),
        "logits and ranking of a step": _head(sizes, batch, step, load.ranked_rows),
        "logits and ranking of a refresh": _head(sizes, batch, refresh, load.block_length),
    }
    return MemoryPlan(held, moments)


def _layer(sizes: ModelSizes, batch: int, rows: int, columns: int, own_mask: int = 0) -> int:
    """Bytes that a decoder layer needs beside its weights and the buffers: the larger of attention and feed-forward.

    Attention at its call: the residual, queries, keys and values, repeated ones where heads share them, its result, and
    addends made from a boolean mask. Feed-forward at its product: residual, normed input, activated gate, up, product.
    """
    n, item = batch * rows, sizes.itemsize
    queries, keys = sizes.heads * sizes.head_width, sizes.key_heads * sizes.head_width
    repeated = 2 * batch * columns * queries * item if sizes.heads != sizes.key_heads else 0
    made = batch * rows * columns * item if sizes.device != "cuda" else 0
    attention = n * (2 * sizes.width + 2 * queries + 2 * keys) * item + repeated + made
    rotated = n * (2 * sizes.width + 4 * queries + 2 * keys) * item
    forward = n * (2 * sizes.width + 3 * sizes.inner) * item
    normed = n * sizes.width * (2 * item + (8 if item < 4 else 4))
    positions = 3 * n * sizes.head_width * item  # cosines and sines of the positions
    return max(attention, rotated, forward, normed) + positions + batch * own_mask


def _head(sizes: ModelSizes, batch: int, rows: int, ranked: int) -> int:
    """Logits of the ranked rows and what ranking them needs: scores and keys in 16 bytes a logit, chunk by chunk."""
    logits = batch * ranked * sizes.vocabulary
    hidden = batch * rows * sizes.width * sizes.itemsize
    at_once = rows_at_once(sizes.device, sizes.vocabulary) * sizes.vocabulary
    return logits * sizes.itemsize + max(hidden, 16 * min(logits, at_once))


def device_memory(device: torch.device | str) -> int:
    """Bytes of memory that ``device`` has in all."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def largest_drafts(sizes: ModelSizes, load: Load, available: int) -> int | None:
    """The most drafts whose predicted peak is at most ``available`` bytes, up to ``MOST_DRAFTS``; None when not
    even 0 fit."""
    return _largest(0, MOST_DRAFTS, lambda drafts: _fits(sizes, load, available, drafts=drafts))


def largest_batch(sizes: ModelSizes, load: Load, available: int) -> int | None:
    """The largest batch whose predicted peak is at most ``available`` bytes, up to ``MOST_BATCH``; None when not
    even 1 fits."""
    return _largest(1, MOST_BATCH, lambda batch: _fits(sizes, load, available, batch=batch))


def _fits(sizes: ModelSizes, load: Load, available: int, **changes: Any) -> bool:
    return predict_memory(sizes, replace(load, **changes)).peak <= available


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """Bisection; the peak grows with drafts and with the batch."""
    if not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine has no more memory; the CPU's allocator has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def out_of_memory_message(sizes: ModelSizes, load: Load, available: int) -> str:
    """One message: what was asked for, what it needs, and the largest budget and batch that are predicted to fit."""
    plan = predict_memory(sizes, load)
    drafts, batch = largest_drafts(sizes, load, available), largest_batch(sizes, load, available)
    message = (
        f"out of memory with D = {load.drafts} drafts, batch {load.batch} and context {load.context_length}: "
        f"about {plan.peak / GIB:.1f} GiB are needed ({plan.sentence()}), the device has {available / GIB:.1f} GiB. "
    )
    if plan.peak <= available:
        # Others use the device too, or memory is in pieces: what fits by the books did not.
        return message + "This should fit: see what else uses the device, or take fewer drafts or a smaller batch."
    if drafts is None and batch is None:
        return message + "Not even plain decoding of one sequence fits; take a shorter context or a smaller dtype."
    if drafts is None:
        return message + f"No budget fits at batch {load.batch}; the largest batch that fits is {batch}."
    if batch is None:
        return message + f"The largest budget that fits is D = {drafts}; no batch fits with D = {load.drafts}."
    return message + (
        f"The largest budget that fits at batch {load.batch} is D = {drafts}, the largest batch with D = {load.drafts} "
        f"is {batch}."
    )


@contextmanager
def explained(denoiser: Any, load: Load) -> Iterator[None]:
    """Turn running out of memory into one :class:`MemoryError` that names what would fit.

    Args:
        denoiser: the model; one whose sizes are not known gets the plain message of torch.
        load: what is being decoded.

    Raises:
        MemoryError: the code inside ran out of memory. Other errors pass unchanged.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        from calibrate.models.hugging_face import HuggingFaceDenoiser  # here, as it imports transformers

        if not is_out_of_memory(error) or not isinstance(denoiser, HuggingFaceDenoiser):
            raise
        message = out_of_memory_message(ModelSizes.of_denoiser(denoiser), load, device_memory(denoiser.device))
    else:
        return
    # Outside the handler: the traceback of the error holds the tensors of the forward that did not fit.
    if denoiser.device.type == "cuda":
        torch.cuda.empty_cache()
    raise MemoryError(message)
