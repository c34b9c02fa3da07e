"""The decode loop, the only one: plain decoding is speculation with an empty graph, recording is the loop observed.

A *counted forward* is a call of the model that a sequence took part in. A block's refresh forward is counted like any
other and uses its distribution for one denoising step; a block that is complete after it pays no other. A step that
commits nothing is a denoising step too: it used a distribution, and the next one is paid for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from verify.blocks import make_schedule
from verify.denoiser import Denoiser, SlotDenoiser, offers_copies
from verify.drafters.contract import Drafter, most_bridges
from verify.drafters.graph import GraphDrafter
from verify.drafts import DraftFiller
from verify.engines.contract import Engine
from verify.engines.copy_rows import CopyingRowEngine
from verify.engines.copy_slots import CopyingSlotEngine
from verify.engines.rows import RowEngine
from verify.engines.slots import SlotEngine
from verify.layout import Exactness, LayoutError, SequenceLayout, exactness
from verify.policies.contract import Policy
from verify.sequence import (
    MAX_EMPTY_STEPS,
    DecodeError,
    DecodeResult,
    DecodeRules,
    ForwardFact,
    ForwardObserver,
    Observer,
    SequenceDecoder,
    StepFact,
)

__all__ = [
    "MAX_EMPTY_STEPS",
    "DecodeConfig",
    "DecodeError",
    "DecodeResult",
    "ForwardFact",
    "ForwardObserver",
    "Observer",
    "StepFact",
    "decode",
    "decode_batch",
    "make_engine",
]


@dataclass(frozen=True)
class DecodeConfig:
    """Everything besides model, prompt, policy and graph that a decode depends on.

    Attributes:
        block_length: positions per block, ``L``; under a schedule the most that a block has.
        generation_length: positions to generate; rounded up to whole blocks in block-causal mode.
        cache: one of ``none``, ``prefix``, ``dual``, ``block_causal``.
        backend: ``packed`` or ``expanded``, how drafts enter a forward.
        end_token_ids: decoding stops after the block in which one of them was committed.
        top_j: vocabulary ranks kept, ``J``.
        seed: seed of stochastic policies.
        schedule: how long each block is (``verify.blocks``), ``adablock:...``; None where all have ``block_length``.

    Raises:
        ScheduleError: a schedule that cannot be read or does not fit the block length.
    """

    block_length: int = 32
    generation_length: int = 96
    cache: str = "dual"
    backend: str = "packed"
    end_token_ids: tuple[int, ...] = ()
    top_j: int = 8
    seed: int = 0
    schedule: str | None = None

    def __post_init__(self) -> None:
        """Keep the one text of the schedule that is stored."""
        if self.schedule is not None:
            object.__setattr__(self, "schedule", make_schedule(self.schedule, self.block_length).spec)

    def layout(self, prompt_length: int) -> SequenceLayout:
        """Where the blocks of a sequence lie, behind a prompt of so many tokens; raises LayoutError."""
        schedule = None if self.schedule is None else make_schedule(self.schedule, self.block_length)
        return SequenceLayout.make(prompt_length, self.generation_length, self.block_length, self.cache, schedule)


#: What a forward evaluates beside the real block: draft formulas, the same prepared, or a drafter.
Drafts = Drafter | DraftFiller | Iterable[Sequence[Sequence[int]]]


def decode(
    denoiser: Denoiser,
    prompt: Sequence[int],
    policy: Policy,
    config: DecodeConfig,
    drafts: Drafts = (),
    *,
    prompt_index: int = 0,
    observer: Observer | None = None,
    engine: Engine | None = None,
) -> DecodeResult:
    """Decode one prompt, plainly (no ``drafts``) or with drafts.

    Args:
        denoiser: the model.
        prompt: token ids, at least one.
        policy: the unmasking policy.
        config: lengths, cache mode, back-end.
        drafts: draft formulas of a graph without the root, or a drafter (``verify.drafters``); nothing for plain
            decoding.
        prompt_index: the prompt's number; keys the noise of stochastic policies.
        observer: told of every denoising step.
        engine: what runs the forwards; one that suits the denoiser when left out.

    Raises:
        LayoutError: lengths or cache mode do not fit, or a formula or the policy needs a vocabulary rank above
            ``top_j``.
        DecodeError: the policy takes committed positions back; or it commits what no state of the block can hold (a
            position that is not masked, a token outside the vocabulary, the mask token), nothing where it must not, or
            nothing ``MAX_EMPTY_STEPS`` times in a row; or the prompt holds the mask token or an id outside the
            vocabulary.
        FloatingPointError: the model returned logits that cannot be ranked.

    >>> from calibrate import load_checkpoint
    >>> from verify import make_policy
    >>> checkpoint, policy = load_checkpoint("bundled"), make_policy("threshold:0.9")
    >>> found = decode(checkpoint.denoiser, [5, 6, 7], policy, DecodeConfig(generation_length=32))
    >>> len(found.tokens), found.forwards == found.steps
    (32, True)
    """
    results = decode_batch(denoiser, [(prompt_index, prompt)], policy, config, drafts, observer=observer, engine=engine)
    return next(results)[1]


def decode_batch(
    denoiser: Denoiser,
    prompts: Iterable[tuple[int, Sequence[int]]],
    policy: Policy,
    config: DecodeConfig,
    drafts: Drafts = (),
    *,
    batch_size: int = 1,
    observer: Observer | None = None,
    forward_observer: ForwardObserver | None = None,
    engine: Engine | None = None,
) -> Iterator[tuple[int, DecodeResult]]:
    """Decode prompts, up to ``batch_size`` at a time, each at its own length, block and step and with its own drafts.

    A prompt that is done gives its place to the next one (continuous batching). Tokens, steps and forwards of a prompt
    are those it has alone; in low precision the shape of the batch changes the last bits, as it does everywhere.

    Args:
        prompts: (prompt_index, token ids) of every prompt.
        batch_size: sequences per forward; what it can cost in memory is in docs/gpu.md.
        forward_observer: told of every forward and of all that it evaluated, accepted or not.
        engine: must have room for ``batch_size`` slots and the longest prompt; it serves one decode at a time.
        denoiser, policy, config, drafts, observer: as in :func:`decode`.

    Yields:
        (prompt_index, result), in the order in which prompts are done.

    Raises:
        The errors of :func:`decode`; those about prompts, lengths and the graph before anything is run.
        EngineError: the engine handed in was made for something else.
    """
    if config.top_j < 1:
        raise LayoutError(f"top_j is {config.top_j}, expected at least 1")
    if batch_size < 1:
        raise LayoutError(f"batch_size is {batch_size}, expected at least 1")
    prompts = list(prompts)
    for _, prompt in prompts:
        _check_prompt(prompt, denoiser)
    drafter = cast(Drafter, drafts) if hasattr(drafts, "for_sequence") else GraphDrafter(drafts)
    if drafter.max_vocabulary_rank > config.top_j:
        raise LayoutError(
            f"the drafts read vocabulary rank {drafter.max_vocabulary_rank}, but only top_j={config.top_j} are kept; "
            f"raise top_j"
        )
    if policy.ranks > config.top_j:
        raise LayoutError(
            f"policy {policy.spec} reads {policy.ranks} vocabulary ranks, but only top_j={config.top_j} are kept; "
            f"raise top_j"
        )
    promise = exactness(config.cache, config.backend)
    bridges = most_bridges(drafter, config.cache, offers_copies(denoiser), config.schedule)
    layouts = [config.layout(len(prompt)) for _, prompt in prompts]
    rules = DecodeRules(
        policy,
        drafter,
        denoiser.mask_token_id,
        denoiser.vocabulary_size,
        config.end_token_ids,
        config.seed,
        observer,
        forward_observer,
        bridges=bridges > 0,
        copies=bridges > 0 and config.cache == "dual",
    )
    if engine is not None:
        engine.check(denoiser, config.cache, config.backend, drafter.max_drafts, bridges)
    elif prompts:
        engine = make_engine(denoiser, config, layouts, min(batch_size, len(prompts)), drafter.max_drafts, bridges)
    if engine is None:
        return iter(())
    waiting = deque(zip(prompts, layouts, strict=True))
    return _run(engine, rules, waiting, batch_size, config.top_j, promise)


def make_engine(
    denoiser: Denoiser,
    config: DecodeConfig,
    layouts: Sequence[SequenceLayout],
    slots: int,
    drafts: int,
    bridges: int = 0,
) -> Engine:
    """The engine that suits a denoiser: static buffers where it offers slots, else one call per sequence.

    Args:
        denoiser: the model.
        config: cache mode and back-end.
        layouts: of all sequences that will be decoded.
        slots: sequences at a time.
        drafts: the most drafts at an anchor.
        bridges: the most bridges; in dual cache mode there is room for some where the denoiser offers copies.
    """
    slotted = getattr(denoiser, "offers_slots", False)
    copies = bridges > 0 and config.cache == "dual" and offers_copies(denoiser)
    if copies and slotted:
        return CopyingSlotEngine(
            cast(SlotDenoiser, denoiser), config.cache, config.backend, slots, layouts, drafts, bridges
        )
    if copies:
        return CopyingRowEngine(denoiser, config.cache, config.backend)
    if slotted:
        return SlotEngine(cast(SlotDenoiser, denoiser), config.cache, config.backend, slots, layouts, drafts, bridges)
    return RowEngine(denoiser, config.cache, config.backend)


def _run(
    engine: Engine,
    rules: DecodeRules,
    waiting: deque[tuple[tuple[int, Sequence[int]], SequenceLayout]],
    batch_size: int,
    top_j: int,
    promise: Exactness,
) -> Iterator[tuple[int, DecodeResult]]:
    active: list[SequenceDecoder] = []  # by slot; slots in use stay gapless from 0
    while waiting or active:
        while waiting and len(active) < batch_size:
            (prompt_index, prompt), layout = waiting.popleft()
            engine.open(len(active), prompt_index, layout)
            active.append(SequenceDecoder(rules, prompt, layout, prompt_index))
        _advance(engine, active, rules, top_j)
        for slot in reversed(range(len(active))):
            if not active[slot].done:
                continue
            finished, last = active[slot], active.pop()
            if slot < len(active):
                engine.move(len(active), slot)
                active[slot] = last
            yield finished.prompt_index, finished.result(promise)


@torch.inference_mode()
def _advance(engine: Engine, active: Sequence[SequenceDecoder], rules: DecodeRules, top_j: int) -> None:
    """One forward: of the blocks that begin, if there are any, else of all sequences together."""
    due = [slot for slot, sequence in enumerate(active) if sequence.refresh_due]
    slots = due or range(len(active))
    chosen = [active[slot] for slot in slots]
    if due:
        result = engine.refresh(due, [one.tokens for one in chosen], [one.start for one in chosen])
    else:
        for slot, one in zip(slots, chosen, strict=True):
            if one.crossed:
                engine.cross(slot, one.tokens, one.start)
                one.crossed = False
            if one.narrowed:
                engine.narrow(slot, len(one.block))
                one.narrowed = False
        result = engine.step(slots, [one.states for one in chosen], [one.bridges for one in chosen])
    needs = rules.policy.needs
    ranks = result.rank(rules.mask_token_id, top_j, keep_logits=needs == "logits", entropies=needs == "entropy")
    for sequence, ranked, query_tokens in zip(chosen, ranks, result.query_tokens, strict=True):
        sequence.advance(ranked, query_tokens)


def _check_prompt(prompt: Sequence[int], denoiser: Denoiser) -> None:
    for k, token in enumerate(prompt):
        if not 0 <= token < denoiser.vocabulary_size:
            raise DecodeError(
                f"the prompt holds token id {token} at index {k}; the model's vocabulary has {denoiser.vocabulary_size}"
            )
        if token == denoiser.mask_token_id:
            raise DecodeError(
                f"the prompt holds the mask token {token} at index {k}; a prompt is given, only what follows is decoded"
            )
