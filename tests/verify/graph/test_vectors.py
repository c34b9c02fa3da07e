"""The test vectors for runtime authors (docs/test-vectors): made here by a reference that follows the
specification word by word, and compared with our runtime.

``python -m tests.verify.graph.test_vectors`` writes the files anew.
"""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.paths import DOCS
from tests.support.ranking import rank_logits
from verify.drafts import DraftFiller
from verify.graph.file import GraphFile, Validity, format_graph, load_graph
from verify.ranked import LaggedRanker

FOLDER = DOCS / "test-vectors"

MASK = 0
BLOCK_LENGTH = 6


def graph(policy: str, nodes: list) -> GraphFile:
    validity = Validity("test-vectors", None, policy, BLOCK_LENGTH, "block_causal", 0.0, 3)
    return GraphFile.from_nodes([tuple(node) for node in nodes], validity, provenance={"search": "by hand"})


GRAPHS = {
    "chain": graph("static:1", [[(1, 1)], [(1, 1), (2, 1)], [(1, 1), (2, 1), (3, 1)]]),
    "diamond": graph("static:1", [[(1, 1)], [(2, 1)], [(1, 2)], [(1, 1), (2, 1)], [(1, 2), (2, 1)]]),
    "pairs": graph("static:2", [[(1, 1), (2, 1)], [(1, 1), (3, 1)], [(1, 1), (2, 1), (3, 1), (4, 1)]]),
    "threshold": graph("threshold:0.9", [[(1, 1)], [(2, 1)], [(1, 1), (2, 1), (3, 1)]]),
}

# At offsets 1, 3, 4 and 5, position ranks 2, 1, 3, 4: without the mask token their best tokens have
# probability 6/8, 7/8, 5/8 and 4/8. Offset 5 shows why the mask token goes first: with it, its best token
# would be the mask.
FOUR = {1: [8, 1, 1, 12, 1, 1], 3: [0, 28, 1, 1, 1, 1], 4: [1, 1, 10, 3, 1, 1], 5: [90, 1, 1, 1, 5, 8]}
# Everything ties: positions by offset, tokens by id.
TIED = {0: [0, 2, 2, 2, 2, 1], 2: [5, 2, 2, 2, 2, 1], 5: [1, 2, 2, 2, 2, 1]}

# (what the case shows, graph, block at the anchor, weights of each masked offset, states after the next
# steps)
CASES: list[tuple[str, str, list[int], dict[int, list[int]], list[list[int]]]] = [
    (
        "two drafts of a chain are met, the third is not: another token",
        "chain",
        [5, 0, 5, 0, 0, 0],
        FOUR,
        [[5, 0, 5, 1, 0, 0], [5, 3, 5, 1, 0, 0], [5, 3, 5, 1, 3, 0]],
    ),
    (
        "the first state is no draft, so the second cannot be accepted although a draft equals it",
        "chain",
        [5, 0, 5, 0, 0, 0],
        FOUR,
        [[5, 3, 5, 0, 0, 0], [5, 3, 5, 1, 0, 0]],
    ),
    (
        "a node with two parents is reached in the other order",
        "diamond",
        [5, 0, 5, 0, 0, 0],
        FOUR,
        [[5, 3, 5, 0, 0, 0], [5, 3, 5, 1, 0, 0], [5, 3, 5, 1, 2, 0]],
    ),
    (
        "the second vocabulary rank of the first position, then the second position",
        "diamond",
        [5, 0, 5, 0, 0, 0],
        FOUR,
        [[5, 0, 5, 2, 0, 0], [5, 3, 5, 2, 0, 0]],
    ),
    (
        "ties: the lower offset is the better position rank, the lower token id the better vocabulary rank",
        "diamond",
        [0, 5, 0, 5, 5, 0],
        TIED,
        [[2, 5, 0, 5, 5, 0], [2, 5, 1, 5, 5, 0]],
    ),
    (
        "two masked positions are left: drafts of two pairs would fill the block and are not made",
        "diamond",
        [5, 3, 5, 0, 0, 4],
        {offset: FOUR[offset] for offset in (3, 4)},
        [[5, 3, 5, 1, 0, 4], [5, 3, 5, 1, 2, 4]],
    ),
    (
        "a policy of two positions a step",
        "pairs",
        [0, 0, 5, 0, 0, 0],
        {0: [0, 2, 1, 1, 2, 2], **FOUR},
        [[0, 3, 5, 1, 0, 0], [0, 3, 5, 1, 2, 5]],
    ),
    (
        "a subset is not enough: the step commits two positions, each of them a draft, both together none",
        "threshold",
        [5, 0, 5, 0, 0, 0],
        FOUR,
        [[5, 3, 5, 1, 0, 0], [5, 3, 5, 1, 2, 0]],
    ),
    (
        "one step may skip nodes: from the root straight to three positions",
        "threshold",
        [5, 0, 5, 0, 0, 0],
        FOUR,
        [[5, 3, 5, 1, 2, 0]],
    ),
    (
        "one masked position is left: there is nothing to draft",
        "chain",
        [5, 3, 5, 1, 0, 4],
        {4: FOUR[4]},
        [[5, 3, 5, 1, 2, 4]],
    ),
]


def reference(graph: GraphFile, block: list[int], weights: dict[int, list[int]], states: list[list[int]]) -> dict:
    """docs/graph-format.md, "Verification", in exact arithmetic."""
    ranked = []
    for offset, row in weights.items():
        total = sum(weight for token, weight in enumerate(row) if token != MASK)
        probability = {token: Fraction(weight, total) for token, weight in enumerate(row) if token != MASK}
        tokens = sorted(probability, key=lambda token: (-probability[token], token))
        ranked.append((-probability[tokens[0]], offset, tokens[: graph.validity.top_j]))
    ranked.sort()
    drafts = {}
    for index, node in enumerate(graph.nodes):
        if 0 < len(node) < len(ranked) and all(i <= len(ranked) for i, _ in node):
            draft = list(block)
            for i, j in node:
                draft[ranked[i - 1][1]] = ranked[i - 1][2][j - 1]
            drafts[index] = draft
    accepted = []
    for state in states:
        met = [index for index, draft in drafts.items() if draft == state]
        if not met:
            break
        accepted += met
    return {
        "position_ranks": [offset for _, offset, _ in ranked],
        "vocabulary_ranks": [tokens for _, _, tokens in ranked],
        "drafts": [{"node": index, "block": draft} for index, draft in drafts.items()],
        "accepted_nodes": accepted,
        "accepted_drafts": len(accepted),
    }


def vectors() -> dict[str, Any]:
    cases = []
    for shows, name, block, weights, states in CASES:
        given = {
            "shows": shows,
            "graph": f"{name}.json",
            "block": block,
            "weights": [{"offset": offset, "tokens": row} for offset, row in weights.items()],
            "states": states,
        }
        cases.append(given | {"expected": reference(GRAPHS[name], block, weights, states)})
    return {"mask_token_id": MASK, "block_length": BLOCK_LENGTH, "cases": cases}


def vectors_text() -> str:
    """One short line per list of numbers."""
    made = vectors()
    cases = []
    for case in made["cases"]:
        flat = {name: value for name, value in case.items() if name != "expected"}
        lines = [f'      "{name}": {json.dumps(value)}' for name, value in flat.items()]
        inner = [f'        "{name}": {json.dumps(value)}' for name, value in case["expected"].items()]
        lines.append('      "expected": {\n' + ",\n".join(inner) + "\n      }")
        cases.append("    {\n" + ",\n".join(lines) + "\n    }")
    head = f'  "mask_token_id": {MASK},\n  "block_length": {BLOCK_LENGTH},\n  "cases": [\n'
    return "{\n" + head + ",\n".join(cases) + "\n  ]\n}\n"


def test_the_files_are_what_the_reference_makes() -> None:
    assert (FOLDER / "acceptance.json").read_text(encoding="utf-8") == vectors_text()
    assert json.loads(vectors_text()) == vectors()
    for name, made in GRAPHS.items():
        assert load_graph(FOLDER / f"{name}.json") == made
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == format_graph(made)


def test_the_cases_show_what_they_say() -> None:
    """The literal answers, so that the reference cannot be wrong in the way that the files are."""
    lengths = [case["expected"]["accepted_drafts"] for case in vectors()["cases"]]
    assert lengths == [2, 0, 2, 2, 2, 1, 2, 0, 1, 0]
    first = vectors()["cases"][0]["expected"]
    assert first["position_ranks"] == [3, 1, 4, 5]
    assert first["vocabulary_ranks"] == [[1, 2, 3], [3, 1, 2], [2, 3, 1], [5, 4, 1]]


@pytest.mark.parametrize("case", vectors()["cases"], ids=lambda case: case["shows"])
def test_our_runtime_agrees(case: dict) -> None:
    loaded = load_graph(FOLDER / case["graph"])
    block = np.array(case["block"])
    logits = torch.full((1, BLOCK_LENGTH, 6), 1.0)
    for row in case["weights"]:
        logits[0, row["offset"]] = torch.tensor(row["tokens"], dtype=torch.float32).log()
    ranks = LaggedRanker().rank(rank_logits(logits, MASK, loaded.validity.top_j), 0, np.flatnonzero(block == MASK))
    expected = case["expected"]
    assert ranks.positions.tolist() == expected["position_ranks"]
    assert ranks.tokens.tolist() == expected["vocabulary_ranks"]

    filled, chosen = DraftFiller(loaded.nodes[1:]).fill(block, ranks)
    found = {int(index) + 1: state.tolist() for index, state in zip(chosen, filled, strict=True)}
    assert found == {draft["node"]: draft["block"] for draft in expected["drafts"]}
    states = iter(case["states"])
    accepted = 0
    while next(states, None) in found.values():
        accepted += 1
    assert accepted == expected["accepted_drafts"]


if __name__ == "__main__":
    (FOLDER / "acceptance.json").write_text(vectors_text(), encoding="utf-8")
    for name, made in GRAPHS.items():
        (FOLDER / f"{name}.json").write_text(format_graph(made), encoding="utf-8")
