"""Informed drafts against calibrated graphs: forwards, blocks of rows and processor time, for the same targets.

    python benchmarks/informed.py [--prompts 48] [--out FILE]

The bundled model, float32, held-out prompts. Graphs are those of the exact search (proved optimal where it says so) and
of the published rule, calibrated on prompts of the calibration split under the same policy, blocks and cache mode;
their forwards are replayed, which is exact. Informed drafts need no calibration, and are really decoded; every token is
compared with plain decoding. Ratios of informed drafts to a graph are ratios of forwards, paired over prompts, with a
95 % interval from resampling prompts.

Beside the default settings stand others (``VARIANTS``): *mixture* gives the rows that the chain leaves to alternatives
and then to the formulas of a greedy graph of 20 nodes, and follows alternatives; *copies* (dual cache only) computes
the next block's refresh beside the drafts. They were chosen on validation prompts.

Three graphs stand beside the informed drafts of a budget: exact and published of as many drafts, and exact at *equal
mean rows*. A bridge counts as one draft and costs two blocks of rows, and a finished block is cached on the way, so at
equal numbers of drafts the informed forwards are often wider. The graph at equal mean rows is the exact one of the
smallest budget whose forwards carry, in the mean over all forwards of the held-out prompts, at least as many blocks
beside the real one. Where no graph is as wide (the traces hold too few candidates), it is the widest there is.

The file is written after every cell, and a rerun with the same numbers of prompts goes on where it stopped. The exit
code is 1 when any token differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.cells import read_cells, stamp
from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.recording.states import StateLogBuilder, state_facts
from calibrate.traces.state_log import states_of_table
from drafting.anchors import AnchorTable
from drafting.counts import DecodeCounts
from drafting.replay import ReplayResult, replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.result import SearchResult
from drafting.state_replay import StateReplay, replay_states
from drafting.trie import PrefixTrie
from studies.statistics.intervals import PromptBootstrap
from verify.decoding import DecodeConfig, DecodeResult, Drafts, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.graph.formulas import Formula
from verify.policies.specification import make_policy

#: (policy, cache mode, block length), each at every budget.
CELLS = (
    ("static:1", "dual", 32),
    ("threshold:0.9", "dual", 32),
    ("static:1", "block_causal", 32),
    ("static:1", "block_causal", 16),
    ("static:1", "block_causal", 8),
    ("static:1", "block_causal", 4),
    ("threshold:0.9", "block_causal", 16),
)
BUDGETS = (5, 10, 16)
#: Other settings than the default ones, and the cache modes in which they mean something.
VARIANTS = {
    "mixture": (InformedSettings(fill="alternatives+graph", follow=8), ("dual", "block_causal")),
    "copies": (InformedSettings(copies=True), ("dual",)),
    "mixture and copies": (InformedSettings(fill="alternatives+graph", follow=8, copies=True), ("dual",)),
}
#: Nodes of the graph that the mixture reads.
MIXED = 20
#: The largest graph that is looked at for equal mean rows.
WIDEST = 64
GENERATION, TOP_J = 96, 8

Prompts = list[tuple[int, ...]]
Results = dict[int, DecodeResult]


class Cell:
    """One (policy, cache mode, block length): its prompts, their plain decodes, and what graphs are searched in."""

    def __init__(self, checkpoint: Checkpoint, cell: tuple[str, str, int], options: argparse.Namespace) -> None:
        self.spec, self.cache, self.length = cell
        self.checkpoint, self.batch, self.policy = checkpoint, options.batch_size, make_policy(self.spec)
        self.config = DecodeConfig(
            self.length, GENERATION, self.cache, end_token_ids=checkpoint.end_token_ids, top_j=TOP_J
        )
        tables = {}
        with tempfile.TemporaryDirectory() as scratch:
            for split, count in (("calibration", options.search_prompts), ("test", options.prompts)):
                ids = encode_prompts(
                    load_prompt_set("bundled", split, count), checkpoint.tokenizer,
                    checkpoint.denoiser.vocabulary_size,
                )  # fmt: skip
                traces = record(checkpoint, ids, self.policy, self.config, Path(scratch) / split, batch_size=self.batch)
                tables[split] = AnchorTable.from_traces(traces, max_depth=None)
        self.prompts: Prompts = ids  # the last ones, on which everything is compared
        self.anchors = tables["test"]
        self.plain = self.decode(())
        self.problem = SearchInput(PrefixTrie.from_anchors(tables["calibration"]), self.length, self.policy.step_size)
        self._exact: dict[int, SearchResult] = {}

    def decode(self, drafts: Drafts, watching: StateLogBuilder | None = None) -> Results:
        """The decodes of all prompts, by prompt_index."""
        return dict(
            decode_batch(
                self.checkpoint.denoiser, list(enumerate(self.prompts)), self.policy, self.config, drafts,
                batch_size=self.batch, observer=watching, forward_observer=watching,
            )
        )  # fmt: skip

    def exact(self, budget: int) -> SearchResult:
        """The exact graph of a budget, searched once."""
        if budget not in self._exact:
            self._exact |= find_graphs("exact", self.problem, [budget])
        return self._exact[budget]

    def drafted_blocks(self, nodes: tuple[Formula, ...]) -> float:
        """Drafts beside the real block, in the mean over all forwards of the test prompts."""
        return replay(nodes, self.anchors).drafted_blocks

    def as_wide_as(self, blocks: float) -> SearchResult:
        """The exact graph of the smallest budget with at least ``blocks`` drafted blocks a forward, or the widest.

        Greedy graphs are about as wide and found all at once, so they say where to begin.
        """
        greedy = find_graphs("greedy", self.problem, range(1, WIDEST + 1))
        most = max(len(found.nodes) for found in greedy.values())
        wide = (d for d in range(1, most) if self.drafted_blocks(greedy[d].nodes) >= blocks)
        budget = next(wide, most)
        while budget < most and self.drafted_blocks(self.exact(budget).nodes) < blocks:
            budget += 1
        while budget > 1 and self.drafted_blocks(self.exact(budget - 1).nodes) >= blocks:
            budget -= 1
        return self.exact(budget)

    def run(self) -> dict[str, Any]:
        """Compare at every budget."""
        published = find_graphs("published", self.problem, BUDGETS)
        rows = []
        for budget in BUDGETS:
            drafter, watching = InformedDrafter(budget), StateLogBuilder()
            begin = time.process_time()
            informed = self.decode(drafter, watching)
            seconds = time.process_time() - begin
            begin = time.process_time()
            static = self.decode(self.exact(budget).nodes)
            graph_seconds = time.process_time() - begin
            replayed = self.replayed(drafter, watching)
            best, rule = (replay(one.nodes, self.anchors) for one in (self.exact(budget), published[budget]))
            rows.append(
                {
                    "budget": budget,
                    "prompts": len(self.prompts),
                    "tokens_identical": sum(informed[k].tokens == self.plain[k].tokens for k in informed),
                    "as_replayed": replayed.exact and matches(replayed, informed) and matches(best, static),
                    "plain_forwards": best.plain_forwards,
                    "nfe_reduction_published": round(rule.nfe_reduction, 3),
                    "nfe_reduction_exact": round(best.nfe_reduction, 3),
                    "nfe_reduction_informed": round(replayed.nfe_reduction, 3),
                    "informed_over_published": over(replayed, rule),
                    "informed_over_exact": over(replayed, best),
                    "proved": self.exact(budget).proved,
                    "reading": published[budget].chosen,
                    "drafted_blocks_exact": round(self.drafted_blocks(self.exact(budget).nodes), 2),
                    "drafted_blocks_informed": round(replayed.drafted_blocks, 2),
                    "equal_rows": self.at_equal_rows(replayed),
                    "variants": self.variants(budget, best, replayed),
                    "query_tokens_graph": mean_query_tokens(static),
                    "query_tokens_informed": mean_query_tokens(informed),
                    "processor_time_informed_over_graph": round(seconds / graph_seconds, 3),
                }
            )
            print(self.spec, self.cache, self.length, json.dumps(rows[-1]), flush=True)
        return {"policy": self.spec, "cache": self.cache, "block_length": self.length, "budgets": rows}

    def variants(self, budget: int, best: ReplayResult, default: StateReplay) -> list[dict[str, Any]]:
        """The same with other settings, against the exact graph of as many drafts and against the default settings."""
        rows = []
        for name, (settings, caches) in VARIANTS.items():
            if self.cache not in caches:
                continue
            graph = find_graphs("greedy", self.problem, [MIXED])[MIXED].nodes if settings.uses_graph else ()
            drafter, watching = InformedDrafter(budget, settings, graph), StateLogBuilder()
            found = self.decode(drafter, watching)
            counted = self.replayed(drafter, watching)
            rows.append(
                {
                    "name": name,
                    "tokens_identical": sum(found[k].tokens == self.plain[k].tokens for k in found),
                    "as_replayed": counted.exact and matches(counted, found),
                    "nfe_reduction": round(counted.nfe_reduction, 3),
                    "over_exact": over(counted, best),
                    "over_default": over(counted, default),
                    "drafted_blocks": round(counted.drafted_blocks, 2),
                    "query_tokens": mean_query_tokens(found),
                }
            )
        return rows

    def replayed(self, drafter: InformedDrafter, watching: StateLogBuilder) -> StateReplay:
        """What the decode with ``drafter`` cost, forward by forward, from the states that it evaluated."""
        facts = state_facts(self.checkpoint, self.policy, self.config, self.prompts, drafter)
        return replay_states(states_of_table(watching.table(range(len(self.prompts))), facts), drafter)

    def at_equal_rows(self, informed: StateReplay) -> dict[str, Any]:
        """The exact graph whose forwards are as wide as the informed ones, and the informed drafts against it."""
        wanted = informed.drafted_blocks
        graph = self.as_wide_as(wanted)
        found, blocks = replay(graph.nodes, self.anchors), self.drafted_blocks(graph.nodes)
        return {
            "budget": len(graph.nodes),
            "proved": graph.proved,
            "as_wide": blocks >= wanted,
            "drafted_blocks": round(blocks, 2),
            "nfe_reduction": round(found.nfe_reduction, 3),
            "informed_over_exact": over(informed, found),
        }


def matches(replayed: DecodeCounts, decoded: Results) -> bool:
    """Whether the forwards of a replay are those that the decodes counted, prompt by prompt."""
    return [decoded[k].forwards for k in replayed.prompt_indices.tolist()] == replayed.forwards_per_prompt.tolist()


def over(informed: StateReplay, graph: DecodeCounts) -> list[float]:
    """How many times fewer forwards than the graph, paired over prompts: the ratio and its 95 % interval."""
    steps = graph.plain_per_prompt.astype(float)
    ratio = PromptBootstrap(graph.prompts).ratio_quotient(
        (steps, informed.forwards_per_prompt.astype(float)), (steps, graph.forwards_per_prompt.astype(float))
    )
    return [round(value, 3) for value in (ratio.estimate, ratio.low, ratio.high)]


def mean_query_tokens(results: Results) -> float:
    """Query tokens of a forward, refreshes included."""
    total = sum(result.forwards for result in results.values())
    return round(sum(result.query_tokens for result in results.values()) / total, 1)


def main() -> int:
    """Measure every cell, write the file, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=48, help="held-out prompts")
    parser.add_argument("--search-prompts", type=int, default=64, help="prompts that graphs are calibrated on")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts at a time")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of the cells to run, from 0; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "informed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("bundled")
    head = stamp(
        "informed drafts against calibrated graphs of as many drafts, and of as many rows; held-out prompts",
        checkpoint.revision,
        prompts=options.prompts,
        search_prompts=options.search_prompts,
        batch_size=options.batch_size,
        generation_length=GENERATION,
    )
    found = read_cells(options.out, head)
    for number in options.cells if options.cells else range(len(CELLS)):
        if not any((c["policy"], c["cache"], c["block_length"]) == CELLS[number] for c in found):
            found.append(Cell(checkpoint, CELLS[number], options).run())
            write_json(options.out, {**head, "cells": found})
    every = [(part, row["prompts"]) for cell in found for row in cell["budgets"] for part in (row, *row["variants"])]
    same = all(part["tokens_identical"] == prompts for part, prompts in every)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
