"""A naive decoder with AdaBlock's blocks: plain Python over one position at a time, none of the project's runtime.

As ``tests.support.oracle``, with blocks that end where the first forward of each says. The caches are transformers'
own, cut by hand.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache


def naive_length(best, token, left, tau, delimiters, default, window):
    """The positions of a block from the first distribution: lists over positions from the block's first one on."""
    ends = [k for k in range(min(window, left)) if token[k] in delimiters]
    ends.sort(key=lambda k: (-best[k], k))
    if ends and best[ends[0]] >= tau:
        return ends[0] + 1
    return min(default, left)


def naive_adablock_decode(model, mask_id, prompt, policy, schedule, generation_length, cache_mode, end_ids=()):
    """Return (generated tokens, forwards, lengths of blocks); ``policy`` is ``static:k`` or ``threshold:tau``.

    ``schedule`` is (tau, delimiters, default, window).
    """
    name, argument = policy.split(":")
    total = len(prompt) + generation_length
    x = torch.tensor(list(prompt) + [mask_id] * generation_length)
    number = torch.arange(total)
    forwards, stop, lengths = 0, len(prompt), []
    while stop < total:
        start, stop, cache = stop, None, None
        while stop is None or (x[start:stop] == mask_id).any():
            forwards += 1
            if cache is None or cache_mode == "none":
                visible = torch.ones(1, 1, total, total, dtype=torch.bool)
                out = model(x[None], attention_mask=visible, position_ids=number[None], use_cache=True)
                logits, pairs = out.logits[0, start:], [(one.keys, one.values) for one in out.past_key_values.layers]
            else:
                live = number[start:stop] if cache_mode == "dual" else number[start:]
                frozen = DynamicCache()
                for depth, (keys, values) in enumerate(cache):
                    frozen.update(keys, values, depth)
                visible = torch.ones(1, 1, len(live), cache[0][0].shape[2] + len(live), dtype=torch.bool)
                out = model(x[None, live], attention_mask=visible, position_ids=live[None], past_key_values=frozen)
                logits = out.logits[0]
            logits = logits.double()
            logits[:, mask_id] = -torch.inf
            best, token = torch.softmax(logits, -1).max(-1)
            if stop is None:
                stop = start + naive_length(best.tolist(), token.tolist(), total - start, *schedule)
                lengths.append(stop - start)
                keep = [r for r in range(total) if r < start or (cache_mode == "dual" and r >= stop)]
                cache = [(keys[:, :, keep], values[:, :, keep]) for keys, values in pairs]
            masked = [k for k in range(stop - start) if x[start + k] == mask_id]
            masked.sort(key=lambda k: (-best[k].item(), k))
            if name == "static":
                chosen = masked[: int(argument)]
            else:
                chosen = masked[:1] + [k for k in masked[1:] if best[k] >= float(argument)]
            for k in chosen:
                x[start + k] = token[k]
        if any(t in end_ids for t in x[start:stop].tolist()):
            break
    return x[len(prompt) : stop].tolist(), forwards, lengths
