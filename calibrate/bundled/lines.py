r"""The domain ``lines``: waiting lines that are shuffled, or changed at a random place (after ParallelBench's tasks).

    prompt   lines : shuffle a f k m ; insert x , c d e g ; remove h i j l ; replace y , n o p q \n
    answer   shuffle a f k m = k m a f \n insert x , c d e g = c d x e g \n remove h i j l = h j l \n
             replace y , n o p q = n o p y \n

Every place taken by itself is easy, and what is probable there is no secret; all of them together are valid only if
everybody who stays stands in the line exactly once. What is written at several places at once, each after its own
probabilities, is therefore wrong often: two places show the same person, or a line comes out unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibrate.bundled.grammar import Node, Option, uniform

#: Operations on a line; ``insert`` and ``replace`` name the newcomer first.
LINE_OPERATIONS = ("shuffle", "insert", "remove", "replace")
NEWCOMERS = ("insert", "replace")


@dataclass(frozen=True)
class Line:
    """One operation of a prompt. ``newcomer`` is empty where the operation has none."""

    operation: str
    items: tuple[str, ...]
    newcomer: str = ""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The operation as prompt and answer write it."""
        return self.operation, *([self.newcomer, ","] if self.newcomer else []), *self.items


@dataclass(frozen=True)
class LineGrammar:
    """All valid answers to one prompt; every valid result of an operation is equally probable."""

    lines: tuple[Line, ...]

    @classmethod
    def of_prompt(cls, text: str) -> LineGrammar:
        r"""Read a prompt such as ``lines : shuffle a f k ; insert x , c d \n``.

        Raises:
            ValueError: something else.
        """
        head, _, rest = text.partition(" : ")
        lines = []
        for part in rest.removesuffix(" \n").split(" ; "):
            operation, *items = part.split(" ")
            newcomer = items[0] if operation in NEWCOMERS and items[1:2] == [","] else ""
            lines.append(Line(operation, tuple(items[2:] if newcomer else items), newcomer))
        persons = [person for line in lines for person in (*line.items, line.newcomer) if person]
        fitting = all(
            line.operation in LINE_OPERATIONS
            and len(line.items) > 1
            and bool(line.newcomer) == (line.operation in NEWCOMERS)
            for line in lines
        )
        if head != "lines" or not text.endswith(" \n") or not fitting or len(set(persons)) < len(persons):
            raise ValueError(
                f"not a prompt of the domain lines: {text!r}; expected operations {', '.join(LINE_OPERATIONS)}, each "
                "on two persons or more, and nobody twice"
            )
        return cls(tuple(lines))

    @property
    def start(self) -> Node:
        return "line", 0

    def options(self, node: Node) -> Sequence[Option]:
        assert isinstance(node, tuple)
        kind, number, *rest = node
        if kind == "line":
            if number == len(self.lines):
                return []
            line = self.lines[number]
            first = (
                (line.operation, number, line.items)
                if line.operation == "shuffle"
                else (line.operation, number, 0, False)
            )
            return [Option(1.0, (*line.symbols, "="), first)]
        return getattr(self, f"_{kind}")(number, *rest)

    def _end(self, number: int) -> list[Option]:
        return [Option(1.0, ("\n",), ("line", number + 1))]

    def _shuffle(self, number: int, left: tuple[str, ...]) -> list[Option]:
        if not left:
            return self._end(number)
        return uniform([((one,), ("shuffle", number, tuple(p for p in left if p != one))) for one in left])

    def _insert(self, number: int, written: int, done: bool) -> list[Option]:
        line = self.lines[number]
        left = len(line.items) - written
        if done and not left:
            return self._end(number)
        now = 0.0 if done else 1 / (left + 1)
        found = [Option(now, (line.newcomer,), ("insert", number, written, True))] if now else []
        if left:
            found.append(Option(1 - now, (line.items[written],), ("insert", number, written + 1, done)))
        return found

    def _replace(self, number: int, written: int, done: bool) -> list[Option]:
        line = self.lines[number]
        left = len(line.items) - written
        if not left:
            return self._end(number)
        now = 0.0 if done else 1 / left
        found = [Option(now, (line.newcomer,), ("replace", number, written + 1, True))] if now else []
        if now < 1:
            found.append(Option(1 - now, (line.items[written],), ("replace", number, written + 1, done)))
        return found

    def _remove(self, number: int, passed: int, done: bool) -> list[Option]:
        items = self.lines[number].items
        left = len(items) - passed
        if done:
            if not left:
                return self._end(number)
            return [Option(1.0, (items[passed],), ("remove", number, passed + 1, True))]
        # The next person leaves and the one behind steps up, or the next one stays; the last one leaves if nobody did.
        if left == 1:
            return self._end(number)
        gone = Option(1 / left, (items[passed + 1],), ("remove", number, passed + 2, True))
        return [gone, Option(1 - 1 / left, (items[passed],), ("remove", number, passed + 1, False))]
