"""A run directory with made-up but plausible numbers: chains drawn from a simple random process, then counted.

Nothing here is a result. It has the shape of what a study writes, so that every figure can be drawn and looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from verify.graph.file import GraphFile, Validity, save_graph
from verify.graph.formulas import ROOT, Formula

BUDGETS = (3, 5, 8, 10, 16, 32)
POLICIES = ("static:1", "threshold:0.9")
BLOCK_LENGTH, TOP_J = 32, 8

Chain = tuple[Formula, ...]


def make_chains(anchors: int, variable: bool, seed: int) -> list[Chain]:
    """Per anchor the states of the next steps; ``variable`` commits several positions at once now and then."""
    generator = np.random.default_rng(seed)
    chains = []
    for _ in range(anchors):
        masked = list(range(1, int(generator.integers(3, BLOCK_LENGTH))))
        state: set[tuple[int, int]] = set()
        chain: list[Formula] = []
        while len(masked) > 1 and len(chain) < 12:
            size = 1 + (int(generator.poisson(0.7)) if variable else 0)
            for _ in range(min(size, len(masked) - 1)):
                position = masked.pop(min(int(generator.geometric(0.55)) - 1, len(masked) - 1))
                state.add((position, min(int(generator.geometric(0.9)), TOP_J)))
            chain.append(tuple(sorted(state)))
        if chain:
            chains.append(tuple(chain))
    return chains


def accepted(chain: Chain, nodes: set[Formula]) -> int:
    """The longest prefix of ``chain`` inside ``nodes``."""
    return next((n for n, state in enumerate(chain) if state not in nodes), len(chain))


def choose(method: str, chains: list[Chain], budget: int, step: int | None) -> list[Formula]:
    """A connected graph by a rule in the spirit of ``method``; quick rather than right."""
    if method == "chain":
        return [tuple((i, 1) for i in range(1, n + 1)) for n in range(1, min(budget, BLOCK_LENGTH - 1) + 1)]
    nodes: list[Formula] = []
    counts = Counter(state for chain in chains for state in chain)
    while len(nodes) < budget:
        inside = {ROOT, *nodes}
        if method == "published":
            found = Counter(
                {
                    state: count
                    for state, count in counts.most_common(150)
                    if state not in inside
                    and any(set(p) < set(state) and step in (None, len(state) - len(p)) for p in inside)
                }
            )
        else:
            nexts = ((chain, accepted(chain, inside)) for chain in chains)
            found = Counter(chain[n] for chain, n in nexts if n < len(chain))
            if method == "tree_greedy":
                found = Counter({state: count for state, count in found.items() if len(state) < 5})
        nodes.append(min(found, key=lambda state: (-found[state], len(state), state)))
    return nodes


def write_run(directory: Path, policies: tuple[str, ...] = POLICIES, anchors: int = 1500) -> Path:
    """Write a whole run directory and return it."""
    rows: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    rank_counts: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    (directory / "graphs").mkdir(parents=True)
    for policy in policies:
        variable = policy.startswith("threshold")
        chains = {"search": make_chains(anchors, variable, 1), "test": make_chains(anchors, variable, 2)}
        for split in chains:
            rows.append(_row("plain", None, 0, policy, split, 0.0, measured=True))
        order = {
            (method, reading): choose(method, chains["search"], BUDGETS[-1], None if variable else 1)
            for method, reading in (
                ("chain", None),
                ("tree_greedy", None),
                ("published", "degree0"),
                ("published", "degree1/all"),
                ("greedy", None),
            )
        }
        for (method, reading), nodes in order.items():
            for budget in BUDGETS:
                name = f"graphs/{policy.replace(':', '-')}-{method}-D{budget}.json" if method == "greedy" else None
                if name is not None:
                    save_graph(_graph_file(policy, nodes[:budget], chains), directory / name)
                for split, own in chains.items():
                    lengths = [accepted(chain, set(nodes[:budget])) for chain in own]
                    # The second reading shall differ from the first; it is the worse one.
                    value = float(np.mean(lengths)) * (0.96 if reading == "degree0" else 1.0)
                    rows.append(_row(method, reading, budget, policy, split, value, budget <= 10, name))
                    if split == "test":
                        histograms.append(
                            {"method": method, "reading": reading, "budget": budget, "policy": policy,
                             "split": split, "counts": np.bincount(lengths).tolist()}
                        )  # fmt: skip
        for budget in BUDGETS:
            best = max(
                row["accepted_drafts"] for row in rows
                if (row["policy"], row["split"], row["budget"]) == (policy, "search", budget)
            )  # fmt: skip
            bound = _row("lp_bound", None, budget, policy, "search", best * 1.02, False)
            rows.append(bound | {"nfe_reduction": None, "nfe_reduction_low": None, "nfe_reduction_high": None})
        rank_counts.append(_rank_counts(policy, chains["search"]))
        comparisons += _comparisons([row for row in rows if row["policy"] == policy and row["split"] == "test"])
    payload = {
        "format": "draftgraph-results",
        "version": 1,
        "config": {"model": "synthetic", "budgets": [0, *BUDGETS]},
        "rows": rows,
        "histograms": histograms,
        "rank_counts": rank_counts,
        "comparisons": comparisons,
        "trie": [],
    }
    (directory / "config.json").write_text(json.dumps(payload["config"]))
    (directory / "results.json").write_text(json.dumps(payload, indent=1))
    return directory


def _comparisons(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every method against every earlier one of the same budget; half an interval is 0.05."""
    found = []
    graphs = [row for row in rows if row["budget"] and row["reading"] != "degree0" and row["nfe_reduction"]]
    for first in graphs:
        for second in graphs[: graphs.index(first)]:
            if first["budget"] == second["budget"]:
                gap = first["nfe_reduction"] - second["nfe_reduction"]
                found.append(
                    {"policy": first["policy"], "budget": first["budget"], "first": first["method"],
                     "second": second["method"], "split": "test", "difference": gap, "low": gap - 0.05,
                     "high": gap + 0.05, "distinguishable": abs(gap) > 0.05, "sentence": "..."}
                )  # fmt: skip
    return found


def _row(
    method: str, reading: str | None, budget: int, policy: str, split: str, value: float,
    measured: bool, graph: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    nfe = 1 + 0.93 * value
    half = 0.03 * value if split == "test" and budget else None
    return {
        "method": method, "reading": reading, "budget": budget, "policy": policy, "cache": "dual", "split": split,
        "prompts": 96, "accepted_drafts": value, "accepted_drafts_visited": 0.93 * value,
        "accepted_drafts_low": None if half is None else value - half,
        "accepted_drafts_high": None if half is None else value + half,
        "forwards_plain": 9000, "forwards_predicted": round(9000 / nfe),
        "forwards_measured": round(9000 / nfe) if measured and split == "test" else None,
        "nfe_reduction": nfe,
        "nfe_reduction_low": None if half is None else nfe - half,
        "nfe_reduction_high": None if half is None else nfe + half,
        "tokens_identical": 1.0 if measured else None, "query_tokens": None, "seconds": None, "graph": graph,
    }  # fmt: skip


def _graph_file(policy: str, nodes: list[Formula], chains: dict[str, list[Chain]]) -> GraphFile:
    inside = set(nodes)
    values: dict[str, Any] = {}
    for split, own in chains.items():
        lengths = [accepted(chain, inside) for chain in own]
        values[split] = {"prompts": 96, "accepted_drafts": float(np.mean(lengths))}
    search = chains["search"]
    occurs = Counter(state for chain in search for state in chain)
    reached = Counter(state for chain in search for state in chain[: accepted(chain, inside)])
    values["search"]["node_counts"] = [len(search), *(occurs[node] for node in nodes)]
    values["search"]["node_reach"] = [1.0, *(reached[node] / len(search) for node in nodes)]
    validity = Validity("synthetic", None, policy, BLOCK_LENGTH, "dual", 0.0, TOP_J)
    return GraphFile.from_nodes([ROOT, *nodes], validity, values=values, provenance={"search": "greedy"})


def _rank_counts(policy: str, chains: list[Chain]) -> dict[str, Any]:
    vocabulary = np.zeros((BLOCK_LENGTH - 1, TOP_J), dtype=int)
    depth = np.zeros((BLOCK_LENGTH - 1, 12), dtype=int)
    for chain in chains:
        before: Formula = ROOT
        for step, state in enumerate(chain):
            for i, j in set(state) - set(before):
                depth[i - 1, step] += 1
                if step == 0:
                    vocabulary[i - 1, j - 1] += 1
            before = state
    return {
        "policy": policy,
        "split": "search",
        "position_by_vocabulary": vocabulary.tolist(),
        "position_by_depth": depth.tolist(),
    }
