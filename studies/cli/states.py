"""What commands print of state logs: the row of a replay, and how sure its count of forwards is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from studies.cli import printing
from studies.cli.statistics import say_few

if TYPE_CHECKING:
    from calibrate.traces.state_log import StateLog
    from drafting.state_replay import StateReplay
    from studies.cli.drafters import AskedDrafter


def state_row(asked: AskedDrafter, count: StateReplay, log: StateLog) -> dict[str, Any]:
    """The totals of a replay of a state log, with the interval of the NFE reduction over prompts.

    The ends of the interval are None with fewer than two prompts. ``exact``: whether in float32 the runtime counts
    these forwards; never in a mode that is near-lossless.
    """
    from studies.statistics.intervals import PromptBootstrap
    from verify.layout import exactness

    promised = exactness(log.metadata["cache"], log.metadata["backend"]).exact
    low = high = None
    if count.prompts > 1:
        found = PromptBootstrap(count.prompts).ratio(count.plain_per_prompt, count.forwards_per_prompt)
        low, high = found.pair()
    return {
        "drafter": asked.said,
        "drafts": asked.drafter.max_drafts,
        **count.row(),
        "nfe_reduction_low": low,
        "nfe_reduction_high": high,
        "query_tokens_per_forward": float(count.query_tokens_per_prompt.sum() / count.forwards),
        "proposed": count.proposed,
        "missed": count.missed,
        "exact": promised and (count.exact or asked.graph is not None),
    }


def show_states(log: StateLog, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of :func:`state_row` as a table; ``names`` are those of the drafters."""
    facts = log.metadata
    table = printing.plain_table(
        f"replay of a state log of {len(log.prompt_indices)} prompts, {facts['policy']}, {facts['cache']} cache, "
        f"{facts['backend']}",
        {
            "drafter": "left",
            "D": "right",
            "forwards\nplain": "right",
            "forwards\npredicted": "right",
            "nfe\nreduction": "right",
            "95 %\ninterval": "right",
            "query tokens\nper forward": "right",
            "states\nmissed": "right",
        },
        "interval: over prompts; states missed: of those proposed, how many the log does not know",
    )
    for name, row in zip(names, rows, strict=True):
        sure = row["nfe_reduction_low"] is not None
        table.add_row(
            name,
            str(row["drafts"]),
            str(row["forwards_plain"]),
            str(row["forwards_predicted"]),
            f"{row['nfe_reduction']:.3f}",
            f"{row['nfe_reduction_low']:.2f}-{row['nfe_reduction_high']:.2f}" if sure else "",
            f"{row['query_tokens_per_forward']:.1f}",
            f"{row['missed']} of {row['proposed']}",
        )
    printing.show(table)
    if len(log.prompt_indices) > 1:
        say_few(len(log.prompt_indices))


def certainty(asked: AskedDrafter, row: dict[str, Any], log: StateLog) -> str:
    """One sentence: whether the forwards predicted are those that the runtime counts, and what makes them so."""
    from verify.layout import exactness

    facts = log.metadata
    promise = exactness(facts["cache"], facts["backend"])
    if not promise.exact:
        return (
            f"{asked.name}: an estimate, as drafts are near-lossless in this cache mode ({promise.reason}); the "
            "runtime may count a few forwards more or fewer."
        )
    if row["exact"]:
        why = "the log knew every proposed state" if asked.graph is None else "a graph learns from no rejected draft"
        return f"{asked.name}: {why}, so in float32 the runtime counts these forwards on these prompts."
    return (
        f"{asked.name}: the log does not know {row['missed']} of {row['proposed']} proposed states. They count as "
        "never evaluated, which makes the forwards predicted an upper bound in practice, though not a proved one. To "
        f"make the count exact, record a log with these very drafts (draftgraph record {asked.option}) and give it too."
    )
