"""The front of a study of two objectives beside the fronts of fixed methods: on the folds, and on test prompts.

A front that was chosen by its values on the folds is too good by them; the panel of test prompts shows the same graphs
where nothing was chosen. The exact graphs are those of the minimum cut and the integer program.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.canvas.marks import line_mark, method_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, new_figure, style_axes, value_limits
from figures.canvas.style import FAINT, marker_size, method_order, method_style
from figures.canvas.words import cautious, plural
from figures.records.record import FigureDataError
from figures.records.study import MAXIMIZE, OPTUNA, Axis, FrontPoint, StudyFile, one_reading

_TABLE = ("split", "method", "budget", "x", "y")
#: The fixed method whose value the headline puts beside Optuna's.
BESIDE = "greedy"
#: Names of objectives, as axes say them.
WORDS = {
    "tokens_per_forward": "tokens per forward pass",
    "query_tokens": "query tokens per forward pass, L (1 + D)",
    "forwards_per_step": "forwards per denoising step",
}


def fronts(study: StudyFile, split: str) -> dict[str, list[FrontPoint]]:
    """Per method its points on ``split`` ("validation" or "test") by ascending x, methods in the order of legends.

    The published rule comes in one reading, the one that does best on the folds.

    Raises:
        FigureDataError: a study of one objective, or one without a front.
    """
    if not study.axes or not study.pareto:
        raise FigureDataError(f"{study.path}: no front of two objectives, so there is none to draw")
    points = [point for point in study.pareto if split == "validation" or point.test_values is not None]
    sign = 1 if _y(study).direction == MAXIMIZE else -1
    score: dict[str, list[float]] = {}
    for point in study.pareto:
        score.setdefault(point.method, []).append(sign * _values(study, point, "validation")[1])
    methods = one_reading(list(score), {name: sum(values) / len(values) for name, values in score.items()})
    found = {
        method: sorted({_values(study, p, split): p for p in points if p.method == method}.items())
        for method in sorted(methods, key=method_order)
    }
    return {method: [point for _, point in own] for method, own in found.items() if own}


def _x(study: StudyFile) -> Axis:
    return study.axes[1 if _swapped(study) else 0]


def _y(study: StudyFile) -> Axis:
    return study.axes[0 if _swapped(study) else 1]


def _swapped(study: StudyFile) -> bool:
    """Query tokens, a cost that is chosen, stand on the x axis, wherever the study has them."""
    return study.axes[1].name == "query_tokens"


def _values(study: StudyFile, point: FrontPoint, split: str) -> tuple[float, float]:
    """(x, y) of a point."""
    first, second = point.values if split == "validation" or point.test_values is None else point.test_values
    return (second, first) if _swapped(study) else (first, second)


def table_pareto(study: StudyFile) -> Table:
    """Every drawn point of a front, one row each."""
    rows = [
        (split, method, point.budget, *_values(study, point, split))
        for split in ("validation", "test")
        for method, own in fronts(study, split).items()
        for point in own
    ]
    return Table(_TABLE, tuple(rows))


def draw_pareto(study: StudyFile) -> Figure:
    """Draw the fronts on the folds, and beside them the same graphs on test prompts where the study has them.

    Raises:
        FigureDataError: a study of one objective, or one without a front.
    """
    panels = [(split, found) for split in ("validation", "test") if (found := fronts(study, split))]
    methods = sorted({method for _, found in panels for method in found}, key=method_order)
    figure = new_figure(height=3.8)
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (split, found) in zip(grid, panels, strict=True):
        title = "held-out folds, which the study saw" if split == "validation" else "test prompts"
        style_axes(axes, x_label=_label(_x(study)), title=title, grid="both")
        if split == "validation":
            _draw_cloud(axes, study)
        for method, own in found.items():
            _draw_front(axes, method, [_values(study, point, split) for point in own], joined=_swapped(study))
    style_axes(grid[0], y_label=_label(_y(study)), grid="both")
    points = [_values(study, p, split) for split, found in panels for own in found.values() for p in own]
    # Of what fronts span; trials far off are cut, as they say nothing.
    grid[0].set_xlim(value_limits((x for x, _ in points), 0.06))
    grid[0].set_ylim(value_limits((y for _, y in points), 0.06))
    better = "higher and further left" if _y(study).direction == MAXIMIZE else "lower and further left"
    note = (
        f"{study.search_prompts} search and {plural(study.test_prompts, 'test prompt')}, "
        f"{plural(len(study.trials), 'trial')}; {better} is better. A front chosen on the folds looks too good there. "
        f"Graphs of equal cost are not compared in pairs here. {study.about()}"
    )
    handles = [method_mark(method_style(method)) for method in methods]
    handles.append(line_mark("trials", FAINT, linestyle="none", marker="o", markersize=3, alpha=0.5))
    finish(figure, headline(study), note.rstrip(), handles)
    return figure


def headline(study: StudyFile) -> str:
    """What is drawn, with Optuna's and greedy's value at the largest common cost. The file has no paired comparison of
    graphs of equal cost, so none is called better.
    """
    split = "test" if fronts(study, "test") else "validation"
    found = {
        method: dict(_values(study, point, split) for point in points)
        for method, points in fronts(study, split).items()
    }
    text = f"{_label(_y(study))} against {_label(_x(study))}"
    own, other = found.get(OPTUNA, {}), found.get(BESIDE, {})
    if _swapped(study) and set(own) & set(other):
        x = max(set(own) & set(other))
        where = "test prompts" if split == "test" else "held-out folds"
        text = (
            f"{_label(_y(study))} on {where}: {own[x]:.2f} with Optuna's graph, {other[x]:.2f} with the "
            f"{method_style(BESIDE).label} graph at {x:,.0f} rows"
        )
    elif own:
        text = f"{text}: Optuna's front of {plural(len(own), 'graph')} beside fixed ones"
    return cautious(
        text[0].upper() + text[1:], [study.test_prompts if split == "test" else study.search_prompts], split
    )


def _label(axis: Axis) -> str:
    name = WORDS.get(axis.name, axis.name.replace("_", " "))
    return f"{name}, {axis.domain}" if axis.domain else name


def _draw_cloud(axes: Axes, study: StudyFile) -> None:
    values = [trial.values[::-1] if _swapped(study) else trial.values for trial in study.trials if trial.values]
    axes.plot(
        [x for x, _ in values], [y for _, y in values], linestyle="none", marker="o", markersize=3, color=FAINT,
        alpha=0.35, markeredgewidth=0, zorder=1, gid="trials",
    )  # fmt: skip


def _draw_front(axes: Axes, method: str, points: Sequence[tuple[float, float]], joined: bool) -> None:
    """Points by x; joined along budgets. Of two domains only a front of several points is one."""
    style = method_style(method)
    optuna = method == OPTUNA
    axes.plot(
        [x for x, _ in points], [y for _, y in points], color=style.colour, marker=style.marker,
        markersize=marker_size(style), linewidth=2.0 if optuna else 1.2, alpha=1.0 if optuna else 0.85,
        linestyle="-" if joined or len(points) > 1 else "none", zorder=5 if optuna else 3, gid=method,
    )  # fmt: skip
