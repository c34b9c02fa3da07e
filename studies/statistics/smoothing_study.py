"""Does smoothing help? Strength and model are chosen on validation prompts and judged on test prompts.

The search prompts give the counts. For every model and strength a method searches the smoothed counts, and its graphs
are replayed on the validation prompts; the fewest forwards, summed over the budgets, win. Raw counts are a candidate
like any other and win ties, and then the weaker smoothing. The choice is then valued once on the test prompts, in pairs
with raw counts: prompts that no search and no choice has seen. With K budgets the verdict consists of K intervals, and
one of them may miss zero by chance; so each has level 1 - 0.05 / K (Bonferroni), and all together hold 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drafting.anchors import AnchorTable
from drafting.parametric.smoothing import UNSEEN_MASS, SmoothingError, smoothed_trie
from drafting.parametric.smoothing_models import MODELS
from drafting.parents import parent_graph
from drafting.replay import replay
from drafting.searches.result import check_budget
from drafting.searches.methods import SearchInput, find_graphs
from drafting.trie import PrefixTrie
from studies.statistics.crossval import SplitError
from studies.statistics.intervals import LEVEL, Comparison, PromptBootstrap
from verify.graph.formulas import Formula

STRENGTHS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
RAW = "raw"


@dataclass(frozen=True, eq=False)
class SmoothingTrial:
    """One model and strength: its graphs and their forwards on the validation prompts, per budget."""

    model: str
    strength: float
    prefixes: int
    graphs: dict[int, tuple[Formula, ...]]
    validation_forwards: dict[int, int]

    @property
    def total(self) -> int:
        """Validation forwards summed over the budgets: what is minimised."""
        return sum(self.validation_forwards.values())


@dataclass(frozen=True, eq=False)
class SmoothingStudy:
    """All trials (raw counts first), the one that validation chose, and the verdict of the test prompts per budget."""

    method: str
    trials: tuple[SmoothingTrial, ...]
    chosen: SmoothingTrial
    test: dict[int, Comparison]

    def rows(self) -> list[dict[str, Any]]:
        """One row per trial and budget; test values only for raw counts and the chosen trial: no other was judged."""
        rows = []
        for trial in self.trials:
            for budget, forwards in trial.validation_forwards.items():
                row: dict[str, Any] = {
                    "method": self.method,
                    "model": trial.model,
                    "strength": trial.strength,
                    "budget": budget,
                    "prefixes": trial.prefixes,
                    "validation_forwards": forwards,
                    "chosen": trial is self.chosen,
                }
                verdict = self.test[budget]
                if trial is self.chosen or trial.model == RAW:
                    # A comparison is chosen against raw; when raw was chosen, both sides are raw.
                    found = verdict.nfe_reduction[0 if trial is self.chosen else 1]
                    row |= {"nfe_reduction": found.estimate}
                    row |= {"nfe_reduction_low": found.low, "nfe_reduction_high": found.high}
                if trial is self.chosen and trial.model != RAW:
                    gain = verdict.nfe_reduction_difference
                    row |= {"gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high}
                rows.append(row)
        return rows

    def sentence(self) -> str:
        """The outcome in words: what was chosen, and whether the test prompts confirm a gain."""
        if self.chosen.model == RAW:
            return (
                "Smoothing does not help: on the validation prompts no smoothing needs fewer forwards than raw counts."
            )
        name = f"{self.chosen.model} smoothing of strength {self.chosen.strength:g}"
        parts, helped, hurt = [], 0, 0
        for budget, verdict in self.test.items():
            gain = verdict.nfe_reduction_difference
            helped, hurt = helped + (gain.low > 0), hurt + (gain.high < 0)
            parts.append(f"D = {budget}: {gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        prompts = next(iter(self.test.values())).nfe_reduction_difference.prompts
        numbers = (
            f"nfe reduction against raw counts on {prompts} test prompts, together {LEVEL:.0%}, {'; '.join(parts)}"
        )
        if helped and not hurt:
            where = "at every budget" if helped == len(self.test) else f"at {helped} of {len(self.test)} budgets"
            return f"Validation chose {name}, and the test prompts confirm a gain {where}: {numbers}."
        if hurt:
            return f"Validation chose {name}, but on the test prompts it loses at {hurt} budgets: {numbers}."
        return f"Validation chose {name}, but the test prompts show no gain, every interval contains zero: {numbers}."


def smoothing_study(
    method: str,
    search: AnchorTable,
    validation: AnchorTable,
    test: AnchorTable,
    budgets: Sequence[int],
    *,
    block_length: int,
    step_size: int | None,
    models: Sequence[str] = tuple(MODELS),
    strengths: Sequence[float] = STRENGTHS,
    unseen_mass: float | None = UNSEEN_MASS,
    seed: int = 0,
) -> SmoothingStudy:
    """Choose a smoothing on ``validation`` and judge it on ``test``.

    Args:
        method: a name of ``drafting.searches.methods``, one that looks at counts.
        search, validation, test: anchors of disjoint prompts, whole chains.
        budgets: draft nodes.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        models: names of ``drafting.parametric.smoothing_models.MODELS``.
        strengths: in anchors; raw counts are always tried too.
        unseen_mass: see :func:`drafting.parametric.smoothing.smoothed_trie`.
        seed: of the bootstrap.

    Complexity: one search and one replay per model and strength.

    Raises:
        SplitError: no budget, a split without prompts, fewer than two test prompts.
        SmoothingError: an unknown model or a strength out of range.
    """
    for name in models:
        if name not in MODELS:
            raise SmoothingError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    for budget in budgets:
        check_budget(budget)
    drafting = sorted({budget for budget in budgets if budget > 0})
    if not drafting:
        raise SplitError("smoothing is studied for budgets of at least one draft, got none")
    for name, table, least in (("search", search, 1), ("validation", validation, 1), ("test", test, 2)):
        if len(table.prompt_indices()) < least:
            raise SplitError(f"the {name} split needs at least {least} prompts, got {len(table.prompt_indices())}")
    raw = PrefixTrie.from_anchors(search, max_depth=drafting[-1])

    def run(model: str, strength: float, trie: PrefixTrie) -> SmoothingTrial:
        found = find_graphs(method, SearchInput(trie, drafting[-1], block_length, step_size), drafting)
        graphs = {budget: graph.nodes for budget, graph in found.items()}
        forwards = {budget: replay(nodes, validation).forwards for budget, nodes in graphs.items()}
        return SmoothingTrial(model, strength, trie.n_nodes, graphs, forwards)

    trials = [run(RAW, 0.0, raw)]
    relation = parent_graph(raw, step_size)
    for name in models:
        model = MODELS[name](raw)
        for strength in sorted({float(value) for value in strengths} - {0.0}):
            trials.append(
                run(name, strength, smoothed_trie(raw, model, strength, graph=relation, unseen_mass=unseen_mass))
            )
    chosen = min(trials, key=lambda trial: (trial.total, trial.strength))
    bootstrap = PromptBootstrap(len(test.prompt_indices()), level=1 - (1 - LEVEL) / len(drafting), seed=seed)
    verdicts = {
        budget: bootstrap.compare(replay(chosen.graphs[budget], test), replay(trials[0].graphs[budget], test))
        for budget in drafting
    }
    return SmoothingStudy(method, tuple(trials), chosen, verdicts)
