"""Train the filter of ``learn2pd`` from traces: `python -m studies.learned_filter TRACES --out filter.safetensors`.

A trace of plain decoding says of every step what each masked position would have become there and then, and how sure
the model was; and what it became in the end. The filter learns, from the confidences of a whole block, at which
positions the two are the same. The published recipe collects them along a decode that commits whatever is right
already; here they come from recordings that are there anyway, of ``static:1`` at best, one prompt of five held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from calibrate.traces.table import TraceError, Traces, read_traces
from verify.files.writing import write_atomically
from verify.policies.learned import ARRAYS

#: Every so many prompts, one is held out.
HELD_OUT = 5

#: Steps in a batch, and the constants of AdamW.
BATCH = 256
MOMENTA = (0.9, 0.999)
DECAY = 0.01


@dataclass(frozen=True, eq=False)
class Examples:
    """What a filter is trained on; ``S`` steps of blocks of ``L`` positions.

    Attributes:
        confidences: float32 [S, L], of the top token of masked positions; 1 at committed ones.
        final: bool [S, L], whether the top token is what the position became in the end.
        masked: bool [S, L], where the two mean anything.
        prompt: int [S], the prompt's index.
    """

    confidences: np.ndarray
    final: np.ndarray
    masked: np.ndarray
    prompt: np.ndarray

    def select(self, steps: np.ndarray) -> Examples:
        """The ``steps`` (bool [S]) alone."""
        return Examples(self.confidences[steps], self.final[steps], self.masked[steps], self.prompt[steps])

    @classmethod
    def of(cls, traces: Traces) -> Examples:
        """The examples in ``traces``, of blocks of one length; a position that was never committed is never final."""
        if traces.metadata.get("schedule") is not None:
            raise TraceError(
                f"the traces were recorded under {traces.metadata['schedule']}; a filter needs blocks of one length, "
                "so record without --schedule"
            )
        length, steps = int(traces.metadata["block_length"]), traces.n_steps
        _, block = np.unique(np.stack([traces.prompt_index, traces.block]), axis=1, return_inverse=True)
        outcome = np.full((steps, length), -1, dtype=np.int64)  # one row per block, and there are fewer of them
        outcome[np.repeat(block, np.diff(traces.commit_ptr)), traces.commit_position] = traces.commit_token
        row, position = np.repeat(np.arange(steps), np.diff(traces.masked_ptr)), traces.masked_position
        confidences = np.ones((steps, length), dtype=np.float32)
        final, masked = np.zeros((steps, length), dtype=bool), np.zeros((steps, length), dtype=bool)
        confidences[row, position] = traces.top_probability[:, 0]
        final[row, position] = traces.top_token[:, 0] == outcome[block[row], position]
        masked[row, position] = True
        return cls(confidences, final, masked, traces.prompt_index)


def train(examples: Examples, epochs: int, rate: float = 0.003, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a filter (``verify.policies.learned.ARRAYS``), float32, trained on the masked positions.

    Binary cross-entropy by AdamW at the published recipe's rate, in batches of ``BATCH`` steps; the recipe takes all at
    once, up to 40000 times. Numpy is enough for some 2000 weights.
    """
    rng, length = np.random.default_rng(seed), examples.confidences.shape[1]
    bound = length**-0.5
    weights = [rng.uniform(-bound, bound, shape) for shape in ((length, length), (length,)) * 2]
    means, squares = ([np.zeros_like(one) for one in weights] for _ in range(2))
    updates = 0
    for _ in range(epochs):
        order = rng.permutation(len(examples.confidences))
        for low in range(0, len(order), BATCH):
            updates += 1
            for weight, gradient, mean, square in zip(
                weights, _gradients(weights, examples, order[low : low + BATCH]), means, squares, strict=True
            ):
                mean += (1 - MOMENTA[0]) * (gradient - mean)
                square += (1 - MOMENTA[1]) * (gradient**2 - square)
                step = mean / (1 - MOMENTA[0] ** updates)
                scale = np.sqrt(square / (1 - MOMENTA[1] ** updates)) + 1e-8
                weight -= rate * (step / scale + DECAY * weight)
    return {name: weight.astype(np.float32) for name, weight in zip(ARRAYS, weights, strict=True)}


def _gradients(weights: Sequence[np.ndarray], examples: Examples, steps: np.ndarray) -> list[np.ndarray]:
    """Of the mean loss over the masked positions of some ``steps`` (int [n]), in the order of ``weights``."""
    given, masked = examples.confidences[steps].astype(np.float64), examples.masked[steps]
    inner = np.maximum(given @ weights[0].T + weights[1], 0)
    share = 1 / (1 + np.exp(-np.clip(inner @ weights[2].T + weights[3], -500, 500)))
    wrong = (share - examples.final[steps]) * masked / max(1, masked.sum())
    back = (wrong @ weights[2]) * (inner > 0)
    return [back.T @ given, back.sum(axis=0), wrong.T @ inner, wrong.sum(axis=0)]


def measure(arrays: Mapping[str, np.ndarray], examples: Examples, tau: float) -> tuple[float, float]:
    """Which share of the masked positions passes the filter with ``tau``, and which share of these is final.

    NaN where there is nothing to have a share of.
    """
    inner = np.maximum(examples.confidences @ arrays[ARRAYS[0]].T + arrays[ARRAYS[1]], 0)
    odds = inner @ arrays[ARRAYS[2]].T + arrays[ARRAYS[3]]
    passed = odds[examples.masked] > np.log(tau) - np.log1p(-tau)
    final = examples.final[examples.masked][passed]
    return (float(passed.mean()) if len(passed) else np.nan, float(final.mean()) if len(final) else np.nan)


def write_filter(path: str | Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    """Write a filter with ``facts`` about it, whole or not at all."""
    from safetensors.numpy import save_file

    with write_atomically(path) as temporary:
        save_file({name: np.ascontiguousarray(arrays[name]) for name in ARRAYS}, temporary, metadata=dict(facts))
        temporary.chmod(0o644)


def main(
    traces: Annotated[Path, typer.Argument(help="A folder of recorded traces.", metavar="TRACES")],
    out: Annotated[Path, typer.Option(help="The filter, as safetensors.")],
    epochs: Annotated[int, typer.Option(help="Passes over all examples.", min=1)] = 50,
    tau: Annotated[float, typer.Option(help="The bound that the held-out shares are given for.")] = 0.96,
    seed: Annotated[int, typer.Option(help="Of the first weights.")] = 0,
) -> None:
    """Train a filter for the policy learn2pd:FILE, and say what it does on prompts held out."""
    recorded = read_traces(traces)
    examples = Examples.of(recorded)
    held_out = np.isin(examples.prompt, np.unique(examples.prompt)[::HELD_OUT])
    if held_out.all():
        raise typer.BadParameter(f"{traces} has one prompt, expected at least two: one of them is held out")
    arrays = train(examples.select(~held_out), epochs, seed=seed)
    passed, final = measure(arrays, examples.select(held_out), tau)
    facts = {name: str(recorded.metadata[name]) for name in ("model", "model_revision", "policy", "block_length")}
    facts |= {"format": "draftgraph-filter", "version": "1", "trace_hash": recorded.trace_hash()}
    facts |= {"epochs": str(epochs), "seed": str(seed)}
    write_filter(out, arrays, facts)
    typer.echo(f"{out}: of the masked positions held out {passed:.1%} pass at {tau:g}; {final:.1%} of these are final")


if __name__ == "__main__":
    typer.run(main)
