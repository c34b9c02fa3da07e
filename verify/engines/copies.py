"""Bridges where a refresh computes the whole sequence (dual cache mode): copies.

A *copy* is the refresh forward of the next block, of the sequence with this block as it may end, whose rows ride in a
step forward. If the block really ends so, its keys and values are what that refresh would have cached, and no refresh
is paid. Until then they are held beside the cached ones, and bridges to further states of the next block cost one
block of rows each. A sequence holds one copy; a new one takes its place, and a refresh drops it.

In this mode nothing but the block is live. So a forward is made of *units* that share no row (the block, a draft, a
copy, a state behind the held copy), and each sees itself and the cached rows, the held ones, or none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verify.denoiser import Denoiser, offers_copies
from verify.engines.contract import EngineError
from verify.engines.step_rows import refresh_order


@dataclass(frozen=True, eq=False)
class Copy:
    """The rows of a copy.

    Attributes:
        complete: the block as it may end (``tobytes()``).
        positions: int64 [N], the next block's first, then the others ascending: those are cached.
        tokens: int64 [N].
    """

    complete: bytes
    positions: np.ndarray
    tokens: np.ndarray


class HeldCopies:
    """Which copy every slot holds, and the sequences that copies are made of."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[np.ndarray, int]] = {}
        self._held: dict[int, bytes] = {}

    def __contains__(self, slot: int) -> bool:
        return slot in self._held

    def begin(self, slot: int, sequence: np.ndarray, start: int) -> None:
        """The sequence in ``slot`` begins the block at ``start``; a copy that was held is dropped."""
        self._begun[slot] = sequence.copy(), start
        self._held.pop(slot, None)

    def hold(self, slot: int, copy: Copy) -> None:
        """``slot`` holds ``copy``, and no other one."""
        self._held[slot] = copy.complete

    def drop(self, slot: int) -> None:
        """Another sequence takes ``slot``."""
        self._held.pop(slot, None)

    def move(self, source: int, target: int) -> None:
        """What ``source`` had is that of ``target``."""
        self._held.pop(target, None)
        self._begun[target] = self._begun.pop(source)
        if source in self._held:
            self._held[target] = self._held.pop(source)

    def wanted(self, slot: int, bridges: np.ndarray, mask_token_id: int) -> Copy | None:
        """The copy to make for ``bridges`` (int64 [K, 2, L]); None where they stand behind the held one.

        Raises:
            EngineError: bridges behind several blocks, or others than a masked one behind a block that is not held.
        """
        if not len(bridges):
            return None
        complete = bridges[0, 0]
        if (bridges[:, 0] != complete).any():
            raise EngineError("bridges behind several blocks; a sequence holds one copy of itself")
        if self._held.get(slot) == complete.tobytes():
            return None
        if len(bridges) > 1 or (bridges[0, 1] != mask_token_id).any():
            raise EngineError(
                f"{len(bridges)} bridges behind a block that no copy is held of; expected one, to a masked block"
            )
        sequence, start = self._begun[slot]
        tokens, follows = sequence.copy(), start + len(complete)
        if follows + len(complete) > len(tokens):
            raise EngineError("a bridge from the last block of a sequence")
        tokens[start:follows] = complete
        positions = refresh_order(len(tokens), follows, len(complete))
        return Copy(complete.tobytes(), positions, tokens[positions])

    def check_crossing(self, slot: int, sequence: np.ndarray, start: int, length: int) -> None:
        """Raise EngineError unless the held copy is of ``sequence`` with the block before ``start`` as it is there."""
        if self._held.get(slot) != sequence[start - length : start].tobytes():
            raise EngineError(f"slot {slot} begins the block at {start} without a refresh, but holds no copy of it")


def check_copies(denoiser: Denoiser, cache: str) -> None:
    """Raise EngineError unless copies can be made: dual cache mode, and a denoiser that offers them."""
    if cache != "dual" or not offers_copies(denoiser):
        raise EngineError(
            f"copies need the cache mode dual and a denoiser that offers them (verify.denoiser.offers_copies), got "
            f"{cache} and a {type(denoiser).__name__}"
        )
