"""The file of ``draftgraph verify --out``: what speculation and other ways of decoding changed, prompt by prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from figures.records.record import check_interval, load_record
from verify.files.strict_json import Words, fail
from verify.files.typed_json import Amount, Count, Name, Positive

BATCH, DRAFTS = "batch", "drafts"
TOKENS: Final = "tokens"
PATH: Final = "path"

Measure = Literal["tokens", "path"]
WayVerdict = Literal["more", "fewer", "cannot be told apart"]


@dataclass(frozen=True)
class Way:
    """One way of decoding against the reference.

    Attributes:
        arm: its name.
        label: what it is called in tables and figures.
        batch: sequences per forward.
        prompts: decoded.
        tokens_differ: prompts whose tokens differ; ``path_parts``: prompts whose path does. ``*_low`` and ``*_high``
            are the ends of the exact 95 % interval of the share.
        token_agreement: share of the generated tokens that are those of the reference, place by place, with its 95 %
            interval over prompts; None with fewer than two prompts.
        forwards, rows: over all prompts.
        seconds: wall time.
    """

    arm: Name
    label: Name
    batch: Positive
    prompts: Positive
    tokens_differ: Count
    tokens_differ_low: Amount
    tokens_differ_high: Amount
    path_parts: Count
    path_parts_low: Amount
    path_parts_high: Amount
    token_agreement: Amount
    forwards: Count
    rows: Count
    seconds: Amount
    token_agreement_low: Amount | None = None
    token_agreement_high: Amount | None = None

    def check(self, where: str) -> None:
        """Refuse more prompts that differ than prompts, and intervals the wrong way round."""
        for name in ("tokens_differ", "path_parts"):
            if getattr(self, name) > self.prompts:
                fail(f"{where}.{name}", f"at most {self.prompts} prompts", getattr(self, name))
        for name in ("tokens_differ", "path_parts", "token_agreement"):
            check_interval(getattr(self, f"{name}_low"), getattr(self, f"{name}_high"), name, where)

    @property
    def tokens(self) -> tuple[int, float, float]:
        """Prompts whose tokens differ, and the interval of their share."""
        return self.tokens_differ, self.tokens_differ_low, self.tokens_differ_high

    @property
    def path(self) -> tuple[int, float, float]:
        """Prompts whose path parts, and the interval of their share."""
        return self.path_parts, self.path_parts_low, self.path_parts_high


@dataclass(frozen=True)
class WayComparison:
    """Two ways on the same prompts.

    Attributes:
        first, second: their names.
        measure: "tokens" or "path".
        only_first, only_second: prompts that only the one of them changes.
        p_value: of the exact McNemar test; 1 when there is no such prompt.
        verdict: whether the first changes "more" or "fewer" prompts than the second, or the two "cannot be told apart"
            at the 5 % level, which does not prove that they are equal.
    """

    first: Name
    second: Name
    measure: Measure
    only_first: Count
    only_second: Count
    p_value: Amount
    verdict: WayVerdict


@dataclass(frozen=True)
class DivergenceRow:
    """Where one prompt's path parts under one way (:class:`studies.divergence.divergences.Divergence`).

    Attributes:
        arm: the way.
        tokens_differ: whether the tokens differ in the end too.
    """

    arm: Name
    prompt_index: Count
    block: Count
    step: Count
    kind: Name
    position: Count
    other_position: Count | None
    margin: Amount | None
    noise: Amount
    tokens_differ: bool


@dataclass(frozen=True)
class DivergenceFile:
    """Everything that was found.

    Attributes:
        dtype: of the model.
        prompts: decoded.
        reference_forwards: of plain decoding at batch 1.
        arms: the ways of decoding.
        divergences: of all ways; a way and prompt without one never parts.
        decisions: decisions of the reference that have a margin.
        decision_margin_quantiles: of their margins, evenly spaced from 0 to 1; empty where there are none.
        comparisons: of ways.
        config: what was decoded and how.
        sentence: the verdict.
    """

    FORMAT: ClassVar[str] = "draftgraph-divergence"

    dtype: Name
    prompts: Count
    arms: tuple[Way, ...]
    divergences: tuple[DivergenceRow, ...]
    decisions: Count
    decision_margin_quantiles: tuple[Amount, ...]
    comparisons: tuple[WayComparison, ...] = ()
    reference_forwards: Count = 0
    config: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""

    def check(self, where: str) -> None:
        """Refuse no way or one twice, divergences of other ways, quantiles that do not ascend."""
        names = [way.arm for way in self.arms]
        if not names:
            fail("arms", "at least one way of decoding", Words("none"))
        if len(set(names)) != len(names):
            fail("arms", "each way once", names)
        for index, row in enumerate(self.divergences):
            if row.arm not in names:
                fail(f"divergences[{index}].arm", f"one of the ways {', '.join(names)}", row.arm)
        if list(self.decision_margin_quantiles) != sorted(self.decision_margin_quantiles):
            fail("decision_margin_quantiles", "ascending numbers", Words("others"))

    def way(self, name: str) -> Way | None:
        """The way called ``name``."""
        return next((way for way in self.arms if way.arm == name), None)

    def margins(self, name: str) -> list[float]:
        """Margins of the divergences of a way that have one, ascending."""
        return sorted(row.margin for row in self.divergences if row.arm == name and row.margin is not None)

    def verdict(self, measure: str) -> WayVerdict | None:
        """Whether speculation changes more or fewer prompts than batching, or cannot be told apart; None if unknown."""
        return next(
            (
                found.verdict
                for found in self.comparisons
                if (found.first, found.second, found.measure) == (DRAFTS, BATCH, measure)
            ),
            None,
        )


def load_divergence(path: str | Path) -> DivergenceFile:
    """Read a file of ``draftgraph verify --out``.

    Raises:
        FigureDataError: no such file, another format, no way of decoding or one twice, more prompts that differ than
            prompts, an interval the wrong way round, or a divergence of a way that is not there.
    """
    return load_record(DivergenceFile, path)
