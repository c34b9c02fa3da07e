"""The decode loop, the only one: plain decoding is speculation with an empty graph, recording is the loop observed.

A *counted forward* is one call of the denoiser. A block's refresh forward is counted like any other and uses its
distribution for one denoising step; a block that is complete after it pays no other. A step that commits nothing is a
denoising step too: it used a distribution, and the next one is paid for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from verify.context import ContextKeeper
from verify.denoiser import Denoiser
from verify.drafts import DraftFiller
from verify.layout import Exactness, LayoutError, SequenceLayout, exactness
from verify.packing import FORWARDS
from verify.policies import BlockView, Commits, Policy
from verify.randomness import StepRandom
from verify.ranking import LaggedRanker, RankedBlocks, Ranker, rank_logits

#: A policy that may do nothing gets this many steps in a row without a commit; then the decode is given up.
MAX_EMPTY_STEPS = 64


class DecodeError(RuntimeError):
    """A decode that cannot go on: a policy broke its contract, or the prompt is none the model can take."""


@dataclass(frozen=True)
class DecodeConfig:
    """Everything besides model, prompt, policy and graph that a decode depends on.

    Attributes:
        block_length: positions per block, ``L``.
        generation_length: positions to generate; rounded up to whole blocks in block-causal mode.
        context: one of ``none``, ``prefix``, ``dual``, ``block_causal``.
        backend: ``packed`` or ``expanded``, how drafts enter a forward.
        end_token_ids: decoding stops after the block in which one of them was committed.
        top_j: vocabulary ranks kept, ``J``.
        seed: seed of stochastic policies.
    """

    block_length: int = 32
    generation_length: int = 96
    context: str = "dual"
    backend: str = "packed"
    end_token_ids: tuple[int, ...] = ()
    top_j: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class StepFact:
    """One denoising step as it happened; array shapes as in ``calibrate.traces.Traces``."""

    sample: int
    block: int
    step: int
    masked_position: np.ndarray
    top_token: np.ndarray
    top_probability: np.ndarray
    commit_position: np.ndarray
    commit_token: np.ndarray
    event: str


class Observer(Protocol):
    """Is told of every denoising step, in order."""

    def on_step(self, fact: StepFact) -> None: ...


@dataclass(eq=False)
class DecodeResult:
    """What a decode produced and what it cost.

    Attributes:
        tokens: generated tokens in order, prompt left out, up to the end of the last decoded block.
        end: index in ``tokens`` of the first end token, or ``len(tokens)``; generated tokens are counted up to it.
        steps: denoising steps.
        forwards: forward passes (NFE).
        rows: rows over all forwards (batch times sequence).
        accepted: accepted drafts per forward; a refresh forward has 0.
        exactness: what the context mode and back-end promise.
    """

    tokens: list[int]
    end: int
    steps: int = 0
    forwards: int = 0
    rows: int = 0
    accepted: list[int] = field(default_factory=list)
    exactness: Exactness | None = None


def decode(
    denoiser: Denoiser,
    prompt: Sequence[int],
    policy: Policy,
    config: DecodeConfig,
    graph: DraftFiller | Iterable[Sequence[Sequence[int]]] = (),
    *,
    sample: int = 0,
    observer: Observer | None = None,
    ranker: Ranker | None = None,
) -> DecodeResult:
    """Decode one prompt, plainly (empty ``graph``) or with drafts.

    Args:
        denoiser: the model.
        prompt: token ids, at least one.
        policy: the unmasking policy.
        config: lengths, context mode, back-end.
        graph: draft formulas without the root, or a prepared filler.
        sample: the prompt's number; keys the noise of stochastic policies.
        observer: told of every denoising step.
        ranker: where ranks come from; the lagged distribution when left out.

    Raises:
        LayoutError: lengths or context mode do not fit, or a formula needs a vocabulary rank above ``top_j``.
        DecodeError: the policy commits what no state of the block can hold (a position that is not masked, a token
            outside the vocabulary, the mask token), nothing where it must not, or nothing ``MAX_EMPTY_STEPS`` times in
            a row; or the prompt holds the mask token or an id outside the vocabulary.
        FloatingPointError: the model returned logits that cannot be ranked.
    """
    if config.top_j < 1:
        raise LayoutError(f"top_j is {config.top_j}, expected at least 1")
    _check_prompt(prompt, denoiser)
    filler = graph if isinstance(graph, DraftFiller) else DraftFiller(graph)
    if filler.max_vocabulary_rank > config.top_j:
        raise LayoutError(
            f"the graph names vocabulary rank {filler.max_vocabulary_rank}, but only top_j={config.top_j} are kept; "
            f"raise top_j"
        )
    promise = exactness(config.context, config.backend)
    layout = SequenceLayout.make(len(prompt), config.generation_length, config.block_length, config.context)
    sequence = torch.full((layout.length,), denoiser.mask_token_id, dtype=torch.int64)
    sequence[: len(prompt)] = torch.as_tensor(list(prompt), dtype=torch.int64)
    sequence = sequence.to(denoiser.device)
    solver = _BlockSolver(denoiser, policy, config, filler, ranker or LaggedRanker(), sample, observer)
    keeper = ContextKeeper(denoiser, layout, config.context)
    state = policy.initial_state()
    stop = len(prompt)
    with torch.inference_mode():
        for number, start in enumerate(layout.block_starts):
            stop = start + layout.block_length
            solver.first_new = max(0, len(prompt) - start)
            block, state = solver.solve(number, start, sequence, keeper, state)
            sequence[start:stop] = torch.from_numpy(block).to(sequence.device)
            if solver.ends(block):
                break
    tokens = sequence[len(prompt) : stop].tolist()
    end = next((k for k, token in enumerate(tokens) if token in config.end_token_ids), len(tokens))
    return DecodeResult(tokens, end, solver.steps, solver.forwards, solver.rows, solver.accepted, promise)


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


class _BlockSolver:
    """Solves block after block of one sequence and counts what that costs."""

    def __init__(
        self,
        denoiser: Denoiser,
        policy: Policy,
        config: DecodeConfig,
        filler: DraftFiller,
        ranker: Ranker,
        sample: int,
        observer: Observer | None,
    ) -> None:
        self.denoiser, self.policy, self.config = denoiser, policy, config
        self.filler, self.ranker, self.sample, self.observer = filler, ranker, sample, observer
        self.forward = FORWARDS[config.backend]
        self.steps = self.forwards = self.rows = 0
        self.accepted: list[int] = []
        self.first_new = 0  # offset of the first generated position; before it stands the tail of the prompt

    def ends(self, block: np.ndarray) -> bool:
        """Whether an end token was generated in ``block``; one that the prompt brought does not count."""
        return bool(np.isin(block[self.first_new :], self.config.end_token_ids).any())

    def solve(
        self, number: int, start: int, sequence: torch.Tensor, keeper: ContextKeeper, state: Any
    ) -> tuple[np.ndarray, Any]:
        """Decode one block; returns its tokens (int64 [L]) and the policy's state after it."""
        mask = self.denoiser.mask_token_id
        block = sequence[start : start + self.config.block_length].cpu().numpy().copy()
        result, frame = keeper.refresh(sequence, start)
        drafts: dict[bytes, int] = {}
        step = empty = 0
        while True:
            ranked = rank_logits(result.logits, mask, self.config.top_j)
            self.forwards += 1
            self.rows += result.rows
            used: int | None = 0
            last = 0
            distributions = 0
            while used is not None:  # as long as the distribution of the reached state is already known
                last = used
                step += 1
                distributions += 1
                state, committed = self._step(number, step, block, ranked, used, state)
                empty = 0 if committed else empty + 1
                if empty == MAX_EMPTY_STEPS:
                    raise DecodeError(
                        f"policy {self.policy.spec} committed nothing in {empty} steps in a row (block {number}, "
                        f"{np.count_nonzero(block == mask)} positions still masked); it would never end"
                    )
                if not (block == mask).any():
                    break
                # A step without commits leaves the root as it is; the root is no draft, so a new forward is paid.
                used = drafts.get(block.tobytes()) if committed else None
            self.steps += distributions
            self.accepted.append(distributions - 1)
            masked = np.flatnonzero(block == mask)
            if len(masked) == 0:
                return block, state
            if len(self.filler):
                states, _ = self.filler.fill(block, self.ranker.rank(ranked, last, masked))
            else:
                states = block[:0].reshape(0, len(block))
            drafts = {draft.tobytes(): 1 + d for d, draft in enumerate(states)}
            packed = torch.from_numpy(np.concatenate([block[None], states])).to(sequence.device)
            result = self.forward(self.denoiser, frame, packed)

    def _step(
        self, number: int, step: int, block: np.ndarray, ranked: RankedBlocks, used: int, state: Any
    ) -> tuple[Any, int]:
        """Apply the policy once, in place on ``block``; returns its new state and how many positions it committed."""
        mask = self.denoiser.mask_token_id
        positions = ranked.position_order(used, np.flatnonzero(block == mask))

        def logits() -> np.ndarray:
            rows = ranked.logits[used][torch.from_numpy(positions).to(ranked.logits.device)].double()
            rows[:, mask] = -torch.inf
            return rows.cpu().numpy()

        view = BlockView(positions, ranked.top_token[used, positions], ranked.top_probability[used, positions], logits)
        rng = StepRandom(self.config.seed, self.sample, number, step)
        commits, state = self.policy.step(view, state, rng)
        chosen, tokens = self._checked(commits, block)
        block[chosen] = tokens
        if self.observer is not None:
            # One step may be both: the refresh forward of a short block, or of a bold policy, completes it.
            names = ["refresh"] if step == 1 else []
            if not (block == mask).any():
                names.append("early_stop" if self.ends(block) else "block_end")
            event = "+".join(names)
            self.observer.on_step(
                StepFact(
                    self.sample,
                    number,
                    step,
                    positions,
                    view.tokens,
                    view.probabilities,
                    chosen,
                    tokens,
                    event,
                )
            )
        return state, len(chosen)

    def _checked(self, commits: Commits, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions and tokens of ``commits`` as integer arrays [c], after every rule of the contract was looked at."""
        mask, name = self.denoiser.mask_token_id, f"policy {self.policy.spec}"
        positions, tokens = np.asarray(commits.positions), np.asarray(commits.tokens)
        if positions.ndim != 1 or positions.shape != tokens.shape:
            raise DecodeError(
                f"{name} committed positions of shape {positions.shape} and tokens of shape {tokens.shape}; "
                "expected one list each, of one length"
            )
        if len(positions) == 0:
            if not self.policy.may_do_nothing:
                raise DecodeError(f"{name} committed nothing, which it declares it never does")
            return positions.astype(np.int64), tokens.astype(np.int64)
        if positions.dtype.kind not in "iu" or tokens.dtype.kind not in "iu":
            raise DecodeError(
                f"{name} committed {positions.dtype} positions and {tokens.dtype} tokens, expected integers"
            )
        if positions.min() < 0 or positions.max() >= len(block):
            raise DecodeError(f"{name} committed a position outside the block of {len(block)}: {positions.tolist()}")
        if (block[positions] != mask).any() or len(np.unique(positions)) != len(positions):
            raise DecodeError(f"{name} committed a position that is not masked, or one twice: {positions.tolist()}")
        if tokens.min() < 0 or tokens.max() >= self.denoiser.vocabulary_size:
            raise DecodeError(
                f"{name} committed a token outside the vocabulary of {self.denoiser.vocabulary_size}: {tokens.tolist()}"
            )
        if (tokens == mask).any():
            raise DecodeError(f"{name} committed the mask token {mask}")
        return positions, tokens
