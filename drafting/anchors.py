"""Anchors and their chains, derived from traces.

At an anchor the distribution of the newest step ranks the positions that are still masked. The chain of the
anchor is what the following steps really committed, written as formulas in those ranks: S1 < S2 < ... < SK.
Chains are cut one step before the block is complete, because no distribution of a full block is ever needed.

Everything is columnar (see :class:`AnchorTable`), because a calibration run has a million anchors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drafting.chains import block_starts, derive_chains
from drafting.codes import pair_codes, prefix_sums
from drafting.ragged import join, ptr_of
from verify.graph.formulas import Formula, format_formula, formula, is_subset

if TYPE_CHECKING:
    from calibrate.traces.table import Traces

_CHUNK = 1 << 15  # anchors per pass of from_traces: bounds the temporary arrays to some tens of megabytes


@dataclass(frozen=True, eq=False)
class AnchorTable:
    """Anchors with their chains, ordered by (prompt_index, block, step).

    With ``A`` anchors, ``N`` chain states over all anchors, ``P`` pairs over all chain states, ``B`` blocks:

    Attributes:
        prompt_index, block, step: int32 [A]; ``step`` is the step whose distribution ranks the positions.
        steps_left: int32 [A], plain denoising steps from the anchor to the complete block (at least 1).
        masked: int32 [A], positions of the block that are masked at the anchor; 0 in a table of literal chains.
        chain_ptr: int64 [A + 1]; anchor ``a`` owns chain states ``chain_ptr[a]:chain_ptr[a + 1]``.
        code: uint64 [N], code of the whole state (see ``drafting.codes``).
        pair_ptr: int64 [N + 1]; chain state ``n`` adds pairs ``pair_ptr[n]:pair_ptr[n + 1]`` to the state
            before it.
        pair_i, pair_j: int16 [P], position and vocabulary ranks.
        truncated: bool [A], the chain went on but was cut at ``max_depth``.
        block_ptr: int64 [B + 1]; block ``b`` owns anchors ``block_ptr[b]:block_ptr[b + 1]``, one for every
            step but the last. ``B`` is 0 for a table of literal chains, which says nothing about decodes.
        block_prompt, block_index: int32 [B], which block of which prompt.
        block_steps, block_tokens: int32 [B], the block's denoising steps, and the tokens that they commit.
        max_depth: the cut, or None for whole chains.
    """

    prompt_index: np.ndarray
    block: np.ndarray
    step: np.ndarray
    steps_left: np.ndarray
    masked: np.ndarray
    chain_ptr: np.ndarray
    code: np.ndarray
    pair_ptr: np.ndarray
    pair_i: np.ndarray
    pair_j: np.ndarray
    truncated: np.ndarray
    block_ptr: np.ndarray
    block_prompt: np.ndarray
    block_index: np.ndarray
    block_steps: np.ndarray
    block_tokens: np.ndarray
    max_depth: int | None

    @classmethod
    def from_traces(cls, traces: Traces, max_depth: int | None = 16) -> AnchorTable:
        """Derive every anchor and its chain from traces.

        A chain ends before a step that commits nothing, and before a step that commits a token outside the
        recorded vocabulary ranks: no formula names that state. Time and memory are linear in the committed
        pairs under the cut.

        Args:
            traces: what ``calibrate`` recorded.
            max_depth: keep at most this many states per chain. None keeps whole chains, which a graph that
                reaches deeper than the cut needs.

        Raises:
            ValueError: ``max_depth`` below 1, or traces that are not a monotone decode (steps of a block not
                numbered 1, 2, ...; a commit at a position that was not masked).
        """
        if max_depth is not None and max_depth < 1:
            raise ValueError(f"max_depth must be at least 1 or None, got {max_depth}")
        blocks = block_starts(traces)
        n_rows = traces.n_steps
        block_of_row = np.repeat(np.arange(len(blocks) - 1), np.diff(blocks))
        last_row = blocks[1:][block_of_row] - 1
        anchors = np.flatnonzero(np.arange(n_rows) < last_row)
        natural = last_row[anchors] - anchors - 1
        kept = natural if max_depth is None else np.minimum(natural, max_depth)

        lengths: list[np.ndarray] = []
        sizes: list[np.ndarray] = []
        ranks_i: list[np.ndarray] = []
        ranks_j: list[np.ndarray] = []
        for low in range(0, len(anchors), _CHUNK):
            part = slice(low, low + _CHUNK)
            for store, value in zip(
                (lengths, sizes, ranks_i, ranks_j),
                derive_chains(traces, anchors[part], kept[part]),
                strict=True,
            ):
                store.append(value)
        length = join(lengths, np.int64)
        block_steps = np.diff(blocks).astype(np.int32)
        return cls._assemble(
            prompt_index=traces.prompt_index[anchors].astype(np.int32),
            block=traces.block[anchors].astype(np.int32),
            step=traces.step[anchors].astype(np.int32),
            steps_left=(last_row[anchors] - anchors).astype(np.int32),
            masked=np.diff(traces.masked_ptr)[anchors + 1].astype(np.int32),
            length=length,
            state_size=join(sizes, np.int64),
            pair_i=join(ranks_i, np.int16),
            pair_j=join(ranks_j, np.int16),
            truncated=(natural > kept) & (length == kept),
            block_ptr=ptr_of(block_steps - 1),
            block_prompt=traces.prompt_index[blocks[:-1]].astype(np.int32),
            block_index=traces.block[blocks[:-1]].astype(np.int32),
            block_steps=block_steps,
            block_tokens=np.diff(traces.commit_ptr[blocks]).astype(np.int32),
            max_depth=max_depth,
        )

    @classmethod
    def from_chains(
        cls, chains: Iterable[Sequence[Formula]], prompt_indices: Sequence[int] | None = None
    ) -> AnchorTable:
        """A table of literal chains, one anchor each, without blocks (for tests and hand-made counts).

        Args:
            chains: per anchor the states S1 < S2 < ..., root left out.
            prompt_indices: prompt of each anchor; by default each anchor is its own prompt.

        Raises:
            ValueError: a chain that does not grow from state to state, or ``prompt_indices`` of another length.
        """
        length: list[int] = []
        sizes: list[int] = []
        flat_i: list[int] = []
        flat_j: list[int] = []
        for chain in chains:
            before: Formula = ()
            for state in map(formula, chain):
                if state == before or not is_subset(before, state):
                    raise ValueError(f"a chain must grow, got {format_formula(state)} after {format_formula(before)}")
                added = [pair for pair in state if pair not in before]
                sizes.append(len(added))
                flat_i.extend(i for i, _ in added)
                flat_j.extend(j for _, j in added)
                before = state
            length.append(len(chain))
        count = len(length)
        if prompt_indices is not None and len(prompt_indices) != count:
            raise ValueError(f"prompt_indices must name a prompt for each of {count} chains, got {len(prompt_indices)}")
        return cls._without_blocks(
            prompt_index=np.asarray(range(count) if prompt_indices is None else prompt_indices, dtype=np.int32),
            length=np.array(length, dtype=np.int64),
            state_size=np.array(sizes, dtype=np.int64),
            pair_i=np.array(flat_i, dtype=np.int16),
            pair_j=np.array(flat_j, dtype=np.int16),
        )

    @classmethod
    def from_pairs(cls, pair_i: np.ndarray, pair_j: np.ndarray) -> AnchorTable:
        """A table of chains that all grow by one pair a state, without blocks (for synthetic studies).

        Args:
            pair_i, pair_j: integers [A, K], the pair that state k of anchor a adds; the position ranks of a row
                must differ (not checked).
        """
        count, depth = pair_i.shape
        return cls._without_blocks(
            prompt_index=np.arange(count, dtype=np.int32),
            length=np.full(count, depth, dtype=np.int64),
            state_size=np.ones(count * depth, dtype=np.int64),
            pair_i=pair_i.ravel().astype(np.int16, copy=False),
            pair_j=pair_j.ravel().astype(np.int16, copy=False),
        )

    @classmethod
    def _without_blocks(
        cls,
        *,
        prompt_index: np.ndarray,
        length: np.ndarray,
        state_size: np.ndarray,
        pair_i: np.ndarray,
        pair_j: np.ndarray,
    ) -> AnchorTable:
        count = len(prompt_index)
        return cls._assemble(
            prompt_index=prompt_index,
            block=np.zeros(count, dtype=np.int32),
            step=np.ones(count, dtype=np.int32),
            steps_left=length.astype(np.int32) + 1,
            masked=np.zeros(count, dtype=np.int32),
            length=length,
            state_size=state_size,
            pair_i=pair_i,
            pair_j=pair_j,
            truncated=np.zeros(count, dtype=bool),
            block_ptr=np.zeros(1, dtype=np.int64),
            block_prompt=np.zeros(0, dtype=np.int32),
            block_index=np.zeros(0, dtype=np.int32),
            block_steps=np.zeros(0, dtype=np.int32),
            block_tokens=np.zeros(0, dtype=np.int32),
            max_depth=None,
        )

    @classmethod
    def _assemble(
        cls,
        *,
        length: np.ndarray,
        state_size: np.ndarray,
        pair_i: np.ndarray,
        pair_j: np.ndarray,
        max_depth: int | None,
        **columns: np.ndarray,
    ) -> AnchorTable:
        """Pointers from lengths, and the codes: running sums over all pairs, taken from the start of each
        chain."""
        chain_ptr, pair_ptr = ptr_of(length), ptr_of(state_size)
        sums = prefix_sums(pair_codes(pair_i, pair_j))
        code = sums[pair_ptr[1:]]
        code -= np.repeat(sums[pair_ptr[chain_ptr[:-1]]], length)
        return cls(
            chain_ptr=chain_ptr,
            code=code,
            pair_ptr=pair_ptr,
            pair_i=pair_i,
            pair_j=pair_j,
            max_depth=max_depth,
            **columns,
        )

    @property
    def n_anchors(self) -> int:
        return len(self.prompt_index)

    @property
    def n_blocks(self) -> int:
        return len(self.block_steps)

    def lengths(self) -> np.ndarray:
        """int64 [A], states in each chain."""
        return np.diff(self.chain_ptr)

    def prompt_indices(self) -> np.ndarray:
        """The distinct prompts, ascending, those without any anchor included."""
        return np.unique(np.concatenate([self.prompt_index, self.block_prompt]))

    def chain_of(self, rows: np.ndarray) -> np.ndarray:
        """The anchor that owns each chain state. ``rows`` int64 [n], indices into ``code``."""
        return np.searchsorted(self.chain_ptr, rows, side="right") - 1

    def pair_ranges(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and one-past-last pair of each chain state's whole formula: int64 [n] each."""
        return self.pair_ptr[self.chain_ptr[self.chain_of(rows)]], self.pair_ptr[rows + 1]

    def formulas(self, rows: np.ndarray) -> list[Formula]:
        """The states at ``rows`` (indices into ``code``) as formulas. Linear in their pairs."""
        starts, ends = self.pair_ranges(np.asarray(rows, dtype=np.int64))
        return [
            tuple(sorted(zip(self.pair_i[low:high].tolist(), self.pair_j[low:high].tolist(), strict=True)))
            for low, high in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def chain(self, anchor: int) -> list[Formula]:
        """The chain of one anchor, shallow first."""
        return self.formulas(np.arange(self.chain_ptr[anchor], self.chain_ptr[anchor + 1]))

    def chains(self) -> Iterator[list[Formula]]:
        """All chains in anchor order. Slow (Python objects); for tests and small tables."""
        for anchor in range(self.n_anchors):
            yield self.chain(anchor)

    def select(self, prompt_indices: Iterable[int]) -> AnchorTable:
        """The anchors and blocks of these prompts, in the order of this table. Linear."""
        chosen = np.asarray(list(prompt_indices), dtype=np.int64)
        keep = np.isin(self.prompt_index, chosen)
        keep_block = np.isin(self.block_prompt, chosen)
        keep_state = np.repeat(keep, self.lengths())
        state_size = np.diff(self.pair_ptr)
        keep_pair = np.repeat(keep_state, state_size)
        return AnchorTable(
            prompt_index=self.prompt_index[keep],
            block=self.block[keep],
            step=self.step[keep],
            steps_left=self.steps_left[keep],
            masked=self.masked[keep],
            chain_ptr=ptr_of(self.lengths()[keep]),
            code=self.code[keep_state],
            pair_ptr=ptr_of(state_size[keep_state]),
            pair_i=self.pair_i[keep_pair],
            pair_j=self.pair_j[keep_pair],
            truncated=self.truncated[keep],
            block_ptr=ptr_of(np.diff(self.block_ptr)[keep_block]),
            block_prompt=self.block_prompt[keep_block],
            block_index=self.block_index[keep_block],
            block_steps=self.block_steps[keep_block],
            block_tokens=self.block_tokens[keep_block],
            max_depth=self.max_depth,
        )
