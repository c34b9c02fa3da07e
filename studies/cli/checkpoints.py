"""Models as commands ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrate.models.checkpoint import Checkpoint


def shaped_checkpoint(
    model: str, dtype: str, device: str, mask_token_id: int | None = None, revision: str | None = None
) -> Checkpoint:
    """A checkpoint, or random weights of the shape called ``model``; errors as those of loading.

    Raises:
        calibrate.models.shapes.ShapeError: ``model`` is called like a shape (``...-shaped``), and there is none.
    """
    from calibrate.models.checkpoint import load_checkpoint
    from calibrate.models.shapes import SHAPES, shape

    if model in SHAPES or (model.endswith("-shaped") and "/" not in model and not Path(model).is_dir()):
        return shape(model).make(dtype=dtype, device=device)
    return load_checkpoint(model, dtype=dtype, device=device, mask_token_id=mask_token_id, revision=revision)
