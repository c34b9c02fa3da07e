"""Vectors that start at logits, for whoever writes a runtime: a case, and what the verifier makes of it.

``python -m studies.conformance.vectors --cases 10000 --seed 0 --out FILE`` writes random ones; those made by hand stand
in ``docs/test-vectors/logits.json``. The form is described in docs/runtime-core.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studies.conformance.views import rank_logits
from verify.drafters.graph import GraphDrafter
from verify.drafts import DraftFiller
from verify.files.writing import write_atomically
from verify.layout import SequenceLayout
from verify.observing import StepFact
from verify.policies.base import BasePolicy, Candidates
from verify.policies.contract import BlockView, Commits, Policy
from verify.policies.randomness import StepRandom
from verify.policies.specification import make_policy
from verify.ranked import LaggedRanker
from verify.sequence import DecodeRules, SequenceDecoder

Case = dict[str, Any]

#: Beside the best logits of an exact row: exp(-2003) is 0, so confidences are 1 / (how many are best), to the bit.
COLD = -2000
#: A confidence and a threshold that are not equal to the bit differ by more than this.
TAU_MARGIN = 1e-6
#: The same for two confidences at one block: some hundred times what the order of a sum over few tokens changes.
TIE_MARGIN = 1e-13


@dataclass(frozen=True)
class _Counted(BasePolicy):
    """The rule of a case that no policy of ours is: it may commit nothing."""

    least: int
    tau: float
    strict: bool
    name = "counted"
    may_do_nothing = True

    @property
    def spec(self) -> str:
        return f"{self.name}:{self.least}:{self.tau}:{self.strict}"

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int, Any]:
        reached = found.confidences > self.tau if self.strict else found.confidences >= self.tau
        return max(self.least, int(np.count_nonzero(reached))), state


def policy_of(rule: Mapping[str, Any]) -> Policy:
    """The policy that a case's rule is: our own one of the registry wherever there is one."""
    if rule["name"] == "static":
        return make_policy(f"static:{rule['k']}")
    if rule["least"] == 1:
        return make_policy(f"{'dynamic' if rule['strict'] else 'threshold'}:{rule['tau']!r}")
    return _Counted(rule["least"], rule["tau"], rule["strict"])


class _Opening:
    """Leads a decode to the state of a case: its first step commits what stands there, all others are the rule's."""

    spec, needs, ranks, monotone, may_do_nothing, step_size, temperature = "opening", "ranks", 1, True, True, None, 0.0

    def __init__(self, state: np.ndarray, mask_token: int, rule: Policy) -> None:
        self._rule, self._positions = rule, np.flatnonzero(state != mask_token)
        self._tokens = state[self._positions]

    def initial_state(self) -> Any:
        return False, self._rule.initial_state()

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        opened, inner = state
        if not opened:
            return Commits(self._positions, self._tokens), (True, inner)
        commits, inner = self._rule.step(view, inner, rng)
        return commits, (True, inner)


class _Steps(list[StepFact]):
    def on_step(self, fact: StepFact) -> None:
        self.append(fact)


def verified(case: Mapping[str, Any]) -> Case:
    """What the verifier (:class:`verify.sequence.SequenceDecoder`) makes of a case: its ``expected``."""
    state, mask, nodes = np.array(case["state"], dtype=np.int64), case["mask_token"], case["nodes"]
    length, vocabulary = case["block_length"], case["vocabulary"]
    rows = torch.tensor(case["rows"], dtype=torch.float32).reshape(len(nodes), length, vocabulary)
    before = rank_logits(torch.tensor(case["logits"], dtype=torch.float32)[None], mask, case["top_j"])
    masked = np.flatnonzero(state == mask)
    ranks = LaggedRanker().rank(before, 0, masked)
    filler = DraftFiller(nodes[1:])
    filled, chosen = filler.fill(state, ranks, case["complete"])
    usable = np.zeros(len(nodes), dtype=bool)
    usable[[0, *(chosen + 1)]] = True
    drafts = np.repeat(state[None], len(nodes), axis=0)
    drafts[chosen + 1] = filled

    steps = _Steps()
    policy = _Opening(state, mask, policy_of(case["rule"]))
    rules = DecodeRules(policy, GraphDrafter(filler), mask, vocabulary, (), 0, steps)
    decoder = SequenceDecoder(rules, [(mask + 1) % vocabulary], SequenceLayout.make(1, length, length, "dual"), 0)
    decoder.advance(before, 0)
    evaluated = [int(n) for n in np.flatnonzero(usable) if (drafts[n] == mask).any()]
    assert np.array_equal(decoder.states, drafts[evaluated])
    decoder.advance(rank_logits(rows[evaluated], mask, case["top_j"]), 0)

    reached, path, commits = state.copy(), [0], []
    for fact in steps[1:]:
        reached[fact.commit_position] = fact.commit_token
        made = zip(fact.commit_position.tolist(), fact.commit_token.tolist(), strict=True)
        commits.append([[position, token] for position, token in sorted(made)])
        met = [n for n in np.flatnonzero(usable).tolist() if n and np.array_equal(drafts[n], reached)]
        path += met if commits[-1] else []
    assert decoder.accepted[-1] == len(commits) - 1
    tokens = np.full((length, ranks.tokens.shape[1]), -1)
    tokens[ranks.positions] = ranks.tokens
    return {
        "order": ranks.positions.tolist() + [-1] * (length - len(masked)),
        "tokens": tokens.tolist(),
        "usable": usable.tolist(),
        "drafts": drafts.tolist(),
        "path": path,
        "commits": commits,
        "state": reached.tolist(),
    }


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """``count`` small cases that follow from ``seed``, each with what is expected of it; some 1 ms each.

    Logits are small integers, so ties are common. Every runtime decides these cases alike however it sums a softmax
    (:func:`is_decided`).
    """
    rng = np.random.default_rng(seed)
    for number in range(count):
        case = _random_case(rng, f"random {seed}/{number}")
        yield case | {"expected": verified(case)}


def _random_case(rng: np.random.Generator, name: str) -> Case:
    length, vocabulary, top_j = (int(rng.integers(low, high + 1)) for low, high in ((2, 8), (4, 12), (1, 4)))
    mask = int(rng.integers(vocabulary))
    masked = np.sort(rng.permutation(length)[: min(length, 1 + int(rng.integers(length) * rng.random() ** 0.5))])
    state = rng.permutation([token for token in range(vocabulary) if token != mask])
    state = rng.choice(state, size=length)
    state[masked] = mask
    nodes = _random_nodes(rng, int(rng.integers(1, 13)), length, len(masked), top_j)
    logits = np.stack([_random_row(rng, vocabulary) for _ in range(length)])
    drift = rng.choice([0.0, 0.05, 0.2])
    rows = np.repeat(logits[None], len(nodes), axis=0)
    for node, position in np.argwhere(rng.random((len(nodes), length)) < drift):
        rows[node, position] = _random_row(rng, vocabulary)
    blocks = np.concatenate([logits[None], rows])
    for block in blocks:
        _settle(block, mask)
    return {
        "name": name,
        "block_length": length,
        "vocabulary": vocabulary,
        "mask_token": mask,
        "top_j": top_j,
        "rule": _random_rule(rng, blocks, mask),
        "complete": bool(rng.random() < 0.2),
        "nodes": nodes,
        "state": state.tolist(),
        "logits": blocks[0].tolist(),
        "rows": blocks[1:].tolist(),
    }


def _random_nodes(rng: np.random.Generator, count: int, length: int, masked: int, top_j: int) -> list:
    """The root and up to ``count`` - 1 formulas, most of them one pair beyond another; some name ranks beyond all."""
    nodes: list[tuple[tuple[int, int], ...]] = [()]
    for _ in range(4 * count):
        if len(nodes) == count:
            break
        grown = dict(nodes[-1 if rng.random() < 0.3 else int(rng.integers(len(nodes)))])
        for _ in range(1 + int(rng.random() < 0.2)):
            if rng.random() < 0.5:  # what comes next if nothing changes
                grown[min(set(range(1, length + 1)) - set(grown), default=1)] = 1
                continue
            highest = length if rng.random() < 0.1 else min(length, masked + 1)
            i = min(int(rng.geometric(0.5)), highest) if rng.random() < 0.8 else int(rng.integers(1, highest + 1))
            grown.setdefault(i, min(int(rng.geometric(0.7)), top_j + 1))
        node = tuple(sorted(grown.items()))
        if node not in nodes:
            nodes.append(node)
    return [[list(pair) for pair in node] for node in nodes]


def _random_row(rng: np.random.Generator, vocabulary: int) -> np.ndarray:
    if rng.random() < 0.4:
        return _exact_row(rng.random(vocabulary) < 0.3)
    return rng.integers(-2, 4, size=vocabulary) * int(rng.integers(1, 4))


def _exact_row(best: np.ndarray) -> np.ndarray:
    return np.where(best | ~best.any(), 3, COLD)


def _relative(logits: np.ndarray, mask: int) -> np.ndarray:
    """Logits [..., V - 1] without the mask token, behind the best."""
    others = np.delete(np.asarray(logits, dtype=np.float64), mask, axis=-1)
    return others - others.max(axis=-1, keepdims=True)


def _confidence(relative: np.ndarray) -> np.ndarray:
    return 1 / np.exp(relative).sum(axis=-1)


def _is_exact(relative: np.ndarray) -> np.ndarray:
    """Whether only the best logits of a row count."""
    return ((relative == 0) | (relative < COLD / 2)).all(axis=-1)


def _undecided(block: np.ndarray, mask: int) -> Iterator[tuple[int, int]]:
    """Pairs of rows, the later one first, of ``block`` [L, V] whose order depends on how a softmax is summed.

    Two rows with the same logits in another order have the same confidence, but for the last bits of a sum. Rows tie to
    the bit where their logits stand in the same order, or where only the best ones count.
    """
    relative = _relative(block, mask)
    confidence, exact = _confidence(relative), _is_exact(relative)
    near = np.abs(confidence[:, None] - confidence) <= TIE_MARGIN
    for later, earlier in np.argwhere(np.tril(near & ~(exact[:, None] & exact), -1)).tolist():
        if not np.array_equal(relative[later], relative[earlier]):
            yield later, earlier


def _settle(block: np.ndarray, mask: int) -> None:
    """Repeat earlier rows of ``block`` [L, V], in place, until the order of all is decided."""
    while pair := next(_undecided(block, mask), None):
        block[pair[0]] = block[pair[1]]


def _near(confidence: np.ndarray, exact: np.ndarray, tau: float) -> bool:
    """Whether a confidence comes near a threshold without being it to the bit however it is summed."""
    return bool(((np.abs(confidence - tau) <= TAU_MARGIN) & ~(exact & (confidence == tau))).any())


def is_decided(case: Mapping[str, Any]) -> bool:
    """Whether a case has one answer however a softmax is summed.

    At one block, confidences differ by more than ``TIE_MARGIN`` or tie to the bit: the rows have the same logits in the
    same order, or only their best logits count (``COLD``). A confidence that is not the threshold to the bit, in a row
    where only the best logits count, is more than ``TAU_MARGIN`` away from it.
    """
    mask, tau = case["mask_token"], case["rule"].get("tau")
    blocks = np.array([case["logits"], *case["rows"]])
    if any(True for block in blocks for _ in _undecided(block, mask)):
        return False
    relative = _relative(blocks, mask)
    return tau is None or not _near(_confidence(relative), _is_exact(relative), tau)


def _random_rule(rng: np.random.Generator, blocks: np.ndarray, mask: int) -> Case:
    """A rule whose threshold no confidence in ``blocks`` comes near without being it."""
    if rng.random() < 0.4:
        return {"name": "static", "k": int(rng.choice([1, 1, 1, 2, 3]))}
    relative = _relative(blocks, mask)
    confidence, exact = _confidence(relative), _is_exact(relative)
    while True:
        tau = 1 / int(rng.integers(1, 5)) if rng.random() < 0.5 else float(rng.uniform(0.1, 0.99))
        if not _near(confidence, exact, tau):
            return {
                "name": "threshold",
                "tau": tau,
                "strict": bool(rng.random() < 0.5),
                "least": int(rng.random() < 0.8),
            }


def format_cases(cases: Iterator[Case] | list[Case]) -> str:
    """The text of a file of vectors: one case a line."""
    return '{"cases": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n"


def main() -> None:
    """Write random cases; see the module."""
    parser = argparse.ArgumentParser(prog="python -m studies.conformance.vectors", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where to write the JSON file")
    given = parser.parse_args()
    with write_atomically(given.out) as temporary:
        temporary.write_text(format_cases(random_cases(given.seed, given.cases)), encoding="utf-8")


if __name__ == "__main__":
    main()
