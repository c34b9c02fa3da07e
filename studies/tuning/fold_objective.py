"""What a study minimises: forward passes on prompts that the graph was not built from.

Prompts are cut into folds. For each fold, graphs are built on the other folds and replayed on this one, so that every
prompt is held out once. The in-sample count plays no part: the minimum cut maximises it already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drafting.anchors import AnchorTable
from drafting.nested_replay import NestedReplay
from drafting.parametric.candidates import MAX_STATES, Candidates
from drafting.parametric.construction import parametric_order
from drafting.replay import replay
from drafting.searches.result import check_budget
from studies.statistics.crossval import prompt_folds, search_graphs


@dataclass(frozen=True, eq=False)
class FoldResult:
    """One fold under one graph per budget.

    Attributes:
        prompt_indices: int [M], prompts held out.
        plain: int64 [M], their forwards without a graph.
        forwards: int64 [budgets, M].
    """

    prompt_indices: np.ndarray
    plain: np.ndarray
    forwards: np.ndarray


class FoldObjective:
    """The folds of ``anchors`` with their candidates, ready for many trials.

    Args:
        anchors: the search prompts, whole chains.
        budgets: draft nodes to value.
        folds: parts that the prompts are cut into.
        step_size: pairs per denoising step, None when it varies.
        domains: domain of each prompt, or None.
        seed: of the cut.
        max_states: see :class:`~drafting.parametric.construction.Candidates`.

    Attributes:
        names: the parameters that have an effect in every fold.

    Raises:
        studies.statistics.crossval.SplitError: fewer prompts than folds.
        ValueError: no budget above 0; no anchors.
    """

    def __init__(
        self,
        anchors: AnchorTable,
        budgets: Sequence[int],
        folds: int,
        step_size: int | None,
        domains: Mapping[int, str] | None = None,
        *,
        seed: int = 0,
        max_states: int = MAX_STATES,
    ) -> None:
        for budget in budgets:
            check_budget(budget)
        self.budgets = sorted({budget for budget in budgets if budget > 0})
        if not self.budgets:
            raise ValueError(f"a study needs a budget of at least 1 draft node, got {list(budgets)}")
        self.anchors, self.step_size = anchors, step_size
        if not anchors.n_anchors:
            raise ValueError("the traces hold no anchor (every block was complete after one step): nothing to draft")
        self.held_out = prompt_folds(anchors.prompt_indices(), folds, seed)
        middle = self.budgets[len(self.budgets) // 2]
        self._parts: list[tuple[Candidates, NestedReplay]] = []
        for held in self.held_out:
            rest = anchors.select(np.setdiff1d(anchors.prompt_indices(), held))
            candidates = Candidates.from_anchors(
                rest, self.budgets[-1], step_size, domains, reference_budget=middle, max_states=max_states
            )
            self._parts.append((candidates, NestedReplay(candidates.trie, anchors.select(held), self.budgets)))
        if all(candidates.trie.n_states == 1 for candidates, _ in self._parts):
            raise ValueError(
                "no chain of these traces holds a state that could be drafted: every block is complete within two "
                "steps, so no graph can save a forward; nothing to search"
            )
        self.names = tuple(n for n in self._parts[0][0].names if all(n in c.names for c, _ in self._parts))
        self.prompt_indices = np.concatenate([nested.prompt_indices for _, nested in self._parts])
        self.plain = np.concatenate([nested.plain for _, nested in self._parts])

    @property
    def states(self) -> int:
        """Candidate states in the poorest fold: no larger budget can be filled everywhere."""
        return min(candidates.trie.n_states - 1 for candidates, _ in self._parts)

    def run(self, parameters: Mapping[str, float]) -> Iterator[FoldResult]:
        """Build and replay fold after fold."""
        for candidates, nested in self._parts:
            order, _ = parametric_order(candidates, parameters, self.budgets[-1])
            yield FoldResult(nested.prompt_indices, nested.plain, nested.forwards(order))

    def forwards(self, parameters: Mapping[str, float]) -> np.ndarray:
        """int64 [budgets, M], in the order of :attr:`prompt_indices`."""
        return np.concatenate([part.forwards for part in self.run(parameters)], axis=1)

    def baseline(self, method: str, block_length: int) -> np.ndarray:
        """int64 [budgets, M], the same for a method of ``drafting.searches.methods``, found and replayed on the same
        folds."""
        columns = []
        for held in self.held_out:
            rest = self.anchors.select(np.setdiff1d(self.anchors.prompt_indices(), held))
            graphs = search_graphs(method, rest, self.budgets, block_length, self.step_size)
            table = self.anchors.select(held)
            columns.append([replay(graphs[budget].nodes, table).forwards_per_prompt for budget in self.budgets])
        return np.concatenate([np.array(column) for column in columns], axis=1).astype(np.int64)
