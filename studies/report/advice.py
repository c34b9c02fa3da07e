"""What a run says about one policy: which graph to use, how sure that is, and what it rests on.

Forwards are not time. Where ``draftgraph budget`` has priced a policy, its verdict is the recommendation; before that
the graph with the fewest forwards on the search prompts is named, by forwards alone. Nothing here looks at test rows
to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures.records.budget import Budget
from figures.records.record import FigureDataError
from figures.records.run import BOUNDS, LEARNING, RESULTS_NAME, ResultRow, Run, describe
from studies.statistics.intervals import FEW_PROMPTS

#: What a row must hold to be reported; where prompts were run, a row on test prompts also holds the second list.
_NEEDED = ("prompts", "nfe_reduction", "forwards_predicted", "exact")
#: What a row of a graph must hold besides.
_OF_GRAPHS = ("nodes", "accepted_drafts")
_MEASURED = ("forwards_measured", "forwards_predicted_measured", "tokens_identical", "query_tokens", "seconds")


@dataclass(frozen=True)
class Pair:
    """One graph on test prompts, and the same graph on the search prompts that it was found on."""

    test: ResultRow
    search: ResultRow


@dataclass(frozen=True)
class Verdict:
    """What ``draftgraph budget`` found, and where: the file and, if there is one, the graph file beside it."""

    budget: Budget
    file: Path

    @property
    def graph(self) -> Path | None:
        """The graph file, where the verdict has one and it is still there."""
        path = self.file.parent / self.budget.graph if self.budget.graph is not None else None
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class Advice:
    """What a reader should do under one policy.

    Attributes:
        policy: the unmasking policy.
        pairs: every graph of the policy, in the order of the rows.
        recommended: the graph to use; plain decoding where the verdict is not to speculate; None where there is no
            graph at all, or where the verdict's graph is not among those of the run.
        plain: plain decoding, where the run holds it.
        verdict: of ``draftgraph budget``, None where nobody has priced the policy.
        few: there are fewer than :data:`FEW_PROMPTS` held-out prompts, so nothing is concluded.
        kind: "good", "note" or "bad", for the colour.
        sentence: the recommendation in words.
    """

    policy: str
    pairs: tuple[Pair, ...]
    recommended: Pair | None
    plain: Pair | None
    verdict: Verdict | None
    few: bool
    kind: str
    sentence: str

    @property
    def marked(self) -> Pair | None:
        """The row to highlight: the recommended one, none where nothing is concluded or the advice is against it."""
        found = self.recommended
        against = self.kind == "bad" and found is not None and found.test.budget > 0
        return None if self.few or against else found

    def graph(self, run: Run) -> Path | None:
        """The file of the recommended graph; None where plain decoding or nothing is recommended."""
        if self.verdict is not None:
            return self.verdict.graph
        row = self.recommended.test if self.recommended is not None else None
        return run.directory / row.graph if row is not None and row.graph is not None else None

    def saved(self) -> str:
        """Forward passes of plain decoding over those of the recommended graph; empty where nothing is recommended."""
        row = self.recommended.test if self.recommended is not None else None
        if row is None and self.verdict is not None:
            budget = self.verdict.budget
            return f"{budget.rows[0].forwards / budget.chosen().forwards:.2f} ×"
        if row is None or row.nfe_reduction is None:
            return ""
        interval = ""
        if row.nfe_reduction_low is not None and row.nfe_reduction_high is not None and row.budget > 0:
            interval = f" ({row.nfe_reduction_low:.2f} to {row.nfe_reduction_high:.2f})"
        return f"{row.nfe_reduction:.2f} ×{interval}"

    def predicted(self) -> str:
        """The predicted speed-up with its interval; empty where nobody has priced it."""
        if self.verdict is None:
            return ""
        low, high = self.verdict.budget.predicted_speedup_interval
        return f"{self.verdict.budget.predicted_speedup:.2f} × ({low:.2f} to {high:.2f})"

    def measured(self) -> str:
        """Seconds of plain decoding and with the recommended graph, as the run measured them; empty without both."""
        times = _seconds(self.recommended, self.plain, self.verdict)
        return "" if times is None else f"{times[0]:.2f} s → {times[1]:.2f} s ({times[0] / times[1]:.2f} ×)"


def advise(run: Run, policy: str, verdict: Verdict | None) -> Advice:
    """What to recommend under ``policy``.

    Raises:
        FigureDataError: a row without the fields of a calibrated run, or without the same graph on the other split.
    """
    pairs = pair_up(run, policy)
    plain = next((pair for pair in pairs if pair.test.budget == 0), None)
    if verdict is not None:
        budget = verdict.budget.budget
        search = verdict.budget.drafter if verdict.budget.drafter in LEARNING else verdict.budget.search
        recommended = plain if budget == 0 else _find(pairs, search, budget)
    else:
        recommended = choose(pairs)
    few = any(pair.test.prompts is not None and pair.test.prompts < FEW_PROMPTS for pair in pairs)
    kind, sentence = _recommendation(recommended, plain, verdict, few, pairs)
    return Advice(policy, pairs, recommended, plain, verdict, few, kind, sentence)


def pair_up(run: Run, policy: str) -> tuple[Pair, ...]:
    """Every graph of ``policy`` on test prompts with its row on search prompts.

    Raises:
        FigureDataError: as for :func:`advise`.
    """
    rows = {index: row for index, row in enumerate(run.rows) if row.policy == policy and row.method not in BOUNDS}
    search = {(row.method, row.reading, row.budget, row.cache): row for row in rows.values() if row.split == "search"}
    pairs = []
    for index, row in rows.items():
        if row.split != "test":
            continue
        place = f"{run.directory / RESULTS_NAME}: rows[{index}]"
        partner = search.get((row.method, row.reading, row.budget, row.cache))
        if partner is None:
            raise FigureDataError(
                f"{place}: expected the same graph on search prompts in another row, found none for {describe(row)}; "
                "run `draftgraph calibrate` again"
            )
        needed = _NEEDED if row.method in LEARNING else (*_NEEDED, *_OF_GRAPHS)
        for name in (*needed, *(_MEASURED if row.measured_prompts else ())):
            if getattr(row, name) is None or (name in needed and getattr(partner, name) is None):
                raise FigureDataError(f"{place}.{name}: expected a value in this row and its partner, found null")
        pairs.append(Pair(row, partner))
    return tuple(pairs)


def choose(pairs: Iterable[Pair]) -> Pair | None:
    """The drafts with the fewest forwards on the search prompts; the smaller budget when equal. None without drafts."""
    drafted = [pair for pair in pairs if pair.search.nodes or pair.search.method in LEARNING]
    return min(drafted, key=lambda pair: (pair.search.forwards_predicted or 0, pair.search.budget), default=None)


def identity(pairs: Sequence[Pair]) -> tuple[str, str] | None:
    """(kind, sentence): whether tokens and forwards were those promised, over all graphs that were run."""
    rows = [pair.test for pair in pairs if pair.test.budget > 0] or [pair.test for pair in pairs]
    prompts = rows[0].measured_prompts if rows else 0
    if not prompts:
        return ("note", "No prompt was run with the graphs, so identity was not checked here.") if rows else None
    promised = all(row.exact for row in rows)
    promise = "" if promised else " This mode is near-lossless only: identity is measured, not promised."
    other = [row for row in rows if (row.tokens_identical or 0.0) < 1]
    unforeseen = [row for row in rows if row.forwards_measured != row.forwards_predicted_measured]
    if not other and not unforeseen:
        return (
            "good",
            f"All {len(rows)} graphs gave the tokens of plain decoding on the {prompts} prompts that were run, with "
            f"exactly the forward passes that the traces predicted.{promise}",
        )
    worst = min(row.tokens_identical or 0.0 for row in rows)
    return (
        "bad" if promised else "note",
        f"{len(other)} of {len(rows)} graphs changed a token (worst: {100 * worst:.0f} % of {prompts} prompts are "
        f"identical), and {len(unforeseen)} needed other forward passes than predicted.{promise}",
    )


def details(advice: Advice, comparisons: Iterable[str], has_latency: bool) -> Iterable[str]:
    """What the recommendation rests on, one sentence after the other."""
    if advice.recommended is None or advice.recommended.test.budget == 0 or advice.few:
        return
    test, search = advice.recommended.test, advice.recommended.search
    found, held = search.nfe_reduction or 0.0, test.nfe_reduction or 0.0
    yield (
        f"On the prompts it was made from, this graph needs {found:.2f} times fewer forward passes; on held-out ones "
        f"{held:.2f}. " + (
            "The difference is calibration error, and what sets the two sets of prompts apart."
            if found - held > 0.005 else "Nothing is lost on new prompts, so calibration error is small here."
        )
    )  # fmt: skip
    plain = advice.plain.test if advice.plain is not None else None
    if plain is not None and plain.query_tokens and test.query_tokens and test.forwards_measured:
        saved = (plain.forwards_measured or 0) / test.forwards_measured
        yield (
            f"It computes {test.query_tokens / plain.query_tokens:.1f} times the query tokens of plain decoding in "
            f"{saved:.2f} times fewer forward passes on the prompts that were run. It pays where its forwards take, in "
            f"the mean, less than {saved:.2f} times as long as plain ones."
        )
    if advice.verdict is None:
        yield (
            "`latency.json` holds the times of a device; `draftgraph budget` prices every budget with it."
            if has_latency
            else "`draftgraph latency` measures what forwards take on your device, and `draftgraph budget` prices "
            "every budget with it."
        )
    if test.budget == max(pair.test.budget for pair in advice.pairs):
        yield f"This is the largest budget that was tried ({test.budget}); a larger one may save more forward passes."
    yield from comparisons


def _find(pairs: Iterable[Pair], search: str, budget: int) -> Pair | None:
    """The graph of a verdict among those of the run: same method, where it states one the same reading, same budget."""
    method, _, reading = search.partition(":")
    for pair in pairs:
        row = pair.test
        if (row.method, row.budget) == (method, budget) and reading in ("", row.reading):
            return pair
    return None


def _seconds(recommended: Pair | None, plain: Pair | None, verdict: Verdict | None) -> tuple[float, float] | None:
    """Seconds of plain decoding and of the recommended graph on the same prompts; None where one is not measured."""
    if verdict is not None and verdict.budget.measured_seconds is not None:
        return verdict.budget.measured_seconds_plain or 0.0, verdict.budget.measured_seconds
    if recommended is None or plain is None or not recommended.test.seconds or not plain.test.seconds:
        return None
    return plain.test.seconds, recommended.test.seconds


def _recommendation(
    recommended: Pair | None, plain: Pair | None, verdict: Verdict | None, few: bool, pairs: Sequence[Pair]
) -> tuple[str, str]:
    if few:
        prompts = min(pair.test.prompts or 0 for pair in pairs)
        held = "1 held-out prompt" if prompts == 1 else f"{prompts} held-out prompts"
        return "note", (
            f"Nothing is concluded from {held}: with fewer than {FEW_PROMPTS} an interval holds much less often "
            "than it says. The numbers are what was seen; record more test prompts for an answer."
        )
    times = _seconds(recommended, plain, verdict)
    if verdict is not None:
        low, high = verdict.budget.predicted_speedup_interval
        kind = "bad" if verdict.budget.budget == 0 or high < 1 else "good" if low > 1 else "note"
        if times is not None and verdict.budget.budget > 0:
            slower = times[1] > times[0]
            kind = "note" if kind == "good" and slower else kind
            return kind, f"{verdict.budget.sentence} {_measured_sentence(times, slower)}"
        return kind, verdict.budget.sentence
    if recommended is None:
        return "note", "There is no graph to judge: no budget above 0 was asked for, or no draft was ever possible."
    row = recommended.test
    if (row.nfe_reduction or 0.0) < 1.005:
        return "bad", f"No graph saves forward passes on the {row.prompts} held-out prompts: do not speculate here."
    interval = ""
    if row.nfe_reduction_low is not None and row.nfe_reduction_high is not None:
        interval = f" (95 % interval over prompts {row.nfe_reduction_low:.2f} to {row.nfe_reduction_high:.2f})"
    sentence = (
        f"By forwards alone: {row.method} with D = {row.budget} needs {row.nfe_reduction:.2f} times fewer forward "
        f"passes than plain decoding on {row.prompts} held-out prompts{interval}."
    )
    # Fewer forwards are not less time, and nobody has priced them yet.
    return "note", sentence if times is None else f"{sentence} {_measured_sentence(times, times[1] > times[0])}"


def _measured_sentence(times: tuple[float, float], slower: bool) -> str:
    plain, graph = times
    verb = f"longer: {graph / plain:.2f} times" if slower else f"less: {plain / graph:.2f} times faster"
    return (
        f"Measured in this run, the same prompts took {plain:.2f} s plainly and {graph:.2f} s with this graph, which is"
        f" {verb.replace(': ', ' (')})."
    )
