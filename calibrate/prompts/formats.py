"""How benchmarks put their questions: the columns of their data sets, their splits, and the words around a question.

Two styles each. ``completion`` is the text that lm-evaluation-harness (EleutherAI) gives to a model, which is what the
evaluation scripts of LLaDA, Dream and Fast-dLLM run; Fast-dLLM puts the same text into a user's turn for instruct
checkpoints (here ``--chat``). ``instruct`` is a request in a sentence: as OpenCompass (0-shot) words the two
mathematics sets, and as the harness's ``*_instruct`` tasks word the two code sets. Answers that the latter begin on the
model's behalf (``gen_prefix``) are left out: here a prompt ends where the answer begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
STYLES = ("completion", "instruct")
_BOXED = "\nPlease reason step by step, and put your final answer within \\boxed{}."

#: Where a benchmark has one split only it is cut in two quarters and a half.
_ONE_SPLIT = {"calibration": ("test", 0.0, 0.5), "validation": ("test", 0.5, 0.75), "test": ("test", 0.75, 1.0)}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's data set and prompts.

    Attributes:
        name: as in ``datasets:NAME``; also the prompts' domain.
        hub: the data set's hub id and configuration.
        columns: columns that a row must have; text, but for ``lists``.
        parts: our split -> (its split, from this share, to this share), in an order that only the texts decide.
        completion, instruct: the prompt of a row, in either style.
        answer: the reference answer of a row.
        lists: columns that hold lists of texts.
        solved: a solved example of a row in ``completion`` style; None where the benchmark has none of its own.
        shots: (split, first row) that the examples come from; such rows are no prompts.
        program: of a row, what stands before and behind the code of an answer in a program that tests it; None where
            answers are no code, or where a copy of the data set lacks the tests.
    """

    name: str
    hub: tuple[str, str]
    columns: tuple[str, ...]
    parts: Mapping[str, tuple[str, float, float]]
    completion: Callable[[Row], str]
    instruct: Callable[[Row], str]
    answer: Callable[[Row], str]
    lists: tuple[str, ...] = ()
    solved: Callable[[Row], str] | None = None
    shots: tuple[str, int] = ("train", 0)
    program: Callable[[Row], tuple[str, str] | None] = lambda row: None

    def prompt(self, row: Row, style: str) -> str:
        return self.instruct(row) if style == "instruct" else self.completion(row)


def _tests(row: Row) -> str:
    return "\n".join(row["test_list"][:3])


def _mbpp_program(row: Row) -> tuple[str, str]:
    return f"{row.get('test_setup_code') or ''}\n", "\n".join(row["test_list"])


def _humaneval_program(row: Row) -> tuple[str, str] | None:
    """The head of the function stands before; an answer that repeats it defines the function once more."""
    if not all(isinstance(row.get(column), str) for column in ("test", "entry_point")):
        return None
    return row["prompt"], f"{row['test']}\ncheck({row['entry_point']})"


def _mbpp(row: Row) -> str:
    task = f"You are an expert Python programmer, and here is your task: {row['text']}"
    return f"{task} Your code should pass these tests:\n\n{_tests(row)}\n[BEGIN]\n"


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="gsm8k",
            hub=("openai/gsm8k", "main"),
            columns=("question", "answer"),
            parts={"calibration": ("train", 0.0, 0.9), "validation": ("train", 0.9, 1.0), "test": ("test", 0.0, 1.0)},
            completion=lambda row: f"Question: {row['question']}\nAnswer:",
            instruct=lambda row: row["question"] + _BOXED,
            answer=lambda row: row["answer"].rpartition("####")[2].strip(),
            solved=lambda row: f"Question: {row['question']}\nAnswer: {row['answer']}",
        ),
        Benchmark(
            name="math500",
            hub=("HuggingFaceH4/MATH-500", "default"),
            columns=("problem", "answer"),
            parts=_ONE_SPLIT,
            completion=lambda row: f"Problem:\n{row['problem']}\n\nSolution:",
            instruct=lambda row: row["problem"] + _BOXED,
            answer=lambda row: row["answer"],
        ),
        Benchmark(
            name="humaneval",
            hub=("openai/openai_humaneval", "openai_humaneval"),
            columns=("prompt", "canonical_solution"),
            parts=_ONE_SPLIT,
            completion=lambda row: row["prompt"],
            instruct=lambda row: (
                "Write a solution to the following problem and make sure that it passes the tests:\n"
                f"```python\n{row['prompt']}\n```\n"
            ),
            answer=lambda row: row["canonical_solution"],
            program=_humaneval_program,
        ),
        Benchmark(
            name="mbpp",
            hub=("google-research-datasets/mbpp", "full"),
            columns=("text", "code"),
            lists=("test_list",),
            parts={split: (own, 0.0, 1.0) for split, own in (("calibration", "train"), ("validation", "validation"),
                                                             ("test", "test"))},
            completion=_mbpp,
            instruct=lambda row: (
                f"You are an expert Python programmer, and here is your task:\n{row['text']}\n"
                f"Your code should pass these tests:\n{_tests(row)}"
            ),
            answer=lambda row: row["code"],
            program=_mbpp_program,
            solved=lambda row: f"{_mbpp(row)}{row['code']}\n[DONE]",
            shots=("prompt", 1),  # the harness takes tasks 2, 3 and 4 of this split
        ),
    )
}  # fmt: skip
