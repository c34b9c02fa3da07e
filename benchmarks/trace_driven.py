"""Trace-driven decoding: one model pays the time, the recorded decode of another says what it predicts.

A model with random weights takes as long as a trained one of its shape, but no draft of its predictions means anything.
So its forwards are run and thrown away, and the logits that the decode sees are made from a trace: at every state that
the recorded decode reached they have the recorded tokens and probabilities. Acceptance, tokens and forward passes are
then those of the trace under any draft graph, and the time is that of the model that was run. States that the recorded
decode never reached belong to drafts that are not accepted; nobody looks at their logits, which are arbitrary.

Without a model (``inner=None``) nothing but the decode loop is left: what replay predicts can be counted in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch

from calibrate.traces.state_log import StateLog
from calibrate.traces.table import TraceError, Traces
from verify.decoding import DecodeConfig
from verify.denoiser import Denoiser
from verify.engines.contract import BatchLogits, Engine, EngineError, masked_rows
from verify.layout import SequenceLayout

#: A logit that no token of a softmax over others survives; finite, so that it still ranks.
_LOW = -1e4


def recorded_config(traces: Traces | StateLog, backend: str = "packed") -> DecodeConfig:
    """The lengths, cache mode, end tokens and ranks that ``traces`` (or a state log) were recorded with.

    Raises:
        TraceError: traces without the facts of their run, of blocks of different lengths, or of a sampled decode, whose
            noise is drawn for the recorded model's vocabulary and cannot come out the same for another.
    """
    run = traces.metadata
    try:
        sampled = run["temperature"] > 0
        config = DecodeConfig(
            run["block_length"], run["generation_length"], run["cache"], backend,
            tuple(run["end_token_ids"]), run["top_j"], run["seed"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise TraceError(
            f"the traces lack a fact of their run ({error}); read them with calibrate.traces.table"
        ) from error
    if sampled:
        raise TraceError(
            f"the traces were recorded at temperature {run['temperature']}; only decodes at temperature 0 can drive"
        )
    if run.get("schedule") is not None:
        raise TraceError(f"the traces were recorded under {run['schedule']}; only blocks of one length can drive")
    return config


class TraceDrivenEngine:
    """An engine whose logits come from traces; may be passed for the denoiser too, of which only facts are asked.

    Args:
        traces: what drives; recorded at temperature 0, under a rule that looks at no more than the recorded ranks.
        inner: runs the real forwards; None runs no model at all.
        mask_token_id: of the model that runs.
        vocabulary_size: of the model that runs, at least that of the recorded one.
        device: where logits are made.

    Attributes:
        seconds: host seconds spent on making logits, the inner engine's forwards left out.
        unreached: units (roots and drafts) at states that the recorded decode never reached.
        reached: the other units. Every root is one of these as long as the decode follows the trace.

    Raises:
        TraceError: as in :func:`recorded_config`; recorded tokens that the model's vocabulary has not or that are its
            mask; or probabilities so close to each other that no float32 logits bring back their order.
    """

    def __init__(
        self,
        traces: Traces,
        inner: Engine | None,
        *,
        mask_token_id: int,
        vocabulary_size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = recorded_config(traces)
        self.inner, self.mask_token_id, self.vocabulary_size = inner, mask_token_id, vocabulary_size
        self.device = torch.device(device)
        self.seconds, self.reached, self.unreached = 0.0, 0, 0
        self._block_length = self.config.block_length
        _check_tokens(traces, mask_token_id, vocabulary_size)
        values, fill = _recorded_logits(traces, vocabulary_size)
        # One more entry for every state that was never reached: any tokens, in an order without ties.
        ranks = np.arange(traces.top_j)
        spare = ranks + (ranks >= mask_token_id)
        self._tokens = torch.from_numpy(np.vstack([traces.top_token, spare]).astype(np.int64)).to(self.device)
        self._values = torch.from_numpy(np.vstack([values, -ranks]).astype(np.float32)).to(self.device)
        self._fill = torch.from_numpy(np.append(fill, _LOW).astype(np.float32)).to(self.device)
        self._spare = len(fill)
        self._rows, self._new = _states(traces, mask_token_id, self._block_length)
        self._entry = np.full((traces.n_steps + 1, self._block_length), self._spare, dtype=np.int64)
        row = np.repeat(np.arange(traces.n_steps), np.diff(traces.masked_ptr))
        self._entry[row, traces.masked_position] = np.arange(len(row))
        self._never = traces.n_steps
        self._layouts: dict[int, tuple[int, SequenceLayout]] = {}  # slot -> prompt_index, layout
        self._blocks: dict[int, tuple[int, int]] = {}  # slot -> prompt_index, block

    def prompt(self, prompt_index: int, length: int, seed: int = 0) -> list[int]:
        """Random token ids of about ``length``, for the cached rows that a long prompt makes.

        Block-causal decodes count blocks from position 0, so there the length is brought to where the recorded first
        block began: up to ``L - 1`` tokens more.
        """
        if self.config.cache == "block_causal":
            tail = self._block_length - int(self._first_new(prompt_index).sum())
            length = tail + -(-max(length - tail, 0) // self._block_length) * self._block_length
        drawn = np.random.default_rng([seed, prompt_index]).integers(0, self.vocabulary_size - 1, max(length, 1))
        return [int(token) for token in drawn + (drawn >= self.mask_token_id)]

    def check(self, denoiser: Denoiser, cache: str, backend: str, drafts: int, bridges: int) -> None:
        """See :meth:`verify.engines.contract.Engine.check`."""
        if (denoiser.mask_token_id, denoiser.vocabulary_size) != (self.mask_token_id, self.vocabulary_size):
            raise EngineError("the trace drives a model with another mask token or vocabulary than this one")
        if cache != self.config.cache:
            raise EngineError(f"the trace was recorded with {self.config.cache} cache, it cannot drive {cache}")
        if self.inner is not None:
            self.inner.check(getattr(self.inner, "denoiser", denoiser), cache, backend, drafts, bridges)

    def open(self, slot: int, prompt_index: int, layout: SequenceLayout) -> None:
        self._first_new(prompt_index)
        self._layouts[slot] = prompt_index, layout
        if self.inner is not None:
            self.inner.open(slot, prompt_index, layout)

    def move(self, source: int, target: int) -> None:
        self._layouts[target] = self._layouts.pop(source)
        if source in self._blocks:
            self._blocks[target] = self._blocks.pop(source)
        if self.inner is not None:
            self.inner.move(source, target)

    def narrow(self, slot: int, length: int) -> None:
        raise EngineError("a trace drives blocks of one length")

    def refresh(self, slots: Sequence[int], sequences: Sequence[np.ndarray], starts: Sequence[int]) -> BatchLogits:
        paid = self.inner.refresh(slots, sequences, starts) if self.inner is not None else None
        begin = perf_counter()
        states = []
        for slot, sequence, start in zip(slots, sequences, starts, strict=True):
            prompt_index, layout = self._layouts[slot]
            self._blocks[slot] = prompt_index, layout.block_starts.index(start)
            states.append(sequence[None, start : start + self._block_length])
        return self._driven(paid, slots, states, begin)

    def cross(self, slot: int, sequence: np.ndarray, start: int) -> None:
        raise EngineError("a plain trace does not know what stands behind a bridge; drive the decode without bridges")

    def step(
        self, slots: Sequence[int], states: Sequence[np.ndarray], bridges: Sequence[np.ndarray] | None = None
    ) -> BatchLogits:
        if bridges is not None and any(len(one) for one in bridges):
            raise EngineError(
                "a plain trace does not know what stands behind a bridge; drive the decode without bridges"
            )
        paid = self.inner.step(slots, states) if self.inner is not None else None
        return self._driven(paid, slots, states, perf_counter())

    def _first_new(self, prompt_index: int) -> np.ndarray:
        """bool [L], the positions of the prompt's first block that were generated."""
        if (prompt_index, 0) not in self._new:
            known = sorted({prompt_index for prompt_index, _ in self._new})
            raise TraceError(
                f"the traces hold no prompt number {prompt_index}, only {len(known)} others ({known[0]}, ...)"
            )
        return self._new[prompt_index, 0]

    def _driven(
        self, paid: BatchLogits | None, slots: Sequence[int], states: Sequence[np.ndarray], begin: float
    ) -> BatchLogits:
        if paid is None:
            unit, offset, bounds = masked_rows(states, self.mask_token_id)
        else:
            unit, offset, bounds = paid.unit, paid.offset, paid.bounds
        entry = np.empty(len(unit), dtype=np.int64)
        for k, (slot, state) in enumerate(zip(slots, states, strict=True)):
            part = slice(bounds[k], bounds[k + 1])
            entry[part] = self._entry[self._steps_of(self._blocks[slot], state)[unit[part]], offset[part]]
        source = torch.from_numpy(entry)
        if self.device.type == "cuda":
            source = source.pin_memory().to(self.device, non_blocking=True)
        logits = torch.empty(len(entry), self.vocabulary_size, dtype=torch.float32, device=self.device)
        logits.copy_(self._fill[source][:, None])
        logits.scatter_(1, self._tokens[source], self._values[source])
        rows = paid.query_tokens if paid is not None else [0] * len(states)  # without a model no row was computed
        result = BatchLogits(
            logits, unit, offset, bounds, [len(state) for state in states], rows, [self._block_length] * len(states)
        )  # fmt: skip
        self.seconds += perf_counter() - begin
        return result

    def _steps_of(self, block: tuple[int, int], states: np.ndarray) -> np.ndarray:
        """int [1 + D], the trace row whose distribution belongs to each state, or the row that stands for none."""
        new = self._new.get(block)
        if new is None:
            return np.full(len(states), self._never)
        known = np.where(new, states, -1)
        found = np.array([self._rows.get((*block, state.tobytes()), self._never) for state in known])
        missed = int(np.count_nonzero(found == self._never))
        self.unreached += missed
        self.reached += len(found) - missed
        return found


def _check_tokens(traces: Traces, mask_token_id: int, vocabulary_size: int) -> None:
    highest = int(max(traces.top_token.max(initial=0), traces.commit_token.max(initial=0)))
    if highest >= vocabulary_size or traces.top_j >= vocabulary_size:
        raise TraceError(
            f"the traces hold token {highest} and {traces.top_j} ranks, beyond the model's vocabulary of "
            f"{vocabulary_size}"
        )
    if (traces.top_token == mask_token_id).any():
        raise TraceError(f"the traces hold token {mask_token_id}, which is the mask of the model that is to be driven")


def _states(
    traces: Traces, mask_token_id: int, block_length: int
) -> tuple[dict[tuple[int, int, bytes], int], dict[tuple[int, int], np.ndarray]]:
    """The trace row of every (prompt_index, block, state) that was reached, and the generated positions of every block.

    A state is int64 [L] with -1 where the prompt's tail stands. A step without commits leaves its state as it is; a
    model says the same of it again, so the first row stands for both.
    """
    rows: dict[tuple[int, int, bytes], int] = {}
    new: dict[tuple[int, int], np.ndarray] = {}
    state = np.zeros(0, dtype=np.int64)
    for row in range(traces.n_steps):
        block = int(traces.prompt_index[row]), int(traces.block[row])
        masked = traces.masked_position[traces.masked_ptr[row] : traces.masked_ptr[row + 1]]
        if traces.step[row] == 1:
            state = np.full(block_length, -1, dtype=np.int64)
            state[masked] = mask_token_id
            new[block] = state == mask_token_id
        rows.setdefault((*block, state.tobytes()), row)
        commits = slice(traces.commit_ptr[row], traces.commit_ptr[row + 1])
        state[traces.commit_position[commits]] = traces.commit_token[commits]
    return rows, new


def _recorded_logits(traces: Traces, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the recorded tokens, float32 [M, J], and of every other token, float32 [M].

    The highest logit is 0. What the recorded ranks leave of the probability is spread over all other tokens, so that
    the softmax gives back the recorded probabilities to the precision of float32, in which they were recorded. Equal
    ones are moved by one unit in the last place where the recorded order needs it.
    """
    probability = traces.top_probability.astype(np.float64)
    others = vocabulary_size - 1 - traces.top_j
    values = np.log(np.maximum(probability, 1e-38))
    values = (values - values[:, :1]).astype(np.float32)
    for j in range(1, traces.top_j):  # among equal scores the lower token id ranks first
        falls = traces.top_token[:, j] < traces.top_token[:, j - 1]
        limit = np.where(falls, np.nextafter(values[:, j - 1], np.float32(-np.inf)), values[:, j - 1])
        values[:, j] = np.minimum(values[:, j], limit)
    rest = np.maximum(1 - probability.sum(axis=1), 0.0) / probability[:, 0]
    below = np.nextafter(values[:, -1], np.float32(-np.inf))
    fill = _spread(rest, others, below)
    _settle_order(traces, values, fill, others, below)
    return values, fill


def _spread(mass: np.ndarray, others: int, below: np.ndarray) -> np.ndarray:
    """float32, the logit at which ``others`` tokens weigh ``mass`` times a token at 0 together; at most ``below``."""
    with np.errstate(divide="ignore"):
        logit = np.log(np.maximum(mass, 0.0) / max(others, 1))
    return np.minimum(np.maximum(logit, _LOW).astype(np.float32), below)


def _settle_order(traces: Traces, values: np.ndarray, fill: np.ndarray, others: int, below: np.ndarray) -> None:
    """Make confidences fall in the recorded order of positions, in place on ``fill`` [M].

    Positions that differ only beyond float32 are told apart by a little more mass on the tokens that were not recorded:
    some 1e-6 of the probability, as little as float32 logits allow.
    """
    mass = np.exp(values.astype(np.float64)).sum(axis=1) - 1.0

    def excess(entry: int | slice) -> np.ndarray:
        """What stands beside the top token, relative to it: confidence is 1 / (1 + excess)."""
        return mass[entry] + others * np.exp(fill[entry].astype(np.float64))

    beside = excess(slice(None))
    first = np.zeros(len(fill) + 1, dtype=bool)
    first[traces.masked_ptr] = True
    # Equal is not enough: the sum over a row depends in its last bits on where in the vocabulary its tokens stand.
    slack = 1e-12 * (1 + beside)
    wrong = (np.diff(beside) < slack[1:]) & ~first[1:-1]
    for row in np.unique(np.searchsorted(traces.masked_ptr, np.flatnonzero(wrong) + 1, side="right") - 1):
        for entry in range(int(traces.masked_ptr[row]) + 1, int(traces.masked_ptr[row + 1])):
            step = 0.0
            while beside[entry] <= beside[entry - 1] * (1 + 1e-9) + 1e-12:
                step = max(1e-7, 2 * step)
                fill[entry] = _spread(np.array(beside[entry - 1] - mass[entry] + step), others, below[entry])
                beside[entry] = excess(entry)
                if step > 1e-4:
                    raise TraceError(
                        f"prompt {traces.prompt_index[row]}, block {traces.block[row]}, step {traces.step[row]}: the "
                        "order "
                        "of two positions hangs on less than float32 tells apart; this trace cannot drive a decode"
                    )
