"""From trace folders to what a study searches on and what it is judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.bundled import MODEL_DIR
from calibrate.models.chat import chat_ids
from calibrate.prompts.encoding import encode_prompts, prompt_hash
from calibrate.prompts.prompt import BUNDLED, Prompt, PromptError
from calibrate.prompts.source import load_all_splits
from calibrate.traces.table import Traces, read_traces
from drafting.anchors import AnchorTable
from studies.runs.splits import distinct_prompts, read_splits
from studies.statistics.crossval import SplitError, prompt_folds
from studies.tuning.fold_objective import FoldObjective
from studies.tuning.optuna_study import StudyConfig, StudyData
from studies.tuning.shared_study import StudyError
from verify.policies.specification import make_policy

#: Without a test recording, one prompt in this many is kept from the search; always the same ones.
TEST_SHARE = 4
_TEST_SEED = 0


@dataclass(frozen=True, eq=False)
class StudyInput:
    """A study's data, and the prompts that it never sees.

    Attributes:
        data: the search prompts, in folds.
        test: anchors of the test prompts.
        test_tokens: tokens that all test prompts together generated.
        test_domains: domain of each test prompt, or None.
        facts: metadata of the recording.
    """

    data: StudyData
    test: AnchorTable
    test_tokens: int
    test_domains: Mapping[int, str] | None
    facts: dict[str, Any]


def load_study_input(
    traces: str | Path,
    config: StudyConfig,
    *,
    test: str | Path | None = None,
    prompts: str | None = None,
) -> StudyInput:
    """Read the traces and cut them.

    Args:
        traces: a trace folder.
        config: what the study will be.
        test: another recording of the same model and rule on other prompts; None: a quarter of the prompts of
            ``traces`` is kept from the search.
        prompts: the prompt set that was recorded, when domains are wanted and it is not a bundled one.

    Raises:
        StudyError: a prompt set that is not the recorded one.
        studies.statistics.crossval.SplitError: recordings that do not belong together, a test prompt that is a search
            prompt too, or too few prompts.
    """
    if test is None:
        found = read_traces(traces)
        search = distinct_prompts(found)
        everyone = np.unique(search.prompt_index)
        least = 2 * TEST_SHARE
        if len(everyone) < max(least, config.folds + 2):
            raise SplitError(
                f"{traces} holds {len(everyone)} prompts; {config.folds} folds and a test split of their own need at "
                f"least {max(least, config.folds + 2)}. Record more prompts, or give a test recording with --test"
            )
        kept = prompt_folds(everyone, TEST_SHARE, _TEST_SEED)[0]
        search, held = search.select(np.setdiff1d(everyone, kept)), search.select(kept)
        trace_hash = found.trace_hash()
    else:
        found, held = read_splits([traces, test]).recordings
        search = distinct_prompts(found)  # as the search prompts are cut into folds
        trace_hash = hashlib.sha256((found.trace_hash() + held.trace_hash()).encode()).hexdigest()
    domains = find_domains(found.metadata, prompts)
    test_domains = domains if test is None else find_domains(held.metadata)
    if len(np.unique(held.prompt_index)) < 2:
        raise SplitError(f"an interval needs at least 2 test prompts, {test} has {len(np.unique(held.prompt_index))}")
    return StudyInput(
        data=study_data(search, config, trace_hash=trace_hash, domains=domains),
        test=AnchorTable.from_traces(held, max_depth=None),
        test_tokens=len(held.commit_token),
        test_domains=test_domains,
        facts=found.metadata,
    )


def study_data(
    search: Traces, config: StudyConfig, *, trace_hash: str | None = None, domains: Mapping[int, str] | None = None
) -> StudyData:
    """Fold the prompts of ``search`` for a study of ``config``."""
    budgets: Sequence[int] = config.budgets
    if config.kind == "query_tokens":
        # The budget is a parameter there: every one up to the largest.
        budgets = range(1, max(config.budgets, default=0) + 1)
    objective = FoldObjective(
        AnchorTable.from_traces(search, max_depth=None),
        budgets,
        config.folds,
        make_policy(search.metadata["policy"]).step_size,
        domains,
        seed=config.seed,
        max_states=config.max_states,
    )
    commits = np.repeat(search.prompt_index, np.diff(search.commit_ptr))
    tokens = np.bincount(commits, minlength=int(search.prompt_index.max(initial=0)) + 1)
    return StudyData(
        objective=objective,
        trace_hash=trace_hash or search.trace_hash(),
        block_length=int(search.metadata["block_length"]),
        tokens=tokens[objective.prompt_indices],
        domains=domains,
    )


def find_domains(run: Mapping[str, Any], prompts: str | None = None) -> dict[int, str] | None:
    """Domain of every prompt of a recording, or None when it is not known.

    Prompts are looked up by the hash of their token ids in ``prompts``, or in the bundled prompts for the bundled
    model. Nothing is fetched: the tokenizer was there when it was recorded.

    Raises:
        StudyError: ``prompts`` was given and does not hold every prompt of the recording.
    """
    hashes = run.get("prompt_hashes")
    if hashes is None or (prompts is None and run.get("model") != BUNDLED):
        return None
    prompt_set = load_all_splits(prompts or BUNDLED)
    encoded = _encoded(prompt_set, str(run.get("model_source") or run.get("model")), bool(run.get("chat")))
    named = {prompt_hash(ids): prompt.domain for ids, prompt in zip(encoded, prompt_set, strict=False)}
    missing = sum(found not in named for found in hashes)
    if missing and prompts is not None:
        raise StudyError(
            f"{prompts} is not the prompt set of this recording: it lacks {missing} of the {len(hashes)} prompts"
        )
    domains = {} if missing else {index: named[found] for index, found in enumerate(hashes)}
    return domains if len(set(domains.values())) > 1 else None


def _encoded(prompts: Sequence[Prompt], model: str, chat: bool) -> list[tuple[int, ...]]:
    """Token ids of the prompts as ``model`` has them; none where its tokenizer is not to be found."""
    from transformers import AutoTokenizer

    tokenizer = None
    if any(prompt.tokens is None for prompt in prompts):
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(MODEL_DIR) if model == BUNDLED else model, local_files_only=True
            )
        except (OSError, ValueError, KeyError):
            return []
    try:
        template = partial(chat_ids, tokenizer) if chat and tokenizer is not None else None
        return encode_prompts(prompts, tokenizer, 1 << 31, chat=template)
    except PromptError:
        return []
