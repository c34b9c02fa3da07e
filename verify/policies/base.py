"""What rules share: a rule is a dataclass with its parameters and :meth:`BasePolicy.choose`, the rest stands here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from verify.policies.contract import BlockView, Commits
from verify.policies.parameters import Parameter, write_arguments
from verify.policies.randomness import StepRandom
from verify.policies.sampling import ARGMAX, Sampling, softmax


@dataclass(frozen=True, eq=False)
class Candidates:
    """A token for every masked position, the most confident first; ``m`` positions.

    Attributes:
        positions: int [m], offsets in the block.
        tokens: int [m], what is committed there if the position is chosen.
        confidences: float64 [m], descending.
        rows: int [m], where each position stands in ``view``.
        view: what the rule was given.
    """

    positions: np.ndarray
    tokens: np.ndarray
    confidences: np.ndarray
    rows: np.ndarray
    view: BlockView

    @classmethod
    def by(cls, view: BlockView, tokens: np.ndarray, scores: np.ndarray) -> Candidates:
        """``tokens`` (int [m]) in the order of ``scores`` (float64 [m]), highest first, equal ones by position."""
        rows = np.lexsort((view.positions, -scores))
        return cls(view.positions[rows], tokens[rows], scores[rows], rows, view)

    def entropies(self) -> np.ndarray:
        """float64 [m], as :attr:`BlockView.entropies`, in the order of the candidates."""
        return self.view.entropies()[self.rows]


@dataclass(frozen=True)
class BasePolicy:
    """A rule that chooses among the most confident tokens; see :class:`verify.policies.contract.Policy`.

    A rule is a frozen dataclass whose fields are its parameters, in the order of ``parameters``, and that says what it
    commits in :meth:`choose`. Its specification, its sampling and what follows from them are made here.

    Attributes:
        name: the first word of its specification.
        parameters: how its fields are written, in their order.
        reads: one of ``verify.policies.contract.NEEDS``: what ``choose`` reads when no token is drawn.
        ranks: vocabulary ranks that ``choose`` reads.
        sampling: how tokens are drawn, a keyword of every rule.
    """

    name: ClassVar[str] = ""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    sampling: Sampling = field(default=ARGMAX, kw_only=True)
    monotone = True
    may_do_nothing = False

    @property
    def reads(self) -> str:
        return "ranks"

    @property
    def ranks(self) -> int:
        return 1

    @property
    def step_size(self) -> int | None:
        return None

    @property
    def temperature(self) -> float:
        return self.sampling.temperature

    @property
    def needs(self) -> str:
        """Drawing tokens reads all logits."""
        return "logits" if self.sampling.stochastic else self.reads

    def arguments(self) -> list[str]:
        """Its parameters as they are written, trailing defaults left out."""
        values = [getattr(self, one.name) for one in fields(self) if one.name != "sampling"]
        return write_arguments(self.parameters, values)

    @property
    def spec(self) -> str:
        return ":".join([self.name, *self.arguments()]) + self.sampling.text

    def initial_state(self) -> Any:
        return None

    def candidates(self, view: BlockView, rng: StepRandom) -> Candidates:
        """What :meth:`choose` is asked about: the best or the drawn tokens, by their probability at temperature 1.

        A token is drawn from the scaled logits by the Gumbel-max rule, and its confidence is its probability in the
        whole distribution (LLaDA's low-confidence rule).
        """
        if not self.sampling.stochastic:
            return Candidates(
                view.positions, view.tokens[:, 0], view.probabilities[:, 0], np.arange(len(view.positions)), view
            )
        tokens = drawn(view, self.sampling.scaled(view.logits()), rng)
        return Candidates.by(view, tokens, softmax(view.logits())[np.arange(len(tokens)), tokens])

    def choose(self, found: Candidates, state: Any, rng: StepRandom) -> tuple[int | np.ndarray, Any]:
        """What a step commits, and the state after it.

        Args:
            found: the candidates, the most confident first.
            state: of the step before, or :meth:`initial_state`; never changed in place.
            rng: ``rng.step`` is the 1-based step of the block, ``rng.gumbel`` the noise of a position.

        Returns:
            how many of the first candidates, or which of them (int [c], indices); and the new state.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it commits; give it a method choose")

    def step(self, view: BlockView, state: Any, rng: StepRandom) -> tuple[Commits, Any]:
        """Commit what :meth:`choose` takes of :meth:`candidates`."""
        found = self.candidates(view, rng)
        chosen, state = self.choose(found, state, rng)
        index = slice(int(chosen)) if np.ndim(chosen) == 0 else np.asarray(chosen)
        return Commits(found.positions[index], found.tokens[index]), state


@dataclass(frozen=True)
class CountedPolicy(BasePolicy):
    """A rule that commits the best candidates, as many as it counts from the block's first step; see :meth:`count`."""

    def initial_state(self) -> int:
        """The state is the number of positions masked when the block began; before the first block there is none."""
        return 0

    def count(self, found: Candidates, masked: int, step: int) -> int:
        """How many candidates a step commits.

        Args:
            found: the candidates.
            masked: positions that were masked when the block began.
            step: the 1-based step of the block.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how many it commits; give it a method count")

    def choose(self, found: Candidates, state: int, rng: StepRandom) -> tuple[int, int]:
        masked = len(found.positions) if rng.step == 1 else state
        return self.count(found, masked, rng.step), masked


def drawn(view: BlockView, scaled: np.ndarray, rng: StepRandom) -> np.ndarray:
    """One token per position of ``view``, int [m], drawn from softmax(``scaled``), float64 [m, V], with keyed noise."""
    noise = np.stack([rng.gumbel(int(position), scaled.shape[1]) for position in view.positions])
    return np.argmax(scaled + noise, axis=1)
