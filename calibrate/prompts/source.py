"""Prompt sets: JSONL files of texts or token ids, the bundled ones, or those of public benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calibrate.bundled import PROMPTS_DIR
from calibrate.prompts.prompt import BUNDLED, DATASETS, SPLITS, Prompt, PromptError


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read a JSONL prompt file: one object a line with ``prompt`` (text) or ``tokens`` (list of ids).

    Optional keys: ``id`` (default: the line number), ``domain``, ``answer``. Empty lines are skipped.

    Raises:
        PromptError: no such file, not UTF-8, no prompt in it, or a malformed line (named by its number).
    """
    path = Path(path)
    try:
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
    except json.JSONDecodeError as error:
        raise PromptError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise PromptError(f"{where}: expected a JSON object, found {type(record).__name__}")
    text, tokens = record.get("prompt"), record.get("tokens")
    if text is None and tokens is None:
        raise PromptError(f"{where}: expected the key 'prompt' (text) or 'tokens' (ids), found {sorted(record)}")
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise PromptError(f"{where}: 'prompt' must be text that is not empty, found {text!r}")
    if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
        raise PromptError(f"{where}: 'prompt' holds half of a surrogate pair, which is no character: {text!r:.60}")
    if tokens is not None:
        whole = isinstance(tokens, list) and tokens and all(type(t) is int and t >= 0 for t in tokens)
        if not whole:
            raise PromptError(f"{where}: 'tokens' must be a list of token ids that is not empty, found {tokens!r:.60}")
        tokens = tuple(tokens)
    answer = record.get("answer")
    return Prompt(
        id=str(record.get("id", number)),
        text=text,
        tokens=tokens,
        domain=str(record.get("domain", "")),
        answer=answer if isinstance(answer, str) else None,
    )


def has_splits(source: str | Path) -> bool:
    """Whether a prompt set brings splits of its own, as the bundled prompts and datasets do and files do not."""
    name = str(source)
    return name.startswith(DATASETS) or (name.partition("/")[0] == BUNDLED and not Path(source).is_file())


def load_prompt_set(source: str | Path, split: str = "calibration", limit: int | None = None) -> list[Prompt]:
    """Load ``bundled`` (one of its three splits), ``bundled/DOMAIN``, a split of ``datasets:NAME`` (see
    ``calibrate.prompts.benchmarks``), or a JSONL file (``split`` then plays no part).

    ``limit`` keeps the first prompts; bundled domains are interleaved first, so that every cut holds both.

    Raises:
        PromptError: as in :func:`read_prompts`; unknown split, domain or data set; a limit below 1.
    """
    if limit is not None and limit < 1:
        raise PromptError(f"at least one prompt is needed, a limit of {limit} was asked for")
    if str(source).startswith(DATASETS):
        from calibrate.prompts.benchmarks import load_dataset_prompts

        return load_dataset_prompts(str(source), split)[:limit]
    name, _, domain = str(source).partition("/")
    if name != BUNDLED or Path(source).is_file():
        return read_prompts(source)[:limit]
    if split not in SPLITS:
        raise PromptError(f"unknown split {split!r}, expected one of {', '.join(SPLITS)}")
    prompts = read_prompts(PROMPTS_DIR / f"{split}.jsonl")
    domains = sorted({p.domain for p in prompts})
    if domain and domain not in domains:
        raise PromptError(f"the bundled prompts have no domain {domain!r}, expected one of {', '.join(domains)}")
    by_domain = [[p for p in prompts if p.domain == d] for d in ([domain] if domain else domains)]
    shortest = min(len(group) for group in by_domain)
    interleaved = [group[k] for k in range(shortest) for group in by_domain]
    return interleaved[:limit]
