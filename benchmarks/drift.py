"""How soon does a watch see that requests changed, and how often does it cry wolf?

    python benchmarks/drift.py --out benchmarks/results/drift.json [--work runs/drift] [--prompts 64] [--served 64]

The bundled model, float32, dual cache, blocks of 32, ``static:1``. Per domain a graph is searched on calibration
prompts; its promise is from validation prompts, and test prompts are served. A shift begins with the first request or
after half of the domain's own, and goes on for all held-out prompts of the other domain. Where it begins with the
first, all held-out prompts of the domain make the promise. What a request accepts is replayed from its plain trace,
which is what a decode with the graph counts; the first served prompts are also decoded with a counter beside them, and
the exit code is 1 where a count differs.

* ``runs``: 20 watches without a shift (reference and served prompts of a domain, dealt out anew for each), and 20
  shuffled watches per pair of domains and kind of shift.
* ``simulated``: the test of accepted drafts alone on 100 made-up requests, normal numbers that are shifted by so many
  standard deviations.
* ``alarms_of_deals``: as ``runs`` without a shift, many times: how many watches raise an alarm, beside the stated rate.
  The deals are of the same prompts, so they are not independent.

Recordings are kept in ``--work``; a rerun goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_for
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.recorder import record
from calibrate.traces.table import Traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import node_visits, replay
from drafting.searching import search
from studies.statistics.drift import FALSE_ALARMS, watch
from studies.statistics.served import Promise, Watch
from verify.counting import AcceptanceCounter, AcceptanceCounts
from verify.decoding import DecodeConfig, decode_batch
from verify.graph.formulas import Formula
from verify.policies.specification import make_policy

POLICY = "static:1"
SPLITS = ("calibration", "validation", "test")
RUNS = 20
SIMULATIONS = 200


@cache
def model() -> Checkpoint:
    """The bundled model, loaded when something must be decoded."""
    torch.set_num_threads(1)
    return load_checkpoint("bundled")


def prompts_of(domain: str, split: str, count: int) -> list[tuple[int, ...]]:
    """Token ids of the first prompts of a domain."""
    return encode_for(model(), load_prompt_set(f"bundled/{domain}", split, count))


def decoding(options: argparse.Namespace) -> DecodeConfig:
    """How prompts are decoded."""
    return DecodeConfig(generation_length=options.generation, end_token_ids=model().end_token_ids)


def recorded(options: argparse.Namespace, domain: str, split: str) -> Traces:
    """The traces of a domain and split, recorded where they are not there."""
    count = dict(zip(SPLITS, (options.search_prompts, options.prompts, options.served), strict=True))[split]
    prompts = prompts_of(domain, split, count)
    folder = options.work / f"{domain}-{split}-{count}-{options.generation}"
    print(f"record {domain} {split}: {len(prompts)} prompts", flush=True)
    return record(model(), prompts, make_policy(POLICY), decoding(options), folder, batch_size=options.batch_size)


class Requests:
    """What the requests of a domain cost with a graph: forwards, anchors and accepted nodes, one row each."""

    def __init__(self, forwards: np.ndarray, anchors: np.ndarray, nodes: np.ndarray) -> None:
        self.forwards, self.anchors, self.nodes = forwards, anchors, nodes
        self.accepted = nodes.sum(axis=1)

    @classmethod
    def of(cls, nodes: tuple[Formula, ...], traces: Traces) -> Requests:
        """Those of recorded prompts, as a decode with the graph ``nodes`` would count them."""
        table = AnchorTable.from_traces(traces, max_depth=None)
        counted = replay(nodes, table)
        return cls(counted.forwards_per_prompt, counted.anchors_visited, node_visits(nodes, table))

    def chosen(self, order: np.ndarray) -> Requests:
        """Some of them, in this order."""
        return Requests(self.forwards[order], self.anchors[order], self.nodes[order])

    def then(self, other: Requests) -> Requests:
        """These, and ``other`` behind them."""
        names = ("forwards", "anchors", "nodes")
        return Requests(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def mean(self) -> float:
        """Accepted drafts per anchor over all requests."""
        return float(self.accepted.sum() / self.anchors.sum())


def one_watch(reference: Requests, served: Requests, seed: int) -> dict[str, Any]:
    """A watch as a row."""
    counts = AcceptanceCounts(None, "node", served.forwards, served.anchors, served.nodes)
    promise = Promise("prompts", reference.anchors, reference.accepted, reference.nodes)
    found = Watch.of(promise, counts, seed=seed)
    return {
        "alarm": found.alarm is not None, "requests": found.alarm or counts.requests,
        "forwards": found.forwards_to_alarm or int(served.forwards.sum()), "by_profile": found.by_profile,
        "direction": found.drift.direction, "since": found.since,
        "largest_capital": float(found.drift.capital.max()),
    }  # fmt: skip


def without_shift(reference: Requests, served: Requests, runs: int) -> list[dict[str, Any]]:
    """Watches over prompts of one domain, each time dealt out anew into reference and served."""
    both, kept = reference.then(served), len(reference.anchors)
    rows = []
    for run in range(runs):
        order = np.random.default_rng([run, 0]).permutation(len(both.anchors))
        rows.append(one_watch(both.chosen(order[:kept]), both.chosen(order[kept:]), run))
    return rows


def with_shift(reference: Requests, own: Requests, other: Requests, before: int) -> list[dict[str, Any]]:
    """Watches of ``before`` requests of the domain itself, then those of another; every run in another order."""
    rows = []
    for run in range(RUNS):
        rng = np.random.default_rng([run, 1])
        first = own.chosen(rng.permutation(len(own.anchors))[:before])
        row = one_watch(reference, first.then(other.chosen(rng.permutation(len(other.anchors)))), run)
        late = int(first.forwards.sum())
        rows.append(row | {"requests_after": row["requests"] - before, "forwards_after": row["forwards"] - late})
    return rows


def simulated(references: int, shift: float) -> dict[str, Any]:
    """Watches of 100 requests whose numbers are normal, and lower by ``shift`` than those of the reference."""
    alarms = []
    for run in range(SIMULATIONS):
        rng = np.random.default_rng([references, run])
        reference, served = rng.normal(size=references), rng.normal(size=100) - shift
        alarms.append(watch(reference, served, false_alarms=FALSE_ALARMS / 2, seed=run).alarm)
    found = sorted(alarm + 1 for alarm in alarms if alarm is not None)
    half = found[SIMULATIONS // 2 - 1] if len(found) >= SIMULATIONS / 2 else None
    return {"references": references, "shift": shift, "watches": len(alarms), "alarms": len(found),
            "half_seen_by_request": half}  # fmt: skip


def summary(rows: list[dict[str, Any]], name: str) -> dict[str, float] | None:
    """Median, least and most of the runs with an alarm."""
    found = [row[name] for row in rows if row["alarm"]]
    return {"median": float(np.median(found)), "least": min(found), "most": max(found)} if found else None


def decoded(nodes: tuple[Formula, ...], domain: str, served: Requests, options: argparse.Namespace) -> bool:
    """Whether a decode with a counter counts what was replayed, for the first served prompts."""
    count = options.decoded
    prompts = prompts_of(domain, "test", count)
    counter = AcceptanceCounter(nodes, model().denoiser.mask_token_id)
    for _ in decode_batch(
        model().denoiser, list(enumerate(prompts)), make_policy(POLICY), decoding(options), nodes,
        observer=counter, forward_observer=counter, batch_size=len(prompts),
    ):  # fmt: skip
        pass
    found = counter.counts()
    counted = (found.forwards, found.anchors, found.accepted)
    replayed = (served.forwards, served.anchors, served.nodes)
    return all(np.array_equal(one, other[:count]) for one, other in zip(counted, replayed, strict=True))


def main(arguments: list[str] | None = None) -> None:
    """Record, watch, print one line per cell, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the rows")
    parser.add_argument("--work", type=Path, default=Path("runs/drift"), help="folder for the recordings")
    parser.add_argument("--domains", nargs="+", default=["code", "lists"])
    parser.add_argument("--prompts", type=int, default=64, help="reference prompts per domain")
    parser.add_argument("--served", type=int, default=64, help="served prompts per domain")
    parser.add_argument("--search-prompts", type=int, default=32, help="prompts per domain that a graph is searched on")
    parser.add_argument("--generation", type=int, default=64, help="tokens generated per prompt")
    parser.add_argument("--budget", type=int, default=10, help="draft nodes")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--decoded", type=int, default=4, help="served prompts per domain that are decoded too")
    parser.add_argument("--deals", type=int, default=200, help="watches behind the share of false alarms")
    options = parser.parse_args(arguments)
    traces = {(domain, split): recorded(options, domain, split) for domain in options.domains for split in SPLITS}
    graphs = {
        domain: search(traces[domain, "calibration"], "greedy", options.budget).draft_nodes()
        for domain in options.domains
    }
    cells, differing = [], []
    for domain in options.domains:
        nodes = graphs[domain]
        reference, own = (Requests.of(nodes, traces[domain, split]) for split in SPLITS[1:])
        if options.decoded and not decoded(nodes, domain, own, options):
            differing.append(domain)
        rows = without_shift(reference, own, RUNS // len(options.domains))
        deals = [row["alarm"] for row in without_shift(reference, own, options.deals)]
        cells.append(
            {"calibrated_on": domain, "served": domain, "shift_after": None,
             "accepted_drafts_promised": reference.mean(), "accepted_drafts_served": own.mean(),
             "runs": len(rows), "alarms": sum(row["alarm"] for row in rows),
             "deals": len(deals), "alarms_of_deals": sum(deals), "rows": rows}
        )  # fmt: skip
    for domain, other in permutations(options.domains, 2):
        reference, own = (Requests.of(graphs[domain], traces[domain, split]) for split in SPLITS[1:])
        first, second = (Requests.of(graphs[domain], traces[other, split]) for split in SPLITS[1:])
        served = first.then(second)
        for before in (0, options.served // 2):
            # Where none of the domain's own requests are served, all its held-out prompts make the promise.
            promised = reference if before else reference.then(own)
            rows = with_shift(promised, own, served, before)
            alarms = [row for row in rows if row["alarm"]]
            cells.append(
                {"calibrated_on": domain, "served": other, "shift_after": before,
                 "reference_prompts": len(promised.anchors), "shifted_requests": len(served.anchors),
                 "accepted_drafts_promised": promised.mean(), "accepted_drafts_served": served.mean(),
                 "runs": len(rows), "alarms": len(alarms), "by_profile": sum(row["by_profile"] for row in alarms),
                 "alarms_too_early": sum(row["requests_after"] < 1 for row in alarms),
                 "requests_to_alarm": summary(rows, "requests_after"),
                 "forwards_to_alarm": summary(rows, "forwards_after"), "rows": rows}
            )  # fmt: skip
    for cell in cells:
        shown = {name: value for name, value in cell.items() if name != "rows" and value is not None}
        print(", ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
    facts = {
        "tool_version": tool_version(), "model_revision": model().revision, "policy": POLICY, "budget": options.budget,
        "prompts": options.prompts, "served": options.served, "search_prompts": options.search_prompts,
        "generation_length": options.generation, "false_alarms": FALSE_ALARMS,
        "decoded_prompts": options.decoded * len(options.domains), "decoded_differing": differing,
    }  # fmt: skip
    simulations = [simulated(references, shift) for references in (24, 48, 96) for shift in (0.0, 1.0, 2.0, 4.0)]
    for row in simulations:
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    write_json(options.out, {**facts, "cells": cells, "simulated": simulations})
    if differing:
        sys.exit(f"counts of decodes differ from the replay in {', '.join(differing)}")


if __name__ == "__main__":
    main()
