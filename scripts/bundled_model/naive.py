"""Exact-match accuracy of the bundled model: one token per step by highest confidence, both attention kinds.

`python -m scripts.bundled_model.naive` decodes the test prompts and writes `accuracy.json` beside the weights.
The decoder here is deliberately naive (no cache, a batch of prompts in one forward) and shares no code with
the runtime, so the accuracy does not depend on it.
"""

import json
from pathlib import Path

import torch
import typer
from transformers import LlamaForCausalLM, PreTrainedModel

from calibrate.bundled import ATTENTION_KINDS, BLOCK_LENGTH, DOMAINS, GENERATION_LENGTH, MODEL_DIR
from scripts.bundled_model.tasks import read_prompts
from scripts.bundled_model.tokenizer import EOS_ID, MASK_ID, encode_symbols


@torch.no_grad()
def decode(
    model: PreTrainedModel, prompts: list[list[int]], kind: str, block_length: int = BLOCK_LENGTH
) -> list[list[int]]:
    """Decode every prompt, one token per forward; return the answers up to end-of-text, which is left out."""
    device, dtype = model.device, model.dtype
    total = []
    for prompt in prompts:
        length = len(prompt) + GENERATION_LENGTH
        total.append(length if kind == "bidirectional" else -(-length // block_length) * block_length)
    width = max(total)
    tokens = torch.full((len(prompts), width), MASK_ID, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt, device=device)
    position = torch.arange(width, device=device)
    sizes = torch.tensor(total, device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    starts = lengths.clone() if kind == "bidirectional" else lengths // block_length * block_length
    running = torch.ones(len(prompts), dtype=torch.bool, device=device)
    while running.any():
        rows = running.nonzero()[:, 0]
        state, begin, end = tokens[rows], starts[rows, None], starts[rows, None] + block_length
        # Block-causal: later blocks are not there. Rows computed for the batch's sake are seen by nobody.
        if kind == "bidirectional":
            cut = int(sizes[rows].max())
            visible = (position[None, :cut] < sizes[rows, None])[:, None, :].expand(-1, cut, -1)
        else:
            cut = int(end.max())
            blocks = position[:cut] // block_length
            visible = (blocks[None, :] <= blocks[:, None])[None].expand(len(rows), -1, -1)
        bias = torch.zeros(len(rows), 1, cut, cut, dtype=dtype, device=device)
        bias.masked_fill_(~visible[:, None], torch.finfo(dtype).min)
        at = position[None, :cut].expand(len(rows), -1)
        logits = model(input_ids=state[:, :cut], attention_mask=bias, position_ids=at).logits.float()
        logits[..., MASK_ID] = -torch.inf
        best, choice = logits.softmax(-1).max(-1)
        inside = (position[None, :cut] >= begin) & (position[None, :cut] < end)
        best = best.masked_fill(~((state[:, :cut] == MASK_ID) & inside), -1.0)
        where = best.argmax(1)
        tokens[rows, where] = choice[torch.arange(len(rows), device=device), where]
        block = (position >= begin) & (position < end)
        solved = ~((tokens[rows] == MASK_ID) & block).any(1)
        ended = ((tokens[rows] == EOS_ID) & block).any(1) | (end[:, 0] >= sizes[rows])
        stop = solved & ended
        starts[rows] += block_length * (solved & ~stop)
        running[rows[stop]] = False
    answers = []
    for row, prompt in enumerate(prompts):
        answer = tokens[row, len(prompt) :].tolist()
        length = next((k for k, token in enumerate(answer) if token in (EOS_ID, MASK_ID)), len(answer))
        answers.append(answer[:length])
    return answers


def accuracy(model: PreTrainedModel, split: str, kind: str, limit: int | None = None) -> dict[str, dict[str, float]]:
    """Measure exact match for every domain under one attention kind."""
    table = {}
    for domain in DOMAINS:
        rows = [row for row in read_prompts(split) if row["domain"] == domain][:limit]
        answers = decode(model, [encode_symbols(row["prompt"]) for row in rows], kind)
        truths = [encode_symbols(row["answer"]) for row in rows]
        pairs = list(zip(answers, truths, strict=True))
        table[domain] = {
            "n": len(rows),
            "exact_match": sum(answer == truth for answer, truth in pairs) / len(rows),
            "token_match": sum(sum(x == y for x, y in zip(a, t, strict=False)) / max(len(a), len(t)) for a, t in pairs)
            / len(rows),
            "mean_answer_tokens": sum(map(len, truths)) / len(rows),
        }
    return table


def main(directory: Path = MODEL_DIR, split: str = "test", threads: int = 2, limit: int | None = None) -> None:
    """Write accuracy.json for the model in DIRECTORY."""
    torch.set_num_threads(threads)
    model = LlamaForCausalLM.from_pretrained(str(directory), dtype=torch.float32).eval()
    cells = {kind: accuracy(model, split, kind, limit) for kind in ATTENTION_KINDS}
    report = {
        "policy": "static:1",
        "block_length": BLOCK_LENGTH,
        "generation_length": GENERATION_LENGTH,
        "dtype": "float32",
        "split": split,
        "accuracy": {domain: {kind: cells[kind][domain] for kind in ATTENTION_KINDS} for domain in DOMAINS},
    }
    text = json.dumps(report, indent=2) + "\n"
    (directory / "accuracy.json").write_text(text, encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
