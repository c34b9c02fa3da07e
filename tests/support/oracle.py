"""A naive, independent decoder: the oracle of the decode loop.

Plain Python over one position at a time; no ranks, no packing, none of the project's runtime. The dual and prefix
caches are transformers' own ``DynamicCache``, cut by hand; block-causal decoding recomputes everything in every step.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache


def naive_decode(model, mask_id, prompt, policy, block_length, generation_length, cache_mode, end_ids=()):
    """Return (generated tokens, forwards); ``policy`` is ``static:k`` or ``threshold:tau``."""
    name, argument = policy.split(":")
    causal = cache_mode == "block_causal"
    first = len(prompt) // block_length * block_length if causal else len(prompt)
    total = len(prompt) + generation_length
    total = -(-total // block_length) * block_length if causal else total
    x = torch.tensor(list(prompt) + [mask_id] * (total - len(prompt)))
    forwards, stop = 0, first
    for start in range(first, total, block_length):
        stop, cache = start + block_length, None
        while (x[start:stop] == mask_id).any():
            forwards += 1
            n = stop if causal else total
            number = torch.arange(n)
            if cache is None or cache_mode in ("none", "block_causal"):
                visible = number[None] // block_length <= number[:, None] // block_length if causal else None
                visible = torch.ones(n, n, dtype=torch.bool) if visible is None else visible
                out = model(x[None, :n], attention_mask=visible[None, None], position_ids=number[None], use_cache=True)
                logits = out.logits[0, start:stop]
                keep = [r for r in range(n) if r < start or (cache_mode == "dual" and r >= stop)]
                cache = [(layer.keys[:, :, keep], layer.values[:, :, keep]) for layer in out.past_key_values.layers]
            else:
                live = number[start:stop] if cache_mode == "dual" else number[start:]
                frozen = DynamicCache()
                for depth, (keys, values) in enumerate(cache):
                    frozen.update(keys, values, depth)
                visible = torch.ones(1, 1, len(live), cache[0][0].shape[2] + len(live), dtype=torch.bool)
                out = model(x[None, live], attention_mask=visible, position_ids=live[None], past_key_values=frozen)
                logits = out.logits[0, :block_length]
            logits = logits.double()
            logits[:, mask_id] = -torch.inf
            best, token = torch.softmax(logits, -1).max(-1)
            masked = [k for k in range(block_length) if x[start + k] == mask_id]
            masked.sort(key=lambda k: (-best[k].item(), k))
            if name == "static":
                chosen = masked[: int(argument)]
            else:
                chosen = masked[:1] + [k for k in masked[1:] if best[k] >= float(argument)]
            for k in chosen:
                x[start + k] = token[k]
        if any(t in end_ids for t in x[max(start, len(prompt)) : stop].tolist()):
            break
    return x[len(prompt) : stop].tolist(), forwards
