"""Prompt sets: JSONL files of texts or token ids, the bundled ones, or those of public benchmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.bundled import PROMPTS_DIR

BUNDLED = "bundled"
DATASETS = "datasets:"
SPLITS = ("calibration", "validation", "test")


class PromptError(ValueError):
    """A prompt set that cannot be read, or a prompt that cannot be used."""


@dataclass(frozen=True)
class Prompt:
    """One prompt: ``text`` or ``tokens`` (or both), with the names it carries in its file."""

    id: str
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    domain: str = ""
    answer: str | None = None


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
    ``calibrate.dataset_prompts``), or a JSONL file (``split`` then plays no part).

    ``limit`` keeps the first prompts; bundled domains are interleaved first, so that every cut holds both.

    Raises:
        PromptError: as in :func:`read_prompts`; unknown split, domain or data set; a limit below 1.
    """
    if limit is not None and limit < 1:
        raise PromptError(f"at least one prompt is needed, a limit of {limit} was asked for")
    if str(source).startswith(DATASETS):
        from calibrate.dataset_prompts import load_dataset_prompts

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


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    vocabulary_size: int,
    mask_token_id: int | None = None,
    *,
    chat: Callable[[str], Sequence[int]] | None = None,
) -> list[tuple[int, ...]]:
    """Token ids of every prompt; texts go through ``tokenizer``, given ids are checked against the vocabulary.

    Args:
        prompts: the prompts.
        tokenizer: of the model; None where it has none.
        vocabulary_size: ids are below it.
        mask_token_id: which no prompt may hold.
        chat: makes the ids of a text by a chat template, in the place of ``tokenizer``.

    Raises:
        PromptError: a text without a tokenizer, a text that gives no tokens, an id outside the vocabulary, or token
            ids where a chat template needs a text.
    """
    encoded = []
    for prompt in prompts:
        if chat is not None:
            if prompt.text is None:
                raise PromptError(
                    f"prompt {prompt.id} is given as token ids, which no chat template can be put around; give "
                    "'prompt' (text), or leave out --chat"
                )
            ids = tuple(chat(prompt.text))
        elif prompt.tokens is not None:
            ids = prompt.tokens
        elif tokenizer is None:
            raise PromptError(f"prompt {prompt.id} is a text, but the model has no tokenizer; give 'tokens' instead")
        else:
            try:
                ids = tuple(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
            except Exception as error:  # tokenizers raises its own, of no class in particular
                raise PromptError(f"prompt {prompt.id} cannot be tokenized ({error}): {prompt.text!r:.80}") from error
        if not ids:
            raise PromptError(f"prompt {prompt.id} gives no tokens; it needs at least one")
        if max(ids) >= vocabulary_size:
            raise PromptError(f"prompt {prompt.id} holds token id {max(ids)}; the vocabulary has {vocabulary_size}")
        if mask_token_id in ids:
            raise PromptError(
                f"prompt {prompt.id} holds the mask token {mask_token_id} at index {ids.index(mask_token_id)}; "
                "a prompt is given, only what follows is decoded"
            )
        encoded.append(ids)
    return encoded


def prompt_set_hash(encoded: Sequence[Sequence[int]]) -> str:
    """SHA-256 of the token ids in order, as hex: two recordings with one hash decoded the same prompts."""
    return hashlib.sha256(json.dumps([list(ids) for ids in encoded]).encode()).hexdigest()


def chat_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of ``text`` as a user's turn in the chat template of a transformers ``tokenizer``."""
    turns = [{"role": "user", "content": text}]
    # As text first: the template names its special tokens itself, so that the tokenizer must add none.
    written = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(written, add_special_tokens=False)["input_ids"])
