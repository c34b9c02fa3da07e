"""Is greedy the optimum, and which methods can be told apart? Every budget from 1 to 32, on recorded traces.

    python benchmarks/paired_methods.py SEARCH_TRACES TEST_TRACES [SEARCH_TRACES TEST_TRACES ...] [--out FILE]

For every pair of recordings: the budgets at which greedy's path value lies below the proved optimum of the search
    prompts,
the slowest exact search, and for some budgets the paired difference in NFE reduction of greedy and each other method on
the test prompts, with its 95 % interval. No model runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibrate.files import write_json
from calibrate.traces.table import Traces, read_traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.trie import PrefixTrie
from drafting.values import path_value
from studies.statistics.intervals import PromptBootstrap
from verify.policies.specification import step_sizes

LARGEST = 32
BUDGETS = (3, 5, 8, 10, 16, 32)
OTHERS = ("chain", "tree_greedy", "sequoia", "published", "published:degree0", "exact")


def measure(search: Traces, test: Traces) -> dict[str, Any]:
    """Both questions for one pair of recordings."""
    run = search.metadata
    anchors, held_out = AnchorTable.from_traces(search, None), AnchorTable.from_traces(test, None)
    problem = SearchInput(PrefixTrie.from_anchors(anchors), run["block_length"], step_sizes(run["policy"]))
    every = range(1, LARGEST + 1)
    exact, greedy = find_graphs("exact", problem, every), find_graphs("greedy", problem, every)
    value = {
        budget: (path_value(greedy[budget].nodes, anchors), path_value(exact[budget].nodes, anchors))
        for budget in every
    }
    bootstrap = PromptBootstrap(len(held_out.prompt_indices()))
    graphs = {name: find_graphs(name, problem, BUDGETS) for name in ("greedy", *OTHERS)}
    comparisons = []
    for name in OTHERS:
        for budget in BUDGETS:
            first, second = (replay(graphs[method][budget].nodes, held_out) for method in ("greedy", name))
            found = bootstrap.compare(first, second)
            difference = found.nfe_reduction_difference
            comparisons.append(
                {
                    "budget": budget, "first": "greedy", "second": name, "chosen": graphs[name][budget].chosen,
                    "nfe_reduction": [round(first.nfe_reduction, 4), round(second.nfe_reduction, 4)],
                    "difference": round(difference.estimate, 4), "low": round(difference.low, 4),
                    "high": round(difference.high, 4), "distinguishable": found.distinguishable,
                }
            )  # fmt: skip
    forwards = {
        name: {str(budget): replay(graphs[name][budget].nodes, anchors).forwards for budget in BUDGETS}
        for name in graphs
    }
    return {
        "policy": run["policy"],
        "search_prompts": len(anchors.prompt_indices()),
        "test_prompts": len(held_out.prompt_indices()),
        "anchors": anchors.n_anchors,
        "exact_proved": sum(found.proved for found in exact.values()),
        "slowest_exact_seconds": round(max(found.seconds for found in exact.values()), 3),
        "greedy_below_the_optimum": {
            str(budget): round(1 - low / high, 5) for budget, (low, high) in value.items() if low < high * (1 - 1e-12)
        },
        "forwards_on_search_prompts": forwards,
        "comparisons": comparisons,
    }


def main() -> None:
    """Measure every pair of recordings and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("traces", type=Path, nargs="+", help="search and test recordings, in turn")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "paired_methods.json")
    options = parser.parse_args()
    if len(options.traces) % 2:
        parser.error(f"expected search and test recordings in turn, got {len(options.traces)} folders")
    pairs = zip(options.traces[::2], options.traces[1::2], strict=True)
    rows = [measure(read_traces(search), read_traces(test)) for search, test in pairs]
    write_json(options.out, {"tool_version": tool_version(), "largest_budget": LARGEST, "pairs": rows})
    for row in rows:
        print(
            row["policy"], "greedy below the optimum at D =", ", ".join(row["greedy_below_the_optimum"]) or "no budget"
        )


if __name__ == "__main__":
    main()
