"""Valid answers against forward passes: a bolder unmasking rule goes left and down, drafts go left only.

A panel per task. Every rule is a line: at its right end decoding without drafts, further left the same rule with
drafts. In an exact mode drafts change no token, so the line is level; elsewhere its ends are what was decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation, Transform

from figures.canvas.marks import method_mark
from figures.canvas.output import Table
from figures.canvas.page import drawable, finish, panel_grid, value_limits
from figures.canvas.style import BACKDROP, FAINT, INK, SMALL_SIZE, TITLE_SIZE, MethodStyle, marker_size, method_style
from figures.canvas.words import cautious, plural, prompts_of
from figures.records.quality import PLAIN, QUALITY_COLUMNS, Quality, QualityRow

_X_LABEL = "forward passes per answer (logarithmic)"
_Y_LABEL = "valid answers (%)"
SHADE = "#e9e7f5"
STEP = 6.0  # points between rules of one share that are drawn below each other
DEEPEST = 24.0  # points that a rule lies below its height at most; with many rules they lie closer
GAP = 1.06  # the least ratio of forward passes between two lines side by side
#: Where a rule's name may stand beside its point, in points: x, y, and how it is aligned there.
_PLACES = (
    (6, 0, "left", "center"), (0, -7, "center", "top"), (0, 7, "center", "bottom"), (6, -8, "left", "top"),
    (6, 8, "left", "bottom"), (-6, -8, "right", "top"), (-6, 8, "right", "bottom"),
)  # fmt: skip


def table_quality(quality: Quality) -> Table:
    """Every row of the study."""
    return Table(QUALITY_COLUMNS, tuple(tuple(getattr(row, name) for name in QUALITY_COLUMNS) for row in quality.rows))


def draw_quality(quality: Quality) -> Figure:
    """Draw a panel per task; rules whose names find no room in a panel go without (the table has all)."""
    domains, drafters = quality.domains(), quality.drafters()
    figure, panels = panel_grid(len(domains), _X_LABEL, _Y_LABEL)
    for axes, domain in zip(panels, domains, strict=True):
        axes.set_title(domain, fontsize=TITLE_SIZE, color=INK, loc="left")
        rules = _rules(quality, domain)
        for policy, drop in _drops(rules).items():
            _draw_rule(axes, rules[policy], drafters, _lowered(axes, drop))
        _shade(axes, quality.select(domain=domain))
    first = panels[0]
    first.set_xscale("log")
    low, high = min(row.forwards for row in quality.rows), max(row.forwards for row in quality.rows)
    first.set_xlim(low / 1.25, high * 1.6)
    ticks = [2**power for power in range(20) if low / 1.25 <= 2**power <= high * 1.6]
    for axes in panels:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    first.set_ylim(value_limits(100 * end for row in quality.rows for end in (row.valid_low, row.valid_high)))
    marks = [method_mark(method_style(PLAIN), linestyle="none", markersize=7)]
    marks += [_mark(method, budget, drafters) for method, budget in drafters]
    finish(figure, headline(quality), _note(quality), marks)
    figure.draw_without_rendering()  # panels have their final size
    for axes, domain in zip(panels, domains, strict=True):
        _name_rules(axes, _rules(quality, domain))
    return figure


def headline(quality: Quality) -> str:
    """What bold rules cost in valid answers, and what drafts save of the forward passes of each rule.

    A rule is said to lose answers only where its interval lies below that of the rule with the most forward passes.
    """
    prompts = [row.prompts for row in quality.rows]
    costs = [cost for domain in quality.domains() if (cost := _largest_cost(quality, domain)) is not None]
    if costs:
        lost, row = max(costs, key=lambda found: found[0])
        bold = f"bolder rules lose up to {100 * lost:.0f} points of valid ones ({row.domain}, {row.policy})"
    else:
        bold = "no rule can be told from the slowest one by its valid answers"
    drafted = [row for row in quality.rows if row.method != PLAIN]
    if not drafted:
        return cautious(bold[0].upper() + bold[1:], prompts)
    best = max(row.nfe_reduction for row in drafted)
    if all(row.exact and row.holds for row in drafted):
        kept = "the same answers"
    else:
        changed = sum(row.measured_prompts - row.measured_identical for row in drafted)
        of = plural(sum(row.measured_prompts for row in drafted), "answer")
        kept = f"answers with other tokens in {changed} of {of}"
    return cautious(f"Drafts need up to {best:.1f}× fewer forward passes for {kept}; {bold}", prompts)


def _largest_cost(quality: Quality, domain: str) -> tuple[float, QualityRow] | None:
    rows = quality.select(domain=domain, method=PLAIN)
    slowest = max(rows, key=lambda row: row.forwards)
    below = [row for row in rows if row.valid_high < slowest.valid_low]
    return max(((slowest.share - row.share, row) for row in below), key=lambda found: found[0], default=None)


def _note(quality: Quality) -> str:
    drafted = [row for row in quality.rows if row.method != PLAIN]
    same, decoded = (sum(getattr(row, name) for row in drafted) for name in ("measured_identical", "measured_prompts"))
    prompts = prompts_of("test", (row.prompts for row in quality.rows))
    text = (
        "Each line is an unmasking rule: its right end (×) without drafts, then the same rule with drafts. Left is "
        "faster, level is the same answers; shaded: what no rule reaches without drafts. Bars: exact 95 % intervals of "
        f"the share of valid answers over {prompts} per task. Rules of one share lie below each other where they "
        "would overlap. "
    )
    if decoded:
        text += f"Decoded again with drafts: {same} of {plural(decoded, 'answer')} the same token by token. "
    if quality.left_out:
        text += f"Left out: {plural(sum(group.prompts for group in quality.left_out), 'prompt')} without a checker. "
    return f"{text}{quality.about()}"


def _shade(axes: Axes, rows: Sequence[QualityRow]) -> None:
    """Fill between the best share within x forward passes without drafts and the one with them, right of each point."""
    places = sorted({row.forwards for row in rows})
    plain, all_rows = (
        [max((100 * row.share for row in some if row.forwards <= x), default=0.0) for x in places]
        for some in ([row for row in rows if row.method == PLAIN], rows)
    )
    axes.fill_between(places, plain, all_rows, step="post", color=SHADE, linewidth=0, zorder=1, gid="won")


def _rules(quality: Quality, domain: str) -> dict[str, list[QualityRow]]:
    """The rows of every rule on one task, the one without drafts first."""
    found: dict[str, list[QualityRow]] = {}
    for row in sorted(quality.select(domain=domain), key=lambda row: row.method != PLAIN):
        found.setdefault(row.policy, []).append(row)
    return found


def _drops(rules: Mapping[str, Sequence[QualityRow]]) -> dict[str, float]:
    """How many points below its height each rule is drawn: rules of one share whose lines would overlap."""
    ends = dict[tuple[int, int], float]()  # (valid answers, level) -> where the last line there ends on the right
    levels = {}
    for policy, rows in sorted(rules.items(), key=lambda rule: min(row.forwards for row in rule[1])):
        left, right = (end(row.forwards for row in rows) for end in (min, max))
        levels[policy] = next(n for n in range(len(rules)) if left > GAP * ends.get((rows[0].valid, n), 0.0))
        ends[rows[0].valid, levels[policy]] = right
    step = min(STEP, DEEPEST / max(1, *levels.values()))
    return {policy: level * step for policy, level in levels.items()}


def _lowered(axes: Axes, points: float) -> Transform:
    inches = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    return axes.transData + ScaledTranslation(0, -points / 72, inches)


def _draw_rule(axes: Axes, rows: Sequence[QualityRow], drafters: Sequence[tuple[str, int]], place: Transform) -> None:
    """One rule on one task; ``rows`` begins with the one without drafts."""
    plain = rows[0]
    ordered = sorted(rows, key=lambda row: -row.forwards)
    axes.plot(
        [row.forwards for row in ordered], [100 * row.share for row in ordered], color=BACKDROP, linewidth=1.0,
        zorder=2, gid=f"{plain.policy}-line", transform=place,
    )  # fmt: skip
    axes.vlines(
        plain.forwards, 100 * plain.valid_low, 100 * plain.valid_high, color=FAINT, linewidth=0.8, alpha=0.55,
        zorder=1.5, gid=f"{plain.policy}-interval",
    )  # fmt: skip
    for row in rows:
        style = method_style(row.method)
        axes.plot(
            [row.forwards], [100 * row.share], color=style.colour, marker=style.marker, linestyle="none", zorder=4,
            transform=place, gid=f"{row.policy}-{row.method}-{row.budget}",
            **_look(row.method, row.budget, drafters, style),
        )  # fmt: skip


def _look(method: str, budget: int, drafters: Sequence[tuple[str, int]], style: MethodStyle) -> dict[str, Any]:
    """Of a method's budgets the largest is filled, the others are hollow."""
    if method == PLAIN:
        return {"markersize": 7, "markeredgewidth": 1.8}
    filled = budget == max(other for name, other in drafters if name == method)
    return {"markersize": marker_size(style), "markerfacecolor": style.colour if filled else "white"}


def _mark(method: str, budget: int, drafters: Sequence[tuple[str, int]]) -> Line2D:
    style = method_style(method)
    look = _look(method, budget, drafters, style)
    return method_mark(style, label=f"{style.label}, D = {budget}", linestyle="none", **look)


def _name_rules(axes: Axes, rules: Mapping[str, Sequence[QualityRow]]) -> None:
    """Write every rule's name beside its point, the one with the fewest valid answers first, as far as there is room.

    The panel must have its final size.
    """
    scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    inside = axes.get_window_extent()  # titles and tick labels stand outside
    places = {policy: _lowered(axes, drop) for policy, drop in _drops(rules).items()}
    taken = []
    for policy, rows in rules.items():
        points = [places[policy].transform((row.forwards, 100 * row.share)) for row in rows]
        taken += [Bbox.from_bounds(x - 3 * scale, y - 3 * scale, 6 * scale, 6 * scale) for x, y in points]
        taken.append(Bbox.from_extents(min(x for x, _ in points), points[0][1] - scale, points[0][0], points[0][1]))
    for policy, (plain, *_) in sorted(rules.items(), key=lambda rule: (rule[1][0].share, -rule[1][0].forwards)):
        for x, y, side, rise in _PLACES:
            text = axes.annotate(
                drawable(policy), (plain.forwards, 100 * plain.share), xycoords=places[policy], xytext=(x, y),
                textcoords="offset points",
                fontsize=SMALL_SIZE, color=INK, ha=side, va=rise, zorder=6, gid=f"{policy}-name",
                parse_math=False,  # it is measured here, before the page is drawn
            )  # fmt: skip
            if _fits(text, inside, taken):
                taken.append(text.get_window_extent())
                break
            text.remove()


def _fits(text: Annotation, inside: Bbox, taken: Sequence[Bbox]) -> bool:
    box = text.get_window_extent()
    within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    return within and not any(box.overlaps(other) for other in taken)
