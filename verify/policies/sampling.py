"""How tokens are drawn, the same for every rule: a temperature, and which tokens are left to draw from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.policies.contract import PolicyError
from verify.policies.parameters import Number, Whole, number_text

#: What stands between a rule and its sampling in a specification.
MARK = "@"

_PARAMETERS = {
    one.name: one
    for one in (Number("temperature", 0.0, None, low_open=False), Number("top_p", 0.0, 1.0), Whole("top_k"))
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn from a distribution.

    Attributes:
        temperature: logits are divided by it; 0 takes the best token.
        top_p: keep the best tokens until their probabilities exceed ``top_p``, that token included; None keeps all.
        top_k: keep the ``top_k`` best tokens, and those that tie with the last of them; None keeps all.

    Raises:
        PolicyError: a value out of range.

    >>> Sampling(0.7, top_p=0.9).text
    '@temperature=0.7,top_p=0.9'
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.temperature) and 0 <= self.temperature < math.inf):
            raise PolicyError(f"temperature is {self.temperature!r}, expected a finite number of at least 0")
        if self.top_p is not None and not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise PolicyError(f"top_p is {self.top_p!r}, expected {_PARAMETERS['top_p'].range}")
        if self.top_k is not None and not (isinstance(self.top_k, int) and _is_number(self.top_k) and self.top_k >= 1):
            raise PolicyError(f"top_k is {self.top_k!r}, expected {_PARAMETERS['top_k'].range}")
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.top_p == 1:  # the same as none, and one sampling has one text
            object.__setattr__(self, "top_p", None)

    @property
    def stochastic(self) -> bool:
        """Whether tokens are drawn, with noise."""
        return self.temperature > 0

    @property
    def plain(self) -> bool:
        """Whether this is the best token of the whole distribution."""
        return self == Sampling()

    @property
    def text(self) -> str:
        """How a specification ends: ``@temperature=0.7,top_p=0.9``; empty where nothing is drawn or left out."""
        stated = {"temperature": self.temperature or None, "top_p": self.top_p, "top_k": self.top_k}
        parts = [f"{name}={_PARAMETERS[name].write(value)}" for name, value in stated.items() if value is not None]
        return MARK + ",".join(parts) if parts else ""

    def scaled(self, logits: np.ndarray) -> np.ndarray:
        """Logits that tokens are drawn from: divided by the temperature, tokens that are left out at minus infinity.

        Divided, they are given from the row's highest one on, which is the same distribution.

        ``top_p`` before ``top_k``, both after the division, as in Dream's ``sample_tokens`` (``generation_utils.py`` of
        its checkpoints); SDAR's ``generate.py`` has ``top_k`` first, which differs only where both are given.

        Args:
            logits: float64 [m, V], at least one finite in a row; left as they are.

        Complexity: O(m V log V) with ``top_p``, O(m V) without.
        """
        if self.stochastic:
            with np.errstate(over="ignore"):  # the best stays at 0, however low the temperature is
                logits = (logits - logits.max(axis=1, keepdims=True)) / self.temperature
        if self.top_p is not None:
            order = np.argsort(-logits, axis=1, kind="stable")  # ties: lower token id first
            reached = np.cumsum(softmax(np.take_along_axis(logits, order, axis=1)), axis=1)
            beyond = np.zeros(logits.shape, dtype=bool)
            np.put_along_axis(beyond, order[:, 1:], reached[:, :-1] > self.top_p, axis=1)
            logits = np.where(beyond, -np.inf, logits)
        if self.top_k is not None and self.top_k < logits.shape[1]:
            last = np.partition(logits, -self.top_k, axis=1)[:, -self.top_k, None]
            logits = np.where(logits < last, -np.inf, logits)
        return logits


#: The best token of every position.
ARGMAX = Sampling()


def read_sampling(text: str) -> dict[str, Any]:
    """The attributes of a :class:`Sampling` that the text behind the ``@`` of a specification states.

    Raises:
        ValueError: the text cannot be read, or a value is out of range.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in _PARAMETERS:
            raise ValueError(f"the sampling has {part!r}, expected NAME=VALUE with one of {', '.join(_PARAMETERS)}")
        if name in found:
            raise ValueError(f"the sampling has {name} twice, expected it once")
        found[name] = _PARAMETERS[name].read(value)
    return found


def with_filters(spec: str, top_p: float | None = None, top_k: int | None = None) -> str:
    """``spec`` with ``top_p`` and ``top_k`` in its sampling, where they are given; values are checked when it is read.

    Raises:
        PolicyError: the sampling of ``spec`` cannot be read, or has another value.

    >>> with_filters("static:1@temperature=0.7", top_p=0.9)
    'static:1@temperature=0.7,top_p=0.9'
    """
    text, mark, behind = spec.partition(MARK)
    try:
        stated = read_sampling(behind) if mark else {}
    except ValueError as error:
        raise PolicyError(f"policy {spec!r}: {error}") from error
    for name, value in {"top_p": top_p, "top_k": top_k}.items():
        if value is not None and stated.setdefault(name, value) != value:
            raise PolicyError(
                f"policy {spec!r} has {name} {number_text(stated[name])}, but {name} {number_text(value)} is stated "
                "beside it; leave one of them out"
            )
    parts = [f"{name}={_PARAMETERS[name].write(value)}" for name, value in stated.items()]
    return text + MARK + ",".join(parts) if parts else text


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of ``logits`` (float64 [m, V]), row by row."""
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    return probability / probability.sum(axis=1, keepdims=True)


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropies in nats, float64 [m], of ``probability`` (float64 [m, V]); what has no probability adds nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probability > 0, probability * np.log(probability), 0.0)
    return -terms.sum(axis=1)
