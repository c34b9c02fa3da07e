r"""The domain ``stories``: many valid answers, which differ in genuine choices and must agree with themselves.

    prompt   stories : ada she ; bo he ; key it ; cup them ; hill ; mill \n
    answer   bo went to mill \n he took cup \n he gave them to ada \n she lost them \n
             ada went to mill \n she took key \n she gave it to bo \n he kept it \n

Everybody of the prompt has one scene. Who comes next, where to, what is taken, who gets it, and what becomes of it is
free. Pronouns are those of the prompt, of people and of things; nothing is taken twice, and nobody gives to themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibrate.bundled.grammar import Node, Option, uniform

NAMES = ("ada", "bo", "cy", "dee", "eli", "fay", "gus", "hal")
PRONOUNS = ("she", "he")
THINGS = ("key", "cup", "coin", "rope", "lamp", "drum")
THING_PRONOUNS = ("it", "them")
PLACES = ("hill", "mill", "cave", "lake", "farm", "town")
STORY_SYMBOLS = (
    *("stories", *NAMES, *PRONOUNS, *THINGS, *THING_PRONOUNS, *PLACES),
    *("went", "to", "took", "gave", "kept", "lost", "sold"),
)
#: What becomes of a thing, with its probability.
ENDS = {"kept": 0.5, "lost": 0.3, "sold": 0.2}


@dataclass(frozen=True)
class Scene:
    """Where a scene stands: who and what is left for later scenes, whose scene it is, and the pronoun of what was
    taken."""

    people: tuple[str, ...]
    things: tuple[str, ...]
    who: str = ""
    what: str = ""


@dataclass(frozen=True)
class StoryGrammar:
    """All valid answers to one prompt, with their probabilities.

    Attributes:
        people: name -> pronoun.
        things: thing -> pronoun.
        places: where one can go.
    """

    people: dict[str, str]
    things: dict[str, str]
    places: tuple[str, ...]

    @classmethod
    def of_prompt(cls, text: str) -> StoryGrammar:
        r"""Read a prompt such as ``stories : ada she ; bo he ; key it ; cup them ; hill ; mill \n``.

        Raises:
            ValueError: something else.
        """
        head, _, rest = text.partition(" : ")
        parts = [part.split(" ") for part in rest.removesuffix(" \n").split(" ; ")]
        people = {p[0]: p[1] for p in parts if len(p) == 2 and p[0] in NAMES and p[1] in PRONOUNS}
        things = {p[0]: p[1] for p in parts if len(p) == 2 and p[0] in THINGS and p[1] in THING_PRONOUNS}
        places = tuple(p[0] for p in parts if len(p) == 1 and p[0] in PLACES)
        known = len(people) + len(things) + len(set(places))
        whole = head == "stories" and text.endswith(" \n") and known == len(parts)
        if not whole or len(people) < 2 or len(things) < len(people) or len(places) < 2:
            raise ValueError(
                f"not a prompt of the domain stories: {text!r}; expected at least two people, a thing for each, "
                "all with a pronoun, and two places"
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
        return uniform([((place, "\n", self.people[s.who], "took"), ("thing", s)) for place in self.places])

    def _thing(self, s: Scene) -> list[Option]:
        return uniform([self._taken(s, thing) for thing in s.things])

    def _taken(self, s: Scene, thing: str) -> tuple[tuple[str, ...], Node]:
        then = "whom", replace(s, things=_but(s.things, thing), what=self.things[thing])
        return (thing, "\n", self.people[s.who], "gave", self.things[thing], "to"), then

    def _whom(self, s: Scene) -> list[Option]:
        return uniform([((n, "\n", self.people[n]), ("ending", s)) for n in self.people if n != s.who])

    def _ending(self, s: Scene) -> list[Option]:
        then = "who", Scene(s.people, s.things)
        return [Option(share, (end, s.what, "\n"), then) for end, share in ENDS.items()]


def _but(those: tuple[str, ...], one: str) -> tuple[str, ...]:
    return tuple(each for each in those if each != one)
