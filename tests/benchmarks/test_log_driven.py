"""Log-driven decodes: what the recorded drafter proposed, accepted and paid, whatever model is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.log_driven import LogDrivenEngine
from calibrate.models.shapes import LLADA_TINY, SDAR_TINY
from calibrate.recording.states import record_states
from calibrate.traces.state_log import StateLog
from calibrate.traces.table import TraceError
from drafting.state_replay import replay_states
from tests.support.models import END_ID, tiny_checkpoint
from verify.decoding import DecodeConfig, decode_batch, make_engine
from verify.drafters.informed import InformedDrafter
from verify.engines.contract import EngineError
from verify.engines.rows import RowEngine
from verify.layout import SequenceLayout
from verify.policies.specification import make_policy

PROMPTS = [[5, 9, 14, 3, 22, 7], [4, 8, 15, 16, 23], [3, 9]]
CONFIG = DecodeConfig(8, 16, "dual", end_token_ids=(END_ID,), top_j=2)
SHAPES = {"dual": LLADA_TINY, "block_causal": SDAR_TINY}


def recorded(folder: Path, cache: str, drafts: int = 4) -> tuple[StateLog, dict[int, list[int]]]:
    """A log of the tiny model, and its tokens."""
    checkpoint, config, policy = tiny_checkpoint(seed=3), replace(CONFIG, cache=cache), make_policy("static:1")
    log = record_states(checkpoint, PROMPTS, policy, config, folder / cache, InformedDrafter(drafts))
    plain = decode_batch(checkpoint.denoiser, list(enumerate(PROMPTS)), policy, config)
    return log, {number: result.tokens for number, result in plain}


@pytest.mark.parametrize(
    ("cache", "batch", "slots"), [("dual", 1, True), ("dual", 3, False), ("block_causal", 1, False),
                                  ("block_causal", 2, True)],
)  # fmt: skip
def test_a_model_pays_and_the_log_decides(tmp_path: Path, cache: str, batch: int, slots: bool) -> None:
    log, tokens = recorded(tmp_path, cache)
    denoiser, drafter, config = SHAPES[cache].make().denoiser, InformedDrafter(4), replace(CONFIG, cache=cache)
    # Other prompts, as long as needed for their blocks to begin where the recorded ones did.
    prompts = [(k, np.random.default_rng(k).integers(3, 40, 16 + len(ids)).tolist()) for k, ids in enumerate(PROMPTS)]
    layouts = [SequenceLayout.make(len(ids), 16, 8, cache) for _, ids in prompts]
    bridges = 4 if cache == "block_causal" else 0
    inner = make_engine(denoiser, config, layouts, batch, 4, bridges) if slots else RowEngine(denoiser, cache, "packed")
    engine = LogDrivenEngine(log, inner, mask_token_id=denoiser.mask_token_id, vocabulary_size=denoiser.vocabulary_size)
    policy = make_policy("static:1")
    found = dict(decode_batch(engine, prompts, policy, engine.config, drafter, batch_size=batch, engine=engine))
    predicted = replay_states(log, drafter)
    assert predicted.exact and predicted.visited_histogram[1:].any()
    assert {k: result.tokens for k, result in found.items()} == tokens
    assert [found[k].forwards for k in sorted(found)] == predicted.forwards_per_prompt.tolist()
    if cache == "dual":  # rows are those of the model that pays, whose prompts are 16 tokens longer
        expected = predicted.query_tokens_per_prompt + 16 * predicted.refreshes_per_prompt
        assert [found[k].query_tokens for k in sorted(found)] == expected.tolist()


def test_what_cannot_drive_is_refused(tmp_path: Path) -> None:
    log, _ = recorded(tmp_path, "dual")
    denoiser = LLADA_TINY.make().denoiser
    inner = RowEngine(denoiser, "dual", "packed")
    facts = {"mask_token_id": denoiser.mask_token_id, "vocabulary_size": denoiser.vocabulary_size}
    with pytest.raises(TraceError, match="has a vocabulary of 9, in which 8 is the mask"):
        LogDrivenEngine(log, inner, mask_token_id=8, vocabulary_size=9)
    engine, policy = LogDrivenEngine(log, inner, **facts), make_policy("static:1")
    with pytest.raises(TraceError, match="holds no prompt number 7"):
        list(decode_batch(engine, [(7, [3, 4])], policy, engine.config, InformedDrafter(4), engine=engine))
    with pytest.raises(TraceError, match=r"does not know .* states .* record it with the drafter that is driven"):
        list(decode_batch(engine, [(0, [3, 4])], policy, engine.config, InformedDrafter(9), engine=engine))
    other = replace(engine.config, cache="block_causal")
    with pytest.raises(EngineError, match="recorded with dual cache, it cannot drive block_causal"):
        list(decode_batch(engine, [(0, [3, 4])], policy, other, InformedDrafter(4), engine=engine))
