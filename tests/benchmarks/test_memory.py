"""Predicted peaks of memory against measured ones."""

from __future__ import annotations

import pytest
import torch

from benchmarks.memory import peak_bytes, peaks
from calibrate.measuring.memory import Load
from calibrate.models.shapes import LLADA_8B, SDAR_8B, Shape
from verify.engines.slots import SlotEngine

CACHE = {"bidirectional": "dual", "block_causal": "block_causal"}
# Wide enough that tensors outweigh what is not predicted: positions, indices, a kernel's own buffers.
LLADA = LLADA_8B.changed(
    "llada", 1999, d_model=256, n_layers=2, n_heads=4, n_kv_heads=4, mlp_hidden_size=768, embedding_size=2048,
    vocab_size=2048,
)  # fmt: skip
SDAR = SDAR_8B.changed(
    "sdar", 999, hidden_size=256, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
    intermediate_size=768, vocab_size=1024,
)  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype"), [(LLADA, "float32"), (LLADA, "bfloat16"), (SDAR, "float32")])
def test_the_prediction_is_near_what_is_measured(shape: Shape, dtype: str) -> None:
    rows = peaks(shape.make(dtype=dtype), [Load(2, 320, drafts, cache=CACHE[shape.attention]) for drafts in (0, 8)])
    errors = [row["error"] for row in rows]
    assert len(errors) == 2 and all(error is not None and -0.05 < error < 0.13 for error in errors), errors
    assert rows[0]["measured"] < rows[1]["measured"]


def test_the_measured_peak_of_one_allocation() -> None:
    checkpoint = LLADA.make(dtype="float32")
    weights = sum(weight.nbytes for weight in checkpoint.denoiser.model.parameters())

    def two_then_one() -> None:
        first = torch.empty(1 << 20, dtype=torch.uint8)
        second = torch.empty(3 << 20, dtype=torch.uint8)
        del first, second
        torch.empty(2 << 20, dtype=torch.uint8)

    assert peak_bytes(two_then_one, checkpoint) == weights + (4 << 20)


def test_a_load_that_does_not_fit_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    step = SlotEngine.step

    def limited(self, slots, states):
        if len(states[0]) > 2:
            raise torch.OutOfMemoryError("out")
        return step(self, slots, states)

    monkeypatch.setattr(SlotEngine, "step", limited)
    rows = peaks(LLADA.make(dtype="float32"), [Load(1, 32, drafts) for drafts in (1, 8)])
    assert [row["note"] for row in rows] == ["", "out of memory"] and rows[1]["measured"] is None
