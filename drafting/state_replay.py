"""Replay of a state log: the decode loop itself, with a log of evaluated states in place of the model.

A replay of plain traces cannot know what a learning drafter does, as that depends on what its rejected drafts showed. A
state log knows it, for every state that some forward of its recording evaluated. States that it does not know are taken
as never evaluated: nothing is learned from them and they are not accepted, so with missed states the count of forwards
is as a rule too high. Without any it is the count of the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibrate.traces.state_log import BlockStates, StateLog
from drafting.counts import DecodeCounts, ReplayError, width_counts
from verify.drafters.contract import Drafter, most_bridges
from verify.layout import exactness
from verify.policies.specification import make_policy
from verify.ranked import RankedBlocks
from verify.sequence import DecodeRules, SequenceDecoder

#: No token id of a log is checked against a vocabulary: the recording did that.
_ANY_TOKEN = 2**31


@dataclass(frozen=True, eq=False)
class StateReplay(DecodeCounts):
    """What a drafter costs on the decodes of a state log.

    Attributes:
        query_tokens_per_prompt: int64 [M], query tokens of all forwards.
        widest: blocks beside the real one in a forward as wide as the drafter can make it, which is what every forward
            of a padded batch costs: a bridge takes two, and a finished block that is cached on the way one.
        proposed: drafts and bridges, all forwards.
        missed: those of them that the log does not know. 0: the count of forwards is exact.
    """

    query_tokens_per_prompt: np.ndarray
    widest: int
    proposed: int
    missed: int

    @property
    def exact(self) -> bool:
        """Whether the log knew every state that was proposed."""
        return self.missed == 0


def replay_states(
    log: StateLog, drafter: Drafter, *, backend: str | None = None, on_prompt: Callable[[int], None] | None = None
) -> StateReplay:
    """Decode the prompts of ``log`` with ``drafter``, without a model.

    Args:
        log: of the decodes; :meth:`StateLog.select` takes a part.
        drafter: any drafter; its proposals are looked up. It makes copies where the recorded model offers them.
        backend: whose query tokens are counted; that of the recording when left out.
        on_prompt: called with the number of prompts done, after every prompt.

    Complexity: one proposal per forward; about a millisecond each at ``D = 10``.

    Raises:
        ReplayError: no prompt, a drafter that reads more vocabulary ranks than were logged, or a log that does not hold
            the course of its own decodes.
    """
    facts = log.metadata
    if drafter.max_vocabulary_rank > facts["top_j"]:
        raise ReplayError(
            f"the drafter reads vocabulary rank {drafter.max_vocabulary_rank}, but the log keeps {facts['top_j']}; "
            f"record it again with --top-j {drafter.max_vocabulary_rank} or more"
        )
    backend = backend or facts["backend"]
    exactness(facts["cache"], backend)
    most = most_bridges(drafter, facts["cache"], log.offers_copies, facts.get("schedule"))
    bridges = most > 0
    policy = make_policy(facts["policy"], facts["temperature"])
    if policy.ranks > facts["top_j"]:
        raise ReplayError(
            f"policy {policy.spec} reads {policy.ranks} vocabulary ranks, but the log keeps {facts['top_j']}; record "
            f"it again with --top-j {policy.ranks} or more"
        )
    rules = DecodeRules(
        policy,
        drafter,
        facts["mask_token_id"],
        _ANY_TOKEN,
        tuple(facts["end_token_ids"]),
        facts["seed"],
        bridges=bridges,
        copies=bridges and facts["cache"] == "dual",
    )
    prompts = log.prompt_indices
    if not prompts:
        raise ReplayError("the log holds no prompt; record some first")
    replays = []
    for done, prompt_index in enumerate(prompts, start=1):
        replays.append(_PromptReplay(log, rules, prompt_index, backend).run())
        if on_prompt is not None:
            on_prompt(done)
    forwards = [(place, accepted, width) for place, one in enumerate(replays) for accepted, width in one.forwards]
    place, accepted, widths = np.array(forwards, dtype=np.int64).reshape(-1, 3).T
    widest = drafter.max_drafts + (2 * most + 1 if bridges and facts["cache"] == "block_causal" else 0)
    return StateReplay(
        prompt_indices=np.array(prompts, dtype=np.int32),
        plain_per_prompt=_column(one.decoder.steps for one in replays),
        forwards_per_prompt=_column(one.decoder.forwards for one in replays),
        tokens_per_prompt=_column(one.tokens for one in replays),
        visited_histogram=np.bincount(accepted, minlength=1),
        refreshes_per_prompt=_column(one.refreshes for one in replays),
        query_tokens_per_prompt=_column(one.decoder.query_tokens for one in replays),
        widths_per_prompt=width_counts(place, widths, len(prompts)),
        widest=max(widest, int(widths.max(initial=0))),  # a copy in `dual` mode takes as many as its sequence is long
        proposed=sum(one.proposed for one in replays),
        missed=sum(one.missed for one in replays),
    )


def _column(values: Any) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)


class _PromptReplay:
    """One prompt of :func:`replay_states`."""

    def __init__(self, log: StateLog, rules: DecodeRules, prompt_index: int, backend: str) -> None:
        facts = log.metadata
        self._log, self._rules, self._prompt_index = log, rules, prompt_index
        self._cache, self._backend = facts["cache"], backend
        length = log.prompt_length(prompt_index)
        self._layout = log.layout(prompt_index)
        prompt = np.zeros(length, dtype=np.int64)  # nobody looks at it, but for the tail in the first block
        tail = length - self._layout.block_starts[0]
        prompt[length - tail :] = log.first[prompt_index][:tail]
        self.decoder = SequenceDecoder(rules, prompt.tolist(), self._layout, prompt_index)
        self.refreshes = self.proposed = self.missed = self.tokens = 0
        self.forwards: list[tuple[int, int]] = []  # accepted drafts and blocks beside the real one, by step forward
        self._cached = 0  # rows of finished blocks that are cached, in block-causal mode

    def run(self) -> _PromptReplay:
        decoder = self.decoder
        while not decoder.done:
            refresh = decoder.refresh_due
            query_tokens, width = self._pay()
            decoder.advance(self._look_up(), query_tokens)
            if not refresh:
                self.forwards.append((decoder.accepted[-1], width))
        self.tokens = decoder.start + len(decoder.block) - decoder.prompt_length
        return self

    def _pay(self) -> tuple[int, int]:
        """The query tokens of the forward that is due, and its blocks beside the real one."""
        decoder, start = self.decoder, self.decoder.start
        carried = start - self._cached if decoder.crossed else 0
        decoder.crossed, width = False, 0
        if decoder.refresh_due:
            paid = self._layout.refresh_query_tokens(self._cache, start, self._cached)
            self.refreshes += 1
        else:
            drafts, bridges = len(decoder.states) - 1, len(decoder.bridges)
            paid = self._layout.step_query_tokens(
                self._cache, self._backend, start, drafts, bridges, carried, decoder.copying, len(decoder.block)
            )
            width = drafts + 2 * bridges + (carried > 0)
            if self._cache == "dual":  # a copy as the blocks that it fills
                width = -(-paid // len(decoder.block)) - 1
            self.proposed += drafts + bridges
        self._cached = start
        return paid, width

    def _look_up(self) -> RankedBlocks:
        """What the log knows of the states that the forward evaluates; the others are taken out of it."""
        decoder = self.decoder
        found = self._log.find(self._prompt_index, decoder.number, decoder.states, decoder.bridges)
        if found[0] is None:
            raise ReplayError(
                f"the log does not hold a state that prompt {self._prompt_index} reached in block {decoder.number}; it "
                "is not whole, or was recorded with another version of this library; record it again"
            )
        self.missed += found.count(None)
        there = [one is not None for one in found]
        count = len(decoder.states)
        decoder.states, decoder.bridges = decoder.states[there[:count]], decoder.bridges[there[count:]]
        return ranked_blocks([one for one in found if one is not None])


def ranked_blocks(found: Sequence[tuple[BlockStates, int]]) -> RankedBlocks:
    """The distributions of states of a log (:meth:`StateLog.find`), at least one, as a forward would give them."""
    token = np.stack([block.token[number] for block, number in found])
    probability = np.stack([block.probability[number] for block, number in found])
    entropies = [block.entropy[number] for block, number in found if block.entropy is not None]
    entropy = np.stack(entropies) if len(entropies) == len(found) else None
    return RankedBlocks(token, probability, None, np.full(token.shape[:2], -1), entropy)
