"""Prompt sets: JSONL files of texts or token ids, the bundled ones, or those of public benchmarks."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.bundled import PROMPTS_DIR
from calibrate.prompts.prompt import BUNDLED, DATASETS, SPLITS, Prompt, PromptError
from verify.files.quoting import quoted
from verify.files.strict_json import show


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a JSONL prompt file: one object a line with ``prompt`` (text) or ``tokens`` (list of ids).

    Optional keys: ``id`` (default: the line number), ``domain``, ``answer``, ``split``. Empty lines are skipped.

    Raises:
        PromptError: no such file, not a regular file, not UTF-8, no prompt in it, or a malformed line (named by its
            number).
    """
    path = Path(path)
    try:
        # A pipe without a writer would block for ever, so the kind is asked before the file is opened.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "a pipe or a device"
            raise PromptError(f"prompt file {path} is {kind} and cannot be read; give a JSONL file")
        # Not splitlines(): JSON text may hold U+2028 and other characters that it would break a line at.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise PromptError(f"prompt file {path} does not exist; give a JSONL file or the word 'bundled'") from error
    except OSError as error:
        raise PromptError(f"prompt file {path} cannot be read ({error.strerror}); give a JSONL file") from error
    except UnicodeDecodeError as error:
        raise PromptError(f"prompt file {path} is not UTF-8 text ({error})") from error
    prompts = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise PromptError(
            f"prompt file {path} holds no prompt; expected one JSON object a line with 'prompt' or 'tokens'"
        )
    return prompts


def _parse(path: Path, number: int, line: str) -> Prompt:
    where = f"{path}, line {number}"
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise PromptError(f"{where}: expected a JSON object, found {show(record)}")
    text, tokens, split = record.get("prompt"), record.get("tokens"), record.get("split")
    if text is None and tokens is None:
        keys = ", ".join(quoted(key) for key in sorted(record)[:8]) or "no key"
        raise PromptError(f"{where}: expected the key 'prompt' (text) or 'tokens' (ids), found {keys}")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise PromptError(f"{where}: 'prompt' must be text that is not empty, found {show(text)}")
    if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{where}: 'prompt' holds half of a surrogate pair, which is no character: {quoted(text)}")
    if tokens is not None:
        whole = isinstance(tokens, list) and tokens and all(type(t) is int and t >= 0 for t in tokens)
        if not whole:
            raise PromptError(f"{where}: 'tokens' must be a list of token ids that is not empty, found {show(tokens)}")
        tokens = tuple(tokens)
    if split is not None and (not isinstance(split, str) or not split.strip()):
        raise PromptError(f"{where}: 'split' must be a name such as \"test\", found {show(split)}")
    answer = record.get("answer")
    return Prompt(
        id=str(record.get("id", number)),
        text=text,
        tokens=tokens,
        domain=str(record.get("domain", "")),
        answer=answer if isinstance(answer, str) else None,
        split=split,
    )


@dataclass(frozen=True)
class SplitFraction:
    """How a file that names no splits is cut: these shares of its distinct prompts, and the rest for calibration.

    A hash of ``seed`` and of what a prompt says decides where the prompt goes. The order of the lines plays no part,
    and every command that is given the same fraction cuts the same file in the same way.
    """

    validation: float = 0.0
    test: float = 0.5
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> SplitFraction:
        """Read ``0.25`` (for test), or any of ``validation=0.1,test=0.25,seed=1``.

        Raises:
            PromptError: an unknown key, or shares that are not between 0 and 1 or leave nothing for calibration.
        """
        found: dict[str, Any] = {}
        for part in text.split(","):
            key, equals, value = part.strip().rpartition("=")
            key = key if equals else "test"
            try:
                found[key] = int(value) if key == "seed" else float(value)
            except ValueError:
                found.clear()
            if key not in ("validation", "test", "seed") or key not in found:
                raise PromptError(
                    f"--split-fraction: cannot read {quoted(part)}; expected the share of test prompts such as 0.25, "
                    "or validation=SHARE,test=SHARE,seed=NUMBER"
                )
        cut = cls(**({"test": 0.0} | found))
        shares = (cut.validation, cut.test)
        if cut.seed < 0 or not all(0 <= share < 1 for share in shares) or not 0 < sum(shares) < 1:
            raise PromptError(
                f"--split-fraction {quoted(text)}: shares of validation and test must lie between 0 and 1 and leave "
                "some prompts for calibration, the seed must not be below 0"
            )
        return cut

    def cut(self, prompts: Sequence[Prompt], split: str) -> list[Prompt]:
        """The prompts of one split, in the order of their hashes; prompts that say the same count once."""

        def digest(prompt: Prompt) -> str:
            text = json.dumps([self.seed, prompt.text, prompt.tokens])
            return hashlib.sha256(text.encode()).hexdigest()

        ordered = [prompt for _, prompt in sorted({digest(prompt): prompt for prompt in reversed(prompts)}.items())]
        test = round(self.test * len(ordered))
        validation = test + round(self.validation * len(ordered))
        low, high = {"test": (0, test), "validation": (test, validation), "calibration": (validation, None)}[split]
        return ordered[low:high]


def load_prompt_set(
    source: str | Path,
    split: str | None = None,
    limit: int | None = None,
    *,
    fraction: str | None = None,
    default: str = SPLITS[0],
) -> list[Prompt]:
    """Load ``bundled``, ``datasets:NAME`` (see ``calibrate.prompts.benchmarks``) or a JSONL file.

    Args:
        source: which prompts; ``bundled/DOMAIN`` and ``bundled/DOMAIN+DOMAIN`` are those of some domains.
        split: of these; None: ``default`` where the source has splits, and else all of it. The bundled prompts and
            data sets have calibration, validation and test; a file has those that its lines name in ``split``, or
            with ``fraction`` the same three.
        limit: keep the first prompts; bundled domains take turns, so that every cut holds each of them as often.
        fraction: cuts a file that names no splits, see :class:`SplitFraction`.
        default: the split of a source that has some, when none is named.

    Raises:
        PromptError: as in :func:`read_prompts`; a split, domain or data set that the source does not have; a fraction
            for a source with splits of its own; a limit below 1.
    """
    if limit is not None and limit < 1:
        raise PromptError(f"at least one prompt is needed, a limit of {limit} was asked for")
    if not brings_splits(source):
        return _of_file(Path(source), split, fraction, default)[:limit]
    if fraction is not None:
        raise PromptError(f"{source} brings splits of its own ({', '.join(SPLITS)}); leave --split-fraction out")
    split = split or default
    if split not in SPLITS:
        raise PromptError(f"unknown split {quoted(split)}, expected one of {', '.join(SPLITS)}")
    if str(source).startswith(DATASETS):
        from calibrate.prompts.benchmarks import load_dataset_prompts

        return load_dataset_prompts(str(source), split)[:limit]
    prompts = read_prompts(PROMPTS_DIR / f"{split}.jsonl")
    domains = sorted({p.domain for p in prompts})
    named = str(source).partition("/")[2]
    chosen = sorted(set(named.split("+"))) if named else domains
    for domain in chosen:
        if domain not in domains:
            raise PromptError(
                f"the bundled prompts have no domain {quoted(domain)}, expected one of {', '.join(domains)}"
            )
    by_domain = [[p for p in prompts if p.domain == domain] for domain in chosen]
    shortest = min(len(group) for group in by_domain)
    interleaved = [group[k] for k in range(shortest) for group in by_domain]
    return interleaved[:limit]


def _of_file(path: Path, split: str | None, fraction: str | None, default: str) -> list[Prompt]:
    prompts = read_prompts(path)
    names = sorted({prompt.split for prompt in prompts if prompt.split is not None})
    if names:
        bare = next((prompt for prompt in prompts if prompt.split is None), None)
        if bare is not None:
            raise PromptError(
                f"{path}: prompt {quoted(bare.id)} names no split, others do; give every line a 'split', or none"
            )
        if fraction is not None:
            raise PromptError(f"{path} names the split of every prompt itself; leave --split-fraction out")
        chosen = split or default
        if chosen not in names:
            raise PromptError(
                f"{path} has no split {quoted(chosen)}; its lines name {', '.join(quoted(name) for name in names[:8])}"
            )
        return [prompt for prompt in prompts if prompt.split == chosen]
    if fraction is None:
        if split is not None:
            raise PromptError(
                f"{path} names no splits, so it has no split {quoted(split)}; give every line a 'split', cut the file "
                "with --split-fraction 0.25, or leave --split out to take all of it"
            )
        return prompts
    cut, chosen = SplitFraction.parse(fraction), split or default
    if chosen not in SPLITS:
        raise PromptError(f"unknown split {quoted(chosen)}, expected one of {', '.join(SPLITS)}")
    kept = cut.cut(prompts, chosen)
    if not kept:
        raise PromptError(
            f"--split-fraction {quoted(fraction)} leaves no {chosen} prompt of {path}; give another share"
        )
    return kept


def load_all_splits(source: str | Path) -> list[Prompt]:
    """Every prompt of a set, whatever its split; raises ``PromptError`` as in :func:`load_prompt_set`."""
    if brings_splits(source):
        return [prompt for split in SPLITS for prompt in load_prompt_set(source, split)]
    return read_prompts(source)


def has_splits(source: str | Path) -> bool:
    """Whether a prompt set names its splits itself: the bundled prompts, data sets, and files whose lines do.

    Raises:
        PromptError: a file that cannot be read.
    """
    return brings_splits(source) or any(prompt.split is not None for prompt in read_prompts(source))


def describe_source(source: str, split: str | None, fraction: str | None, default: str = SPLITS[0]) -> str:
    """Source, split and cut of a prompt set in a few words, for a manifest."""
    named = fraction is not None or has_splits(source)
    return ", ".join(
        [source, *([split or default] if named else []), *([f"split fraction {fraction}"] if fraction else [])]
    )


def brings_splits(source: str | Path) -> bool:
    """Whether ``source`` is the bundled prompts or a data set, which have calibration, validation and test."""
    name = str(source)
    return name.startswith(DATASETS) or (name.partition("/")[0] == BUNDLED and not Path(source).is_file())
