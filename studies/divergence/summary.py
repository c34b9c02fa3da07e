"""Does speculation change more than batching does? Shares of prompts, their intervals, a paired test, one sentence.

Two things are counted per prompt: whether the *tokens* differ in the end, and whether the *path* parts anywhere (some
divergences heal). The unit is the prompt. A share of prompts has the exact binomial interval (Clopper-Pearson), which
also says how much none of 48 still allows; the share of equal tokens, a ratio of sums, is resampled by prompt.
Speculation and batching decode the same prompts, so they are compared in pairs: the exact McNemar test looks at the
prompts that only one of the two changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import binomtest

from figures.records.divergence import PATH, TOKENS, Measure, WayComparison, WayVerdict
from studies.divergence.arms import ARMS, BATCH, BLANK, DRAFTS, REPEAT, ArmRun, Reference
from studies.divergence.divergences import Divergence, decision_margins
from studies.statistics.intervals import LEVEL, PromptBootstrap
from studies.statistics.shares import Share
from verify.policies.contract import Policy

SIGNIFICANT = 1 - LEVEL
MORE: Final = "more"
FEWER: Final = "fewer"
NEITHER: Final = "cannot be told apart"


@dataclass(frozen=True, eq=False)
class Arm:
    """What one way of decoding changed.

    Attributes:
        name, label: of the way.
        batch: sequences per forward.
        tokens_differ, path_parts: per prompt.
        token_agreement: share of the generated tokens that are those of the reference, place by place.
        token_agreement_low, token_agreement_high: its 95 % interval over prompts; None with fewer than two prompts.
        forwards, rows: over all prompts.
        seconds: wall time.
        divergences: by prompt, ascending.
    """

    name: str
    label: str
    batch: int
    tokens_differ: list[bool]
    path_parts: list[bool]
    token_agreement: float
    token_agreement_low: float | None
    token_agreement_high: float | None
    forwards: int
    rows: int
    seconds: float
    divergences: list[Divergence]

    def flags(self, measure: Measure) -> list[bool]:
        return self.tokens_differ if measure == TOKENS else self.path_parts

    def share(self, measure: Measure) -> Share:
        return Share.of(self.flags(measure))

    def margins(self) -> np.ndarray:
        """Margins of all divergences that have one: float64, ascending."""
        return np.sort([divergence.margin for divergence in self.divergences if divergence.margin is not None])


def compare(first: Arm, second: Arm, measure: Measure) -> WayComparison:
    """The exact McNemar test: among prompts that one of the two changes and the other does not, is either likelier?"""
    pairs = list(zip(first.flags(measure), second.flags(measure), strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    together = only_first + only_second
    p_value = float(binomtest(only_first, together).pvalue) if together else 1.0
    verdict: WayVerdict = NEITHER
    if p_value < SIGNIFICANT:
        verdict = MORE if only_first > only_second else FEWER
    return WayComparison(first.name, second.name, measure, only_first, only_second, p_value, verdict)


@dataclass(frozen=True, eq=False)
class DivergenceReport:
    """Everything that was found, for a person and for a file.

    Attributes:
        dtype: of the model.
        prompts: decoded.
        reference_forwards: of plain decoding at batch 1.
        arms: in the order of ``ARMS``.
        comparisons: speculation against batching and against blank drafts, blank drafts against batching.
        decision_margins: of every decision of the reference that has a margin, ascending.
    """

    dtype: str
    prompts: int
    reference_forwards: int
    arms: tuple[Arm, ...]
    comparisons: tuple[WayComparison, ...]
    decision_margins: np.ndarray

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def comparison(self, first: str, second: str, measure: Measure) -> WayComparison:
        wanted = (first, second, measure)
        return next(found for found in self.comparisons if (found.first, found.second, found.measure) == wanted)

    @property
    def sentence(self) -> str:
        """The verdict on tokens, and on paths where these part more often."""
        repeat = self.arm(REPEAT)
        said = [self._verdict(TOKENS)]
        if any(arm.share(PATH).count > arm.share(TOKENS).count for arm in self.arms):
            said.append(self._verdict(PATH))
        if any(repeat.path_parts):
            said.append(
                f"Plain decoding does not even repeat itself in {repeat.share(PATH)} prompts: the device is not "
                "deterministic, and the other numbers hold that too."
            )
        return " ".join(said)

    def _verdict(self, measure: Measure) -> str:
        drafts, batch = self.arm(DRAFTS), self.arm(BATCH)
        found = self.comparison(DRAFTS, BATCH, measure)
        ours, theirs = drafts.share(measure), batch.share(measure)
        does = "changes the tokens of" if measure == TOKENS else "leaves the path of plain decoding, healed or not, in"
        also = "of" if measure == TOKENS else "in"
        head = (
            f"speculation {does} {ours} prompts, batching alone (batch {batch.batch} against 1) {also} {theirs.count}"
        )
        head = f"In {self.dtype} {head}" if measure == TOKENS else head[0].upper() + head[1:]
        if ours.count == theirs.count == 0:
            most = f"{100 * ours.high:.1f} %"
            return f"{head}: neither was seen, and up to {most} of prompts may still change (95 % interval)."
        test = f"exact McNemar test, p = {_p(found.p_value)}"
        if found.verdict == NEITHER:
            return f"{head}; the two cannot be told apart ({test})."
        return f"{head}: {found.verdict} than batching ({test})."


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def label_of(name: str, batch: int) -> str:
    """What a way is called in tables and figures."""
    return {
        REPEAT: "plain again",
        BATCH: f"plain, batch {batch}",
        BLANK: "blank drafts",
        DRAFTS: "speculation",
    }[name]


def summarise(dtype: str, policy: Policy, reference: Reference, runs: Iterable[ArmRun]) -> DivergenceReport:
    """Count, compare and bound what ``runs`` changed."""
    by_name = {run.name: _arm(reference, run) for run in runs}
    arms = tuple(by_name[name] for name in ARMS if name in by_name)
    wanted = [(DRAFTS, BATCH), (DRAFTS, BLANK), (BLANK, BATCH)]
    comparisons = [
        compare(by_name[first], by_name[second], measure)
        for first, second in wanted
        if first in by_name and second in by_name
        for measure in (TOKENS, PATH)
    ]
    decisions = [
        decision for prompt_index in sorted(reference.decisions) for decision in reference.decisions[prompt_index]
    ]
    return DivergenceReport(
        dtype=dtype,
        prompts=len(reference.results),
        reference_forwards=sum(result.forwards for result in reference.results),
        arms=arms,
        comparisons=tuple(comparisons),
        decision_margins=np.sort(decision_margins(decisions, policy)),
    )


def _arm(reference: Reference, run: ArmRun) -> Arm:
    pairs = list(zip(reference.results, run.results, strict=True))
    equal = np.array([sum(a == b for a, b in zip(ours.tokens, got.tokens, strict=False)) for ours, got in pairs])
    places = np.array([max(len(ours.tokens), len(got.tokens)) for ours, got in pairs])
    low: float | None = None
    high: float | None = None
    if len(pairs) > 1:
        interval = PromptBootstrap(len(pairs)).ratio(equal, places)
        low, high = interval.low, interval.high
    return Arm(
        name=run.name,
        label=label_of(run.name, run.batch),
        batch=run.batch,
        tokens_differ=[ours.tokens != got.tokens for ours, got in pairs],
        path_parts=[prompt_index in run.divergences for prompt_index in range(len(pairs))],
        token_agreement=float(equal.sum() / places.sum()),
        token_agreement_low=low,
        token_agreement_high=high,
        forwards=sum(result.forwards for result in run.results),
        rows=sum(result.query_tokens for result in run.results),
        seconds=run.seconds,
        divergences=[run.divergences[prompt_index] for prompt_index in sorted(run.divergences)],
    )
