"""A report of a run: one HTML page that opens without a network and says what to conclude, and how sure.

Everything on it is read from the run directory; nothing is computed here that a table of the run does not hold.
Forwards are not time: where ``draftgraph budget`` has priced a policy (a ``.budget.json`` in the run directory), its
verdict comes first and its graph is the one that is named.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from calibrate.files import write_atomically
from figures import draw_all
from studies.runs.run_directory import RESULTS_NAME, RunDirectoryError, read_json

#: Figures in the order in which a reader needs them: file name start, heading, what to look for.
FIGURES = (
    ("nfe_vs_budget", "Forward passes saved against budget",
     "Solid lines are held-out prompts, and only they count. Where a curve flattens, drafts are rows for nothing."),
    ("graph-", "The graph",
     "Every node is a set of (position rank : vocabulary rank) pairs. Size shows how often a state occurred, colour "
     "how often the graph accepts it."),
    ("accepted_histogram", "Drafts accepted per forward pass",
     "Against the chain of the same budget: a graph that covers several orders fails less often at the first draft."),
    ("accepted_drafts", "Accepted drafts against budget",
     "The mean over all anchors, which is what searches maximise; forwards saved follow it, but are not the same."),
    ("ranks-", "Where the next commit stands in the ranking",
     "The more the mass sits at rank 1, the better a plain chain does, and the less a graph can add."),
    ("calibration_size", "Would more prompts help?", "A flat curve says that the prompts suffice for this budget."),
    ("optuna", "Optuna study", "What tuning a parametric constructor won over fixed graphs, on test prompts."),
    ("pareto", "Pareto front", "Every point is a graph; none below and to the right of the front is worth its rows."),
    ("latency", "Latency against rows", 
     "Where the line is flat, drafts are free; where it climbs, each must earn its time."),
    ("speedup", "Predicted speed-up against budget", "Forwards from replay, times from the device."),
    ("", "More", ""),
)  # fmt: skip


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write ``report.html`` for a run directory; its figures are drawn anew.

    Args:
        run: a run directory of ``draftgraph calibrate``.
        out: where to write instead of ``RUN/report.html``.

    Raises:
        RunDirectoryError: no run there, or its results are broken.
        figures.FigureDataError: results that cannot be drawn.
    """
    run = Path(run)
    results = read_json(run / RESULTS_NAME)
    if not isinstance(results, dict) or not results.get("rows"):
        raise RunDirectoryError(f"{run / RESULTS_NAME} holds no rows; run `draftgraph calibrate` to its end first")
    draw_all(run)
    environment = Environment(
        loader=PackageLoader("studies.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        config=results["config"],
        policies=[
            policy_section(results, policy, read_verdicts(run, results["config"], policy), has_latency(run))
            for policy in results["config"]["policies"]
            if any(row["policy"] == policy for row in results["rows"])
        ],
        unfinished=[
            policy
            for policy in results["config"]["policies"]
            if not any(row["policy"] == policy for row in results["rows"])
        ],
        figures=list(figure_sections(run / "figures")),
        config_json=json.dumps(results["config"], indent=2, ensure_ascii=False),
    )
    path = Path(out) if out is not None else run / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def has_latency(run: Path) -> bool:
    """Whether a latency file for ``draftgraph budget`` lies in the run directory."""
    return (run / "latency.json").is_file()


def read_verdicts(run: Path, config: dict[str, Any], policy: str) -> list[dict[str, Any]]:
    """What ``draftgraph budget`` said of ``policy``: ``budget``, ``kind``, ``sentence``, ``file``, ``graph``.

    Of every ``.budget.json`` in the run directory whose traces were this run's; the graph is the name of the file
    beside it, or None where plain decoding is the verdict or the file is gone.

    Raises:
        RunDirectoryError: a budget file that is no JSON or lacks its sentence.
    """
    verdicts = []
    for file in sorted(run.glob("*.budget.json")):
        found = read_json(file)
        if not isinstance(found, dict) or found.get("format") != "draftgraph-budget":
            continue
        validity = found.get("validity", {})
        own = {name: config[name] for name in ("model", "cache", "block_length") if name in config}
        if validity.get("temperature", 0.0) != config.get("temperature", 0.0):
            continue
        timed = found.get("latency") or {}
        if "dtype" in timed and timed["dtype"] != config.get("dtype", timed["dtype"]):
            continue
        if any(validity.get(name) != value for name, value in (*own.items(), ("policy", policy))):
            continue
        budget, sentence = found.get("budget"), found.get("sentence")
        if type(budget) is not int or not isinstance(sentence, str):
            raise RunDirectoryError(f"{file} holds no verdict; write it again with `draftgraph budget --overwrite`")
        graph = file.with_name(file.name.removesuffix(".budget.json") + ".json")
        interval = found.get("predicted_speedup_interval") or [0.0, 0.0]
        verdicts.append(
            {
                "budget": budget,
                "kind": "bad" if budget == 0 or interval[1] < 1 else "good" if interval[0] > 1 else "note",
                "sentence": sentence,
                "file": file.name,
                "graph": graph.name if budget > 0 and graph.is_file() else None,
            }
        )
    return verdicts


def policy_section(
    results: dict[str, Any], policy: str, verdicts: Sequence[dict[str, Any]] = (), latency: bool = False
) -> dict[str, Any]:
    """Everything the page says about one policy; ``latency``: a latency file is there."""
    rows = [row for row in results["rows"] if row["policy"] == policy]
    test = [row for row in rows if row["split"] == "test"]
    search = {(row["method"], row["budget"]): row for row in rows if row["split"] == "search"}
    drafted = [row for row in test if row["budget"] > 0]
    chosen = choose(list(search.values()))
    held = next(
        (r for r in drafted if chosen and (r["method"], r["budget"]) == (chosen["method"], chosen["budget"])), None
    )
    for row in test:
        row["search_nfe_reduction"] = search[row["method"], row["budget"]]["nfe_reduction"]
        row["chosen"] = row is held
    comparisons = [c for c in results.get("comparisons", []) if c["policy"] == policy]
    largest = max((row["budget"] for row in drafted), default=0)
    return {
        "policy": policy,
        "test": test,
        "held": held,
        "verdicts": list(verdicts),
        "conclusions": list(conclusions(test, held, comparisons, largest, verdicts, latency)),
        "comparisons": [c for c in comparisons if c["budget"] == largest],
        "largest": largest,
    }


def choose(search: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The row with the fewest forwards on the search split; the smaller budget when equal. Never looks at test rows.

    None when no row holds a graph with a node.
    """
    drafted = [row for row in search if row["nodes"] > 0]
    return min(drafted, key=lambda row: (row["forwards_predicted"], row["budget"]), default=None)


def conclusions(
    test: list[dict[str, Any]],
    held: dict[str, Any] | None,
    comparisons: list[dict[str, Any]],
    largest: int,
    verdicts: Sequence[dict[str, Any]] = (),
    latency: bool = False,
) -> Iterable[tuple[str, str]]:
    """Pairs (kind, sentence), kind one of "good", "note", "bad"; verdicts by time come before those by forwards."""
    for verdict in verdicts:
        yield verdict["kind"], verdict["sentence"]
    yield from identity(test)
    if held is None:
        yield "note", "There is no graph to judge: no budget above 0 was asked for, or no draft was ever possible."
        return
    # Fewer forwards are good news only as long as nobody has said what they cost.
    good = "note" if verdicts else "good"
    yield good if held["nfe_reduction"] > 1 else "bad", ("By forwards alone: " if verdicts else "") + _worth(held)
    drop = held["search_nfe_reduction"] - held["nfe_reduction"]
    yield (
        "note",
        f"On the prompts it was made from the same graph shows {held['search_nfe_reduction']:.2f}. "
        + (
            f"The difference of {drop:.2f} is calibration error, and what sets the two sets of prompts apart."
            if drop > 0.005
            else "Nothing is lost on new prompts, so calibration error is small here."
        ),
    )
    plain = next((row for row in test if row["budget"] == 0), None)
    if plain is not None and plain["query_tokens"]:
        rows = held["query_tokens"] / plain["query_tokens"]
        saved = plain["forwards_measured"] / held["forwards_measured"]
        computed = (
            f"It computes {rows:.1f} times the rows of plain decoding in {saved:.2f} times fewer forwards on the "
            "prompts that were run. It pays where its forwards take, in the mean, less than "
            f"{saved:.2f} times as long as plain ones"
        )
        if verdicts:
            advice = "; whether they do, and which budget pays best, is what the verdict above says."
        elif latency:
            advice = ": latency.json holds the times of a device, and `draftgraph budget` prices every budget with it."
        else:
            advice = ": `draftgraph latency` measures that on your device; where it does not hold, do not speculate."
        yield "note", computed + advice
    if held["budget"] == largest:
        yield (
            "note",
            f"The fewest forwards are at the largest budget that was tried ({largest}); larger ones may save more.",
        )
    for found in comparisons:
        if found["budget"] == largest and found["first"] == held["method"]:
            yield (
                ("good" if found["distinguishable"] and found["difference"] > 0 else "note"),
                (f"D = {largest}: {found['sentence']}"),
            )


def identity(test: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """Whether tokens and forwards were those promised, over all graphs that were run."""
    if not test:
        return
    prompts = test[0]["measured_prompts"]
    test = [row for row in test if row["budget"] > 0] or test
    other = [row for row in test if row["tokens_identical"] < 1]
    unforeseen = [row for row in test if row["forwards_measured"] != row["forwards_predicted_measured"]]
    promised = all(row["exact"] for row in test)
    if not other and not unforeseen:
        yield (
            "good",
            f"All {len(test)} graphs gave the tokens of plain decoding on the {prompts} prompts that were run, with "
            "exactly the forward passes that the traces predicted.",
        )
    else:
        worst = min(row["tokens_identical"] for row in test)
        yield (
            "bad" if promised else "note",
            f"{len(other)} of {len(test)} graphs changed a token (worst: {worst:.0%} of {prompts} prompts identical), "
            f"{len(unforeseen)} needed other forward passes than predicted.",
        )
    if not promised:
        yield "note", "This cache mode, back-end or dtype is near-lossless only: identity is measured, not promised."


def _worth(held: dict[str, Any]) -> str:
    if held["nfe_reduction"] < 1.005:
        return f"No graph saves forward passes on the {held['prompts']} held-out prompts: do not speculate here."
    interval = ""
    if held["nfe_reduction_low"] is not None:
        low, high = held["nfe_reduction_low"], held["nfe_reduction_high"]
        interval = f" (95 % interval over prompts {low:.2f} to {high:.2f})"
    return (
        f"{held['method']} with {held['budget']} drafts needs {held['nfe_reduction']:.2f} times fewer forward passes "
        f"than plain decoding on {held['prompts']} held-out prompts{interval}."
    )


def figure_sections(folder: Path) -> Iterable[dict[str, Any]]:
    """Headings with the figures that belong there, as data URIs; a figure appears once."""
    left = sorted(folder.glob("*.svg"))
    for start, heading, caption in FIGURES:
        mine = [path for path in left if path.stem.startswith(start)]
        left = [path for path in left if path not in mine]
        if mine:
            images = [
                {"name": path.stem, "uri": "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()}
                for path in mine
            ]
            yield {"heading": heading, "caption": caption, "images": images}
