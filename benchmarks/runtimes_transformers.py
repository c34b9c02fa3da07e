"""Drafts through transformers' own ``generate``, and through the function with Fast-dLLM's arguments: equal? predicted?

    python benchmarks/runtimes_transformers.py [--out FILE] [--quick]

* ``transformers``: on a tiny random checkpoint of every family that is loaded, and on the bundled model, prompts are
  decoded by ``model.generate(..., custom_generate=draftgraph_generate)``: plainly, with a graph that greedy search
  found on other prompts, and with informed drafts. Tokens must be those of plain decoding, and the forwards counted
  those that a replay predicts: of plain traces for graphs, of a state log for informed drafts.
* ``fast_dllm``: the dual-cache loop of Fast-dLLM, written from its description (``tests/support/published_loops.py``),
  is the plain side: its tokens, and the forwards that it counts at commit 24cc59e and at f6b35ec.

Each becomes one key of the result file; other keys of it are kept. The exit code is 1 when any token or any count
differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the models are small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_for
from calibrate.prompts.source import load_prompt_set
from calibrate.recording.builder import TraceBuilder
from calibrate.recording.states import StateLogBuilder, state_facts
from calibrate.traces.state_log import states_of_table
from calibrate.traces.table import Traces
from calibrate.version import tool_version
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.runtime_replay import runtime_count
from drafting.searches.greedy import greedy
from drafting.state_replay import replay_states
from drafting.trie import PrefixTrie
from tests.support import published_loops
from tests.support.families import NATIVE, save
from verify.decoding import DecodeConfig, Drafts, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.graph.formulas import Formula
from verify.policies.specification import make_policy
from verify.runtimes.fast_dllm import generate_with_dual_cache
from verify.runtimes.profiles import find_profile
from verify.runtimes.transformers import draftgraph_generate

OUT = Path(__file__).resolve().parent / "results" / "runtimes.json"
Prompts = Sequence[Sequence[int]]

#: Family, cache mode, back-end, policy; blocks of 8, two of them.
FAMILIES = (
    ("llada", "dual", "packed", "threshold:0.9"),
    ("llada", "none", "expanded", "static:1"),
    ("dream", "dual", "packed", "static:1"),
    ("dream", "prefix", "expanded", "threshold:0.9"),
    ("sdar", "block_causal", "packed", "dynamic:0.9"),
    ("llada2", "block_causal", "packed", "static:1"),
    ("qwen3", "dual", "packed", "threshold:0.9"),
    ("qwen3", "block_causal", "packed", "static:1"),
)
#: Cache mode, policy, block length of the bundled model; 96 tokens.
BUNDLED = (("dual", "static:1", 32), ("dual", "threshold:0.9", 32), ("block_causal", "static:1", 8))
FAST = ("threshold:0.02", "threshold:0.35", "threshold:0.9", "steps:24", "steps:9")
DRAFTS = 8


def tiny_prompts(first: int, count: int) -> list[tuple[int, ...]]:
    """Prompts of 3 to 11 tokens, none of them an end or a mask token."""
    return [tuple(3 + (7 * k + 5 * r) % 50 for r in range(3 + k % 9)) for k in range(first, first + count)]


def observed(checkpoint: Checkpoint, prompts: Prompts, spec: str, config: DecodeConfig) -> tuple[Traces, Any]:
    """The traces of plain decodes, and their results by prompt."""
    builder, policy = TraceBuilder(), make_policy(spec)
    plain = dict(decode_batch(checkpoint.denoiser, list(enumerate(prompts)), policy, config, observer=builder))
    return builder.build(), plain


def searched(checkpoint: Checkpoint, prompts: Prompts, spec: str, config: DecodeConfig) -> list[Formula]:
    """The greedy graph of some prompts."""
    traces, _ = observed(checkpoint, prompts, spec, config)
    anchors = AnchorTable.from_traces(traces, max_depth=None)
    return list(greedy(PrefixTrie.from_anchors(anchors), DRAFTS).nodes)


def informed_prediction(checkpoint: Checkpoint, prompts: Prompts, spec: str, config: DecodeConfig) -> list[int]:
    """Forwards by prompt that the replay of a state log predicts for informed drafts."""
    drafter, watching, policy = InformedDrafter(DRAFTS), StateLogBuilder(), make_policy(spec)
    list(
        decode_batch(
            checkpoint.denoiser, list(enumerate(prompts)), policy, config, drafter, observer=watching,
            forward_observer=watching,
        )
    )  # fmt: skip
    facts = state_facts(checkpoint, policy, config, prompts, drafter)
    counted = replay_states(states_of_table(watching.table(range(len(prompts))), facts), drafter)
    return counted.forwards_per_prompt.tolist() if counted.exact else []


def generated(
    checkpoint: Checkpoint, prompt: Sequence[int], spec: str, config: DecodeConfig, drafts: Drafts
) -> tuple[list[int], int, int]:
    """Tokens behind the prompt, forwards and steps of one call of ``generate``."""
    found = checkpoint.denoiser.model.generate(
        torch.tensor([list(prompt)]), max_new_tokens=config.generation_length, custom_generate=draftgraph_generate,
        drafts=drafts, policy=spec, cache=config.cache, block_length=config.block_length, backend=config.backend,
        mask_token_id=checkpoint.mask_token_id, logits_shift=checkpoint.denoiser.logits_shift, do_sample=False,
        eos_token_id=list(config.end_token_ids) or None, pad_token_id=0, return_dict_in_generate=True,
    )  # fmt: skip
    return found.sequences[0, len(prompt) :].tolist(), found.forwards.item(), found.steps.item()


def through_generate(
    name: str, checkpoint: Checkpoint, prompts: Prompts, nodes: list[Formula], spec: str, config: DecodeConfig
) -> list[dict[str, Any]]:
    """One row: every prompt plainly, with the graph and with informed drafts."""
    traces, plain = observed(checkpoint, prompts, spec, config)
    predicted = {
        "graph": replay(nodes, AnchorTable.from_traces(traces, max_depth=None)).forwards_per_prompt.tolist(),
        "informed": informed_prediction(checkpoint, prompts, spec, config),
    }
    rows = []
    for kind, drafts in (("graph", nodes), ("informed", InformedDrafter(DRAFTS))):
        counted, equal, before = [], 0, 0
        for index, prompt in enumerate(prompts):
            tokens, forwards, steps = generated(checkpoint, prompt, spec, config, ())
            expected = plain[index].tokens[: plain[index].end + 1][: config.generation_length]
            assert tokens == expected and forwards == steps == plain[index].forwards
            fast, forwards, steps = generated(checkpoint, prompt, spec, config, drafts)
            equal += fast == tokens and steps == plain[index].steps
            counted.append(forwards)
            before += plain[index].forwards
        rows.append(
            {
                "model": name, "model_revision": checkpoint.revision, "cache": config.cache,
                "backend": config.backend, "policy": spec,
                "block_length": config.block_length, "drafts": f"{kind}, {DRAFTS}", "runs": len(prompts),
                "tokens_identical": equal, "forwards_plain": before, "forwards_counted": sum(counted),
                "forwards_predicted": sum(predicted[kind]), "as_predicted": counted == predicted[kind],
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def transformers_rows(quick: bool) -> list[dict[str, Any]]:
    """Every family, then the bundled model."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for family, cache, backend, spec in FAMILIES[: 2 if quick else None]:
            checkpoint = load_checkpoint(save(family, Path(folder) / family, seed=3))
            assert type(checkpoint.denoiser.model).__name__ == NATIVE[family][0]
            config = DecodeConfig(8, 16, cache, backend, top_j=4)
            nodes = searched(checkpoint, tiny_prompts(20, 6), spec, config)
            name = f"tiny {family} ({NATIVE[family][0]})"
            rows += through_generate(name, checkpoint, tiny_prompts(0, 2 if quick else 6), nodes, spec, config)
    if not quick:
        checkpoint = load_checkpoint("bundled")
        for cache, spec, length in BUNDLED:
            config = DecodeConfig(length, 96, cache, end_token_ids=checkpoint.end_token_ids)
            some = [
                encode_for(checkpoint, load_prompt_set("bundled", *part)) for part in (("calibration", 12), ("test", 6))
            ]
            nodes = searched(checkpoint, some[0], spec, config)
            rows += through_generate("bundled", checkpoint, some[1], nodes, spec, config)
    return rows


def fast_dllm_rows(quick: bool) -> list[dict[str, Any]]:
    """Every rule, counted as at both commits."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = load_checkpoint(save("llada", Path(folder) / "llada", seed=3))
        model, mask = checkpoint.denoiser.model, checkpoint.mask_token_id
        config, prompts = DecodeConfig(8, 24, "dual", top_j=4), tiny_prompts(0, 2 if quick else 8)
        for rule in FAST[: 2 if quick else None]:
            kind, _, value = rule.partition(":")
            threshold = float(value) if kind == "threshold" else None
            steps = int(value) if kind == "steps" else 24
            spec = rule if threshold is not None else f"low_confidence:{steps // 3}/8"
            nodes = searched(checkpoint, tiny_prompts(20, 6), spec, config)
            traces, _ = observed(checkpoint, prompts, spec, config)
            for name, looks_first in (("fast-dllm", False), ("fast-dllm-f6b35ec", True)):
                profile = find_profile(name)
                predicted = runtime_count(nodes, traces, profile)
                equal, before, counted = 0, [], []
                for prompt in prompts:
                    each = None if threshold is not None else steps // 3
                    tokens, calls = published_loops.fast_dllm(
                        model, mask, prompt, 24, 8, "dual", threshold, each, looks_first
                    )
                    x, nfe = generate_with_dual_cache(
                        model, torch.tensor([prompt]), steps=steps, gen_length=24, block_length=8, mask_id=mask,
                        threshold=threshold, drafts=nodes, least_forwards=profile.least_per_block,
                    )  # fmt: skip
                    equal += x[0].tolist() == tokens
                    before.append(calls)
                    counted.append(nfe)
                rows.append(
                    {
                        "counted_as": name, "rule": rule, "runs": len(prompts), "drafts": f"graph, {DRAFTS}",
                        "tokens_identical": equal, "forwards_plain": sum(before), "forwards_counted": sum(counted),
                        "forwards_plain_predicted": predicted.plain_forwards,
                        "forwards_predicted": predicted.forwards,
                        "as_predicted": predicted.plain_per_prompt.tolist() == before
                        and predicted.forwards_per_prompt.tolist() == counted,
                    }
                )  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The totals of some rows, before them."""
    totals = {
        name: sum(row[name] for row in rows)
        for name in ("runs", "tokens_identical", "forwards_plain", "forwards_counted", "forwards_predicted")
    }
    return {
        "device": "cpu", "dtype": "float32", "machine": f"{platform.system()} {platform.machine()}, one thread",
        "versions": {
            "draftgraph": tool_version(), "transformers": transformers.__version__, "torch": torch.__version__,
        },
        **totals, "as_predicted": all(row["as_predicted"] for row in rows), "rows": rows,
    }  # fmt: skip


def main() -> int:
    """Run both parts and write them beside what the file holds already."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="a few runs only, to see that it runs")
    options = parser.parse_args()
    found = {
        "transformers": summary(transformers_rows(options.quick)), "fast_dllm": summary(fast_dllm_rows(options.quick)),
    }  # fmt: skip
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {**kept, **found})
    good = all(one["tokens_identical"] == one["runs"] and one["as_predicted"] for one in found.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
