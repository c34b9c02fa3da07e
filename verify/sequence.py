"""One sequence being decoded: what it needs next, and what the distributions of a forward make of it.

No model is called here. An engine runs the forwards, of one sequence or of many; what is committed, accepted and
counted is decided in this one place, on the host, whatever the engine and the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from verify.blocks import check_length
from verify.drafters.contract import Drafter, Evidence
from verify.drafters.memory import KEPT_FORWARDS, KnownState, StateMemory
from verify.layout import Exactness, SequenceLayout
from verify.observing import ForwardFact, ForwardObserver, Observer, StepFact
from verify.policies.contract import NEEDS, Commits, Policy
from verify.policies.randomness import StepRandom
from verify.ranked import RankedBlocks

#: A policy that may do nothing gets this many steps in a row without a commit; then the decode is given up. One that
#: says so, by an attribute ``longest_pause``, may pause for longer.
MAX_EMPTY_STEPS = 64


class DecodeError(RuntimeError):
    """A decode that cannot go on: a policy broke its contract, or the prompt is none the model can take."""


@dataclass(eq=False)
class DecodeResult:
    """What a decode produced and what it cost.

    Attributes:
        tokens: generated tokens in order, prompt left out, up to the end of the last decoded block.
        end: index in ``tokens`` of the first end token, or ``len(tokens)``; generated tokens are counted up to it.
        steps: denoising steps.
        forwards: forward passes (NFE) that this sequence took part in.
        query_tokens: its rows over all forwards, each a token that the model computes anew; padding to the other
            sequences of a batch is left out.
        accepted: accepted drafts per forward; a refresh forward has 0.
        exactness: what the cache mode and back-end promise.
    """

    tokens: list[int]
    end: int
    steps: int = 0
    forwards: int = 0
    query_tokens: int = 0
    accepted: list[int] = field(default_factory=list)
    exactness: Exactness | None = None


@dataclass(frozen=True, eq=False)
class DecodeRules:
    """What all sequences of a decode share.

    Attributes:
        policy: the unmasking policy.
        drafter: what is evaluated beside the real block.
        mask_token_id: the model's.
        vocabulary_size: the model's.
        end_token_ids: decoding stops after the block in which one of them was committed.
        seed: seed of stochastic policies.
        observer: told of every denoising step.
        forward_observer: told of every forward.
        bridges: whether the cache mode lets a forward compute states of the next block beside this one.
        copies: whether the first of them is a copy of the whole sequence, of which the engine holds the newest.
    """

    policy: Policy
    drafter: Drafter
    mask_token_id: int
    vocabulary_size: int
    end_token_ids: tuple[int, ...]
    seed: int
    observer: Observer | None = None
    forward_observer: ForwardObserver | None = None
    bridges: bool = False
    copies: bool = False

    def __post_init__(self) -> None:
        """Refuse a policy that this loop cannot follow, with a DecodeError."""
        needs = getattr(self.policy, "needs", None)
        if needs not in NEEDS:
            raise DecodeError(
                f"policy {self.policy.spec} needs {needs!r}, expected one of {', '.join(NEEDS)} (docs/policies.md)"
            )
        check_monotone(self.policy)


def check_monotone(policy: Policy) -> None:
    """Refuse a policy that takes committed positions back.

    Drafts are unions of what was committed and the block ends when nothing is masked, so neither drafts nor the end of
    a block mean anything under such a rule.

    Raises:
        DecodeError: the policy is not monotone.
    """
    if not policy.monotone:
        raise DecodeError(
            f"policy {policy.spec} takes committed positions back (it says that it is not monotone), but this loop and "
            "its drafts are for rules whose commits stay; decode with another policy"
        )


class SequenceDecoder:
    """The state of one sequence: which forward it needs next, and what it has cost so far.

    Attributes:
        tokens: int64 [N], the whole sequence; blocks that are not finished are masked.
        start: first position of the block being solved.
        refresh_due: the next forward is the block's refresh; otherwise a step forward over ``states``.
        reach: the most positions that the block may have, whose distributions its refresh forward gives.
        states: int64 [1 + D, L], the block and its drafts, for a step forward.
        bridges: int64 [K, 2, L], blocks as they may end with a state of the next one, for a step forward.
        crossed: the block began without a refresh, as its first distribution was known; the engine must be told.
        narrowed: a schedule ended the block before its ``reach``; the engine must be told.
        done: no forward is needed any more.
    """

    def __init__(self, rules: DecodeRules, prompt: Sequence[int], layout: SequenceLayout, prompt_index: int) -> None:
        self.rules, self.layout, self.prompt_index = rules, layout, prompt_index
        self.prompt_length = len(prompt)
        self.tokens = np.full(layout.length, rules.mask_token_id, dtype=np.int64)
        self.tokens[: len(prompt)] = np.asarray(prompt, dtype=np.int64)
        self.steps = self.forwards = self.query_tokens = 0
        self.accepted: list[int] = []
        self.done = False
        self._number, self.block = -1, self.tokens[:0]
        self.start = layout.block_starts[0]
        self._policy_state = rules.policy.initial_state()
        self._drafter = rules.drafter.for_sequence()
        self._next_block()

    @property
    def number(self) -> int:
        """0-based number of the block being solved."""
        return self._number

    def _next_block(self) -> None:
        self._number += 1
        if not self._more:
            self.done = True
            return
        self.start += len(self.block)
        self.reach = self.layout.reach(self.start)
        self._set_length(self.reach)
        self.narrowed = False
        self._ahead: dict[bytes, StateMemory] = {}
        self.crossed = False
        # Without memory the walk sees the newest forward only. A policy that reads logits would keep those of every
        # forward on the device, (1 + D) * L * V numbers each, so for it too only the newest is kept.
        remembers = self._drafter.remembers and self.rules.policy.needs != "logits"
        self._known = StateMemory(KEPT_FORWARDS if remembers else 1)
        self._drafter.start_block()
        self._step_number = self._empty = 0
        self.refresh_due = True

    @property
    def _more(self) -> bool:
        """Whether positions are left behind the block."""
        return self.start + len(self.block) < self.layout.length

    def _set_length(self, length: int) -> None:
        """The block, nothing of it committed yet, has ``length`` positions."""
        self.block = self.tokens[self.start : self.start + length].copy()
        self._masked = np.flatnonzero(self.block == self.rules.mask_token_id)
        self.states = self.block[None].copy()  # what was evaluated stays as it was when the block goes on
        self.bridges = np.zeros((0, 2, length), dtype=np.int64)

    def _narrow(self, ranked: RankedBlocks) -> RankedBlocks:
        """Ask the schedule how long the block is; returns the part of its first distribution that is the block's."""
        schedule = self.layout.schedule
        assert schedule is not None  # without one a block has its length from the beginning
        found = schedule.length(ranked.top_token[0, :, 0], ranked.top_probability[0, :, 0])
        length = check_length(schedule, found, self.reach)
        if length == self.reach:
            return ranked
        self._set_length(length)
        self.narrowed = True
        return ranked.first(length)

    @property
    def copying(self) -> bool:
        """Whether ``bridges`` are a copy of the whole sequence: no copy is held of the block that they stand behind."""
        return self.rules.copies and len(self.bridges) > 0 and self.bridges[0, 0].tobytes() not in self._ahead

    def advance(self, ranked: RankedBlocks, query_tokens: int) -> None:
        """Use the distributions of a forward as far as they reach.

        Args:
            ranked: of the root, the drafts in ``states`` and the next blocks in ``bridges``, in that order.
            query_tokens: what the forward cost this sequence.

        Raises:
            DecodeError: the policy broke its contract, or committed nothing ``MAX_EMPTY_STEPS`` times in a row.
        """
        self.forwards += 1
        self.query_tokens += query_tokens
        if self.refresh_due and self.layout.schedule is not None:
            ranked = self._narrow(ranked)
        self.refresh_due = False
        block, rules = self.block, self.rules
        if rules.forward_observer is not None:
            rules.forward_observer.on_forward(
                ForwardFact(self.prompt_index, self._number, self.states, self.bridges, ranked)
            )
        self._remember(ranked)
        used: KnownState | None = KnownState(self.states[0], ranked, 0)
        distributions = 0
        while used is not None:  # as long as the distribution of the reached state is already known
            last = used
            distributions += 1
            committed = self._denoise(last)
            if len(self._masked) == 0:
                used = self._leave_block()
                block = self.block
                continue
            # A step without commits leaves the state as it is. Its distribution is known, but plain decoding pays a
            # forward for it, and so does a drafter without memory, as a replay of plain traces counts.
            used = self._known.find(block) if committed or self._drafter.remembers else None
        self.steps += distributions
        self.accepted.append(distributions - 1)
        if self.done or self.refresh_due:
            return
        evidence = Evidence(
            block=block.copy(),
            masked=self._masked,
            base=last,
            known=self._known,
            policy=rules.policy,
            policy_state=self._policy_state,
            random=StepRandom(rules.seed, self.prompt_index, self._number, self._step_number + 1),
            mask_token_id=rules.mask_token_id,
            ahead=self._ahead if rules.bridges and self._more else None,
            ends=self._ends,
            copies=rules.copies,
        )
        proposal = self._drafter.propose(evidence)
        self.states = np.concatenate([block[None], proposal.drafts])
        self.bridges = proposal.bridges

    def _remember(self, ranked: RankedBlocks) -> None:
        """Keep what a forward computed: the states of the block, and those of the next one behind its bridges."""
        rules, count = self.rules, len(self.states)
        if self._known.forwards == 1 and not rules.copies:  # a copy is not paid twice
            self._ahead.clear()
        self._known.add(self.states, ranked)
        self._drafter.learn(self.states, ranked, rules.policy, rules.mask_token_id)
        for number, (complete, state) in enumerate(self.bridges):
            if self.copying:
                self._ahead.clear()  # its keys and values are no longer there
            ahead = self._ahead.setdefault(complete.tobytes(), StateMemory(self._known.forwards))
            ahead.put(state, ranked, count + number)

    def _leave_block(self) -> KnownState | None:
        """The block is complete: begin the next one, and give its first distribution where a bridge computed it.

        One forward crosses one block end at most: nothing is known ahead of a block that this forward began.
        """
        ahead = self._ahead.get(self.block.tobytes())
        self.tokens[self.start : self.start + len(self.block)] = self.block
        if self._ends(self.block):
            self.done = True
            return None
        self._next_block()
        first = ahead.find(self.block) if ahead is not None and not self.done else None
        if ahead is not None and first is not None:
            self._known, self.refresh_due, self.crossed = ahead, False, True
        return first

    def _ends(self, block: np.ndarray) -> bool:
        """Whether an end token was generated in the block; one that the prompt brought does not count."""
        first_new = max(0, self.prompt_length - self.start)
        return bool(np.isin(block[first_new:], self.rules.end_token_ids).any())

    def result(self, promise: Exactness) -> DecodeResult:
        """The books of a sequence that is done."""
        tokens = self.tokens[self.prompt_length : self.start + len(self.block)].tolist()
        end = next((k for k, token in enumerate(tokens) if token in self.rules.end_token_ids), len(tokens))
        return DecodeResult(tokens, end, self.steps, self.forwards, self.query_tokens, self.accepted, promise)

    def _denoise(self, known: KnownState) -> int:
        """Apply the policy once, in place on the block; returns how many positions it committed."""
        rules, block, mask = self.rules, self.block, self.rules.mask_token_id
        self._step_number += 1
        view = known.view(self._masked, mask)
        positions = view.positions
        rng = StepRandom(rules.seed, self.prompt_index, self._number, self._step_number)
        commits, self._policy_state = rules.policy.step(view, self._policy_state, rng)
        chosen, tokens = self._checked(commits)
        block[chosen] = tokens
        self._masked = np.flatnonzero(block == mask)
        self._empty = 0 if len(chosen) else self._empty + 1
        if self._empty == max(MAX_EMPTY_STEPS, getattr(rules.policy, "longest_pause", 0) + 1):
            raise DecodeError(
                f"policy {rules.policy.spec} committed nothing in {self._empty} steps in a row (block {self._number}, "
                f"{len(self._masked)} positions still masked); it would never end"
            )
        if rules.observer is not None:
            # One step may be both: the refresh forward of a short block, or of a bold policy, completes it.
            names = ["refresh"] if self._step_number == 1 else []
            if len(self._masked) == 0:
                names.append("early_stop" if self._ends(block) else "block_end")
            rules.observer.on_step(
                StepFact(
                    self.prompt_index,
                    self._number,
                    self._step_number,
                    positions,
                    view.tokens,
                    view.probabilities,
                    chosen,
                    tokens,
                    "+".join(names),
                )
            )
        return len(chosen)

    def _checked(self, commits: Commits) -> tuple[np.ndarray, np.ndarray]:
        """Positions and tokens of ``commits`` as integer arrays [c], after every rule of the contract was looked at."""
        rules, block = self.rules, self.block
        name = f"policy {rules.policy.spec}"
        positions, tokens = np.asarray(commits.positions), np.asarray(commits.tokens)
        if positions.ndim != 1 or positions.shape != tokens.shape:
            raise DecodeError(
                f"{name} committed positions of shape {positions.shape} and tokens of shape {tokens.shape}; "
                "expected one list each, of one length"
            )
        if len(positions) == 0:
            if not rules.policy.may_do_nothing:
                raise DecodeError(f"{name} committed nothing, which it declares it never does")
            return positions.astype(np.int64), tokens.astype(np.int64)
        if positions.dtype.kind not in "iu" or tokens.dtype.kind not in "iu":
            raise DecodeError(
                f"{name} committed {positions.dtype} positions and {tokens.dtype} tokens, expected integers"
            )
        # Plain lists: for a handful of numbers they are several times faster than array functions.
        offsets, ids = positions.tolist(), tokens.tolist()
        if min(offsets) < 0 or max(offsets) >= len(block):
            raise DecodeError(f"{name} committed a position outside the block of {len(block)}: {offsets}")
        if len(set(offsets)) != len(offsets) or (block[positions] != rules.mask_token_id).any():
            raise DecodeError(f"{name} committed a position that is not masked, or one twice: {offsets}")
        if min(ids) < 0 or max(ids) >= rules.vocabulary_size:
            raise DecodeError(f"{name} committed a token outside the vocabulary of {rules.vocabulary_size}: {ids}")
        if rules.mask_token_id in ids:
            raise DecodeError(f"{name} committed the mask token {rules.mask_token_id}")
        return positions, tokens
