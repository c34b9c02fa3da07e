"""What informed drafts cost the host: time in the drafter's calls per forward and sequence, beside the forward itself.

    python benchmarks/informed_cost.py [--prompts 8] [--repeats 3] [--out FILE]

Held-out prompts are decoded by the bundled model (float32, one thread, one prompt at a time) with a drafter that times
its own calls: ``learn`` after every forward, ``propose`` before the next one, each right after the model has filled the
processor's caches with other things. Processor time, and of every call the smallest of the repeats: the decode is the
same every time, and other work on the machine only ever adds to it. ``propose_again_ms`` is the same proposal made once
more at once: without the model in between, and with the influences that the first call worked out. Compared with the
rest of the decode, spread over its forwards; nearly all of it is the model on this processor.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from calibrate.files import write_json
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.prompts.encoding import encode_prompts
from calibrate.prompts.source import load_prompt_set
from calibrate.version import tool_version
from verify.decoding import DecodeConfig, decode
from verify.drafters.contract import Evidence, Proposal, SequenceDrafter
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.policies.contract import Policy
from verify.policies.specification import make_policy
from verify.ranked import RankedBlocks

#: (policy, cache mode, block length)
CELLS = (("static:1", "dual", 32), ("threshold:0.9", "block_causal", 16))
BUDGETS = (5, 10, 16)
#: What is timed: the defaults, and every kind of fill at once, with the formulas of a graph of 16 nodes.
FILLED = InformedSettings(fill="alternatives+graph", width=2, follow=8, beyond=True)
GRAPH = [*(((i, 1),) for i in range(1, 7)), *(tuple((i, 1) for i in range(1, n)) for n in range(3, 9)),
         ((1, 2),), ((2, 2),), ((1, 1), (3, 1)), ((2, 1), (3, 1))]  # fmt: skip
GENERATION = 96


class Timed:
    """A drafter whose sequences note how long each of their calls took, in seconds."""

    def __init__(self, inner: InformedDrafter) -> None:
        self._inner = inner
        self.max_drafts, self.max_bridges = inner.max_drafts, inner.max_bridges
        self.max_vocabulary_rank = inner.max_vocabulary_rank
        self.learned: list[float] = []
        self.proposed: list[float] = []
        self.again: list[float] = []

    def for_sequence(self) -> TimedSequence:
        return TimedSequence(self._inner.for_sequence(), self)


class TimedSequence:
    """See :class:`Timed`."""

    def __init__(self, inner: SequenceDrafter, books: Timed) -> None:
        self._inner, self._books = inner, books
        self.remembers = inner.remembers

    def start_block(self) -> None:
        self._inner.start_block()

    def learn(self, states: np.ndarray, ranked: RankedBlocks, policy: Policy, mask_token_id: int) -> None:
        begin = time.process_time()
        self._inner.learn(states, ranked, policy, mask_token_id)
        self._books.learned.append(time.process_time() - begin)

    def propose(self, evidence: Evidence) -> Proposal:
        begin = time.process_time()
        proposal = self._inner.propose(evidence)
        again = time.process_time()
        self._inner.propose(evidence)
        self._books.proposed.append(again - begin)
        self._books.again.append(time.process_time() - again)
        return proposal


def measure(
    checkpoint: Checkpoint, cell: tuple[str, str, int], budget: int, settings: InformedSettings, prompts: list[Any],
    repeats: int,
) -> dict[str, Any]:  # fmt: skip
    """One row: mean milliseconds per forward of each call, and of the rest of the decode."""
    spec, cache, length = cell
    config = DecodeConfig(length, GENERATION, cache, end_token_ids=checkpoint.end_token_ids)
    learned, proposed, again, totals = [], [], [], []
    forwards = 0
    for _ in range(repeats):
        timed = Timed(InformedDrafter(budget, settings, GRAPH))
        begin = time.process_time()
        results = [
            decode(checkpoint.denoiser, prompt, make_policy(spec), config, timed, prompt_index=number)
            for number, prompt in enumerate(prompts)
        ]
        drafter = sum(timed.learned) + sum(timed.proposed) + sum(timed.again)
        totals.append(time.process_time() - begin - drafter)
        forwards = sum(result.forwards for result in results)
        learned.append(timed.learned)
        proposed.append(timed.proposed)
        again.append(timed.again)
    learn, propose, repeated = (
        float(np.min(calls, axis=0).sum()) / forwards * 1e3 for calls in (learned, proposed, again)
    )
    rest = min(totals) / forwards * 1e3
    return {
        "policy": spec,
        "cache": cache,
        "block_length": length,
        "budget": budget,
        "fill": settings.fill,
        "forwards": forwards,
        "learn_ms": round(learn, 4),
        "propose_ms": round(propose, 4),
        "propose_again_ms": round(repeated, 4),
        "drafter_ms": round(learn + propose, 4),
        "propose_ms_95th_percentile": round(float(np.percentile(np.min(proposed, axis=0), 95)) * 1e3, 4),
        "rest_of_a_forward_ms": round(rest, 3),
        "drafter_over_rest": round((learn + propose) / rest, 4),
    }


def main() -> int:
    """Measure every row and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=8, help="held-out prompts")
    parser.add_argument("--repeats", type=int, default=3, help="decodes of each; the smallest time stands")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "informed_cost.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = load_checkpoint("bundled")
    prompts = encode_prompts(
        load_prompt_set("bundled", "test", options.prompts), checkpoint.tokenizer, checkpoint.denoiser.vocabulary_size
    )
    rows = []
    for cell in CELLS:
        for budget in BUDGETS:
            for settings in (InformedSettings(), FILLED):
                rows.append(measure(checkpoint, cell, budget, settings, list(prompts), options.repeats))
                print(rows[-1], flush=True)
    write_json(
        options.out,
        {
            "what": "processor time of an informed drafter's calls per forward, beside the rest of the decode",
            "device": "cpu",
            "dtype": "float32",
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, one thread",
            "load_average_at_the_end": [round(load, 2) for load in os.getloadavg()],
            "model_revision": checkpoint.revision,
            "prompts": options.prompts,
            "repeats": options.repeats,
            "generation_length": GENERATION,
            "versions": {"draftgraph": tool_version(), "torch": torch.__version__, "numpy": np.__version__},
            "rows": rows,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
