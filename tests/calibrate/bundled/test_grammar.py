"""Grammars: probability of a text, entropy against enumeration, texts that are none."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from calibrate.bundled.grammar import Grammar, OneText, Option, bits, draw, expectation
from calibrate.bundled.lines import LineGrammar
from calibrate.bundled.stories import StoryGrammar


class Table:
    """A grammar that is written out; it begins at the first node."""

    def __init__(self, **nodes: list[tuple[float, str, str]]) -> None:
        self.nodes = nodes
        self.start = next(iter(nodes))

    def options(self, node):
        return [Option(p, tuple(symbols.split()), then) for p, symbols, then in self.nodes.get(node, [])]


#: "x" (1/2), "y b" (3/8), "y c c" (1/8).
TINY = Table(begin=[(0.5, "x", "end"), (0.5, "y", "more")], more=[(0.75, "b", "end"), (0.25, "c c", "end")])


def all_texts(grammar: Grammar) -> dict[tuple[str, ...], float]:
    """Every text with its probability, one path after another."""
    found: dict[tuple[str, ...], float] = {}

    def walk(node, symbols, probability):
        options = grammar.options(node)
        if not options:
            assert symbols not in found, "two paths write one text"
            found[symbols] = probability
        for option in options:
            walk(option.then, symbols + option.symbols, probability * option.probability)

    walk(grammar.start, (), 1.0)
    return found


def test_bits_of_texts():
    assert bits(TINY, ["x"]) == 1
    assert bits(TINY, ["y", "b"]) == pytest.approx(-math.log2(3 / 8))
    assert bits(TINY, ["y", "c", "c"]) == 3


@pytest.mark.parametrize("text", ["", "y", "z", "x x", "y c", "y c b", "y b b", "b"])
def test_other_texts_have_none(text):
    assert bits(TINY, text.split()) is None


def test_expectation_by_hand():
    found = expectation(TINY)
    assert found.bits == pytest.approx(0.5 * 1 + 3 / 8 * -math.log2(3 / 8) + 1 / 8 * 3)
    assert found.symbols == pytest.approx(0.5 * 1 + 3 / 8 * 2 + 1 / 8 * 3)
    assert found.bits_per_token == pytest.approx(found.bits / (found.symbols + 1))


GRAMMARS = [
    TINY,
    LineGrammar.of_prompt("lines : shuffle a b c ; insert x , d e ; remove f g h ; replace y , i j k \n"),
    StoryGrammar.of_prompt("stories : ada she ; bo he ; key it ; cup them ; hill ; mill \n"),
]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=["tiny", "lines", "stories"])
def test_expectation_is_that_of_all_texts(grammar):
    texts = all_texts(grammar)
    assert sum(texts.values()) == pytest.approx(1)
    found = expectation(grammar)
    assert found.bits == pytest.approx(sum(-p * math.log2(p) for p in texts.values()))
    assert found.symbols == pytest.approx(sum(p * len(text) for text, p in texts.items()))
    some = random.Random(0).sample(sorted(texts), min(50, len(texts)))
    assert [bits(grammar, text) for text in some] == pytest.approx([-math.log2(texts[text]) for text in some])


def test_lines_are_as_probable_as_each_other():
    assert len(all_texts(GRAMMARS[1])) == math.factorial(3) * 3 * 3 * 3
    assert expectation(GRAMMARS[1]).bits == pytest.approx(math.log2(6 * 27))


def test_drawn_texts_are_as_frequent_as_probable():
    rng = random.Random(0)
    counts = Counter(" ".join(draw(TINY, rng)) for _ in range(2000))
    for text, probability in {"x": 1 / 2, "y b": 3 / 8, "y c c": 1 / 8}.items():
        assert counts[text] / 2000 == pytest.approx(probability, abs=4 * math.sqrt(probability / 2000))


def test_one_text():
    grammar = OneText(("a", "b"))
    assert bits(grammar, ["a", "b"]) == 0
    assert bits(grammar, ["a"]) is None
    assert expectation(grammar).symbols == 2


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([(0.5, "x", "end"), (0.5, "x y", "end")], "begin with the same symbol"),
        ([(0.5, "x", "end"), (0.4, "y", "end")], "add up to 1"),
        ([(0.0, "x", "end"), (1.0, "y", "end")], "above 0"),
        ([(1.0, "", "end")], "must write a symbol"),
    ],
)
def test_what_is_no_grammar(nodes, message):
    with pytest.raises(ValueError, match=message):
        expectation(Table(begin=nodes))
