"""A report of a run: one HTML page that opens without a network and says what to conclude, and how sure.

Everything on it is read from the run directory; nothing is computed here that a table of the run does not hold.
The page opens with one summary over policies (:mod:`studies.report.advice`); the graph that is recommended there is the
one that is highlighted in the table and drawn.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from figures import draw_all
from figures.canvas.output import save_figure
from figures.plots.graph_layers import draw_graph_layers, table_graph_layers
from figures.records.budget import Budget, load_budget
from figures.records.record import FigureDataError, read_object
from figures.records.run import RESULTS_NAME, Run, load_run
from figures.records.words import file_name
from studies.report.advice import Advice, Verdict, advise, details, identity
from verify.files.writing import write_atomically
from verify.graph.file import GraphFileError, load_graph

#: Figures in the order in which a reader needs them: file name start, heading, what to look for.
FIGURES = (
    ("nfe_vs_budget", "Forward passes saved against budget",
     "Solid lines are held-out prompts, and only they count. Where a curve flattens, drafts are rows for nothing."),
    ("nfe_vs_rows", "Forward passes saved against the rows of drafts",
     "A line above another one saves more forward passes for as many rows."),
    ("graph-", "The graph",
     "Every node is a set of (position rank : vocabulary rank) pairs. Size shows how often a state occurred, colour "
     "how often the graph accepts it."),
    ("accepted_histogram", "Drafts accepted per forward pass",
     "Against the chain of the same budget: a graph that covers several orders fails less often at the first draft."),
    ("accepted_drafts", "Accepted drafts against budget",
     "The mean over all anchors, which is what searches maximise; forwards saved follow it, but are not the same."),
    ("ranks-", "Where the next commit stands in the ranking",
     "The more the mass sits at rank 1, the better a plain chain does, and the less a graph can add."),
    ("quality", "Valid answers against forward passes",
     "A bolder unmasking rule goes left and loses answers; drafts go left and change none."),
    ("calibration_size", "Would more prompts help?", "A flat curve says that the prompts suffice for this budget."),
    ("optuna", "Optuna study", "What tuning a parametric constructor won over fixed graphs, on test prompts."),
    ("pareto", "Pareto front", "Every point is a graph; none below and to the right of the front is worth its rows."),
    ("latency", "Latency against rows", 
     "Where the line is flat, drafts are free; where it climbs, each must earn its time."),
    ("speedup", "Predicted speed-up against budget", "Forwards from replay, times from the device."),
    ("", "More", ""),
)  # fmt: skip


#: What the head of the page says of the run; each is shown where the run states it.
_FACTS = (
    ("cache", "{} cache"), ("block_length", "block length {}"), ("generation_length", "generation length {}"),
    ("temperature", "temperature {}"), ("dtype", "{}"), ("device", "on {}"), ("prompts", "prompts: {}"),
    ("tool_version", "draftgraph {}"), ("model_revision", "model revision {}"),
)  # fmt: skip


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write ``report.html`` for a run directory; its figures are drawn anew.

    Args:
        run: a run directory of ``draftgraph calibrate``, or the ``results.json`` in it.
        out: where to write instead of ``RUN/report.html``.

    Raises:
        figures.FigureDataError: no run there; results, a verdict or a graph file that are broken, lack a field or lie
            outside the run; or a graph without its row on the other split.
        OSError: the page cannot be written.
    """
    results = load_run(run)
    directory = results.directory  # also where results.json itself was named
    named = results.config.get("policies")
    done = results.policies()
    policies = [policy for policy in named if isinstance(policy, str)] if isinstance(named, list) else done
    advice = [advise(results, policy, read_verdict(results, policy)) for policy in done]
    draw_all(directory)
    for one in advice:
        draw_recommended(results, one)
    environment = Environment(
        loader=PackageLoader("studies.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["code"] = code
    page = environment.get_template("report.html.j2").render(
        model=str(results.config.get("model", "this run")),
        facts=", ".join(
            form.format(results.config[name]) for name, form in _FACTS if results.config.get(name) is not None
        ),
        sections=[policy_section(results, one) for one in advice],
        unfinished=[policy for policy in policies if policy not in done],
        figures=list(figure_sections(directory / "figures")),
        config_json=json.dumps(results.config, indent=2, ensure_ascii=False),
    )
    path = Path(out) if out is not None else directory / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def read_verdict(run: Run, policy: str) -> Verdict | None:
    """What ``draftgraph budget`` found for ``policy``: the first verdict file in the run directory that fits the run.

    Raises:
        FigureDataError: a verdict file that is broken. Other files are passed over, readable or not.
    """
    for file in sorted(run.directory.glob("*.json")):
        try:
            known = file.name != RESULTS_NAME and read_object(file).get("format") == Budget.FORMAT
        except FigureDataError:
            continue
        if known and (budget := load_budget(file)).fits(run.config, policy):
            return Verdict(budget, file)
    return None


def draw_recommended(run: Run, advice: Advice) -> None:
    """Draw the recommended graph in the place of the one that figures choose, which is the best by forwards.

    Raises:
        FigureDataError: a graph file that is broken or lies outside the run.
    """
    if advice.recommended is not None and advice.verdict is None and advice.recommended.test.graph is not None:
        graph = run.load_graph(advice.recommended.test)
    elif (path := advice.graph(run)) is not None:
        try:
            graph = load_graph(path)
        except GraphFileError as error:
            raise FigureDataError(str(error)) from None
    else:
        return
    try:
        figure = draw_graph_layers(graph)
    except FigureDataError:  # larger than can be read; the figure that is there shows a smaller budget and says so
        return
    save_figure(figure, run.directory / "figures" / file_name("graph", advice.policy), table_graph_layers(graph))


def policy_section(run: Run, advice: Advice) -> dict[str, Any]:
    """Everything the page says about one policy."""
    recommended = advice.recommended.test if advice.recommended is not None else None
    comparisons = [
        f"D = {found.budget}: {found.sentence}"
        for found in run.comparisons
        if recommended is not None
        and (found.policy, found.budget) == (advice.policy, recommended.budget)
        and found.first == recommended.method
    ]
    graph = advice.graph(run)
    return {
        "advice": advice,
        "identity": identity(advice.pairs),
        "details": list(details(advice, comparisons, (run.directory / "latency.json").is_file())),
        "measured_prompts": advice.pairs[0].test.measured_prompts if advice.pairs else 0,
        "graph": graph.relative_to(run.directory).as_posix() if graph is not None else None,
        "verdict": advice.verdict.file.name if advice.verdict is not None else None,
    }


def code(sentence: str) -> Markup:
    """``sentence`` as HTML, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


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
