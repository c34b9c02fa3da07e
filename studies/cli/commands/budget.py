"""``budget``: how many drafts pay, by the latency of a device (``latency`` measures it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studies.cli import options, printing
from studies.cli.guard import command
from studies.cli.outputs import check_output, draw

if TYPE_CHECKING:
    from calibrate.measuring.latency_table import LatencyTable
    from drafting.searches.result import SearchResult
    from studies.pricing.budget import BudgetChoice
    from studies.pricing.measured import MeasuredSeconds
    from studies.runs.splits import Splits


@command()
def budget_command(
    traces: Annotated[
        list[Path],
        typer.Argument(help="Traces to search, or folders with 'search' and 'test' in them; one per policy."),
    ],
    latency: Annotated[Path, typer.Option("--latency", help="A latency file of `draftgraph latency`.")],
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Traces that choose the budget; by default those searched.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Traces that judge the choice; by default TRACES/test.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help=options.METHOD_HELP)] = "greedy",
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.0, help="Seconds per budget for --method exact.")
    ] = 30.0,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Price with the latency of another model or dtype.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="A folder, for example the run: gets POLICY.json (the best graph, latency table inside) and "
            "POLICY.budget.json (every budget and the verdict).",
        ),
    ] = None,
    figures: Annotated[
        bool,
        typer.Option("--figures", help="Draw the latency and what --out wrote, into OUT/figures."),
    ] = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Price every budget with this device's latency and take the best; 0 means: do not speculate.

    The budget is chosen on the prompts searched (or on --validation), its speed-up is reported on --test. With
    --out, POLICY.budget.json holds every budget's row and the verdict, also when that is not to speculate. Several
    TRACES are priced one by one. Where TRACES lie in a run that decoded with the chosen graph, the measured times are
    printed and saved beside the predicted ones; where the run also recorded informed drafts (`calibrate --methods
    ...,informed`), these are priced together with the graphs.
    """
    from drafting.searches.methods import find_method
    from figures.records.latency import load_latency

    find_method(method)
    if len(traces) > 1 and (validation is not None or test is not None):
        raise ValueError("--validation and --test belong to one TRACES; give folders with 'test' in them")
    if figures and out is None:
        raise ValueError("--figures draws what --out wrote; give --out")
    table = load_latency(latency)
    splits = [_read(folder, validation, test) for folder in traces]
    outs = _outputs([one.validity.policy for one in splits], out)
    for path in outs:
        check_output(path, overwrite)
        check_output(_report_path(path), overwrite)
    own = validation is None and test is None  # state logs are of the run's own prompts
    priced = [
        _price(folder, one, table, latency, method, time_limit, any_model, own)
        for folder, one in zip(traces, splits, strict=True)
    ]
    chosen_on = "validation" if validation else "search"
    for one in priced:
        _show(one.choice, f"{one.folder}, {method}, budget chosen on {chosen_on} prompts")
    for one in priced:
        policy = f"{one.splits.validity.policy}: " if len(priced) > 1 else ""
        printing.say(policy + one.sentence)
        if one.measured is not None:
            best = one.choice.best
            sentence = one.measured.sentence(best.speedup, best.speedup_low, best.speedup_high)
            printing.say(policy + sentence)
    for one, path in zip(priced, outs, strict=bool(outs)):
        _save(one, table, method, chosen_on, path)
    if figures and out is not None:
        _draw([latency, *map(_report_path, outs)], out)


@dataclass(frozen=True, eq=False)
class _Priced:
    """The budgets of one trace folder: what was found for each, which one pays, why, and what a run measured of it."""

    folder: Path
    splits: Splits
    found: Mapping[int, SearchResult]
    choice: BudgetChoice
    sentence: str
    measured: MeasuredSeconds | None

    @property
    def graph(self) -> SearchResult | None:
        """The graph that pays; None where none does, or informed drafts do."""
        from figures.records.budget import GRAPH

        best = self.choice.best
        return self.found[best.budget] if best.budget > 0 and best.drafter == GRAPH else None


def _draw(files: Sequence[Path], out: Path) -> None:
    """Draw ``files`` where --out is: the latency file may lie in a run, whose figures are not this command's."""
    from figures.records.saved import figures_folder  # imported late: matplotlib takes a second

    folder = figures_folder(out)
    for file in files:
        for drawn in draw(file, folder):
            if drawn.suffix == ".png":
                printing.say(f"figure  {drawn}")


def _outputs(policies: Sequence[str], out: Path | None) -> list[Path]:
    """The graph file of every policy, in the folder ``out``; empty without one."""
    from studies.runs.run_directory import slug
    from verify.files.quoting import quoted

    if out is None:
        return []
    if out.suffix == ".json" or (out.exists() and not out.is_dir()):
        raise ValueError(
            f"--out {quoted(out)} is a file, expected a folder (for example the run); its files are named after the "
            "policies"
        )
    if twice := sorted({policy for policy in policies if policies.count(policy) > 1}):
        raise ValueError(
            f"several TRACES are of policy {twice[0]}, and so their files would have one name; price them one by one, "
            "each with an --out of its own"
        )
    return [out / f"{slug(policy)}.json" for policy in policies]


def _report_path(out: Path) -> Path:
    return out.with_name(out.name.removesuffix(".json") + ".budget.json")


def _read(traces: Path, validation: Path | None, test: Path | None) -> Splits:
    from studies.runs.splits import read_splits

    if test is None and not (traces / "test").is_dir():
        policies = _policy_folders(traces)
        named = f", or name a policy's folder: {', '.join(map(str, policies))}" if policies else ""
        raise ValueError(f"{traces} holds no folder 'test'; give the traces of other prompts with --test{named}")
    return read_splits(
        [_search_folder(traces), *([validation] if validation is not None else []), test or traces / "test"]
    )


def _search_folder(traces: Path) -> Path:
    return traces / "search" if (traces / "search").is_dir() else traces


def _price(
    traces: Path,
    splits: Splits,
    table: LatencyTable,
    latency: Path,
    method: str,
    time_limit: float,
    any_model: bool,
    own: bool,
) -> _Priced:
    from drafting.searches.methods import SearchInput, find_graphs
    from drafting.trie import PrefixTrie
    from studies.pricing.budget import choose_budget
    from studies.pricing.measured import measured_seconds
    from studies.runs.informed import counts_to_price

    check_prices(table, splits.run, str(latency), str(_search_folder(traces)), any_model)
    search, chooser, judge = splits.tables[0], splits.tables[-2], splits.tables[-1]
    drafting = [drafts for drafts in table.drafts if drafts > 0]
    problem = SearchInput(PrefixTrie.from_anchors(search), splits.validity.block_length, splits.step_size, time_limit)
    found = find_graphs(method, problem, drafting) if search.n_anchors else {}  # no anchor: nothing was ever to draft
    informed, note = counts_to_price(traces, splits.recordings if own else None, table)
    graphs = {budget: graph.nodes for budget, graph in found.items()}
    choice = choose_budget(graphs, chooser, judge, table, informed=informed)
    foreign = other_model(table, splits.run)
    sentence = choice.sentence + (f" But {foreign}." if foreign else "") + note
    priced = _Priced(traces, splits, found, choice, sentence, None)
    policy, best = splits.validity.policy, choice.best
    if priced.graph is not None:
        return replace(priced, measured=measured_seconds(traces, policy, priced.graph.nodes))
    if best.budget > 0:
        return replace(priced, measured=measured_seconds(traces, policy, informed=best.budget))
    return priced


def _policy_folders(folder: Path) -> list[Path]:
    """The trace folders of a calibration run's policies, where ``folder`` is the run or its ``traces``."""
    inner = folder / "traces" if (folder / "traces").is_dir() else folder
    return sorted(test.parent for test in inner.glob("*/test") if test.is_dir())


def _save(priced: _Priced, table: LatencyTable, method: str, chosen_on: str, out: Path) -> None:
    """Write the best graph, or say that there is none, and every budget's row with the verdict."""
    from drafting.graph import DraftGraph
    from drafting.provenance import search_provenance
    from drafting.replay import replay
    from drafting.trie import PrefixTrie
    from figures.records.budget import Budget
    from figures.records.record import save_record
    from verify.graph.file import save_graph

    splits, best, graph = priced.splits, priced.choice.best, priced.graph
    facts = search_provenance(
        splits.run,
        splits.trace_hashes[0],
        method,
        best.budget,
        # The validation prompts chose the budget, so they had their part in the graph too.
        [found for traces in splits.recordings[:-1] for found in traces.prompt_hashes()],
        chosen=graph.chosen or None if graph is not None else None,
        budget_chosen_on=chosen_on,
        predicted_speedup=best.speedup,
        predicted_speedup_interval=[best.speedup_low, best.speedup_high],
    )
    if graph is not None:
        nodes = graph.nodes
        names = ("search", "validation", "test") if chosen_on == "validation" else ("search", "test")
        values = {name: replay(nodes, anchors).row() for name, anchors in zip(names, splits.tables, strict=True)}
        whole = DraftGraph.from_formulas(nodes, splits.step_size).annotate(PrefixTrie.from_anchors(splits.tables[0]))
        save_graph(whole.to_graph_file(splits.validity, facts, values, table.graph_section()), out)
        printing.say("graph   ", printing.bold(out))
    else:
        out.unlink(missing_ok=True)  # there only with --overwrite: a graph beside a verdict against it misleads
        why = "plain decoding is the best budget"
        if best.budget > 0:
            why = f"informed drafts need none; decode with --drafter informed --drafts {best.budget}"
        printing.say(f"no graph is written for {splits.validity.policy}: {why}")
    verdict = Budget(
        rows=priced.choice.rows,
        budget=best.budget,
        sentence=priced.sentence,
        search=method,
        budget_chosen_on=chosen_on,
        predicted_speedup=best.speedup,
        predicted_speedup_interval=(best.speedup_low, best.speedup_high),
        validity=splits.validity,
        latency=table,
        at_edge=priced.choice.at_edge,
        trace_hashes=splits.trace_hashes,
        graph=out.name if graph is not None else None,
        drafter=best.drafter,
        measured_prompts=priced.measured.prompts if priced.measured else None,
        measured_seconds_plain=priced.measured.plain if priced.measured else None,
        measured_seconds=priced.measured.drafted if priced.measured else None,
    )
    save_record(verdict, _report_path(out))
    printing.say("budgets ", printing.bold(_report_path(out)))


def other_model(table: LatencyTable, run: Mapping[str, Any]) -> str:
    """What differs between the model and dtype that were timed and those that were recorded; empty when nothing."""
    parts = [
        f"the latency was measured with {name} {measured!r}, the traces were recorded with {run.get(name)!r}"
        for name, measured in (("model", table.model), ("dtype", table.dtype))
        if measured != run.get(name)
    ]
    return " and ".join(parts)


def check_prices(
    table: LatencyTable, run: Mapping[str, Any], latency: str, traces: str, any_model: bool = False
) -> None:
    """Refuse a latency table that does not time the forwards of the recorded ``run``.

    Raises:
        LatencyError: another model or dtype (unless ``any_model``), another block length, or a cache mode whose
            forwards have other rows than those that were timed.
    """
    from calibrate.measuring.latency_table import LatencyError

    if run["cache"] in ("none", "prefix"):
        raise LatencyError(
            f"{traces} was recorded with cache {run['cache']!r}: there every forward computes the rows after the "
            "block anew, and with 'none' those before it too, but latency files time one block over a cached context. "
            "Budgets are priced for traces recorded with --cache dual or block_causal"
        )
    if table.cache and table.cache != run["cache"]:
        raise LatencyError(
            f"{latency} was measured with {table.cache} cache, the traces were recorded with {run['cache']}: "
            f"refresh forwards differ; measure with --cache {run['cache']}"
        )
    if table.block_length != run["block_length"]:
        raise LatencyError(
            f"{latency} was measured for block length {table.block_length}, the traces have {run['block_length']}; "
            f"measure with --block-length {run['block_length']}"
        )
    if not any_model and (different := other_model(table, run)):
        raise LatencyError(
            f"{latency} does not fit {traces}: {different}; measure that model, or give --any-model to price one "
            "model's drafts with another's latency"
        )


def _show(choice: BudgetChoice, title: str) -> None:
    several = len({row.drafter for row in choice.rows}) > 1
    numbers = ("D", "ms each", "choice", "forwards", "speed-up", "95 % interval")
    shown = printing.plain_table(
        title,
        ({"drafts": "left"} if several else {}) | dict.fromkeys(numbers, "right"),
        "choice: speed-up on the prompts that chose; all other columns: on held-out prompts\n"
        "ms each: mean over all forwards, those that carry fewer drafts or none included",
    )  # fmt: skip
    for row in choice.rows:
        mark = printing.bold if row is choice.best else str
        shown.add_row(
            *([mark(row.drafter if row.budget else "plain")] if several else []), mark(row.budget),
            f"{row.milliseconds_per_forward:.2f}", f"{row.choice_speedup:.2f}",
            str(row.forwards), mark(f"{row.speedup:.2f}"), f"{row.speedup_low:.2f}-{row.speedup_high:.2f}",
        )  # fmt: skip
    printing.show(shown)
