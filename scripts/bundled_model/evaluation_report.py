"""The tables and the figure of an evaluation, made of its cells alone."""

from typing import Any

from matplotlib.figure import Figure

from calibrate.bundled import ATTENTION_KINDS
from figures.canvas.marks import line_mark
from figures.canvas.output import Table
from figures.canvas.page import finish, panel_grid
from figures.canvas.style import FAINT, TITLE_SIZE
from scripts.bundled_model.measures import RATIOS

Cell = dict[str, Any]
Cells = dict[str, Cell]

#: Okabe and Ito, from few masks to many.
_COLOURS = dict(zip(RATIOS, ("#009E73", "#56B4E9", "#E69F00", "#D55E00"), strict=True))
#: What the model has to reach.
LEAST_VALID = {"lists": 0.95, "code": 0.95}
LEAST_VALID_ELSE = 0.90
MOST_CALIBRATION_ERROR = 0.05
MOST_LIKELIHOOD_RATIO = 1.15
STEPS_PER_BLOCK = (4.0, 16.0)
LEAST_LOSS = 0.10


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _percent(cell: Cell) -> str:
    low, high = cell["interval"]
    return f"{100 * cell['valid']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _steps(cell: Cell) -> str:
    return "-" if cell["steps_per_full_block"] is None else f"{cell['steps_per_full_block']:.1f}"


def requirements(options: Cell, cells: Cells) -> list[tuple[str, str, bool]]:
    """Name what is asked of the model, what was found, and whether that is enough."""
    rows: list[tuple[str, str, bool]] = []
    domains, block = options["domains"], options["block_length"]
    for domain in domains:
        least = LEAST_VALID.get(domain, LEAST_VALID_ELSE)
        found = {name: c["valid"] for name, c in cells.items() if name.startswith(f"valid/{domain}/static:1/")}
        worst = min(found, key=lambda name: found[name])
        where = ", block length ".join(worst.split("/")[3:])
        text = f"least {100 * found[worst]:.1f} % ({where})"
        rows.append((f"{domain}: at least {100 * least:.0f} % valid under static:1", text, found[worst] >= least))
    errors = {name: cell["error"] for name, cell in cells.items() if name.startswith("calibration/all/")}
    worst = max(errors, key=lambda name: errors[name])
    text = f"most {errors[worst]:.3f} ({', mask ratio '.join(worst.split('/')[2:])})"
    enough = errors[worst] <= MOST_CALIBRATION_ERROR
    rows.append((f"calibration error at most {MOST_CALIBRATION_ERROR:g}, texts of all domains", text, enough))
    for kind in ATTENTION_KINDS:
        if cell := cells.get(f"likelihood/stories/{kind}/left to right"):
            asked = f"stories, {kind}: at most {MOST_LIKELIHOOD_RATIO:g} times the bits of the grammar"
            rows.append((asked, f"{cell['ratio']:.3f}", cell["ratio"] <= MOST_LIKELIHOOD_RATIO))
    low, high = STEPS_PER_BLOCK
    for domain in [domain for domain in ("stories", "lines") if domain in domains]:
        for kind in ATTENTION_KINDS:
            steps = cells[f"valid/{domain}/threshold:0.9/{kind}/{block}"]["steps_per_full_block"]
            asked = f"{domain}, {kind}: {low:g} to {high:g} steps per full block under threshold:0.9"
            rows.append((asked, "-" if steps is None else f"{steps:.1f}", steps is not None and low <= steps <= high))
    if "lines" in domains:
        for kind in ATTENTION_KINDS:
            plain = cells[f"valid/lines/static:1/{kind}/{block}"]["valid"]
            others = {n.split("/")[2]: c["valid"] for n, c in cells.items() if _is_rule_of(n, "lines", kind, block)}
            boldest = min(others, key=lambda rule: others[rule])
            loss = plain - others[boldest]
            asked = f"lines, {kind}: a rule loses at least {100 * LEAST_LOSS:.0f} points"
            rows.append((asked, f"{boldest} loses {100 * loss:.1f}", loss >= LEAST_LOSS))
    return rows


def _is_rule_of(name: str, domain: str, kind: str, block: int) -> bool:
    parts = name.split("/")
    return parts[0] == "valid" and parts[1] == domain and parts[3:] == [kind, str(block)]


def markdown(options: Cell, cells: Cells) -> str:
    """Write all tables of an evaluation."""
    domains, block = options["domains"], options["block_length"]
    lengths = sorted({int(n.split("/")[4]) for n in cells if n.startswith("valid/")})
    rules = list(dict.fromkeys(n.split("/")[2] for n in cells if n.startswith("valid/")))
    asked = [[what, found, "yes" if enough else "**no**"] for what, found, enough in requirements(options, cells)]
    parts = [
        "# Evaluation of the bundled model\n",
        f"Test split, {options['dtype']}, {options['prompts']} prompts and {options['texts']} texts per domain, "
        "nothing changed after training. Bidirectional attention decodes with the dual cache. Intervals are 95 %: "
        "Wilson's for shares, resampled prompts for likelihoods.\n",
        _table(["asked", "found", "enough"], asked),
        "## Valid answers under static:1, % by block length\n",
        _table(
            ["domain", "attention", *map(str, lengths)],
            [
                [d, kind, *(_percent(cells[f"valid/{d}/static:1/{kind}/{length}"]) for length in lengths)]
                for d in domains
                for kind in ATTENTION_KINDS
            ],
        ),
        f"## Rules at block length {block}\n",
        _table(
            ["domain", "attention", "rule", "valid, %", "forwards per answer", "steps per full block"],
            [
                [d, kind, rule, _percent(cell), f"{cell['forwards_per_answer']:.1f}", _steps(cell)]
                for d in domains
                for kind in ATTENTION_KINDS
                for rule in rules
                for cell in [cells[f"valid/{d}/{rule}/{kind}/{block}"]]
            ],
        ),
        "## Expected calibration error by mask ratio\n",
        _table(
            ["domain", "attention", *(f"{ratio:g}" for ratio in RATIOS)],
            [
                [d, kind, *(f"{cells[f'calibration/{d}/{kind}/{ratio:g}']['error']:.3f}" for ratio in RATIOS)]
                for d in ("all", *domains)
                for kind in ATTENTION_KINDS
            ],
        ),
        "## Bits per token against the grammar\n",
        _table(
            ["domain", "attention", "order", "model", "grammar, same texts", "entropy", "model / grammar"],
            [[*name.split("/")[1:], *_bits(cell)] for name, cell in cells.items() if name.startswith("likelihood/")],
        ),
    ]
    return "\n".join(parts)


def _bits(cell: Cell) -> list[str]:
    low, high = cell["interval"]
    numbers = [cell[f"{key}_per_token"] for key in ("model_bits", "grammar_bits", "entropy")]
    return [*(f"{number:.3f}" for number in numbers), f"{cell['ratio']:.3f} [{low:.3f}, {high:.3f}]"]


def table_reliability(cells: Cells) -> Table:
    """Every bin of the figure, one row each."""
    rows = [
        (kind, ratio, *values)
        for kind in ATTENTION_KINDS
        for ratio in RATIOS
        for cell in [cells[f"calibration/all/{kind}/{ratio:g}"]]
        for values in zip(cell["count"], cell["confidence"], cell["accuracy"], strict=True)
    ]
    return Table(("attention", "mask_ratio", "positions", "confidence", "right"), tuple(rows))


def draw_reliability(options: Cell, cells: Cells) -> Figure:
    """Draw the share of right guesses against their confidence, a panel per attention kind, a line per mask ratio."""
    figure, panels = panel_grid(len(ATTENTION_KINDS), "confidence", "share right")
    errors = []
    for axes, kind in zip(panels, ATTENTION_KINDS, strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--", zorder=1, gid="ideal")
        axes.set_title(kind, fontsize=TITLE_SIZE, loc="left")
        for ratio in RATIOS:
            cell = cells[f"calibration/all/{kind}/{ratio:g}"]
            errors.append(cell["error"])
            axes.plot(
                cell["confidence"], cell["accuracy"], color=_COLOURS[ratio], marker="o", markersize=3.5,
                linewidth=1.3, zorder=3, gid=f"{kind}/{ratio:g}",
            )  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
    handles = [line_mark(f"{ratio:.0%} masked", _COLOURS[ratio], marker="o", markersize=3.5) for ratio in RATIOS]
    handles.append(line_mark("as sure as right", FAINT, linewidth=0.9, linestyle="--"))
    note = f"Bins of equal width, {options['texts']} test texts of each domain ({', '.join(options['domains'])}), one "
    note += f"block of {options['block_length']} of each. Nothing was changed after training."
    finish(figure, f"The expected calibration error is at most {max(errors):.3f}", note, handles, columns=5)
    return figure
