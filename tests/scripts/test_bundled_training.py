"""Training the bundled model: a run that was interrupted ends with the same weights, and what it writes decodes."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calibrate import load_checkpoint
from scripts.bundled_model import looks
from scripts.bundled_model.export import build_model, export
from scripts.bundled_model.optimizer import Optimizer
from scripts.bundled_model.train import (
    WEIGHTS,
    Interrupt,
    Settings,
    Training,
    learning_rate_scale,
    read_weights,
    run,
    weights_at,
)
from verify.decoding import DecodeConfig, decode
from verify.policies.specification import make_policy

SMALL = Settings(
    steps=3, batch_rows=384, layers=1, width=32, lr=0.02, adam_lr=0.004, weight_decay=0.02, flat=0.5, average=0.99,
    seed=0, weights=WEIGHTS, late=0.3, device="cpu", threads=1, compiled=False,
)  # fmt: skip


def weights(training: Training) -> list[torch.Tensor]:
    return [*training.optimizer.average, *training.optimizer.master, *training.model.parameters()]


def test_resumed_training_ends_with_the_same_weights(tmp_path):
    whole = Training(SMALL)
    losses = [whole.advance() for _ in range(3)]
    first = Training(SMALL)
    first.resume(tmp_path / "state.pt")
    assert first.advance() == losses[0]
    first.save(tmp_path / "state.pt")
    second = Training(SMALL)
    second.resume(tmp_path / "state.pt")
    assert [second.advance() for _ in range(2)] == losses[1:]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert [stage["from_step"] for stage in second.stages] == [0]


def test_changed_settings_are_noted(tmp_path):
    first = Training(SMALL)
    first.resume(tmp_path / "state.pt")
    first.advance()
    first.save(tmp_path / "state.pt")
    second = Training(replace(SMALL, weights="lines=1"))
    second.resume(tmp_path / "state.pt")
    assert [(stage["from_step"], stage["weights"]) for stage in second.stages] == [(0, WEIGHTS), (1, "lines=1")]
    with pytest.raises(ValueError, match="was trained with width 32, got 64; give another --work"):
        Training(replace(SMALL, width=64)).resume(tmp_path / "state.pt")


def test_run_writes_a_model_that_loads_and_decodes(tmp_path):
    assert run(replace(SMALL, weights="lists=1"), tmp_path / "model", tmp_path / "work", 3, 2, 2)
    checkpoint = load_checkpoint(tmp_path / "model")
    assert checkpoint.attention == ("bidirectional", "block_causal")
    assert checkpoint.tokenizer("stories : ada she")["input_ids"][0] != 0
    for cache in ("dual", "block_causal"):
        config = DecodeConfig(cache=cache, generation_length=32)
        assert len(decode(checkpoint.denoiser, [5, 6, 7], make_policy("static:4"), config).tokens) >= 29
    assert next(checkpoint.denoiser.model.parameters()).dtype == torch.float32
    with (tmp_path / "work" / "losses.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    with (tmp_path / "work" / "looks.csv").open() as file:
        measured = [(row["step"], row["measure"], row["attention"], row["of"]) for row in csv.DictReader(file)]
    assert ("3", "valid", "block_causal", "lists") in measured
    assert ("3", "calibration error", "bidirectional", "0.25") in measured
    assert run(replace(SMALL, weights="lists=1"), tmp_path / "model", tmp_path / "work", 3, 2, 2), "nothing left to do"


def test_look_names_what_it_measured():
    lines = looks.sentences([("valid", "bidirectional", "lists", 0.95), ("valid", "bidirectional", "code", 0.05)])
    assert lines == ["  valid, bidirectional: lists 0.95, code 0.050"]


def test_look_leaves_the_number_of_threads(tmp_path, monkeypatch):
    """Loading a small model settles on one thread; training goes on with as many as it was given."""
    model = build_model(1, 32)
    export(model, list(model.parameters()), tmp_path, {})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(looks, "decode_domain", lambda *_: SimpleNamespace(valid=np.ones(1)))
    monkeypatch.setattr(looks, "confidence", lambda *_: SimpleNamespace(error=0.0))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert looks.look(tmp_path, ("lists",), 1, "cpu")[0] == ("valid", "bidirectional", "lists", 1.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_interrupt_is_heard_once_and_then_kills():
    # A suite that runs in the background inherits an ignored SIGINT; a terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupt() as interrupt:
            assert not interrupt.asked
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupt.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupted_run_keeps_its_steps(tmp_path, monkeypatch):
    advance = Training.advance

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    monkeypatch.setattr(Training, "advance", interrupted)
    assert not run(SMALL, tmp_path / "model", tmp_path / "work", 3, 1, 100)
    assert torch.load(tmp_path / "work" / "state.pt", weights_only=True)["steps"] == 1


def test_weights_of_domains():
    assert read_weights("lists=1,code=0.5") == [(0, {"lists": 1.0, "code": 0.5})]
    stages = read_weights("0:lists=1;100:lines=2")
    assert [weights_at(stages, step) for step in (0, 99, 100)] == [{"lists": 1.0}, {"lists": 1.0}, {"lines": 2.0}]
    for text, message in (
        ("rhymes=1", "unknown domain 'rhymes'"),
        ("lists=0", "one must be above 0"),
        ("lists=-1,code=1", "must not be below 0"),
        ("5:lists=1", "begin at step 0"),
        ("0:lists=1;0:code=1", "ascend"),
    ):
        with pytest.raises(ValueError, match=message):
            read_weights(text)


def test_learning_rate_rises_stays_and_falls():
    scales = [learning_rate_scale(step, 1000, 0.5) for step in (0, 59, 400, 750, 999)]
    assert scales == pytest.approx([1 / 60, 1, 1, 0.5, 0.002])


def test_recommended_model_is_small_enough():
    assert sum(p.numel() for p in build_model(8, 256).parameters()) <= 8_000_000
    with pytest.raises(ValueError, match="multiple of 32"):
        build_model(1, 40)


def test_diverged_weights_are_not_written(tmp_path):
    model = build_model(1, 32)
    huge = [p.detach() * 1e9 for p in model.parameters()]
    with pytest.raises(ValueError, match="has diverged"):
        export(model, huge, tmp_path, {})
    assert not (tmp_path / "model.safetensors").exists()


def test_optimizer_lowers_a_loss():
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8).bfloat16()
    optimizer, target = Optimizer(layer, 0.02, 0.01, 0.0), torch.randn(16, 8)
    losses = []
    for _ in range(30):
        loss = (layer(torch.ones(16, 8, dtype=torch.bfloat16)).float() - target).square().mean()
        loss.backward()
        optimizer.step(1.0, 0.9)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
