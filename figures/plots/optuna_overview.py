"""One look at an Optuna study of one objective: what its trials found, which parameters mattered, what it won.

Three panels: the objective trial by trial with the best so far, beside fixed graphs on the same folds; the importance
of each parameter; and the difference to every fixed graph on test prompts, with its paired interval. The first and the
second show what the study saw, the third what it is worth; the headline is the verdict against greedy.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures.canvas.marks import label_heights
from figures.canvas.output import Table
from figures.canvas.page import finish, new_figure, style_axes, value_limits
from figures.canvas.style import FAINT, NOTE_SIZE, TEXT_SIZE, darker, marker_size, method_style
from figures.canvas.words import cautious, plural
from figures.plots.verdicts import misplaced
from figures.records.record import FigureDataError
from figures.records.study import OPTUNA, StudyFile, Trial, Verdict, one_reading

#: Fixed graphs drawn as lines, of those that the study has.
LINES = ("chain", "tree_greedy", "published", "greedy", "exact")
#: The verdict against this one is the headline.
AGAINST = "greedy"
MINUS = "\N{MINUS SIGN}"
_TABLE = ("table", "name", "number", "state", "value", "low", "high")


def finished(study: StudyFile) -> list[Trial]:
    """The trials with a value.

    Raises:
        FigureDataError: the study has two objectives, or no trial has a value.
    """
    if study.axes:
        raise FigureDataError(f"{study.path}: a study of two objectives has no history of best values; draw its front")
    found = [trial for trial in study.trials if trial.values]
    if not found:
        raise FigureDataError(f"{study.path}: no trial has a value, so there is nothing to draw")
    return found


def baseline_values(study: StudyFile) -> dict[str, float]:
    """The objective of fixed graphs on the folds: forwards over denoising steps, mean over the budgets."""
    ratios: dict[str, list[float]] = {}
    for row in study.baselines:
        if row.split == "validation" and row.method != OPTUNA:
            ratios.setdefault(row.method, []).append(row.forwards / row.forwards_plain)
    values = {method: sum(found) / len(found) for method, found in ratios.items()}
    values = {method: value for method, value in values.items() if not _misplaced(study, method)}
    kept = one_reading(list(values), {method: -value for method, value in values.items()})
    return {method: values[method] for method in kept if method.partition(":")[0] in LINES}


def _misplaced(study: StudyFile, method: str) -> bool:
    """Whether ``method`` is a reading of the published rule that fails under the study's policy."""
    return misplaced(method.partition(":")[2], str(study.run.get("policy", "static")))


def _judged(study: StudyFile) -> list[Verdict]:
    """The verdicts that say something."""
    return [verdict for verdict in study.verdicts() if not _misplaced(study, verdict.against)]


def best_so_far(trials: list[Trial]) -> list[float]:
    """The least value up to each trial. A pruned trial's value is of fewer prompts, so it sets no record."""
    best, values = float("inf"), []
    for trial in trials:
        if trial.state == "complete":
            best = min(best, trial.values[0])
        values.append(best)
    return values


def table_optuna_overview(study: StudyFile) -> Table:
    """Every drawn value, one row each."""
    rows: list[tuple[object, ...]] = [
        ("trial", trial.warm_start, trial.number, trial.state, trial.values[0], None, None) for trial in finished(study)
    ]
    rows += [("baseline", name, None, None, value, None, None) for name, value in baseline_values(study).items()]
    rows += [("importance", name, None, None, share, None, None) for name, share in _shares(study)]
    rows += [("difference", v.against, None, None, v.difference, *v.interval) for v in _judged(study)]
    return Table(_TABLE, tuple(rows))


def draw_optuna_overview(study: StudyFile) -> Figure:
    """Draw the three panels; those without data (fewer than ten trials have no importances) are left out.

    Raises:
        FigureDataError: the study has two objectives, or no trial has a value.
    """
    trials = finished(study)
    shares = _shares(study)
    side = [draw for draw, there in (("importance", bool(shares)), ("difference", bool(_judged(study)))) if there]
    figure = new_figure(height=5.2)
    top = figure.add_gridspec(2, 1, height_ratios=[1.15, 1]) if side else figure.add_gridspec(1, 1)
    history = figure.add_subplot(top[0])
    panels = dict(zip(side, top[1].subgridspec(1, len(side)).subplots(squeeze=False)[0], strict=True)) if side else {}
    if "importance" in panels:
        _draw_importances(panels["importance"], shares)
    if "difference" in panels:
        _draw_differences(panels["difference"], _judged(study))
    handles = _draw_history(history, study, trials)
    note = (
        f"Above: on held-out folds of {plural(study.search_prompts, 'search prompt')}, which the study saw. "
        f"Differences: on {plural(study.test_prompts, 'test prompt')}, all budgets together, paired 95 % intervals; "
        f"hollow where the interval contains zero. {study.about()}"
    )
    if len(_judged(study)) < len(study.verdicts()):
        note += " Degree-1 readings of the published rule were made for one token a step and are left out here."
    finish(figure, headline(study), note.rstrip(), handles)
    lines = []
    for method, value in baseline_values(study).items():
        style = method_style(method)
        lines.append((value, f"{style.label} {value:.3f}", darker(style.colour), f"{method}/label"))
    label_heights(history, lines)
    return figure


def headline(study: StudyFile) -> str:
    """The paired verdict against greedy on test prompts; without one, what the trials gained."""
    for verdict in study.verdicts():
        if verdict.against == AGAINST:
            low, high = verdict.interval
            numbers = f"difference in NFE reduction {verdict.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
            name = f"the {method_style(AGAINST).label} graph"
            if verdict.contains_zero:
                text = f"On test prompts Optuna's graph cannot be told from {name}: {numbers}"
            else:
                better = "fewer" if verdict.difference > 0 else "more"
                text = f"On test prompts Optuna's graph needs {better} forwards than {name}: {numbers}"
            return cautious(text.replace("-", MINUS), [verdict.prompts])
    trials = finished(study)
    values = best_so_far(trials)
    text = f"{plural(len(trials), 'trial')} took the best value on the folds from {values[0]:.4f} to {values[-1]:.4f}"
    return cautious(text, [study.search_prompts], "search")


def _shares(study: StudyFile) -> list[tuple[str, float]]:
    """Parameters with the most important first."""
    found = study.importances[0] if study.importances else {}
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _draw_history(axes: Axes, study: StudyFile, trials: list[Trial]) -> list[Line2D]:
    style_axes(
        axes, x_label="trial", y_label="forwards per denoising step\n(lower is better)", title="what the trials found"
    )
    colour = method_style(OPTUNA).colour
    lines = baseline_values(study)
    values = sorted(trial.values[0] for trial in trials)
    best = best_so_far(trials)
    known = [value for value in best if value < float("inf")]
    low = min([*values, *lines.values()])
    # Bad trials must not press all others into a line: the worst quarter may stand at the upper edge.
    high = max([values[int(0.75 * (len(values) - 1))], *lines.values(), *known[:1]])
    high = max(high, low * 1.001 + 1e-9)
    bottom, top = value_limits((low, high), 0.08, 0.08)
    axes.set_ylim(bottom, top)
    handles = []
    for name, belongs, marker, face in (
        ("trial", lambda t: t.warm_start is None and t.state == "complete", "o", colour),
        ("warm start", lambda t: t.warm_start is not None and t.state == "complete", "D", "white"),
        ("pruned", lambda t: t.state != "complete", "x", colour),
    ):
        shown = [trial for trial in trials if belongs(trial) and trial.values[0] <= top]
        if shown:
            (line,) = axes.plot(
                [trial.number for trial in shown], [trial.values[0] for trial in shown], linestyle="none",
                marker=marker, markersize=3.2 if marker == "o" else 5.5, markerfacecolor=face, markeredgecolor=colour,
                alpha=0.45 if marker == "o" else 1.0, label=name, gid=name, zorder=3 if marker == "o" else 5,
                clip_on=False,
            )  # fmt: skip
            handles.append(line)
    above = [trial.number for trial in trials if trial.values[0] > top]
    if above:
        (line,) = axes.plot(
            above, [top] * len(above), linestyle="none", marker="^", markersize=4, color=colour, alpha=0.6,
            clip_on=False, label="above the range", gid="above",
        )  # fmt: skip
        handles.append(line)
    points = [(trial.number, value) for trial, value in zip(trials, best, strict=True) if value < float("inf")]
    (line,) = axes.plot(
        [number for number, _ in points], [value for _, value in points], color=colour, linewidth=1.8,
        drawstyle="steps-post", label="best so far", gid="best", zorder=4,
    )  # fmt: skip
    handles.append(line)
    for method, value in lines.items():
        axes.axhline(value, color=method_style(method).colour, linewidth=1.2, linestyle="--", zorder=2, gid=method)
    axes.set_xlim(-0.5, max(trial.number for trial in trials) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return handles


def _draw_importances(axes: Axes, shares: list[tuple[str, float]]) -> None:
    style_axes(axes, x_label="importance (%, PED-ANOVA)", title="which parameters mattered", grid="x")
    names = [name.replace("_", " ") for name, _ in shares]
    axes.barh(
        range(len(shares)), [100 * share for _, share in shares], height=0.7, color=method_style(OPTUNA).colour,
        linewidth=0, gid="importances",
    )  # fmt: skip
    axes.set_yticks(range(len(shares)), names, fontsize=TEXT_SIZE if len(shares) <= 9 else NOTE_SIZE - 0.5)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _draw_differences(axes: Axes, verdicts: Sequence[Verdict]) -> None:
    style_axes(axes, x_label="difference in NFE reduction", title="what it won on test prompts", grid="x")
    axes.axvline(0.0, color=FAINT, linewidth=0.9, zorder=1)
    for place, verdict in enumerate(verdicts):
        style = method_style(verdict.against)
        axes.plot(verdict.interval, [place, place], color=style.colour, linewidth=1.8, gid=f"{verdict.against}/band")
        axes.plot(
            [verdict.difference], [place], marker=style.marker, markersize=marker_size(style), color=style.colour,
            markerfacecolor="white" if verdict.contains_zero else style.colour, gid=verdict.against,
        )  # fmt: skip
    axes.set_yticks(
        range(len(verdicts)), [f"over {method_style(verdict.against).label}" for verdict in verdicts],
        fontsize=NOTE_SIZE,
    )  # fmt: skip
    axes.set_ylim(len(verdicts) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
