"""The decode loops of published models, written naively from reading them: the references of test_loops.

One sequence, plain tensors, the model called as it is; nothing of this project's runtime. Each function returns the
whole sequence and the number of model calls. Where a loop does something that cannot be meant, the docstring says so.
"""

from __future__ import annotations

import copy

import torch
from transformers import DynamicCache


def forward(model, tokens, visible, positions, cache=None, **options):
    """Logits [rows, V] of one sequence under a bool mask [rows, columns]."""
    return model(
        input_ids=tokens[None], attention_mask=visible[None, None], position_ids=positions[None],
        past_key_values=cache, **options,
    )  # fmt: skip


def transfer_counts(masked, steps):
    """How many tokens each step transfers, in LLaDA, Fast-dLLM, SDAR and LLaDA2."""
    counts = [masked // steps] * steps
    for k in range(masked % steps):
        counts[k] += 1
    return counts


@torch.no_grad()
def llada(model, mask, prompt, steps, length, block):
    """LLaDA's generate: ``steps`` in all, semi-autoregressive, low-confidence remasking, temperature 0, no guidance."""
    n = len(prompt)
    x = torch.tensor([*prompt, *[mask] * length])
    everyone, rows = torch.ones(len(x), len(x), dtype=torch.bool), torch.arange(len(x))
    calls, per_block = 0, steps // (length // block)
    for b in range(length // block):
        stop = n + (b + 1) * block
        counts = transfer_counts(int((x[stop - block : stop] == mask).sum()), per_block)
        for count in counts:
            logits = forward(model, x, everyone, rows).logits[0]
            calls += 1
            probability = torch.softmax(logits, dim=-1)
            token = logits.argmax(dim=-1)
            confidence = probability.gather(1, token[:, None])[:, 0]
            confidence[stop:] = -torch.inf
            confidence[x != mask] = -torch.inf
            chosen = confidence.topk(count).indices
            x[chosen] = token[chosen]
    return x.tolist(), calls


@torch.no_grad()
def fast_dllm(model, mask, prompt, length, block, cache="none", threshold=None, steps=None, looks_first=True):
    """Fast-dLLM's generate, with prefix cache, with dual cache (its LLaDA files): by threshold, or ``steps`` per block.

    As first published, the loop with a cache makes a block's second call before it looks whether masks are left, so a
    block that its first call completed costs a call that commits nothing: ``looks_first`` off. Later it looks first.
    """
    n = len(prompt)
    x = torch.tensor([*prompt, *[mask] * length])
    rows, calls = torch.arange(len(x)), 0
    for start in range(n, n + length, block):
        stop = start + block
        counts = transfer_counts(block, steps) if steps else None
        kept = None
        step = 0
        while (x[start:stop] == mask).any() or (step == 1 and cache != "none" and not looks_first):
            if kept is None or cache == "none":
                visible = torch.ones(len(x), len(x), dtype=torch.bool)
                out = forward(model, x, visible, rows, use_cache=True)
                logits = out.logits[0, start:stop]
                keep = [r for r in rows.tolist() if r < start or (cache == "dual" and r >= stop)]
                kept = [(layer.keys[:, :, keep], layer.values[:, :, keep]) for layer in out.past_key_values.layers]
            else:
                live = rows[start:stop] if cache == "dual" else rows[start:]
                past = DynamicCache()
                for depth, (keys, values) in enumerate(kept):
                    past.update(keys, values, depth)
                visible = torch.ones(len(live), kept[0][0].shape[2] + len(live), dtype=torch.bool)
                logits = forward(model, x[live], visible, live, past).logits[0, :block]
            calls += 1
            masked = x[start:stop] == mask
            token = logits.argmax(dim=-1)
            confidence = torch.softmax(logits.double(), dim=-1).gather(1, token[:, None])[:, 0]
            confidence[~masked] = -torch.inf
            order = confidence.topk(int(masked.sum()) if counts is None else counts[step]).indices
            chosen = [k for rank, k in enumerate(order.tolist()) if counts or rank == 0 or confidence[k] >= threshold]
            for k in chosen:
                if masked[k]:
                    x[start + k] = token[k]
            step += 1
    return x.tolist(), calls


@torch.no_grad()
def sdar(model, mask, prompt, length, block, steps, strategy, threshold=None, stop_ids=(), cap=False):
    """SDAR's block_diffusion_generate, greedy, as its evaluation runs it: argmax, confidence of the whole softmax.

    The published loop transfers a full quota even when fewer positions are masked, and then writes predictions over
    tokens that are decided, the prompt's among them; ``cap`` takes no more than are masked, as LLaDA2's loop does.
    The call that stores a finished block is counted.
    """
    n, calls = len(prompt), 0
    total = -(-(n + length) // block) * block
    x = torch.tensor([*prompt, *[mask] * (total - n)])
    number = torch.arange(total) // block
    visible = number[None, :] <= number[:, None]
    rows, cache = torch.arange(total), DynamicCache()
    ready = n // block * block
    if ready:
        forward(model, x[:ready], visible[:ready, :ready], rows[:ready], cache, use_cache=True)
        calls += 1
    counts = transfer_counts(block, steps)
    for start in range(ready, total, block):
        stop = start + block
        now = x[start:stop].clone()
        for step in range(steps + 1):
            masked = now == mask
            past = copy.deepcopy(cache) if masked.any() else cache
            out = forward(model, now, visible[start:stop, :stop], rows[start:stop], past, use_cache=True)
            calls += 1
            if not masked.any():
                break
            probability = torch.softmax(out.logits[0], dim=-1)
            confidence, token = probability.max(dim=-1)
            confidence[~masked] = -torch.inf
            count = min(counts[step], int(masked.sum())) if cap else counts[step]
            high = (confidence > threshold).nonzero()[:, 0] if strategy == "low_confidence_dynamic" else []
            chosen = high if len(high) >= count and len(high) else confidence.topk(count).indices
            now[chosen] = token[chosen]
        x[start:stop] = now
        if any(t in stop_ids for t in x[n:stop].tolist()):
            return x[:stop].tolist(), calls
    return x.tolist(), calls


@torch.no_grad()
def llada2(model, mask, prompt, length, block, steps, threshold, eos):
    """LLaDA2's generate with eos_early_stop, temperature 0: the answer up to its end token, which it includes."""
    n, calls = len(prompt), 0
    total = -(-(n + length) // block) * block
    x = torch.tensor([*prompt, *[mask] * (total - n)])
    number = torch.arange(total) // block
    visible, rows = number[None, :] <= number[:, None], torch.arange(total)
    counts = transfer_counts(block, steps)
    for start in range(n // block * block, total, block):
        stop = start + block
        for step in range(steps):
            masked = x[start:stop] == mask
            if not masked.any():
                break
            logits = forward(model, x[:stop], visible[:stop, :stop], rows[:stop]).logits[0, start:]
            calls += 1
            confidence, token = torch.softmax(logits, dim=-1).max(dim=-1)
            confidence[~masked] = -torch.inf
            high = (confidence > threshold).nonzero()[:, 0]
            enough = len(high) >= counts[step]
            chosen = high if enough else confidence.topk(min(counts[step], int(masked.sum()))).indices
            x[start + chosen] = token[chosen]
            ends = (x[n:stop] == eos).nonzero()
            if (token[chosen] == eos).any() and len(ends) and (x[n : n + ends[0]] != mask).all():
                return x[n : n + int(ends[0]) + 1].tolist(), calls
        if (x[n:stop] == eos).any():
            break
    answer = x[n : n + length].tolist()
    return answer[: answer.index(eos) + 1] if eos in answer else answer, calls


@torch.no_grad()
def dream(model, mask, prompt, length, steps, alg, eps=1e-3):
    """Dream's diffusion_generate at temperature 0: one block, logits shifted, a time schedule.

    The published loop calls the model in every step; counted here are the steps that commit something.
    """
    calls = 0
    x = torch.tensor([*prompt, *[mask] * length])
    everyone, rows = torch.ones(len(x), len(x), dtype=torch.bool), torch.arange(len(x))
    time = torch.linspace(1, eps, steps + 1)
    for i in range(steps):
        masked = x == mask
        raw = forward(model, x, everyone, rows).logits[0]
        probability = torch.softmax(torch.cat([raw[:1], raw[:-1]]), dim=-1)
        confidence, token = probability.max(dim=-1)
        if alg == "topk_margin":
            best = probability.topk(2, dim=-1).values
            confidence = best[:, 0] - best[:, 1]
        elif alg == "entropy":
            confidence = (probability * (probability + 1e-10).log()).sum(dim=-1)
        left = masked.sum()
        count = int(left * (1 - time[i + 1] / time[i])) if i < steps - 1 else int(left)
        confidence[~masked] = -torch.inf
        chosen = confidence.topk(count).indices
        x[chosen] = token[chosen]
        calls += count > 0
    return x.tolist(), calls
