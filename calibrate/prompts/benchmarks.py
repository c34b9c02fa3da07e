"""Prompts of public benchmarks: ``datasets:NAME``, from the hub or from a copy on disk.

A specification is ``datasets:NAME``, then any of ``,style=instruct``, ``,shots=5``, ``,seed=1`` and, last,
``,path=FOLDER``. It alone decides the prompts: which of them a split holds depends on their texts only, in which order
they come (so which ones a limit keeps) on the texts and ``seed``; neither on the order of the rows nor on any library.
``datasets:gsm8k+mbpp`` takes them in turn from each, as many of one as of the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from calibrate.prompts.formats import BENCHMARKS, STYLES, Benchmark, Row
from calibrate.prompts.prompt import DATASETS, SPLITS, Prompt, PromptError
from verify.files.quoting import quoted
from verify.files.strict_json import show

#: Rows from the first on that are solved examples and nothing else, where examples come from the training split.
SHOT_ROWS = 16
_ONLY = "all"  # the split of a copy that names none
_CUT = {"calibration": (0.0, 0.5), "validation": (0.5, 0.75), "test": (0.75, 1.0)}

Rows = dict[str, Sequence[Row]]


@dataclass(frozen=True)
class DatasetSpec:
    """What a specification says."""

    benchmark: Benchmark
    style: str = "completion"
    shots: int = 0
    seed: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> DatasetSpec:
        """Read ``datasets:NAME[,style=...][,shots=...][,seed=...][,path=...]``.

        Raises:
            PromptError: an unknown benchmark, option or value.
        """
        text, _, path = text.partition(",path=")
        name, *options = text.removeprefix(DATASETS).split(",")
        if name not in BENCHMARKS:
            raise PromptError(f"unknown data set {quoted(name)}, expected one of {', '.join(BENCHMARKS)}")
        found: dict[str, Any] = {"path": Path(path).expanduser()} if path else {}
        for option in options:
            key, _, value = option.partition("=")
            if key == "style" and value in STYLES:
                found[key] = value
            elif key in ("shots", "seed") and value.isdecimal():
                found[key] = int(value)
            else:
                raise PromptError(
                    f"{DATASETS}{name}: cannot read {quoted(option)}; expected style={'|'.join(STYLES)}, shots=NUMBER, "
                    "seed=NUMBER, and path=FOLDER last"
                )
        spec = cls(BENCHMARKS[name], **found)
        if spec.shots and spec.benchmark.solved is None:
            raise PromptError(f"{name} brings no solved examples, so shots={spec.shots} cannot be had; leave it out")
        if spec.shots and spec.style != "completion":
            raise PromptError(f"shots={spec.shots} are for style=completion; a request in a sentence takes none")
        if spec.shots > SHOT_ROWS:
            raise PromptError(f"shots={spec.shots} are too many, at most {SHOT_ROWS}")
        return spec


def load_dataset_prompts(source: str, split: str) -> list[Prompt]:
    """The prompts of a specification for one of our splits; no two say the same, and none is in two splits.

    Raises:
        PromptError: a specification, a data set or a copy of one that cannot be read, or one that holds no prompt for
            this split.
    """
    if split not in SPLITS:
        raise PromptError(f"unknown split {quoted(split)}, expected one of {', '.join(SPLITS)}")
    names, comma, options = source.removeprefix(DATASETS).partition(",")
    if "+" in names:
        if "path=" in options:
            raise PromptError(f"{source}: a path is the copy of one data set; give one name, or leave path= out")
        groups = [load_dataset_prompts(f"{DATASETS}{name}{comma}{options}", split) for name in names.split("+")]
        return [group[number] for number in range(min(map(len, groups))) for group in groups]
    spec = DatasetSpec.parse(source)
    benchmark = spec.benchmark
    where = str(spec.path) if spec.path is not None else f"{benchmark.hub[0]} on the hub"
    rows = _rows_on_disk(benchmark, spec.path) if spec.path is not None else _rows_of_hub(benchmark)
    examples = _examples(spec, rows, where)
    own, low, high = _part(benchmark, rows, split, where)
    found = _distinct(benchmark, rows, own, where)
    # A question that stands in several splits is a test question, or else one of validation.
    for later in SPLITS[SPLITS.index(split) + 1 :]:
        other = benchmark.parts[later][0]
        if other != own and other in rows:
            held = _distinct(benchmark, rows, other, where)
            found = {text: number for text, number in found.items() if text not in held}
    ordered = sorted(found, key=_digest)
    kept = ordered[round(low * len(ordered)) : round(high * len(ordered))]
    if not kept:
        raise PromptError(f"{where} has no {benchmark.name} prompt for the split {split!r}, only {len(ordered)} in all")
    kept.sort(key=lambda text: _digest(f"{spec.seed}\n{text}"))
    return [
        Prompt(
            id=f"{benchmark.name}/{own}/{found[text]}",
            text=examples + benchmark.prompt(rows[own][found[text]], spec.style),
            domain=benchmark.name,
            answer=benchmark.answer(rows[own][found[text]]),
            program=benchmark.program(rows[own][found[text]]),
        )
        for text in kept
    ]


def _part(benchmark: Benchmark, rows: Rows, split: str, where: str) -> tuple[str, float, float]:
    own, low, high = benchmark.parts[split]
    if own in rows:
        return own, low, high
    if len(rows) == 1:  # one split, whatever its name: cut like that of a benchmark that has one only
        return next(iter(rows)), *_CUT[split]
    raise PromptError(
        f"{where} has the splits {', '.join(sorted(rows))}; the {split} prompts of {benchmark.name} are in {own!r}"
    )


def _distinct(benchmark: Benchmark, rows: Rows, own: str, where: str) -> dict[str, int]:
    """Text of each prompt (without examples, in the one style) -> the first row that says it."""
    shot_split, first = benchmark.shots
    skipped = first + SHOT_ROWS if benchmark.solved is not None and own == shot_split else 0
    found: dict[str, int] = {}
    solved = set[str]()
    if benchmark.solved is not None and shot_split in rows:
        solved = {benchmark.completion(row) for row in list(rows[shot_split])[first : first + SHOT_ROWS] if row}
    for number, row in enumerate(rows[own]):
        _check(benchmark, row, f"{where}, {own} row {number}")
        text = benchmark.completion(row)
        if number >= skipped and text not in solved:  # a prompt must not end in its own solution
            found.setdefault(text, number)
    return found


def _examples(spec: DatasetSpec, rows: Rows, where: str) -> str:
    """The solved examples before every prompt; the same for all, where the harness may draw anew."""
    if not spec.shots or spec.benchmark.solved is None:
        return ""
    own, first = spec.benchmark.shots
    there = list(rows.get(own, ()))[first : first + spec.shots]
    if len(there) < spec.shots:
        raise PromptError(
            f"{where} has {len(there)} rows for examples in the split {own!r}, shots={spec.shots} were asked for"
        )
    for row in there:
        _check(spec.benchmark, row, f"{where}, {own}")
    return "".join(f"{spec.benchmark.solved(row)}\n\n" for row in there)


def _check(benchmark: Benchmark, row: Row, where: str) -> None:
    columns = (*benchmark.columns, *benchmark.lists)
    if missing := [column for column in columns if column not in row]:
        raise PromptError(
            f"{where} lacks {', '.join(map(repr, missing))}: {benchmark.name} has the columns {', '.join(columns)}, "
            f"found {', '.join(quoted(column) for column in sorted(row))}"
        )
    for column in columns:
        value = row[column]
        texts = value if column in benchmark.lists and isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise PromptError(f"{where}: {column} must be text that is not empty, found {show(value)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _datasets(benchmark: Benchmark) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise PromptError(
            f"{DATASETS}{benchmark.name} needs the package `datasets`: pip install -e '.[datasets]' in a clone (make "
            "has done it). Parquet and JSONL files (path=FOLDER) are read without it"
        ) from error
    return datasets


def _rows_of_hub(benchmark: Benchmark) -> Rows:
    datasets = _datasets(benchmark)
    repository, configuration = benchmark.hub
    try:
        found = datasets.load_dataset(repository, configuration)
    except Exception as error:  # the hub client, its network library and datasets raise classes of their own
        raise PromptError(
            f"{repository} cannot be had from the hub ({type(error).__name__}: {error}); without a network give a "
            f"copy, {DATASETS}{benchmark.name},path=FOLDER (docs/recording.md)"
        ) from error
    return {split: found[split].to_list() for split in found}


def _rows_on_disk(benchmark: Benchmark, path: Path) -> Rows:
    if not path.exists():
        raise PromptError(f"{path} does not exist; expected a copy of {benchmark.hub[0]} (docs/recording.md)")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        try:
            found = _datasets(benchmark).load_from_disk(str(path))
            splits = {_ONLY: found} if (path / "state.json").is_file() else found
            return {split: splits[split].to_list() for split in splits}
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise PromptError(f"{path} cannot be read as a saved data set ({error}); save it again") from error
    inner = path / benchmark.hub[1]
    files = [path] if path.is_file() else sorted(p for p in (inner if inner.is_dir() else path).rglob("*"))
    rows: dict[str, list[Row]] = {}
    for file in files:
        if reader := _READERS.get(file.suffix):
            try:
                found = reader(file)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise PromptError(f"{file} cannot be read ({error})") from error
            rows.setdefault(_split_of(file), []).extend(found)
    if not rows:
        raise PromptError(
            f"{path} holds no copy of {benchmark.hub[0]}: expected what datasets' save_to_disk wrote, or files "
            f"SPLIT*.parquet or SPLIT*.jsonl with the columns {', '.join((*benchmark.columns, *benchmark.lists))}"
        )
    return {**rows}


def _split_of(file: Path) -> str:
    """``test-00000-of-00001.parquet`` -> ``test``; a name that begins with no split's is of one that has no name."""
    match = re.match(r"(train|validation|test|prompt)(?![A-Za-z])", file.name)
    return match[1] if match else _ONLY


def _read_parquet(file: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def _read_lines(file: Path) -> list[Row]:
    lines = file.read_text(encoding="utf-8-sig").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one JSON object a line")
    return rows


_READERS: dict[str, Callable[[Path], list[Row]]] = {".parquet": _read_parquet, ".jsonl": _read_lines}
