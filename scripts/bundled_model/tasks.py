"""The text that the bundled model is trained on: two small domains with exactly one right answer each.

`lists`: operations, each on a list of its own; the answer writes every operation with its result.

    prompt   lists : reverse c a f ; rest m b x y ; swap k d e \\n
    answer   reverse c a f = f a c \\n rest m b x y = b x y \\n swap k d e = e d k \\n

`code`: steps, each with its own variable; the answer is the Python function that performs them.

    prompt   code : add p ; clamp w ; double m \\n
    answer   def f ( p , w , m ) : \\n p = p + 1 \\n w = min ( max ( w , 2 ) , 8 ) \\n m = m + m \\n
             return p + w + m \\n

Every symbol is one token and symbols are separated by one space; the newline is a symbol of its own. (The
space behind it indents the body of a function by one, so a `code` answer is Python that runs.) The domains
are built for a model that is tiny: every line follows from the prompt and is found by *content* (the letters
and the variables of a prompt are distinct), never by counting over long offsets. What stays uncertain until
decoded is where the lines begin, and whose line a later one is: lines differ in length.

Harder forms were tried first, on two CPU cores. `lists` with one list for the whole prompt, operations applied
one after another or each to the original: after ten minutes the model used letters of the prompt, in no order,
because the same letter stands in every line and nothing says which of its neighbours comes next. `code` with
digits in the prompt (`add p 3`): after twenty-four minutes everything was right but the digits.

A prompt belongs to one split for ever, by a stable hash of its text: training rejects the held-out buckets.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from calibrate.bundled import DOMAINS, PROMPTS_DIR, SPLITS

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
VARIABLES = tuple("mnopqrstuvwxyz")
DIGITS = tuple("123456789")
LIST_OPERATIONS = ("copy", "reverse", "left", "right", "swap", "rest", "front", "last")
#: What an operation writes for its variable v, and the digits a and b that it uses.
STATEMENTS = {
    "add": ("{v} = {v} + {a}", "1"),
    "sub": ("{v} = {v} - {a}", "1"),
    "scale": ("{v} = {v} * {a}", "3"),
    "double": ("{v} = {v} + {v}", ""),
    "square": ("{v} = {v} * {v}", ""),
    "floor": ("{v} = max ( {v} , {a} )", "4"),
    "cap": ("{v} = min ( {v} , {a} )", "6"),
    "clamp": ("{v} = min ( max ( {v} , {a} ) , {b} )", "28"),
    "guard": ("if {v} < {a} : return 0", "5"),
    "loop": ("for i in range ( {a} ) : {v} += i", "7"),
}
#: Every symbol that can occur; the tokenizer adds only the mask and the end-of-text token.
SYMBOLS = tuple(
    dict.fromkeys(
        [
            *("\n", ";", ":", ",", "(", ")", "=", "+", "-", "*", "<", "+=", "0", *DIGITS),
            *LETTERS,
            *("lists", *LIST_OPERATIONS, "code", *STATEMENTS),
            *("def", "return", "if", "for", "in", "range", "min", "max"),
        ]
    )
)
MIN_ANSWER_TOKENS, MAX_ANSWER_TOKENS = 40, 84
#: Of 16 hash buckets, three are held out, one for each split.
_BUCKETS = 16


@dataclass(frozen=True)
class Example:
    """One prompt with its only right answer; both are symbols joined by single spaces."""

    domain: str
    prompt: str
    answer: str


def apply_operation(operation: str, items: list[str]) -> list[str]:
    """Return what the operation makes of a list; `items` is left alone."""
    if operation == "copy":
        return list(items)
    if operation == "reverse":
        return items[::-1]
    if operation == "left":
        return items[1:] + items[:1]
    if operation == "right":
        return items[-1:] + items[:-1]
    if operation == "swap":
        return [items[-1], *items[1:-1], items[0]]
    if operation == "rest":
        return items[1:]
    if operation == "front":
        return items[:-1]
    if operation == "last":
        return items[-1:]
    raise ValueError(f"unknown list operation {operation!r}, expected one of {LIST_OPERATIONS}")


def make_lists(rng: random.Random) -> Example:
    """Draw one example of the domain `lists`. No letter occurs twice in a prompt."""
    sizes = [rng.choice((3, 4)) for _ in range(rng.randint(4, 5))]
    letters = rng.sample(LETTERS, sum(sizes))
    steps, lines = [], []
    for size in sizes:
        items, letters = letters[:size], letters[size:]
        operation = rng.choice(LIST_OPERATIONS)
        steps.append(" ".join([operation, *items]))
        lines.append(" ".join([operation, *items, "=", *apply_operation(operation, items), "\n"]))
    return Example("lists", f"lists : {' ; '.join(steps)} \n", " ".join(lines))


def make_code(rng: random.Random, digit_arguments: bool = False) -> Example:
    """Draw one example of the domain `code`. Every step has a variable of its own.

    With `digit_arguments` the prompt gives the digits too (`add p 3 ; clamp w 2 7`). That is the harder form, used
    for a part of the training only; the prompt sets never do it.
    """
    names = rng.sample(VARIABLES, rng.randint(3, 5))
    steps, lines = [], [f"def f ( {' , '.join(names)} ) : \n"]
    for name in names:
        operation = rng.choice(tuple(STATEMENTS))
        template, digits = STATEMENTS[operation]
        if digit_arguments:
            digits = "".join(sorted(rng.sample(DIGITS, 2)))[: len(digits)]
            steps.append(" ".join([operation, name, *digits]))
        else:
            steps.append(f"{operation} {name}")
        lines.append(template.format(v=name, a=digits[:1], b=digits[1:]) + " \n")
    lines.append(f"return {' + '.join(names)} \n")
    return Example("code", f"code : {' ; '.join(steps)} \n", " ".join(lines))


def split_of(prompt: str) -> str:
    """Name the split a prompt belongs to: `train` or one of `SPLITS`. Stable over runs and machines."""
    bucket = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") % _BUCKETS
    return SPLITS[bucket] if bucket < len(SPLITS) else "train"


def stream(domain: str, split: str, seed: int, digit_arguments: bool = False) -> Iterator[Example]:
    """Yield examples of one domain and split without end; the same arguments give the same examples."""
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}, expected one of {DOMAINS}")
    rng = random.Random(f"{domain}/{split}/{seed}")
    while True:
        example = make_lists(rng) if domain == "lists" else make_code(rng, digit_arguments)
        length = len(example.answer.split(" "))
        if MIN_ANSWER_TOKENS <= length <= MAX_ANSWER_TOKENS and split_of(example.prompt) == split:
            yield example


def heldout(split: str, per_domain: int = 96, seed: int = 0) -> list[dict[str, str]]:
    """Return the prompt set of a held-out split: the domains alternate, no prompt occurs twice."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}, expected one of {SPLITS}")
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    streams = {domain: stream(domain, split, seed) for domain in DOMAINS}
    for number in range(per_domain):
        for domain in DOMAINS:
            example = next(e for e in streams[domain] if e.prompt not in seen)
            seen.add(example.prompt)
            rows.append({"id": f"{split}-{domain}-{number:03d}", **asdict(example)})
    return rows


def write_prompts(directory: Path = PROMPTS_DIR) -> None:
    """Write the three held-out prompt sets as JSONL."""
    directory.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = [json.dumps(row) + "\n" for row in heldout(split)]
        (directory / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def read_prompts(split: str, directory: Path = PROMPTS_DIR) -> list[dict[str, str]]:
    """Read one committed prompt set."""
    with (directory / f"{split}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    write_prompts()
