"""Drafts in SGLang's own loop against that loop alone: tokens, and forwards predicted and counted.

    make test-sglang  # once: builds the environment
    .venv-sglang/bin/python benchmarks/runtimes_sglang.py [--out benchmarks/results/runtimes.json]

SGLang's ``SDARForCausalLM`` with random weights (two layers, 48 tokens), its paged cache, its torch-native attention
and its ``LowConfidence`` step, in float32 on a CPU; only the scheduler around them is ours
(``tests/support/sglang_server.py``). A run is one setting of block length, threshold, mode (``sync``, ``fdfo``), batch
and drafts. Forwards are those of the server. They are predicted from what the plain loop did, request by request
(``tests/support/sglang_runs.py``); informed drafts learn from what they see, so theirs are counted only.

Graphs: ``random`` ones of six drafts, and ``frequent`` ones of six, the states that the plain loop came by most often
on eight other prompts. A run that gives other tokens than the plain loop, or leaves something in a pool, or costs other
forwards than predicted, ends the script with an error. The other runtimes of the file are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import sglang_real
from tests.support.sglang_runs import (
    PlainBlock,
    draft_config,
    frequent_graph,
    plain_config,
    predicted,
    random_graph,
    recording,
)
from tests.support.sglang_server import Request, Server, blocks_of, schedule
from verify.drafters.file import DrafterFile, save_drafter
from verify.files.writing import write_atomically
from verify.runtimes.sglang import algorithm_class

SETTINGS = [(4, 0.3), (4, 0.9), (8, 0.4), (8, 0.7), (8, 1.0)]
DRAFTS, LIMIT, MASK = 6, 16, sglang_real.MASK


def main() -> None:
    """Run every setting and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "runtimes.json")
    out = parser.parse_args().out
    sglang_real.start()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run for size, threshold in SETTINGS for run in runs_of(size, threshold, Path(folder))]
    totals = [total(runs, drafts) for drafts in ("random", "frequent", "informed")]
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    found["sglang"] = {"versions": versions(), "drafts": DRAFTS, "tokens": LIMIT, "totals": totals, "runs": runs}
    with write_atomically(out) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for one in totals:
        print(one)


def runs_of(size: int, threshold: float, folder: Path) -> list[dict[str, Any]]:
    """The runs of one block length and threshold, in both modes, alone and in a batch, with every kind of drafts."""
    from sglang.srt.dllm.algorithm.low_confidence import LowConfidence

    prompts = prompts_of(size, 4)
    recorded = {tuple(prompt): record(size, threshold, prompt) for prompt in [*prompts, *prompts_of(99, 8)]}
    others = [block for prompt in prompts_of(99, 8) for block in recorded[tuple(prompt)]]
    graphs = {
        "random": random_graph(size, size, DRAFTS, single=threshold >= 1),
        "frequent": frequent_graph(others, DRAFTS),
    }
    drafter = folder / "drafter.json"
    save_drafter(DrafterFile(DRAFTS), drafter)
    runs = []
    for fdfo, batch in product((False, True), (1, 4)):
        part = prompts[:batch]
        plain_runner, plain = serve(LowConfidence(plain_config(size, threshold, MASK, fdfo=fdfo)), part, size)
        for drafts in (*graphs, "informed"):
            if drafts in graphs:
                config = draft_config(folder, graphs[drafts], size, threshold, MASK, fdfo=fdfo)
            else:
                config = plain_config(size, threshold, MASK, fdfo=fdfo, draftgraph_file=str(drafter))
            algorithm = algorithm_class()(config)
            runner, drafted = serve(algorithm, part, size)
            if [one.output for one in drafted] != [one.output for one in plain]:
                raise SystemExit(f"other tokens: blocks of {size}, threshold {threshold}, {drafts}, batch {batch}")
            run = {
                "block_length": size, "threshold": threshold, "mode": "fdfo" if fdfo else "sync", "batch": batch,
                "drafts": drafts, "forwards_plain": plain_runner.forwards, "forwards": runner.forwards,
                "blocks": algorithm.counts["blocks"], "adopted": algorithm.counts["adopted"],
                "draft_rows": algorithm.counts["drafts"],
            }  # fmt: skip
            if drafts in graphs:
                costs = []
                for prompt in part:
                    blocks = zip(blocks_of(prompt, LIMIT, size), recorded[tuple(prompt)], strict=True)
                    costs.append([(kind, predicted(block, graphs[drafts])[0]) for kind, block in blocks])
                run["forwards_predicted"], _ = schedule(costs, fdfo)
                if run["forwards_predicted"] != runner.forwards:
                    raise SystemExit(f"other forwards than predicted: {run}")
            runs.append(run)
    return runs


def serve(algorithm: Any, prompts: list[list[int]], size: int) -> tuple[Any, list[Request]]:
    """Run the prompts on a fresh server; refuses to go on when something is left in a pool."""
    runner = sglang_real.RealRunner(page_size=size, pages=120)
    pools = runner.token_to_kv_pool_allocator, runner.req_to_token_pool
    free = [pool.available_size() for pool in pools]
    requests = Server(runner, algorithm, sglang_real.make_batch).run(prompts, LIMIT)
    if free != [pool.available_size() for pool in pools]:
        raise SystemExit("a pool is not full after a run")
    return runner, requests


def record(size: int, threshold: float, prompt: list[int]) -> list[PlainBlock]:
    """What SGLang's own loop does with one prompt, block by block."""
    from sglang.srt.dllm.algorithm.low_confidence import LowConfidence

    recorder = recording(LowConfidence)(plain_config(size, threshold, MASK, fdfo=True))
    serve(recorder, [prompt], size)
    return recorder.blocks[:-1]


def prompts_of(seed: int, count: int) -> list[list[int]]:
    """Random prompts of 1 to 20 tokens."""
    rng = random.Random(seed)
    return [[rng.randrange(MASK) for _ in range(rng.randint(1, 20))] for _ in range(count)]


def total(runs: list[dict[str, Any]], drafts: str) -> dict[str, Any]:
    """The runs of one kind of drafts together."""
    mine = [run for run in runs if run["drafts"] == drafts]
    names = ("forwards_plain", "forwards_predicted", "forwards", "blocks", "adopted")
    return {"drafts": drafts, "runs": len(mine), "equal": len(mine)} | {
        name: sum(run[name] for run in mine) for name in names if name in mine[0]
    }


def versions() -> dict[str, str]:
    """Of what was run."""
    from importlib.metadata import version

    return {name: version(name) for name in ("sglang", "torch", "transformers")}


if __name__ == "__main__":
    main()
