"""Texts with genuine choices: what may be written, how probable it is, and how many bits the choices are worth.

A grammar is a graph of nodes. At a node one of several options is taken, each with its probability, and writes some
symbols. The options of a node begin with different symbols, so a text has one way through the graph at most: to parse
it is to walk along it, its probability is a product, and the entropy of all texts is a sum over nodes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

Node = Hashable


@dataclass(frozen=True)
class Option:
    """One way on from a node: its probability, the symbols it writes (at least one), and the node after them."""

    probability: float
    symbols: tuple[str, ...]
    then: Node


class Grammar(Protocol):
    """Where a text begins, and what may follow at each node; a node without options ends the text."""

    @property
    def start(self) -> Node: ...

    def options(self, node: Node) -> Sequence[Option]: ...


@dataclass(frozen=True)
class OneText:
    """The grammar of a task that has one right answer."""

    symbols: tuple[str, ...]
    start: Node = "begin"

    def options(self, node: Node) -> Sequence[Option]:
        return [Option(1.0, self.symbols, "end")] if node == "begin" else []


@dataclass(frozen=True)
class Expectation:
    """What a text of a grammar is expected to hold: ``bits`` of choices (its entropy) and ``symbols``."""

    bits: float
    symbols: float

    @property
    def bits_per_token(self) -> float:
        """The least bits per token that any model can need on average, with one token for the end of the text."""
        return self.bits / (self.symbols + 1)


def uniform(choices: Sequence[tuple[tuple[str, ...], Node]]) -> list[Option]:
    """Options of equal probability."""
    return [Option(1 / len(choices), symbols, then) for symbols, then in choices]


def bits(grammar: Grammar, symbols: Sequence[str]) -> float | None:
    """-log2 of the probability of a text under the grammar; None if the grammar cannot write it.

    A text that breaks off before its end, or goes on after it, is not one of the grammar.

    Complexity: O(symbols times options of a node).

    Raises:
        ValueError: the grammar is not one, see :func:`expectation`.
    """
    node, position, total = grammar.start, 0, 0.0
    while options := _checked(grammar, node):
        here = symbols[position] if position < len(symbols) else None
        option = next((option for option in options if option.symbols[0] == here), None)
        if option is None or tuple(symbols[position : position + len(option.symbols)]) != option.symbols:
            return None
        total -= math.log2(option.probability)
        node, position = option.then, position + len(option.symbols)
    return total if position == len(symbols) else None


def draw(grammar: Grammar, rng: random.Random) -> list[str]:
    """Draw a text; ``rng`` decides alone."""
    node, symbols = grammar.start, list[str]()
    while options := _checked(grammar, node):
        option = rng.choices(options, [option.probability for option in options])[0]
        symbols += option.symbols
        node = option.then
    return symbols


def expectation(grammar: Grammar) -> Expectation:
    """Entropy and mean length over all texts of the grammar, exactly.

    H(node) is the sum over its options of p * (-log2 p + H(node after it)); lengths add up in the same way.

    Complexity: O(options of all nodes that can be reached); depth of the graph in Python's stack.

    Raises:
        ValueError: options of a node whose probabilities are not positive or do not add up to 1, which begin with the
            same symbol, or which write nothing.
    """
    known: dict[Node, Expectation] = {}

    def visit(node: Node) -> Expectation:
        if node not in known:
            total_bits = total_symbols = 0.0
            for option in _checked(grammar, node):
                after = visit(option.then)
                total_bits += option.probability * (after.bits - math.log2(option.probability))
                total_symbols += option.probability * (after.symbols + len(option.symbols))
            known[node] = Expectation(total_bits, total_symbols)
        return known[node]

    return visit(grammar.start)


def _checked(grammar: Grammar, node: Node) -> Sequence[Option]:
    options = grammar.options(node)
    if not options:
        return options
    if any(not option.symbols or option.probability <= 0 for option in options):
        raise ValueError(f"node {node!r}: every option must write a symbol and have a probability above 0")
    if len({option.symbols[0] for option in options}) < len(options):
        raise ValueError(f"node {node!r}: two options begin with the same symbol; let them share it in one option")
    if not math.isclose(math.fsum(option.probability for option in options), 1.0, abs_tol=1e-9):
        raise ValueError(f"node {node!r}: the probabilities of its options must add up to 1")
    return options
