"""The tables of docs/results/README.md, from the files that the studies and benchmarks wrote.

    python -m scripts.results_tables

replaces what stands between `<!-- table NAME -->` and `<!-- end -->`. A test keeps page and files together, so no
number of a table is typed by hand. What the numbers mean is the page's own text and must be read again after a run.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from verify.files.writing import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "README.md"
_PLACE = re.compile(r"(<!-- table (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

Cells = Sequence[object]


def markdown(columns: Sequence[str], rows: Iterable[Cells]) -> str:
    """A Markdown table; every row has a cell for every column."""
    lines = [columns, ["---"] * len(columns), *rows]
    assert all(len(line) == len(columns) for line in lines), lines
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def study(name: str, split: str = "test") -> dict[tuple[str, str, int], dict[str, str]]:
    """The rows of a study's CSV by setting, method and budget."""
    with (ROOT / "docs" / "results" / f"{name}.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == split]
    return {(row["setting"], row["method"], int(row["budget"])): row for row in rows}


def benchmark(name: str) -> dict[str, Any]:
    """A benchmark's results."""
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def estimate(triple: Sequence[float], digits: int = 2) -> str:
    """A number with its interval."""
    value, low, high = (f"{number:.{digits}f}" for number in triple)
    return f"{value} [{low}, {high}]"


def decoding(cell: dict[str, Any]) -> str:
    """How a cell of a benchmark decodes."""
    return f"{cell['policy']}, {cell['cache']}, L = {cell['block_length']}"


def _method_table() -> str:
    rows, budgets = study("method"), (3, 5, 8, 10, 16, 32)
    methods = ("chain", "tree_greedy", "sequoia", "published", "greedy", "exact")

    def reduction(method: str, budget: int) -> str:
        return f"{float(rows['static:1', method, budget]['nfe_reduction']):.2f}"

    columns = ["method", f"D = {budgets[0]}", *map(str, budgets[1:])]
    return markdown(columns, [[method, *(reduction(method, d) for d in budgets)] for method in methods])


def _block_length_table() -> str:
    rows, methods = study("block-length"), ("chain", "published", "greedy")

    def reductions(length: str, method: str) -> str:
        return " / ".join(f"{float(rows[length, method, d]['nfe_reduction']):.2f}" for d in (10, 16))

    lengths = sorted({setting for setting, _, _ in rows}, key=int)
    return markdown(
        ["D = 10 / 16, held-out NFE reduction", *methods],
        [[f"blocks of {length}", *(reductions(length, method) for method in methods)] for length in lengths],
    )


def _policy_table() -> str:
    rows = study("policy")
    lines = []
    for policy in dict.fromkeys(setting for setting, _, _ in rows):
        found = {method: rows[policy, method, 10] for method in ("chain", "published", "greedy")}
        chain, published, greedy = (f"{float(row['nfe_reduction']):.2f}" for row in found.values())
        low, high = (float(found["greedy"][f"nfe_reduction_{end}"]) for end in ("low", "high"))
        lines.append([policy, found["greedy"]["forwards_plain"], chain, published, f"{greedy} ({low:.2f}-{high:.2f})"])
    prompts = next(iter(rows.values()))["prompts"]
    return markdown(["policy", f"plain forwards, {prompts} prompts", "chain", "published", "greedy"], lines)


def _informed_table() -> str:
    lines = []
    for cell in benchmark("informed")["cells"]:
        for row in cell["budgets"]:
            variants = {variant["name"]: variant["nfe_reduction"] for variant in row["variants"]}
            wide = row["equal_rows"]
            lines.append([
                decoding(cell), row["budget"],
                *(f"{row[f'nfe_reduction_{method}']:.2f}" for method in ("published", "exact")),
                f"**{row['nfe_reduction_informed']:.2f}**", estimate(row["informed_over_exact"]),
                f"{estimate(wide['informed_over_exact'])} (D = {wide['budget']})",
                *(f"{variants[name]:.2f}" if name in variants else "" for name in ("mixture", "copies")),
                f"{row['drafted_blocks_exact']:.1f} / {row['drafted_blocks_informed']:.1f}",
            ])  # fmt: skip
    columns = [
        "decoding", "D", "published", "exact", "informed", "over exact, as many drafts", "over exact, as many rows",
        "mixture", "with copies", "blocks beside the real one, exact / informed",
    ]  # fmt: skip
    return markdown(columns, lines)


def _informed_tuning_table() -> str:
    lines = []
    for cell in benchmark("informed_tuning")["cells"]:
        rows = {row["settings"]: row for row in cell["rows"]}
        changed = ", ".join(f"{name} {_short(value)}" for name, value in rows["tuned"]["changed"].items())
        found = (estimate(rows[name]["over_default"], 3) for name in ("mixture", "tuned"))
        lines.append([decoding(cell), cell["drafts"], *found, changed])
    return markdown(["decoding", "D", "mixture, by hand", "tuned", "what the best trial changed"], lines)


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value).lower()


def _informed_time_table() -> str:
    lines = []
    for cell in benchmark("informed_time")["cells"]:
        best = (f"D = {cell['budgets'][kind]}: {estimate(cell['speedup'][kind])}" for kind in ("graph", "informed"))
        lines.append([decoding(cell), *best, estimate(cell["informed_over_graph"])])
    return markdown(["decoding", "best graph", "best informed", "informed over graph"], lines)


def _pruning_table() -> str:
    lines = []
    for cell in benchmark("pruning")["cells"]:
        static = {(row["method"], row["budget"]): row["nfe_reduction"][0] for row in cell["static"]}
        large = {(row["keep"], row["score"]): row for row in cell["pruned"] if (row["method"], row["large"]) == _LARGE}
        for keep in (3, 5, 10):
            scores = [large[keep, score] for score in ("own", "mean_child", "best_child", "pooled")]
            lines.append([
                cell["policy"], keep, *(f"{static[method, keep]:.2f}" for method in ("published", "exact")),
                *(f"{row['nfe_reduction'][0]:.2f}" for row in scores),
                *(estimate(row["over_exact"], 3) for row in scores[:2]),
            ])  # fmt: skip
    columns = [
        "decoding", "D*", "static, published", "static, exact", "own", "mean_child", "best_child", "pooled",
        "own over exact", "mean_child over exact",
    ]  # fmt: skip
    return markdown(columns, lines)


_LARGE = ("exact", 64)


def _refresh_table() -> str:
    lines = []
    for cell in benchmark("refresh_drafts")["cells"]:
        for budget in dict.fromkeys(row["budget"] for row in cell["rows"]):
            rows = {row["variant"]: row for row in cell["rows"] if row["budget"] == budget}
            plain = rows["informed"]
            lines.append([
                f"{cell['policy']}, L = {cell['block_length']}", budget,
                f"{plain['plain_forwards']} / {plain['forwards']}",
                *(_percent(rows[guess]["forwards_saved"]) for guess in ("stale", "deep", "behind", "true")),
                f"**{_percent(rows['copies']['forwards_saved'])}**", _percent(rows["copies"]["query_tokens_more"]),
            ])  # fmt: skip
    columns = [
        "decoding", "D", "forwards, plain / informed", "stale", "deep", "behind", "true", "copies",
        "query tokens with copies",
    ]  # fmt: skip
    return markdown(columns, lines)


def _percent(triple: Sequence[float]) -> str:
    value, low, high = (f"{100 * number:.0f}".replace("-0", "0") for number in triple)
    return f"{value} % [{low}, {high}]"


def _rules_table() -> str:
    with (ROOT / "docs" / "results" / "rules.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    methods = [(method, d) for d in (5, 10) for method in ("chain", "published", "exact", "informed")]
    found = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        mine = [row for row in rows if row["policy"] == policy]
        plain = [row for row in mine if row["method"] == "plain"]
        prompts = sum(int(row["prompts"]) for row in plain)
        forwards = _forwards(plain)
        cells = []
        for method, budget in methods:
            some = [row for row in mine if row["method"] == method and int(row["budget"]) == budget]
            mark = "" if all(row["replayed"] == "True" for row in some) else "*"
            cells.append(f"{forwards / _forwards(some):.2f}{mark}" if some else "")
        valid = sum(int(row["valid"]) for row in plain)
        found.append([f"`{policy.partition('#')[0]}`", f"{valid}/{prompts}", f"{forwards / prompts:.1f}", *cells])
    columns = ["rule", "valid", "forwards", *(f"{method}, {d}" for method, d in methods)]
    return markdown(columns, found)


def _forwards(rows: Iterable[dict[str, str]]) -> float:
    return sum(float(row["forwards"]) * int(row["prompts"]) for row in rows)


#: Name in the page -> what makes the table.
TABLES: dict[str, Callable[[], str]] = {
    "method": _method_table,
    "informed": _informed_table,
    "informed_tuning": _informed_tuning_table,
    "informed_time": _informed_time_table,
    "pruning": _pruning_table,
    "refresh_drafts": _refresh_table,
    "block-length": _block_length_table,
    "policy": _policy_table,
    "rules": _rules_table,
}


def filled(text: str) -> str:
    """The page with every table made anew.

    Raises:
        KeyError: a place whose name is no table's.
    """
    return _PLACE.sub(lambda place: place[1] + TABLES[place["name"]]() + place[3], text)


def main() -> None:
    """Write the tables of docs/results/README.md from the result files."""
    text = filled(PAGE.read_text(encoding="utf-8"))
    with write_atomically(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
