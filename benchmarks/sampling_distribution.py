"""At temperature 1: do drafts change what is sampled? 10,000 short answers with and without drafts.

    python benchmarks/sampling_distribution.py [--samples 10000] [--out FILE]

A tiny random model (float32, block-causal, 19 tokens) answers one prompt with one block of four tokens, again and
again; the number of the sample keys the noise. Under two rules and Dream's order by chance:

* **Shared noise.** With drafts of a graph and without, under one seed, and for a fifth of the samples with informed
  drafts and with the graph, under another: every answer must be the same, token by token.
* **Independent noise.** Without drafts under one seed, with drafts under another, and a sampler written apart with
  noise of its own that knows neither loop nor policies: the pairs of tokens at every two positions must have one
  distribution, by a chi-square test of homogeneity. Cells that expect fewer than ten answers in both samples together
  are taken as one. The level is shared by all tests of a run (Bonferroni).

``least_difference`` states the power: pairs whose distributions differ by that much in total variation, in any way,
are told apart in 99 of 100 runs. ``mutants`` are samplers that are wrong, and must be told from the sampler written
apart: one whose noise stays the same in all steps of a block (its answers with and without drafts are the same, so
nothing else here would notice), and one of temperature 1.25. The exit code is 1 when anything is not as it must be.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the model is small
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2
from transformers import LlamaConfig, LlamaForCausalLM

from calibrate.files import write_json
from calibrate.models.hugging_face import HuggingFaceDenoiser
from calibrate.version import tool_version
from verify.decoding import DecodeConfig, DecodeResult, decode_batch
from verify.drafters.contract import Drafter
from verify.drafters.graph import GraphDrafter
from verify.drafters.informed import InformedDrafter
from verify.policies.contract import BlockView, Commits, Policy
from verify.policies.randomness import StepRandom
from verify.policies.specification import make_policy

VOCABULARY, MASK, BLOCK = 20, 1, 4
PROMPT = (5, 9, 13, 17)
LEVEL, POWER, LEAST_EXPECTED = 0.01, 0.99, 10
#: Every token of the first two positions among the best two, one after the other in both orders.
GRAPH = [((1, 1),), ((2, 1),), ((1, 2),), ((2, 2),), ((1, 1), (2, 1)), ((1, 1), (2, 2)), ((1, 2), (2, 1)), ((3, 1),)]


@dataclass(frozen=True)
class Case:
    """A rule, and what the sampler written apart knows of it.

    Attributes:
        spec: the rule.
        commits: which positions of a step are committed, bool [n, L]: made of the probabilities of the drawn tokens
            (float64 [n, L], 0 where nothing is masked), what is masked (bool [n, L]), the step from 1 on, and noise.
        top_p, top_k: of its sampling.
    """

    spec: str
    commits: Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
    top_p: float | None = None
    top_k: int | None = None


def _best(confidence: np.ndarray, masked: np.ndarray, step: int, random: np.random.Generator) -> np.ndarray:
    return np.arange(BLOCK) == confidence.argmax(axis=1)[:, None]


def _sure(confidence: np.ndarray, masked: np.ndarray, step: int, random: np.random.Generator) -> np.ndarray:
    return _best(confidence, masked, step, random) | (masked & (confidence >= 0.3))


def _by_chance(confidence: np.ndarray, masked: np.ndarray, step: int, random: np.random.Generator) -> np.ndarray:
    times = np.append(np.linspace(1, 1e-3, 4)[:-1], 0.0)  # three steps; the last one commits what is left
    return masked & (random.random(masked.shape) < 1 - times[min(step, 3)] / times[min(step, 3) - 1])


CASES = (
    Case("static:1@temperature=1", _best),
    Case("threshold:0.3@temperature=1,top_p=0.9,top_k=8", _sure, 0.9, 8),
    Case("dream:origin:3@temperature=1", _by_chance),
)


def tiny_model(seed: int = 0) -> HuggingFaceDenoiser:
    """Two layers, width 32, with weights large enough that neighbours matter."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, pad_token_id=None, bos_token_id=None,
        eos_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    return HuggingFaceDenoiser(LlamaForCausalLM(config).eval(), MASK)


# ---------------------------------------------------------------- samples


def sample(
    denoiser: HuggingFaceDenoiser, policy: Policy, samples: int, seed: int, drafter: Drafter, batch_size: int = 256
) -> tuple[np.ndarray, list[DecodeResult]]:
    """Answers of the project's own loop, int64 [n, L], and their books."""
    config = DecodeConfig(BLOCK, BLOCK, "block_causal", top_j=2, seed=seed)
    prompts = [(number, PROMPT) for number in range(samples)]
    found = dict(decode_batch(denoiser, prompts, policy, config, drafter, batch_size=batch_size))
    results = [found[number] for number in range(samples)]
    return np.array([result.tokens for result in results]), results


def sample_apart(denoiser: HuggingFaceDenoiser, case: Case, samples: int, seed: int) -> np.ndarray:
    """Answers of a sampler that shares nothing with the loop but the model, int64 [n, L]."""
    random = np.random.default_rng(seed)
    answers = np.full((samples, BLOCK), MASK)
    step = 0
    while (answers == MASK).any():
        step += 1
        states, which = np.unique(answers, axis=0, return_inverse=True)
        law = _laws(denoiser, states)
        left = law if case.top_p is None else np.array([[_narrow(row, case) for row in rows] for rows in law])
        reached = left.cumsum(axis=2)[which]
        drawn = random.random((samples, BLOCK, 1)) * reached[..., -1:]
        tokens = (reached > drawn).argmax(axis=2)
        masked = answers == MASK
        confidence = np.where(masked, np.take_along_axis(law[which], tokens[..., None], axis=2)[..., 0], 0.0)
        chosen = case.commits(confidence, masked, step, random) & masked
        answers[chosen] = tokens[chosen]
    return answers


@torch.inference_mode()
def _laws(denoiser: HuggingFaceDenoiser, states: np.ndarray) -> np.ndarray:
    """Token probabilities of every state, float64 [u, L, V], by a plain call over the whole sequence."""
    number = torch.arange(2 * BLOCK)
    visible = (number[None, :] // BLOCK <= number[:, None] // BLOCK)[None]
    rows = torch.from_numpy(np.concatenate([np.tile(PROMPT, (len(states), 1)), states], axis=1))
    parts = [
        denoiser(part, number[None].expand(len(part), -1), visible, logit_rows=number[BLOCK:])[0].double()
        for part in rows.split(2048)
    ]
    logits = torch.cat(parts).numpy()
    logits[:, :, MASK] = -np.inf
    weight = np.exp(logits - logits.max(axis=2, keepdims=True))
    return weight / weight.sum(axis=2, keepdims=True)


def _narrow(law: np.ndarray, case: Case) -> np.ndarray:
    """What ``top_p`` and then ``top_k`` leave of one distribution, float64 [V]; not normalised."""
    reached, left = 0.0, np.zeros_like(law)
    for count, token in enumerate(np.argsort(-law, kind="stable")):
        if (case.top_p is not None and reached > case.top_p) or count == case.top_k:
            break
        reached += law[token]
        left[token] = law[token]
    return left


@dataclass(frozen=True)
class Reusing:
    """A wrong sampler: every step of a block meets the noise of its first one."""

    inner: Policy

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        return self.inner.step(view, state, replace(rng, step=1))


# ---------------------------------------------------------------- the test


def homogeneity(one: np.ndarray, other: np.ndarray) -> tuple[float, int, float]:
    """Chi-square test that two samples of cells (int [n] and int [m]) have one distribution.

    Returns:
        the statistic, its degrees of freedom and the p-value; 0, 0 and 1 where there is one cell only.
    """
    cells = int(max(one.max(), other.max())) + 1
    counts = np.array([np.bincount(part, minlength=cells) for part in (one, other)], dtype=float)
    rare = counts.sum(axis=0) < LEAST_EXPECTED
    counts = np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), counts.shape[1] - 1
    return statistic, freedom, float(chi2.sf(statistic, freedom)) if freedom else 1.0


def least_difference(samples: int, freedom: int, level: float, power: float = POWER) -> float:
    """The total variation from which on two distributions are told apart by two samples with the given power.

    The statistic is non-central by ``n sum (p - q)^2 / (p + q)``, which by Cauchy's inequality is at least ``2 n``
    times the squared total variation, however the difference is spread over the cells.
    """
    if freedom == 0:  # one cell: nothing can be told apart
        return 1.0
    critical = chi2.isf(level, freedom)
    needed = brentq(lambda shift: ncx2.sf(critical, freedom, shift) - power, 1e-6, 1e5)
    return min(1.0, float(np.sqrt(needed / (2 * samples))))


def compare(one: np.ndarray, other: np.ndarray, level: float) -> dict[str, Any]:
    """The pairs of tokens at every two positions of two samples (int [n, L]); the worst p-value decides."""
    tests = []
    for first, second in combinations(range(BLOCK), 2):
        pairs = [part[:, first] * VOCABULARY + part[:, second] for part in (one, other)]
        tests.append(homogeneity(*pairs))
    statistic, freedom, p = min(tests, key=lambda test: test[2])
    return {
        "worst_p": p, "statistic": round(statistic, 2), "degrees_of_freedom": freedom,
        "least_difference": round(max(least_difference(len(one), test[1], level) for test in tests), 4),
        "one_distribution": p >= level,
    }  # fmt: skip


def tests_of_a_run(cases: int) -> int:
    """How many chi-square tests share the level: three comparisons of every rule, two mutants of the first."""
    return (3 * cases + 2) * len(list(combinations(range(BLOCK), 2)))


def measure(denoiser: HuggingFaceDenoiser, case: Case, samples: int, level: float) -> dict[str, Any]:
    """Both questions for one rule."""
    policy = make_policy(case.spec)
    graph, informed = GraphDrafter(GRAPH), InformedDrafter(6)
    plain, plainly = sample(denoiser, policy, samples, 1, GraphDrafter())
    shared, drafted = sample(denoiser, policy, samples, 1, graph)
    independent, _ = sample(denoiser, policy, samples, 2, graph)
    predicted, informedly = sample(denoiser, policy, -(-samples // 5), 2, informed)
    apart = sample_apart(denoiser, case, samples, 3)
    answers = {"plain": plainly, "graph": drafted, "informed": informedly}
    return {
        "policy": policy.spec,
        "distinct_answers": len(np.unique(plain, axis=0)),
        "forwards_per_answer": {
            name: round(sum(one.forwards for one in results) / len(results), 3) for name, results in answers.items()
        },
        "different_under_shared_noise": {
            "plain, graph": _different(plain, shared),
            "graph, informed": _different(independent[: len(predicted)], predicted),
        },
        "independent": {
            "plain, graph": compare(plain, independent, level),
            "plain, apart": compare(plain, apart, level),
            "graph, apart": compare(independent, apart, level),
        },
    }


def _different(one: np.ndarray, other: np.ndarray) -> int:
    return int((one != other).any(axis=1).sum())


def mutants(denoiser: HuggingFaceDenoiser, samples: int, level: float) -> dict[str, Any]:
    """Wrong samplers against the one written apart, under the first rule."""
    case = CASES[0]
    apart = sample_apart(denoiser, case, samples, 4)
    wrong: dict[str, Any] = {
        "noise of the first step": Reusing(make_policy(case.spec)),
        "temperature 1.25": make_policy(case.spec.replace("=1", "=1.25")),
    }
    return {
        name: compare(sample(denoiser, policy, samples, 5, GraphDrafter())[0], apart, level)
        for name, policy in wrong.items()
    }


def failures(rows: Iterable[dict[str, Any]], caught: dict[str, Any]) -> list[str]:
    """What is not as it must be, one line each."""
    wrong = []
    for row in rows:
        wrong += [f"{row['policy']}: {n} answers are not the same ({name})"
                  for name, n in row["different_under_shared_noise"].items() if n]  # fmt: skip
        wrong += [f"{row['policy']}: {name} differ, p = {found['worst_p']:.2g}"
                  for name, found in row["independent"].items() if not found["one_distribution"]]  # fmt: skip
    return wrong + [f"not told apart: {name}" for name, found in caught.items() if found["one_distribution"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every rule, write the file, say what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sampling_distribution.json")
    options = parser.parse_args(arguments)
    began, denoiser = time.process_time(), tiny_model()
    level = LEVEL / tests_of_a_run(len(CASES))
    rows = [measure(denoiser, case, options.samples, level) for case in CASES]
    caught = mutants(denoiser, options.samples, level)
    wrong = failures(rows, caught)
    facts = {
        "tool_version": tool_version(), "platform": platform.platform(), "torch": torch.__version__,
        "samples": options.samples, "level_of_a_run": LEVEL, "level_of_a_test": level, "power": POWER,
        "processor_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip
    write_json(options.out, {**facts, "rules": rows, "mutants": caught, "failures": wrong})
    for row in rows:
        print(
            row["policy"],
            row["different_under_shared_noise"],
            {name: one["worst_p"] for name, one in row["independent"].items()},
        )
    for line in wrong:
        print(line)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
