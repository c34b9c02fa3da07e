"""Cross-validation by prompt: what a method's graph is worth on prompts that it has not counted.

The prompts are cut into K folds. Each fold is valued with the graph found on all other folds; together these values
cover every prompt once. In-sample values come from the same graphs on the prompts that found them. The gap
between the two is what the search has learned by heart. Every denoising step belongs to its prompt, so no step is on
both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drafting.anchors import AnchorTable
from drafting.replay import ReplayResult, replay
from drafting.searches.methods import SearchInput, find_graphs
from drafting.searches.result import SearchResult, check_budget
from drafting.trie import PrefixTrie
from studies.statistics.intervals import Interval, PromptBootstrap


class SplitError(ValueError):
    """Prompts that cannot be split as asked for."""


@dataclass(frozen=True, eq=False)
class CrossValidatedBudget:
    """One budget over all folds.

    Attributes:
        budget: draft nodes asked for.
        nodes: per fold, draft nodes found (fewer when the fold held no more candidates).
        in_sample: per fold, counts on the K - 1 folds that found the graph.
        out_of_fold: every prompt once, valued by the graph that has not seen it.
    """

    budget: int
    nodes: tuple[int, ...]
    in_sample: tuple[ReplayResult, ...]
    out_of_fold: ReplayResult

    @property
    def in_sample_nfe_reduction(self) -> float:
        """Over all folds: plain forwards of the search prompts over their forwards."""
        return sum(part.plain_forwards for part in self.in_sample) / sum(part.forwards for part in self.in_sample)

    @property
    def in_sample_accepted_drafts(self) -> float:
        """Over all folds: drafts accepted per anchor of the search prompts."""
        accepted = sum(part.accepted_per_prompt.sum() for part in self.in_sample)
        return float(accepted / max(sum(part.anchors_per_prompt.sum() for part in self.in_sample), 1))


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """A method over all budgets. ``folds[k]``: the prompts held out in fold ``k``."""

    method: str
    folds: tuple[np.ndarray, ...]
    budgets: tuple[CrossValidatedBudget, ...]

    def rows(self, seed: int = 0) -> list[dict[str, Any]]:
        """One row per budget, out-of-fold values with intervals over prompts."""
        bootstrap = PromptBootstrap(self.budgets[0].out_of_fold.prompts, seed=seed)
        rows = []
        for value in self.budgets:
            held = value.out_of_fold
            nfe, length = bootstrap.nfe_reduction(held), bootstrap.accepted_drafts(held)
            rows.append(
                {
                    "method": self.method,
                    "budget": value.budget,
                    "folds": len(self.folds),
                    "prompts": held.prompts,
                    "nodes": min(value.nodes),
                    "in_sample_nfe_reduction": value.in_sample_nfe_reduction,
                    "nfe_reduction": nfe.estimate,
                    "nfe_reduction_low": nfe.low,
                    "nfe_reduction_high": nfe.high,
                    "in_sample_accepted_drafts": value.in_sample_accepted_drafts,
                    "accepted_drafts": length.estimate,
                    "accepted_drafts_low": length.low,
                    "accepted_drafts_high": length.high,
                    "forwards_plain": held.plain_forwards,
                    "forwards_predicted": held.forwards,
                }
            )
        return rows

    def difference(self, other: CrossValidation, budget: int, seed: int = 0) -> Interval:
        """Paired interval of this method's out-of-fold nfe reduction minus the other's at one budget."""
        first, second = (_at(found, budget).out_of_fold for found in (self, other))
        return PromptBootstrap(first.prompts, seed=seed).compare(first, second).nfe_reduction_difference


def prompt_folds(prompt_indices: Sequence[int] | np.ndarray, folds: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Cut prompts into ``folds`` disjoint parts of nearly one size, at random: int [about M / folds] each, ascending.

    Raises:
        SplitError: fewer than two folds, or fewer prompts than folds.
    """
    distinct = np.unique(np.asarray(prompt_indices))
    if folds < 2:
        raise SplitError(f"cross-validation needs at least 2 folds, got {folds}")
    if len(distinct) < folds:
        raise SplitError(f"{folds} folds need at least {folds} prompts, got {len(distinct)}; record more prompts")
    shuffled = np.random.default_rng(seed).permutation(distinct)
    return tuple(np.sort(part) for part in np.array_split(shuffled, folds))


def search_graphs(
    method: str, anchors: AnchorTable, budgets: Sequence[int], block_length: int, step_size: int | None
) -> dict[int, SearchResult]:
    """The graphs of ``method`` on ``anchors`` for every budget (0 is the empty graph).

    Raises:
        SplitError: no budget.
        ValueError: a negative budget; an unknown method.
    """
    if not budgets:
        raise SplitError("no budget to search for; give at least one number of draft nodes")
    for budget in budgets:
        check_budget(budget)
    drafting = sorted({budget for budget in budgets if budget > 0})
    found = {0: SearchResult(method, 0)}
    if drafting:
        trie = PrefixTrie.from_anchors(anchors, max_depth=drafting[-1])
        found |= find_graphs(method, SearchInput(trie, block_length, step_size), drafting)
    return {budget: found[budget] for budget in sorted(set(budgets))}


def cross_validate(
    method: str,
    anchors: AnchorTable,
    budgets: Sequence[int],
    *,
    block_length: int,
    step_size: int | None,
    folds: int = 5,
    seed: int = 0,
) -> CrossValidation:
    """Value ``method`` on every prompt by graphs that have not seen it.

    Args:
        method: a name of ``drafting.searches.methods``.
        anchors: a table with whole chains (``max_depth=None``).
        budgets: draft nodes.
        block_length: positions per block.
        step_size: pairs per denoising step, None where it varies.
        folds: K; as many as prompts is leave-one-out.
        seed: which prompts share a fold. One seed gives one split whatever the method, so methods compare pairwise.

    Complexity: K searches and K replays of the table.

    Raises:
        SplitError: fewer prompts than folds, or no budget.
    """
    prompt_indices = anchors.prompt_indices()
    parts = prompt_folds(prompt_indices, folds, seed)
    nodes: dict[int, list[int]] = {budget: [] for budget in sorted(set(budgets))}
    inside: dict[int, list[ReplayResult]] = {budget: [] for budget in nodes}
    outside: dict[int, list[ReplayResult]] = {budget: [] for budget in nodes}
    for held in parts:
        search, test = anchors.select(np.setdiff1d(prompt_indices, held)), anchors.select(held)
        for budget, found in search_graphs(method, search, budgets, block_length, step_size).items():
            nodes[budget].append(len(found.nodes))
            inside[budget].append(replay(found.nodes, search))
            outside[budget].append(replay(found.nodes, test))
    values = (
        CrossValidatedBudget(
            budget, tuple(nodes[budget]), tuple(inside[budget]), ReplayResult.concatenate(outside[budget])
        )
        for budget in nodes
    )
    return CrossValidation(method, parts, tuple(values))


def _at(found: CrossValidation, budget: int) -> CrossValidatedBudget:
    for value in found.budgets:
        if value.budget == budget:
            return value
    raise SplitError(
        f"{found.method} was cross-validated for budgets {[value.budget for value in found.budgets]}, not {budget}"
    )
