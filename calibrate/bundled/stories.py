r"""The domain ``stories``: many valid answers, which differ in genuine choices and must agree with themselves.

    prompt   stories : ada she ; bo he ; one key ; two cup ; hill ; mill \n
    answer   bo went to mill \n he took two cup \n he gave them to ada \n she lost them \n
             ada went to mill \n she took one key \n she gave it to bo \n he kept it \n

Everybody of the prompt has one scene. Who comes next, where to, what is taken, who gets it, and what becomes of it is
free. Pronouns and numbers are those of the prompt; nothing is taken twice, and nobody gives to themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibrate.bundled.grammar import Node, Option, uniform

NAMES = ("ada", "bo", "cy", "dee", "eli", "fay", "gus", "hal")
PRONOUNS = ("she", "he")
#: Number of a thing -> its pronoun.
NUMBERS = {"one": "it", "two": "them"}
THINGS = ("key", "cup", "coin", "rope", "lamp", "drum")
PLACES = ("hill", "mill", "cave", "lake", "farm", "town")
STORY_SYMBOLS = (
    *("stories", *NAMES, *PRONOUNS, *NUMBERS, *NUMBERS.values(), *THINGS, *PLACES),
    *("went", "to", "took", "gave", "kept", "lost", "at", "sold"),
)
#: What becomes of a thing, with its probability.
ENDS = {"kept": 0.5, "lost": 0.3, "sold": 0.2}

People = tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """Where a scene stands: who and what is left for later scenes, whose scene it is, and how many things of which
    number are taken."""

    people: People
    things: tuple[str, ...]
    who: str = ""
    number: str = ""


@dataclass(frozen=True)
class StoryGrammar:
    """All valid answers to one prompt, with their probabilities.

    Attributes:
        people: name -> pronoun.
        things: thing -> number.
        places: where one can go.
    """

    people: dict[str, str]
    things: dict[str, str]
    places: tuple[str, ...]

    @classmethod
    def of_prompt(cls, text: str) -> StoryGrammar:
        r"""Read a prompt such as ``stories : ada she ; one key ; hill ; mill \n``.

        Raises:
            ValueError: something else.
        """
        head, _, rest = text.partition(" : ")
        parts = [part.split(" ") for part in rest.removesuffix(" \n").split(" ; ")]
        people = {p[0]: p[1] for p in parts if len(p) == 2 and p[0] in NAMES and p[1] in PRONOUNS}
        things = {p[1]: p[0] for p in parts if len(p) == 2 and p[1] in THINGS and p[0] in NUMBERS}
        places = tuple(p[0] for p in parts if len(p) == 1 and p[0] in PLACES)
        known = len(people) + len(things) + len(set(places))
        whole = head == "stories" and text.endswith(" \n") and known == len(parts)
        if not whole or len(people) < 2 or len(things) < len(people) or len(places) < 2:
            raise ValueError(
                f"not a prompt of the domain stories: {text!r}; expected at least two people with a pronoun, a thing "
                "with a number for each of them, and two places"
            )
        return cls(people, things, places)

    @property
    def start(self) -> Node:
        return "who", Scene(tuple(self.people), tuple(self.things))

    def options(self, node: Node) -> Sequence[Option]:
        assert isinstance(node, tuple)
        kind, scene = node
        return getattr(self, f"_{kind}")(scene)

    def _who(self, s: Scene) -> list[Option]:
        if not s.people:
            return []
        return uniform([((n, "went", "to"), ("where", Scene(_but(s.people, n), s.things, n))) for n in s.people])

    def _where(self, s: Scene) -> list[Option]:
        return uniform([((place, "\n", self.people[s.who], "took"), ("number", s)) for place in self.places])

    def _number(self, s: Scene) -> list[Option]:
        counts = {n: sum(self.things[thing] == n for thing in s.things) for n in NUMBERS}
        return [
            Option(count / len(s.things), (number,), ("thing", replace(s, number=number)))
            for number, count in counts.items()
            if count
        ]

    def _thing(self, s: Scene) -> list[Option]:
        gave = ("\n", self.people[s.who], "gave", NUMBERS[s.number], "to")
        there = [thing for thing in s.things if self.things[thing] == s.number]
        return uniform([((t, *gave), ("whom", replace(s, things=_but(s.things, t)))) for t in there])

    def _whom(self, s: Scene) -> list[Option]:
        return uniform([((n, "\n", self.people[n]), ("ending", s)) for n in self.people if n != s.who])

    def _ending(self, s: Scene) -> list[Option]:
        then = "who", Scene(s.people, s.things)
        return [Option(share, (end, NUMBERS[s.number], "\n"), then) for end, share in ENDS.items()]


def _but(those: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(each for each in those if each != one)

