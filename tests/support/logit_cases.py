"""Cases made by hand for docs/test-vectors/logits.json: the borders of ranks, fills, rules and walks."""

from __future__ import annotations

from typing import Any

from studies.conformance.vectors import COLD

M = 0  # the mask token, unless a case says otherwise
LENGTH = VOCABULARY = 6

Row = list[float]

CHAIN = [[], [[1, 1]], [[1, 1], [2, 1]], [[1, 1], [2, 1], [3, 1]]]
DIAMOND = [[], [[1, 1]], [[2, 1]], [[1, 2]], [[1, 1], [2, 1]], [[1, 2], [2, 1]]]


def static(k: int) -> dict[str, Any]:
    return {"name": "static", "k": k}


def threshold(tau: float, strict: bool = False, least: int = 1) -> dict[str, Any]:
    return {"name": "threshold", "tau": tau, "strict": strict, "least": least}


def row(height: float, *best: int) -> Row:
    """Logits with ``best`` tokens in order; the higher, the more confident."""
    logits = [0.0] * VOCABULARY
    for number, token in enumerate(best):
        logits[token] = height / 2**number
    return logits


def even(*best: int) -> Row:
    """Confidence 1 / (how many are best), to the bit."""
    return [3.0 if token in best else float(COLD) for token in range(VOCABULARY)]


#: Of offsets 1, 3, 4, 5 the position ranks are 2, 1, 3, 4.
STATE = [5, M, 5, M, M, M]
FOUR = {1: row(6, 3, 1, 2), 3: row(8, 1, 2, 3), 4: row(5, 2, 3, 1), 5: row(4, 5, 4, 1)}
ALL = {0: row(3, 4, 1, 2), **FOUR, 2: row(7, 2, 4, 5)}


def case(
    name: str,
    rule: dict[str, Any],
    nodes: list,
    state: list[int] = STATE,
    logits: dict[int, Row] = FOUR,
    rows: dict[int, dict[int, Row]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """``rows`` says what differs from ``logits`` in the distribution of a node."""
    vocabulary = len(next(iter(logits.values())))
    whole = [logits.get(position, [0.0] * vocabulary) for position in range(LENGTH)]
    each = [
        [(rows or {}).get(node, {}).get(position, whole[position]) for position in range(LENGTH)]
        for node in range(len(nodes))
    ]
    given = {"mask_token": M, "top_j": 3, "rule": rule, "complete": False, **more}
    return {
        "name": name, "block_length": LENGTH, "vocabulary": vocabulary, **given, "nodes": nodes, "state": state,
        "logits": whole, "rows": each,
    }  # fmt: skip


CASES = [
    case("a chain is met as a whole, and the step behind it completes the block", static(1), CHAIN),
    case("two drafts of a chain are met, the third is not: another token", static(1), CHAIN,
         rows={2: {4: row(5, 3, 2, 1)}}),
    case("two drafts of a chain are met, the third is not: another position", static(1), CHAIN,
         rows={2: {5: row(9, 5, 4, 1)}}),
    case("the first state is no draft, so none is accepted although later states are drafts", static(1), CHAIN,
         rows={0: {1: row(9, 3, 1, 2)}}),
    case("drafts are filled by the newest distribution, not by the one that is asked for", static(1), CHAIN,
         rows={n: {3: row(3, 4, 1, 2), 1: row(6, 3, 1, 2)} for n in range(4)}),
    case("a node with two parents is reached by the first of them", static(1), DIAMOND),
    case("the same node is reached by the other one", static(1), DIAMOND, rows={0: {1: row(9, 3, 1, 2)}}),
    case("the second vocabulary rank, then the second position", static(1), DIAMOND,
         rows={0: {3: row(8, 2, 1, 3)}}),
    case("the second vocabulary rank of a position that no node names so", static(1), DIAMOND,
         rows={0: {3: row(8, 3, 1, 2)}}),
    case("a child stands before its parents in the list", static(1),
         [[], [[1, 1], [2, 1], [3, 1]], [[1, 1], [2, 1]], [[1, 1]]]),
    case("a node that no node leads to is met by a wider step only", threshold(0.9),
         [[], [[1, 1], [2, 1], [3, 1]]], rows={0: {p: even(t) for p, t in ((3, 1), (1, 3), (4, 2))}}),
    case("the same node under a rule of single steps is never met", static(1), [[], [[1, 1], [2, 1], [3, 1]]]),
    case("a graph that is its root", static(1), [[]]),
    case("nothing is committed yet", static(1), CHAIN, [M] * 6, ALL),
    case("equal confidences: the lower position is the better rank", static(1), DIAMOND,
         logits={p: even(4, 5) for p in (1, 3, 4, 5)}),
    case("equal tokens: the lower id is the better rank", static(1), DIAMOND,
         logits={1: even(2, 4, 5), 3: even(3, 1, 2, 4), 4: even(5, 4), 5: even(1, 2, 3, 4, 5)}),
    case("all logits are equal, the mask token's too", static(1), DIAMOND,
         logits={p: [2.0] * 6 for p in (1, 3, 4, 5)}),
    case("0 and -0 are equal", static(1), CHAIN,
         logits={**FOUR, 3: [-1.0, -0.0, 0.0, -9.0, -9.0, -9.0], 1: [-1.0, -8.0, -9.0, 0.0, -0.0, -9.0]},
         rows={n: {3: even(1), 1: even(3)} for n in range(4)}),
    case("logits are compared as float32: 16777216 and 16777217 are one", static(1), DIAMOND,
         logits={**FOUR, 3: [0.0, 0.0, 16777216.0, 16777217.0, 0.0, 0.0]}),
    case("the mask token is the best of a position and is left out first", static(1), CHAIN,
         logits={**FOUR, 5: [9.0, 0.0, 0.0, 0.0, 2.0, 8.5], 3: [9.0, 7.0, 3.0, 2.0, 0.0, 0.0]}),
    case("the mask token's logit would overflow the sum", static(1), CHAIN,
         logits={p: [1e30, *logits[1:]] for p, logits in FOUR.items()}),
    case("the mask token is the last of the vocabulary", static(1), CHAIN, [1, 5, 1, 5, 5, 5],
         {p: [*logits[1:], 20.0] for p, logits in FOUR.items()}, mask_token=5),
    case("the mask token stands in the middle", static(1), DIAMOND, [5, 2, 5, 2, 2, 2],
         {1: row(6, 3, 1, 4), 3: row(8, 1, 5, 3), 4: row(5, 4, 3, 1), 5: row(4, 5, 4, 1)}, mask_token=2),
    case("logits far above what exp can hold", static(1), CHAIN,
         logits={p: [value + 3000 for value in logits] for p, logits in FOUR.items()}),
    case("logits far below what exp can hold", static(1), CHAIN,
         logits={p: [value - 3000 for value in logits] for p, logits in FOUR.items()}),
    case("confidences that are all 1 as float32 keep their order as float64", static(1), CHAIN,
         logits={1: row(50, 3), 3: row(52, 1), 4: row(48, 2), 5: row(46, 5)} | {
             p: [0.0 if t != best else high for t in range(6)]
             for p, best, high in ((1, 3, 27.0), (3, 1, 28.0), (4, 2, 26.0), (5, 5, 25.0))}),
    case("a confidence of tau is enough for >=", threshold(0.5), DIAMOND,
         rows={0: {3: even(1), 1: even(3, 5), 4: even(1, 2, 4), 5: even(4, 5, 1)}}),
    case("a confidence of tau is not enough for >", threshold(0.5, strict=True), DIAMOND,
         rows={0: {3: even(1), 1: even(3, 5), 4: even(1, 2, 4), 5: even(4, 5, 1)}}),
    case("a third is a third: three equal logits reach tau = 1/3 for >=", threshold(1 / 3), DIAMOND,
         rows={0: {3: even(1), 1: even(3, 4, 5), 4: even(1, 2, 3, 4), 5: even(1, 2, 4, 5)}}),
    case("three equal logits do not reach tau = 1/3 for >", threshold(1 / 3, strict=True), DIAMOND,
         rows={0: {3: even(1), 1: even(3, 4, 5), 4: even(1, 2, 3, 4), 5: even(1, 2, 4, 5)}}),
    case("a confidence of 1 reaches tau = 1 for >=", threshold(1.0), DIAMOND,
         rows={0: {3: even(1), 1: even(3)}}),
    case("nothing is above 1: the best one is committed all the same", threshold(1.0, strict=True), DIAMOND,
         rows={0: {3: even(1), 1: even(3)}}),
    case("nothing reaches tau: of equal ones the lower position alone is committed", threshold(0.9), DIAMOND,
         rows={0: {p: even(1, 3) for p in (1, 3, 4, 5)}}),
    case("a step of two positions is one draft of two pairs", threshold(0.9), DIAMOND,
         rows={0: {1: even(3), 3: even(1), 4: even(2, 3), 5: even(4, 5)}}),
    case("a subset is not enough: three positions, and drafts of two of them", threshold(0.9), DIAMOND,
         rows={0: {1: even(3), 3: even(1), 4: even(2), 5: even(4, 5)}}),
    case("two steps reach a draft that one step would have reached too", threshold(0.9), DIAMOND,
         rows={0: {p: even(4, 5) if p != 3 else even(1) for p in (1, 3, 4, 5)},
               1: {1: even(3), 4: even(2, 3), 5: even(4, 5)}}),
    case("everything reaches tau: one step completes the block, and no draft is asked", threshold(0.5), CHAIN,
         rows={0: {p: even(p) for p in (1, 3, 4, 5)}}),
    case("a rank beyond the masked positions", static(1), [[], [[1, 1]], [[5, 1]], [[1, 1], [5, 1]], [[4, 1]]]),
    case("a vocabulary rank beyond those that are kept", static(1),
         [[], [[1, 3]], [[1, 1]], [[1, 1], [2, 3]], [[1, 1], [2, 2]]], top_j=2,
         rows={1: {1: row(9, 1, 3, 2)}, 2: {1: row(9, 1, 3, 2)}}),
    case("a vocabulary of four has three ranks, whatever is asked for", static(1), [[], [[1, 3]], [[1, 4]]],
         [1, M, 2, M, 3, M], {1: [0.0, 3.0, 2.0, 1.0], 3: [0.0, 1.0, 6.0, 4.0], 5: [0.0, 2.0, 1.0, 8.0]}, top_j=8,
         rows={0: {5: [0.0, 9.0, 1.0, 2.0]}}),
    case("two masks are left: drafts of two pairs would fill the block", static(1), DIAMOND, [5, 3, 5, M, M, 4],
         {p: FOUR[p] for p in (3, 4)}),
    case("one mask is left: there is nothing to draft", static(1), CHAIN, [5, 3, 5, 1, M, 4], {4: FOUR[4]}),
    case("two masks are left, and the draft that fills the block is wanted", static(1), DIAMOND, [5, 3, 5, M, M, 4],
         {p: FOUR[p] for p in (3, 4)}, complete=True),
    case("one mask is left, and the draft that fills the block is wanted", static(1), CHAIN, [5, 3, 5, 1, M, 4],
         {4: FOUR[4]}, complete=True),
    case("one mask is left, and the block ends with another token than was drafted", static(1), CHAIN,
         [5, 3, 5, 1, M, 4], {4: FOUR[4]}, {0: {4: row(5, 3, 2, 1)}}, complete=True),
    case("a step that commits nothing: the anchor stays", threshold(0.9, least=0), CHAIN,
         rows={0: {p: even(4, 5) for p in (1, 3, 4, 5)}}),
    case("a step that commits nothing at a draft: it is not its own successor", threshold(0.9, least=0), CHAIN,
         rows={0: {3: even(1), 1: even(1, 3), 4: even(2, 3), 5: even(4, 5)},
               1: {1: even(1, 3), 4: even(2, 3), 5: even(4, 5)}}),
    case("two positions a step", static(2), [[], [[1, 1], [2, 1]], [[1, 1], [3, 1]], [[1, 1], [2, 1], [3, 1], [4, 1]]],
         [M, M, 5, M, M, M], {p: ALL[p] for p in (0, 1, 3, 4, 5)}),
    case("two positions a step, and one mask is left", static(2), CHAIN, [5, 3, 5, 1, M, 4], {4: FOUR[4]}),
    case("more positions a step than are masked", static(9), CHAIN),
]  # fmt: skip
