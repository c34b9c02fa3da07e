"""Checkers of the bundled domains: literal answers that are valid, and ways to be wrong."""

from __future__ import annotations

import pytest

from calibrate.bundled.answers import answer_symbols
from calibrate.prompts.bundled import CHECKERS
from calibrate.prompts.prompt import Prompt

PROMPTS = {
    "lists": "lists : reverse c a f ; rest m b x y \n",
    "code": "code : add p ; clamp w ; loop m \n",
    "lines": "lines : shuffle a b c d ; insert x , e f g ; remove h i j ; replace y , k l m \n",
    "stories": "stories : ada she ; bo he ; key it ; cup them ; hill ; mill \n",
}
LINES = {
    "shuffle": "shuffle a b c d = d a c b \n",
    "insert": "insert x , e f g = e x f g \n",
    "remove": "remove h i j = h j \n",
    "replace": "replace y , k l m = k l y \n",
}
STORY = [
    "bo went to mill \n",
    "he took cup \n",
    "he gave them to ada \n",
    "she lost them \n",
    "ada went to hill \n",
    "she took key \n",
    "she gave it to bo \n",
    "he sold it \n",
]


def check(domain: str, answer: str, prompt: str = "") -> bool:
    return CHECKERS[domain](Prompt("", prompt or PROMPTS[domain], domain=domain), answer)


def lines(**changed: str) -> str:
    return " ".join({**LINES, **changed}.values())


def story(*changed: tuple[int, str]) -> str:
    told = dict(enumerate(STORY)) | dict(changed)
    return " ".join(line for _, line in sorted(told.items()) if line)


RIGHT = {
    "lists": "reverse c a f = f a c \n rest m b x y = b x y \n",
    "code": "def f ( p , w , m ) : \n p = p + 1 \n w = min ( max ( w , 2 ) , 8 ) \n for i in range ( 7 ) : m += i \n "
    "return p + w + m \n",
    "lines": lines(),
    "stories": story(),
}


@pytest.mark.parametrize("domain", RIGHT)
def test_right_answers_and_their_parts(domain):
    right = RIGHT[domain]
    assert check(domain, right)
    assert check(domain, f"{right} <|endoftext|> <|endoftext|>")
    symbols = right.split(" ")
    for end in range(len(symbols)):
        assert not check(domain, " ".join(symbols[:end])), "an answer that breaks off"
    assert not check(domain, f"{right} \n")
    assert not check(domain, f"{right} {right}")
    assert not check(domain, right.replace(" ", "  ", 1))
    for number in range(len(symbols)):
        assert not check(domain, " ".join([*symbols[:number], "<|mask|>", *symbols[number + 1 :]]))


@pytest.mark.parametrize(
    "changed",
    [
        {"shuffle": "shuffle a b c d = a b c d \n"},  # the order may stay as it was
        {"insert": "insert x , e f g = x e f g \n"},
        {"insert": "insert x , e f g = e f g x \n"},
        {"remove": "remove h i j = i j \n"},
        {"remove": "remove h i j = h i \n"},
        {"replace": "replace y , k l m = y l m \n"},
    ],
)
def test_other_valid_lines(changed):
    assert check("lines", lines(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"shuffle": "shuffle a b c d = d a c \n"},  # somebody is missing
        {"shuffle": "shuffle a b c d = d a c a \n"},  # stands there twice
        {"shuffle": "shuffle a b c d = d a c b a \n"},
        {"shuffle": "shuffle a b c d = d a c e \n"},  # comes from another line
        {"shuffle": "shuffle a c b d = d a c b \n"},  # the operation itself is misquoted
        {"insert": "insert x , e f g = e f g \n"},  # nothing was done
        {"insert": "insert x , e f g = x e x f g \n"},  # done twice
        {"insert": "insert x , e f g = x f g \n"},  # a replacement
        {"insert": "insert x , e f g = e x g f \n"},  # the others changed places
        {"remove": "remove h i j = h i j \n"},
        {"remove": "remove h i j = h \n"},
        {"remove": "remove h i j = j h \n"},
        {"remove": "remove h i j = h h \n"},
        {"replace": "replace y , k l m = k l m \n"},
        {"replace": "replace y , k l m = y y m \n"},
        {"replace": "replace y , k l m = k l m y \n"},
        {"replace": "replace y , k l m = y k l \n"},
        {"remove": ""},
    ],
)
def test_invalid_lines(changed):
    assert not check("lines", lines(**changed))


def test_lines_in_another_order():
    assert not check("lines", " ".join(reversed(LINES.values())))


@pytest.mark.parametrize(
    "changed",
    [
        [(0, "bo went to hill \n")],
        [(3, "she kept them \n")],
        [(3, "she sold them \n"), (7, "he lost it \n")],
        [(1, "he took key \n"), (2, "he gave it to ada \n"), (3, "she lost it \n"),
         (5, "she took cup \n"), (6, "she gave them to bo \n"), (7, "he sold them \n")],
    ],
)  # fmt: skip
def test_other_valid_stories(changed):
    assert check("stories", story(*changed))


@pytest.mark.parametrize(
    "changed",
    [
        [(1, "she took cup \n")],  # not her scene
        [(3, "he lost them \n")],  # she has them now
        [(2, "he gave it to ada \n")],  # the cup is "them"
        [(3, "she lost it \n")],
        [(2, "he gave them to bo \n"), (3, "he lost them \n")],  # to himself
        [(2, "he gave them to cy \n")],  # nobody of the prompt
        [(0, "bo went to lake \n")],  # no place of the prompt
        [(1, "he took coin \n")],
        [(5, "she took cup \n"), (6, "she gave them to bo \n"), (7, "he sold them \n")],  # taken a second time
        [(4, "bo went to hill \n"), (5, "he took key \n"), (6, "he gave it to ada \n"), (7, "she sold it \n")],
        [(1, "he gave cup \n")],
        [(3, "she hid them \n")],
        [(3, "")],  # a line is missing
        [(4, ""), (5, ""), (6, ""), (7, "")],  # a person is
        [(2, "he gave them to ada \n she gave them to bo \n"), (3, "he lost them \n")],  # a line more
    ],
)  # fmt: skip
def test_invalid_stories(changed):
    assert not check("stories", story(*changed))


@pytest.mark.parametrize(
    ("domain", "wrong"),
    [
        ("lists", "rest m b x y = b x y \n reverse c a f = f a c \n"),
        ("lists", "reverse c a f = f a f \n rest m b x y = b x y \n"),
        ("code", RIGHT["code"].replace("p + w + m", "p + m + w")),
    ],
)
def test_other_wrong_answers(domain, wrong):
    assert not check(domain, wrong)


@pytest.mark.parametrize("domain", CHECKERS)
def test_prompts_of_other_domains(domain):
    other = PROMPTS["lists" if domain != "lists" else "lines"]
    with pytest.raises(ValueError, match=f"not a prompt of the domain {domain}"):
        check(domain, "a", prompt=other)
    with pytest.raises(ValueError, match="its text is needed"):
        CHECKERS[domain](Prompt("7", tokens=(1, 2)), "a")


@pytest.mark.parametrize(
    ("domain", "prompt"),
    [
        ("lines", "lines : shuffle a b a \n"),
        ("lines", "lines : shuffle a \n"),
        ("lines", "lines : insert x e f \n"),
        ("lines", "lines : sort a b \n"),
        ("lines", "lines : shuffle a b"),
        ("stories", "stories : ada she ; key it ; hill ; mill \n"),
        ("stories", "stories : ada she ; ada he ; key it ; cup them ; hill ; mill \n"),
        ("stories", "stories : ada she ; bo he ; key it ; hill ; mill \n"),
        ("stories", "stories : ada she ; bo he ; key it ; cup them ; hill \n"),
    ],
)
def test_malformed_prompts(domain, prompt):
    with pytest.raises(ValueError, match=f"not a prompt of the domain {domain}"):
        check(domain, "a", prompt=prompt)


def test_answer_symbols():
    assert answer_symbols("a \n <|endoftext|> b") == ["a", "\n"]
    assert answer_symbols("a \n ") == ["a", "\n"]
