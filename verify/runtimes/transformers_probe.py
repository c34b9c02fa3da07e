"""Does a loaded model use the mask it is handed? Asked once at load, as everything later rests on it.

A model that ignores its 4-D mask (an attention kernel without masks, a class that builds a causal mask of its own)
decodes fluently and wrongly: packed drafts would see each other, and exactness would be lost without a word.
"""

from __future__ import annotations

import torch

from verify.runtimes.transformers_model import TransformersDenoiser

#: How far a hidden row may move the logits, relative to how far a visible one does. Zero in a dense model; experts
#: group their rows, so that in half precision a row's bits may depend on its neighbours.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_TOLERANCE_HALF = 0.2


class MaskIgnoredError(ValueError):
    """A model whose output does not follow its attention mask."""


def probe_mask(denoiser: TransformersDenoiser) -> None:
    """Perturb a row that the others may not see, and one that they may; one forward of 3 x 6 rows.

    The hidden row stands first, where a causal model would look, and the visible one last, where it would not.

    Raises:
        MaskIgnoredError: the hidden row moves other rows' logits, or the visible one does not.
    """
    rows = 6
    usable = [t for t in range(min(denoiser.vocabulary_size, 64)) if t != denoiser.mask_token_id]
    plain = torch.tensor([usable[(5 * r + 1) % len(usable)] for r in range(rows)], device=denoiser.device)
    tokens = plain.repeat(3, 1)
    tokens[1, 0] = usable[(5 * rows + 2) % len(usable)]
    tokens[2, -1] = usable[(5 * rows + 3) % len(usable)]
    attention_mask = torch.ones(1, rows, rows, dtype=torch.bool, device=denoiser.device)
    attention_mask[:, 1:, 0] = False
    positions = torch.arange(rows, device=denoiser.device).expand(3, rows)
    # Row 1 of a shifted model falls back to itself, as the row before it is hidden; so the rows asked start there.
    probed = torch.arange(1, rows - 1, device=denoiser.device)
    logits, _ = denoiser(tokens, positions, attention_mask, logit_rows=probed)
    logits = logits.double()
    by_hidden = (logits[1] - logits[0]).abs().max().item()
    by_visible = (logits[2] - logits[0]).abs().max().item()
    name = type(denoiser.model).__name__
    if not by_visible > 0:
        raise MaskIgnoredError(
            f"{name} does not look at a later row that its attention mask shows; it attends causally whatever the "
            "mask says, so it cannot denoise a block"
        )
    if not by_hidden <= _TOLERANCE.get(logits_dtype(denoiser), _TOLERANCE_HALF) * by_visible:
        raise MaskIgnoredError(
            f"{name} ignores its attention mask: a hidden row moves the logits by {by_hidden:.3g} (a visible one by "
            f"{by_visible:.3g}); packed drafts would see each other. Load it with SDPA or eager attention"
        )


def logits_dtype(denoiser: TransformersDenoiser) -> torch.dtype:
    """The dtype a model computes in."""
    return next(denoiser.model.parameters()).dtype
