"""Train the bundled model: `python -m scripts.bundled_model.train --minutes 50 --device cpu`.

A plain `LlamaForCausalLM` that is always given a full four-dimensional mask, hence not causal. Time is
the budget: the learning rate warms up, stays, and falls to zero over the last part of `--minutes`, however
fast the machine is. The work directory holds everything that a killed run needs to go on; the model directory
gets averaged weights in Hugging Face layout, each file written under a temporary name and then renamed.

One finding shaped it: on two CPU cores, bfloat16 weights with eager attention under `torch.compile` run at
more than twice the speed of float32 with SDPA; autocast gains nothing.
"""

import csv
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from calibrate.bundled import ATTENTION_KINDS, BLOCK_LENGTH, GENERATION_LENGTH, MODEL_DIR
from scripts.bundled_model.batches import IGNORE, BatchStream
from scripts.bundled_model.evaluate import accuracy
from scripts.bundled_model.tokenizer import EOS_ID, MASK_ID, VOCABULARY, write_tokenizer

CONFIG: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": EOS_ID,
    "pad_token_id": EOS_ID,
}


def build_model() -> LlamaForCausalLM:
    """Build the model with random weights. Eager attention: in bfloat16 on a CPU nothing was faster."""
    return LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="eager", use_cache=False))


class Optimizer:
    """Muon for the hidden matrices and Adam for the rest, on float32 master weights of a bfloat16 model.

    Muon orthogonalises the momentum of a matrix by five Newton-Schulz steps; matrices of one shape go through
    together. Compared with Adam it needs fewer steps, and steps are what a small machine is short of.
    """

    def __init__(self, model: nn.Module, lr: float, adam_lr: float, weight_decay: float) -> None:
        self.lr, self.adam_lr, self.weight_decay, self.steps = lr, adam_lr, weight_decay, 0
        named = list(model.named_parameters())
        self.parameters = [p for _, p in named]
        self.master = [p.detach().float().clone() for p in self.parameters]
        self.average = [m.clone() for m in self.master]
        self.first = [torch.zeros_like(m) for m in self.master]
        self.second = [torch.zeros_like(m) for m in self.master]
        self.groups: dict[tuple[int, int], list[int]] = {}
        self.plain = []
        for index, (name, p) in enumerate(named):
            if p.ndim == 2 and "embed" not in name and "lm_head" not in name:
                self.groups.setdefault((p.shape[0], p.shape[1]), []).append(index)
            else:
                self.plain.append(index)

    @torch.no_grad()
    def step(self, scale: float, decay_average: float) -> None:
        """Apply one update with every learning rate multiplied by `scale`, and forget the gradients."""
        self.steps += 1
        for shape, members in self.groups.items():
            for i in members:
                self.first[i].mul_(0.95).add_(gradient(self.parameters[i]), alpha=0.05)
            updates = torch.stack(
                [gradient(self.parameters[i]).mul(0.05).add_(self.first[i], alpha=0.95) for i in members]
            )
            updates = orthogonalise(updates) * (self.lr * scale * math.sqrt(max(1.0, shape[0] / shape[1])))
            for i, update in zip(members, updates, strict=True):
                self.master[i].mul_(1 - self.lr * scale * self.weight_decay).sub_(update)
        for i in self.plain:
            grad = gradient(self.parameters[i])
            self.first[i].lerp_(grad, 0.1)
            self.second[i].lerp_(grad.square(), 0.02)
            mean = self.first[i] / (1 - 0.9**self.steps)
            root = (self.second[i] / (1 - 0.98**self.steps)).sqrt_().add_(1e-8)
            self.master[i].sub_(mean.div_(root), alpha=self.adam_lr * scale)
        for p, m, a in zip(self.parameters, self.master, self.average, strict=True):
            p.copy_(m)
            p.grad = None
            a.lerp_(m, 1 - decay_average)

    def state(self) -> dict[str, Any]:
        """Return what a later process needs to go on."""
        return {k: getattr(self, k) for k in ("steps", "master", "average", "first", "second")}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier process."""
        self.steps = state["steps"]
        for key in ("master", "average", "first", "second"):
            for mine, theirs in zip(getattr(self, key), state[key], strict=True):
                mine.copy_(theirs)
        for p, m in zip(self.parameters, self.master, strict=True):
            p.copy_(m)


def gradient(parameter: nn.Parameter) -> Tensor:
    """Return the gradient in float32."""
    assert parameter.grad is not None, "step() without backward()"
    return parameter.grad.float()


def orthogonalise(update: Tensor) -> Tensor:
    """Replace the singular values of every matrix of a stack [n, rows, columns] by about one."""
    x = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


def learning_rate_scale(step: int, elapsed: float, total: float, flat: float) -> float:
    """Warm up over 60 steps, stay, then fall linearly to zero from `flat` of the time on."""
    return min(1.0, (step + 1) / 60) * min(1.0, max(0.0, (1 - elapsed / total) / (1 - flat)))


def save_model(optimizer: Optimizer, config: LlamaConfig, directory: Path, training: dict[str, Any]) -> None:
    """Write averaged weights, configuration and generation facts; each file appears whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    averaged = build_model()
    with torch.no_grad():
        for p, a in zip(averaged.parameters(), optimizer.average, strict=True):
            p.copy_(a)
    weights = {k: v.contiguous() for k, v in averaged.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, directory / "model.safetensors.tmp", metadata={"format": "pt"})
    (directory / "model.safetensors.tmp").chmod(0o644)
    os.replace(directory / "model.safetensors.tmp", directory / "model.safetensors")
    settings = config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    settings |= {"use_cache": True}
    facts = {
        "mask_token_id": MASK_ID,
        "end_token_ids": [EOS_ID],
        "bos_token_id": None,
        "block_length": BLOCK_LENGTH,
        "generation_length": GENERATION_LENGTH,
        "attention": list(ATTENTION_KINDS),
        "logits_shift": 0,
        "training": training,
    }
    for name, content in (("config.json", settings), ("draftgraph.json", facts)):
        (directory / f"{name}.tmp").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(directory / f"{name}.tmp", directory / name)


def main(
    minutes: float = 50.0,
    device: str = "cpu",
    threads: int = 2,
    batch_rows: int = 8192,
    lr: float = 0.02,
    adam_lr: float = 0.004,
    weight_decay: float = 0.02,
    flat: float = 0.35,
    average: float = 0.99,
    seed: int = 0,
    code_share: float = 0.5,
    digits_share: float = 0.0,
    digit_arguments: bool = False,
    compiled: bool = True,
    look_every: float = 4.0,
    look_prompts: int = 24,
    out: Path = MODEL_DIR,
    work: Path = Path("runs/bundled"),
) -> None:
    """Train for MINUTES (of this and earlier, interrupted runs in WORK together) and save to OUT."""
    flags = {k: v for k, v in locals().items() if k not in ("out", "work")}
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    work.mkdir(parents=True, exist_ok=True)
    model = build_model()
    config = model.config
    model = model.to(device=device, dtype=torch.bfloat16)
    optimizer = Optimizer(model, lr, adam_lr, weight_decay)
    elapsed, targets_seen, rows_seen = 0.0, 0, 0
    stages: list[dict[str, Any]] = []
    checkpoint = work / "state.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        optimizer.load(saved["optimizer"])
        elapsed, targets_seen, rows_seen = saved["elapsed"], saved["targets"], saved["rows"]
        stages = saved["stages"]
    stages = [*stages, flags | {"from_minute": round(elapsed / 60, 2)}]
    batches = BatchStream(batch_rows, seed + optimizer.steps, code_share, digits_share, digit_arguments)
    positions = {}

    def loss_of(tokens: Tensor, targets: Tensor, bias: Tensor, at: Tensor) -> Tensor:
        logits = model(input_ids=tokens, attention_mask=bias, position_ids=at).logits.float().flatten(0, 1)
        return nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE)

    loss_function = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    write_tokenizer(out)
    log = work / "training_log.csv"
    if not log.exists():
        log.write_text("minutes,step,loss,rows_per_second,learning_rate_scale,looks\n", encoding="utf-8")
    losses: list[float] = []
    began, noted, looked, noted_rows = time.monotonic() - elapsed, elapsed, elapsed, rows_seen
    while elapsed < minutes * 60:
        tokens, targets, visible = (x.to(device) for x in batches.next())
        bias = torch.zeros(visible.shape, dtype=torch.bfloat16, device=device)
        bias = bias.masked_fill_(~visible, -1e30)[:, None]
        length = tokens.shape[1]
        if length not in positions:
            positions[length] = torch.arange(length, device=device)[None].expand(tokens.shape[0], -1)
        loss = loss_function(tokens, targets, bias, positions[length])
        loss.backward()
        scale = learning_rate_scale(optimizer.steps, elapsed, minutes * 60, flat)
        optimizer.step(scale, min(average, optimizer.steps / (optimizer.steps + 20)))
        losses.append(loss.item())
        rows_seen += tokens.numel()
        targets_seen += int((targets != IGNORE).sum())
        elapsed = time.monotonic() - began
        last = elapsed >= minutes * 60
        if elapsed - noted < 30 and not last:
            continue
        speed = (rows_seen - noted_rows) / (elapsed - noted)
        looks = ""
        if elapsed - looked > look_every * 60 or last:
            training: dict[str, Any] = {"steps": optimizer.steps, "rows": rows_seen, "targets": targets_seen}
            training |= {"minutes_trained": round(elapsed / 60, 2), "stages": stages}
            save_model(optimizer, config, out, training)
            look = LlamaForCausalLM.from_pretrained(str(out), dtype=torch.bfloat16)
            look = look.eval().to(device)
            looks = ";".join(
                f"{domain}/{kind}={cell['exact_match']:.2f}/{cell['token_match']:.3f}"
                for kind in ATTENTION_KINDS
                for domain, cell in accuracy(look, "validation", kind, look_prompts).items()
            )
            state = {"optimizer": optimizer.state(), "elapsed": elapsed}
            state |= {"targets": targets_seen, "rows": rows_seen, "stages": stages}
            torch.save(state, work / "state.pt.tmp")
            os.replace(work / "state.pt.tmp", checkpoint)
            looked = elapsed = time.monotonic() - began
        mean = sum(losses) / len(losses)
        entry = [f"{elapsed / 60:.2f}", optimizer.steps, f"{mean:.4f}", f"{speed:.0f}", f"{scale:.3f}", looks]
        with log.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(entry)
        typer.echo("  ".join(map(str, entry)))
        losses, noted, noted_rows = [], elapsed, rows_seen
    (out / "training_log.csv").write_bytes(log.read_bytes())


if __name__ == "__main__":
    typer.run(main)
