"""The text that the bundled model is trained on: generators of four domains, and their splits.

Every symbol is one token and symbols are separated by one space; the newline is a symbol of its own. (The
space behind it indents the body of a function by one, so a `code` answer is Python that runs.) What the answers are is
said by `calibrate.bundled`: `lists` and `code` have one right answer (`rules.py`), `stories` and `lines` many
(`stories.py`, `lines.py`). The domains are built for a model that is tiny: every line follows from the prompt and is
found by *content* (the letters, variables and names of a prompt are distinct), never by counting over long offsets.

Harder forms of the first two were tried first, on two CPU cores. `lists` with one list for the whole prompt, operations
applied one after another or each to the original: after ten minutes the model used letters of the prompt, in no order,
because the same letter stands in every line and nothing says which of its neighbours comes next. `code` with
digits in the prompt (`add p 3`): after twenty-four minutes everything was right but the digits. `stories` with scenes
of two to four lines, and `lines` of four to six persons: after 2,900 steps hardly an answer was valid (README.md).

A prompt belongs to one split for ever, by a stable hash of its text: training rejects the held-out buckets.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from calibrate.bundled import DOMAINS, PROMPTS_DIR, SPLITS
from calibrate.bundled.answers import GRAMMARS
from calibrate.bundled.grammar import OneText, draw
from calibrate.bundled.lines import LINE_OPERATIONS, NEWCOMERS
from calibrate.bundled.rules import LIST_OPERATIONS, STATEMENTS, apply_operation
from calibrate.bundled.stories import NAMES, PLACES, PRONOUNS, STORY_SYMBOLS, THING_PRONOUNS, THINGS
from verify.files.writing import write_atomically

__all__ = ["LIST_OPERATIONS", "MAKERS", "SYMBOLS", "Example", "apply_operation", "heldout", "read_prompts", "stream"]

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
VARIABLES = tuple("mnopqrstuvwxyz")
DIGITS = tuple("123456789")
#: The symbols of the committed weights. The order is that of their embeddings and must not change.
FIRST_SYMBOLS = tuple(
    dict.fromkeys(
        [
            *("\n", ";", ":", ",", "(", ")", "=", "+", "-", "*", "<", "+=", "0", *DIGITS),
            *LETTERS,
            *("lists", *LIST_OPERATIONS, "code", *STATEMENTS),
            *("def", "return", "if", "for", "in", "range", "min", "max"),
        ]
    )
)
#: Every symbol that can occur. The tokenizer adds only the mask and the end-of-text token.
SYMBOLS = tuple(dict.fromkeys([*FIRST_SYMBOLS, *STORY_SYMBOLS, "lines", *LINE_OPERATIONS]))
#: Of 16 hash buckets, three are held out, one for each split.
_BUCKETS = 16


@dataclass(frozen=True)
class Example:
    """One prompt with a right answer, the only one in some domains; both are symbols joined by single spaces."""

    domain: str
    prompt: str
    answer: str


def lists_prompt(rng: random.Random) -> str:
    """Draw a prompt of `lists`. No letter occurs twice."""
    sizes = [rng.choice((3, 4)) for _ in range(rng.randint(4, 5))]
    letters = rng.sample(LETTERS, sum(sizes))
    steps = []
    for size in sizes:
        items, letters = letters[:size], letters[size:]
        steps.append(" ".join([rng.choice(LIST_OPERATIONS), *items]))
    return f"lists : {' ; '.join(steps)} \n"


def code_prompt(rng: random.Random) -> str:
    """Draw a prompt of `code`. Every step has a variable of its own."""
    names = rng.sample(VARIABLES, rng.randint(3, 5))
    steps = [f"{rng.choice(tuple(STATEMENTS))} {name}" for name in names]
    return f"code : {' ; '.join(steps)} \n"


def stories_prompt(rng: random.Random) -> str:
    """Draw a prompt of `stories`: who and what, each with a pronoun, and where."""
    people = rng.sample(NAMES, rng.choice((2, 3)))
    things = rng.sample(THINGS, rng.randint(len(people), 3))
    parts = [f"{name} {rng.choice(PRONOUNS)}" for name in people]
    parts += [f"{thing} {rng.choice(THING_PRONOUNS)}" for thing in things]
    parts += rng.sample(PLACES, rng.choice((2, 3)))
    return f"stories : {' ; '.join(parts)} \n"


def lines_prompt(rng: random.Random) -> str:
    """Draw a prompt of `lines`. No letter occurs twice."""
    letters = rng.sample(LETTERS, len(LETTERS))
    steps = []
    for operation in rng.choices(LINE_OPERATIONS, k=3):
        newcomer = [letters.pop(), ","] if operation in NEWCOMERS else []
        steps.append(" ".join([operation, *newcomer, *(letters.pop() for _ in range(rng.choice((3, 4))))]))
    return f"lines : {' ; '.join(steps)} \n"


#: Domain -> what draws its prompts; `GRAMMARS` says which answers a prompt has.
MAKERS: dict[str, Callable[[random.Random], str]] = {
    "lists": lists_prompt,
    "code": code_prompt,
    "stories": stories_prompt,
    "lines": lines_prompt,
}
#: Answer lengths, in symbols, of which others are drawn again. Where answers are drawn from a grammar nothing may be
#: rejected by length: the probabilities would no longer be those of the grammar.
ANSWER_TOKENS = {"lists": (40, 84), "code": (40, 84)}


def split_of(prompt: str) -> str:
    """Name the split a prompt belongs to: `train` or one of `SPLITS`. Stable over runs and machines."""
    bucket = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % _BUCKETS
    return SPLITS[bucket] if bucket < len(SPLITS) else "train"


class Stream:
    """Examples of one domain and split without end; the same arguments give the same examples.

    Prompts and answers draw from two generators, `prompts` and `answers`, whose states are the state of the stream.
    """

    def __init__(self, domain: str, split: str, seed: int) -> None:
        if domain not in MAKERS:
            raise ValueError(f"unknown domain {domain!r}, expected one of {', '.join(MAKERS)}")
        self.domain, self.split = domain, split
        self.prompts = random.Random(f"{domain}/{split}/{seed}")
        self.answers = random.Random(f"{domain}/{split}/{seed}/answers")

    def __iter__(self) -> Iterator[Example]:
        return self

    def __next__(self) -> Example:
        low, high = ANSWER_TOKENS.get(self.domain, (1, 95))
        while True:
            prompt = MAKERS[self.domain](self.prompts)
            if split_of(prompt) != self.split:
                continue
            symbols = draw(GRAMMARS[self.domain](prompt), self.answers)
            if low <= len(symbols) <= high:
                return Example(self.domain, prompt, " ".join(symbols))


def stream(domain: str, split: str, seed: int) -> Stream:
    """Return the stream of a domain, split and seed."""
    return Stream(domain, split, seed)


def heldout(split: str, per_domain: int = 96, seed: int = 0, domains: Sequence[str] = DOMAINS) -> list[dict[str, str]]:
    """Return the prompt set of a held-out split: the domains alternate, no prompt occurs twice."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}, expected one of {SPLITS}")
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    streams = {domain: stream(domain, split, seed) for domain in domains}
    for number in range(per_domain):
        for domain in domains:
            example = next(e for e in streams[domain] if e.prompt not in seen)
            seen.add(example.prompt)
            rows.append({"id": f"{split}-{domain}-{number:03d}", **asdict(example)})
    return rows


def prompt_rows(split: str, domains: Sequence[str] = DOMAINS) -> list[dict[str, str]]:
    """Return what the file of a split holds: an answer only where it is the one right answer.

    An answer that was drawn is one of many, and who compared with it would call the others wrong.
    """
    rows = heldout(split, domains=domains)
    for row in rows:
        if not isinstance(GRAMMARS[row["domain"]](row["prompt"]), OneText):
            del row["answer"]
    return rows


def write_prompts(directory: Path = PROMPTS_DIR, domains: Sequence[str] = DOMAINS) -> None:
    """Write the three held-out prompt sets as JSONL."""
    for split in SPLITS:
        lines = [json.dumps(row) + "\n" for row in prompt_rows(split, domains)]
        with write_atomically(directory / f"{split}.jsonl") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def read_prompts(split: str, directory: Path = PROMPTS_DIR) -> list[dict[str, str]]:
    """Read one committed prompt set."""
    with (directory / f"{split}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
