"""What is drafted while a policy is tried: every drafter there is, and one that meddles as much as a drafter may."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from drafting.searches.chain import confidence_chain
from studies.conformance.stage import CONFIG, MASK_ID
from verify.decoding import Drafts
from verify.drafters.chain import UNREADABLE, expected_view
from verify.drafters.contract import Evidence, Proposal
from verify.drafters.influence import Outlook
from verify.drafters.informed import InformedDrafter
from verify.drafters.pruned import PrunedGraphDrafter
from verify.drafters.settings import InformedSettings
from verify.graph.formulas import Formula, formula
from verify.policies.contract import Policy
from verify.ranked import RankedBlocks

DRAFTS = 8


def random_formulas(seed: int, count: int, step_size: int | None = 1, ranks: int = 5, top_j: int = 3) -> list[Formula]:
    """A random draft graph that grows from the root by ``step_size`` pairs a step (None: one to three); root left out.

    Low ranks are likelier, as they are in life; otherwise hardly any draft would ever be accepted.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Formula] = [()]
    position_weight = 0.6 ** np.arange(ranks)
    token_weight = 0.25 ** np.arange(top_j)
    for _ in range(50 * count):
        if len(nodes) > count:
            break
        parent = nodes[rng.integers(len(nodes))]
        free = [i for i in range(1, ranks + 1) if i not in {i for i, _ in parent}]
        size = step_size or int(rng.integers(1, 4))
        if size > len(free):
            continue
        weight = np.array([position_weight[i - 1] for i in free])
        chosen = rng.choice(free, size=size, replace=False, p=weight / weight.sum())
        tokens = 1 + rng.choice(top_j, size=size, p=token_weight / token_weight.sum())
        child = formula([*parent, *zip(chosen.tolist(), tokens.tolist(), strict=True)])
        if child not in nodes:
            nodes.append(child)
    return nodes[1:]


def graph_of(policy: Policy, count: int = DRAFTS) -> list[Formula]:
    """A random graph for ``policy``; another for every policy, and always the same one."""
    return random_formulas(zlib.crc32(policy.spec.encode()), count, policy.step_size, ranks=6, top_j=CONFIG.top_j)


def _hedged(policy: Policy) -> InformedDrafter:
    graph = graph_of(policy)
    if not graph:  # no formula of so many pairs in so few ranks
        return InformedDrafter(DRAFTS, InformedSettings(width=2, follow=1, beyond=True, copies=True))
    settings = InformedSettings(
        fill="graph+alternatives", hedges=2, width=2, follow=1, beyond=True, copies=True, horizon=4
    )
    return InformedDrafter(DRAFTS, settings, graph)


#: Every kind of drafter, by name, made for a policy. Bridges are built where the context has them, copies where they
#: are asked for.
DRAFTERS: Mapping[str, Callable[[Policy], Drafts]] = {
    "no drafts": lambda policy: (),
    "chain": lambda policy: list(confidence_chain(DRAFTS, CONFIG.block_length, policy.step_size).nodes),
    "random graph": lambda policy: graph_of(policy),
    "pruned graph": lambda policy: pruned(policy),
    "informed": lambda policy: InformedDrafter(6),
    "informed, copies": lambda policy: InformedDrafter(5, InformedSettings(copies=True)),
    "informed, graph": _hedged,
}


def pruned(policy: Policy) -> PrunedGraphDrafter:
    """A larger random graph, pruned at every anchor."""
    return PrunedGraphDrafter(graph_of(policy, 2 * DRAFTS), 5, policy.step_size, "pooled")


class Meddler:
    """Knows what the decode will reach, proposes it among many near misses, and asks the policy about all of them.

    The near misses of a state that will be reached have another token, a position too many, or one too few; whatever
    accepts by less than equality goes astray. Asking is what learning drafters do, here at every state that is known
    and from the state of the policy that the decode goes on with; the answers are thrown away.

    Args:
        policy: whom to ask.
        reached: by prompt and block, the states int64 [L] after every denoising step, the block as it began first.
        ahead: how many states that will be reached are proposed at an anchor.
        remembers: whether the walk may use states of earlier forwards.

    Attributes:
        asked: how often the policy was asked.
    """

    max_bridges = 0
    max_vocabulary_rank = 1
    copies = False

    def __init__(
        self,
        policy: Policy,
        reached: Mapping[tuple[int, int], Sequence[np.ndarray]],
        ahead: int = 2,
        remembers: bool = False,
    ) -> None:
        self.policy, self.reached, self.ahead, self.remembers = policy, reached, ahead, remembers
        self.asked = 0

    @property
    def max_drafts(self) -> int:
        return 4 * self.ahead

    def describe(self) -> dict[str, Any]:
        return {"drafter": "meddler", "ahead": self.ahead, "remembers": self.remembers}

    def for_sequence(self) -> _Meddling:
        return _Meddling(self)


class _Meddling:
    """See :class:`Meddler`; one sequence."""

    def __init__(self, meddler: Meddler) -> None:
        self._meddler, self.remembers = meddler, meddler.remembers
        self._evaluated: list[np.ndarray] = []

    def start_block(self) -> None:
        self._evaluated = []

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        """Keep which states the newest forward evaluated."""
        self._evaluated = list(states)

    def propose(self, evidence: Evidence) -> Proposal:
        """The next states and their near misses, after the policy was asked about everything that is known."""
        self._ask(evidence)
        random, block, ahead = evidence.random, evidence.block, self._meddler.ahead
        states = self._meddler.reached[random.prompt_index, random.block][random.step :]
        coming = [state for state in states if not np.array_equal(state, block)][:ahead]
        found: dict[bytes, np.ndarray] = {}
        near = [miss for state in coming for miss in _near_misses(state, block)]
        for state in [*coming, *near]:
            if (state == MASK_ID).any() and not np.array_equal(state, block):
                found.setdefault(state.tobytes(), state)
        return Proposal.of(np.array(list(found.values()), dtype=np.int64).reshape(-1, len(block)))

    def _ask(self, evidence: Evidence) -> None:
        """Ask about every evaluated state as it is, and as it would look if it were only expected."""
        random = evidence.random
        for state in self._evaluated:
            masked, known = np.flatnonzero(state == MASK_ID), evidence.known.find(state)
            if known is None or not len(masked):
                continue
            view = known.view(masked, MASK_ID)
            expected = expected_view(Outlook.of(known.ranked, known.index), view.positions)
            for one in (view, expected):
                self._meddler.asked += 1
                with suppress(*UNREADABLE):  # as a drafter takes it
                    self._meddler.policy.step(one, evidence.policy_state, random)
            random = random.after()


def _near_misses(state: np.ndarray, block: np.ndarray) -> list[np.ndarray]:
    new, masked = np.flatnonzero(state != block), np.flatnonzero(state == MASK_ID)
    other, less, more = state.copy(), state.copy(), state.copy()
    other[new[0]] = 3 if state[new[0]] != 3 else 4
    less[new[-1]] = MASK_ID
    more[masked[-1:]] = 5
    return [other, less, more]
