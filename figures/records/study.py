"""``study.json``: the trials of an Optuna study, what they are compared with, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from figures.records.record import check_interval, check_pair, load_record
from figures.records.run import PUBLISHED, Split
from figures.records.words import facts
from verify.files.strict_json import Words, fail
from verify.files.typed_json import NOT_SAVED, Amount, Count, Name, Positive

#: The name of the file in the folder of a study.
STUDY_NAME = "study.json"
OPTUNA = "optuna"
MINIMIZE, MAXIMIZE = "minimize", "maximize"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: of the trial.
        state: "complete", "pruned", or how it failed.
        values: one per objective; empty where it failed.
        params: of the constructor, and the budget where that is one.
        value: the only one of a study of one objective.
        seconds: it took.
        warm_start: the known graph it began from, None for trials of the sampler.
        prompts_seen: before it was pruned.
    """

    number: Count
    state: Name
    values: tuple[float, ...]
    params: dict[str, Any] = field(default_factory=dict)
    value: float | None = None
    seconds: Amount | None = None
    warm_start: Name | None = None
    prompts_seen: Count | None = None


@dataclass(frozen=True)
class BestTrial:
    """The best trial of one objective; ``nodes`` of its graph in the order chosen, ``complete`` if as many as asked."""

    number: Count
    value: float
    params: dict[str, Any]
    nodes: tuple[tuple[tuple[Positive, Positive], ...], ...]
    complete: bool
    warm_start: Name | None = None


@dataclass(frozen=True)
class StudyRow:
    """One method at one budget on the folds ("validation") or on test prompts; intervals on test prompts only."""

    method: Name
    budget: Count
    split: Split
    forwards_plain: Positive
    forwards: Positive
    nfe_reduction: Amount
    nfe_reduction_low: Amount | None = None
    nfe_reduction_high: Amount | None = None
    accepted_drafts_low: Amount | None = None
    accepted_drafts_high: Amount | None = None

    def check(self, where: str) -> None:
        """Refuse intervals the wrong way round."""
        for name in ("nfe_reduction", "accepted_drafts"):
            check_interval(getattr(self, f"{name}_low"), getattr(self, f"{name}_high"), name, where)


@dataclass(frozen=True)
class Verdict:
    """Optuna's graph against another on test prompts: paired difference in nfe reduction over all budgets.

    ``by_budget`` holds the same for each budget alone, with the budget.
    """

    against: Name
    difference: float
    interval: tuple[float, float]
    prompts: Count
    contains_zero: bool
    sentence: Name
    level: Amount = 0.95
    distinguishable: bool | None = None
    forwards_ratio: Amount | None = None
    by_budget: tuple[dict[str, Any], ...] = ()

    def check(self, where: str) -> None:
        """Refuse an interval the wrong way round."""
        check_pair(self.interval, f"{where}.interval")


@dataclass(frozen=True)
class Axis:
    """One of two objectives: what it is, which direction is better, its unit, and the domain it is measured on."""

    name: Name
    direction: Literal["minimize", "maximize"]
    unit: Name
    domain: Name | None = None


@dataclass(frozen=True)
class FrontPoint:
    """One graph of a front: values on held-out prompts of the folds, and on test prompts where there are.

    Optuna's own points state the trial and its parameters, those of fixed methods the gap to the bound.
    """

    method: Name
    values: tuple[Amount, Amount]
    budget: Count | None = None
    test_values: tuple[Amount, Amount] | None = None
    number: Count | None = None
    params: dict[str, Any] | None = None
    gap: Amount | None = None


@dataclass(frozen=True)
class StudyFile:
    """A study. Of one objective it has a best trial, baselines and comparisons; of two it has axes and a front.

    Attributes:
        trials: in order.
        search_prompts, test_prompts: how many.
        name, trace_hash, config, run: which study, over what, how.
        importances: per objective, the share of each parameter.
        baselines: fixed methods and Optuna, per budget and split.
        comparisons: Optuna against every fixed method, by its name.
        pareto: Optuna's front and those of the fixed methods.
        path: where it was read from.
    """

    FORMAT: ClassVar[str] = "draftgraph-study"

    trials: tuple[Trial, ...]
    search_prompts: Count
    test_prompts: Count
    name: str = ""
    trace_hash: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    optuna_version: str = ""
    objective: Name | None = None
    best: BestTrial | None = None
    importances: tuple[dict[str, Amount], ...] = ()
    baselines: tuple[StudyRow, ...] = ()
    comparisons: dict[str, Verdict] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    pareto: tuple[FrontPoint, ...] = ()
    path: Path = field(default=Path(), metadata=NOT_SAVED, compare=False)

    def check(self, where: str) -> None:
        """Refuse no trials, one axis alone, and trials with other numbers of values than objectives."""
        if not self.trials:
            fail("trials", "at least one finished trial", Words("none"))
        if len(self.axes) not in (0, 2):
            fail("axes", "two axes, or none for a study of one objective", Words(str(len(self.axes))))
        objectives = max(1, len(self.axes))
        for index, trial in enumerate(self.trials):
            if trial.values and len(trial.values) != objectives:
                fail(f"trials[{index}].values", f"{objectives} values", list(trial.values))

    def verdicts(self) -> list[Verdict]:
        """Against every fixed method, in the order of the file."""
        return list(self.comparisons.values())

    def about(self) -> str:
        """Model, policy and cache as a sentence; empty where the study does not say."""
        return facts(self.run, ("model", "policy", "cache"))


def load_study(path: str | Path) -> StudyFile:
    """Read a ``study.json`` (the file, or the directory it lies in).

    Raises:
        FigureDataError: no such file, another format, no trials, a field missing or of another type.
    """
    path = Path(path)
    path = path / STUDY_NAME if path.is_dir() else path
    return replace(load_record(StudyFile, path), path=path)


def one_reading(methods: list[str], score: dict[str, float]) -> list[str]:
    """``methods`` with one reading of the published rule at most, the one of the highest ``score``."""
    readings = [method for method in methods if method.partition(":")[0] == PUBLISHED]
    best = max(readings, key=lambda method: score[method], default=None)
    return [method for method in methods if method not in readings or method == best]
