"""Reading ``study.json``: the trials of an Optuna study, what they are compared with, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.records import fields
from figures.records.fields import STUDY_FORMAT, Item
from figures.records.run import PUBLISHED
from verify.files.strict_json import Words, expect_object, fail

OPTUNA = "optuna"
MINIMIZE, MAXIMIZE = "minimize", "maximize"


@dataclass(frozen=True)
class Trial:
    """One trial; ``values`` is empty where it failed. ``warm_start`` names the known graph it began from."""

    number: int
    state: str
    values: tuple[float, ...]
    warm_start: str | None


@dataclass(frozen=True)
class StudyRow:
    """One method at one budget on the folds ("validation") or on test prompts."""

    method: str
    budget: int
    split: str
    forwards_plain: int
    forwards: int
    nfe_reduction: float


@dataclass(frozen=True)
class Verdict:
    """Optuna's graph against another on test prompts: paired difference in nfe reduction over all budgets."""

    against: str
    difference: float
    interval: tuple[float, float]
    prompts: int
    contains_zero: bool
    sentence: str


@dataclass(frozen=True)
class Axis:
    """One of two objectives: what it is, which direction is better ("minimize" or "maximize"), and its unit."""

    name: str
    direction: str
    unit: str
    domain: str | None


@dataclass(frozen=True)
class FrontPoint:
    """One graph of a front: values on held-out prompts of the folds, and on test prompts where there are."""

    method: str
    budget: int | None
    values: tuple[float, float]
    test_values: tuple[float, float] | None


@dataclass(frozen=True)
class StudyFile:
    """A study that was read. Of one objective it has rows and verdicts; of two it has axes and a front."""

    path: Path
    objective: str | None
    run: dict[str, Any]
    search_prompts: int
    test_prompts: int
    trials: tuple[Trial, ...]
    importances: tuple[dict[str, float], ...]
    rows: tuple[StudyRow, ...]
    verdicts: tuple[Verdict, ...]
    axes: tuple[Axis, ...]
    front: tuple[FrontPoint, ...]

    def about(self) -> str:
        """Model, policy and cache as a sentence; empty where the study does not say."""
        named = [(name, self.run.get(name)) for name in ("model", "policy", "cache")]
        said = [f"{name}: {value}" for name, value in named if isinstance(value, str)]
        text = ", ".join(said)
        return f"{text[0].upper()}{text[1:]}." if text else ""


def load_study(path: str | Path) -> StudyFile:
    """Read a ``study.json`` (the file, or the directory it lies in).

    Raises:
        FigureDataError: no such file, another format, no trials, a field missing or of another type.
    """
    path = Path(path)
    path = path / "study.json" if path.is_dir() else path
    return fields.read_saved(path, lambda outer: _study(path, outer))


def _study(path: Path, outer: Item) -> StudyFile:
    fields.check_format(outer, STUDY_FORMAT)
    trials = fields.each(outer, "trials", _trial)
    if not trials:
        fail("trials", "at least one finished trial", Words("none"))
    axes = fields.each(outer, "axes", _axis)
    if len(axes) not in (0, 2):
        fail("axes", "two axes, or none for a study of one objective", Words(str(len(axes))))
    for index, trial in enumerate(trials):
        if trial.values and len(trial.values) != max(1, len(axes)):
            fail(f"trials[{index}].values", f"{max(1, len(axes))} values", list(trial.values))
    told = expect_object(outer.get("comparisons", {}), "comparisons")
    return StudyFile(
        path=path,
        objective=fields.optional_text(outer, "objective", "file"),
        run=expect_object(outer.get("run", {}), "run"),
        search_prompts=fields.count(outer, "search_prompts", "file"),
        test_prompts=fields.count(outer, "test_prompts", "file"),
        trials=trials,
        importances=fields.each(outer, "importances", _shares),
        rows=fields.each(outer, "baselines", _row),
        verdicts=tuple(_verdict(expect_object(told[name], f"comparisons.{name}"), name) for name in told),
        axes=axes,
        front=fields.each(outer, "pareto", _point),
    )


def _trial(item: Item, where: str) -> Trial:
    failed = item.get("values") is None
    return Trial(
        number=fields.count(item, "number", where),
        state=fields.text(item, "state", where),
        values=() if failed else fields.numbers(item, "values", where, low=float("-inf")),
        warm_start=fields.optional_text(item, "warm_start", where),
    )


def _axis(item: Item, where: str) -> Axis:
    direction = fields.text(item, "direction", where)
    if direction not in (MINIMIZE, MAXIMIZE):
        fail(f"{where}.direction", f"{MINIMIZE} or {MAXIMIZE}", direction)
    return Axis(
        name=fields.text(item, "name", where),
        direction=direction,
        unit=fields.text(item, "unit", where),
        domain=fields.optional_text(item, "domain", where),
    )


def _shares(item: Item, where: str) -> dict[str, float]:
    return {name: fields.number(item, name, where) for name in item}


def _row(item: Item, where: str) -> StudyRow:
    forwards = fields.count(item, "forwards", where)
    plain = fields.count(item, "forwards_plain", where)
    if forwards == 0 or plain == 0:
        fail(where, "forwards and forwards_plain above 0", Words(f"{forwards} and {plain}"))
    return StudyRow(
        method=fields.text(item, "method", where),
        budget=fields.count(item, "budget", where),
        split=fields.split_name(item, where),
        forwards_plain=plain,
        forwards=forwards,
        nfe_reduction=fields.number(item, "nfe_reduction", where),
    )


def _verdict(item: Item, name: str) -> Verdict:
    where = f"comparisons.{name}"
    zero = fields.need(item, "contains_zero", where)
    if not isinstance(zero, bool):
        fail(f"{where}.contains_zero", "true or false", zero)
    return Verdict(
        against=name,
        difference=fields.number(item, "difference", where, low=float("-inf")),
        interval=fields.pair(item, "interval", where),
        prompts=fields.count(item, "prompts", where),
        contains_zero=zero,
        sentence=fields.text(item, "sentence", where),
    )


def _point(item: Item, where: str) -> FrontPoint:
    values = fields.numbers(item, "values", where)
    tested = None if item.get("test_values") is None else fields.numbers(item, "test_values", where)
    for name, found in (("values", values), ("test_values", tested)):
        if found is not None and len(found) != 2:
            fail(f"{where}.{name}", "two numbers", Words(str(len(found))))
    return FrontPoint(
        method=fields.text(item, "method", where),
        budget=fields.optional_count(item, "budget", where),
        values=(values[0], values[1]),
        test_values=None if tested is None else (tested[0], tested[1]),
    )


def one_reading(methods: list[str], score: dict[str, float]) -> list[str]:
    """``methods`` with one reading of the published rule at most, the one of the highest ``score``."""
    readings = [method for method in methods if method.partition(":")[0] == PUBLISHED]
    best = max(readings, key=lambda method: score[method], default=None)
    return [method for method in methods if method not in readings or method == best]
