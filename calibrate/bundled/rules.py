r"""The domains with one right answer each, ``lists`` and ``code``, and what that answer is.

prompt   lists : reverse c a f ; rest m b x y ; swap k d e \n
answer   reverse c a f = f a c \n rest m b x y = b x y \n swap k d e = e d k \n

prompt   code : add p ; clamp w ; double m \n
answer   def f ( p , w , m ) : \n p = p + 1 \n w = min ( max ( w , 2 ) , 8 ) \n m = m + m \n
         return p + w + m \n
"""

from __future__ import annotations

LIST_OPERATIONS = ("copy", "reverse", "left", "right", "swap", "rest", "front", "last")
#: What an operation of ``code`` writes for its variable v, with its digits.
STATEMENTS = {
    "add": "{v} = {v} + 1",
    "sub": "{v} = {v} - 1",
    "scale": "{v} = {v} * 3",
    "double": "{v} = {v} + {v}",
    "square": "{v} = {v} * {v}",
    "floor": "{v} = max ( {v} , 4 )",
    "cap": "{v} = min ( {v} , 6 )",
    "clamp": "{v} = min ( max ( {v} , 2 ) , 8 )",
    "guard": "if {v} < 5 : return 0",
    "loop": "for i in range ( 7 ) : {v} += i",
}


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


def solve_lists(prompt: str) -> str:
    """The answer to a prompt of ``lists``."""
    lines = []
    for operation, *items in _steps("lists", prompt):
        lines.append(" ".join([operation, *items, "=", *apply_operation(operation, items), "\n"]))
    return " ".join(lines)


def solve_code(prompt: str) -> str:
    """The answer to a prompt of ``code``: a Python function."""
    steps = _steps("code", prompt)
    if wrong := next((step for step in steps if len(step) != 2 or step[0] not in STATEMENTS), None):
        raise ValueError(f"expected one of {', '.join(STATEMENTS)} and a variable, found {' '.join(wrong)!r}")
    names = [name for _, name in steps]
    lines = [f"def f ( {' , '.join(names)} ) : \n"]
    lines += [STATEMENTS[operation].format(v=name) + " \n" for operation, name in steps]
    return " ".join([*lines, f"return {' + '.join(names)} \n"])


def _steps(domain: str, prompt: str) -> list[list[str]]:
    head, _, rest = prompt.partition(" : ")
    if head != domain or not rest.endswith(" \n"):
        raise ValueError(f"not a prompt of the domain {domain}: {prompt!r}")
    return [part.split(" ") for part in rest.removesuffix(" \n").split(" ; ")]
