"""What benchmarks over cells share: the head of their file, what an earlier run left in it, and the bundled model."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from calibrate.version import tool_version

#: What the logits of the bundled model were divided by after training (scripts/bundled_model/soften.py).
BUNDLED_TEMPERATURE = 2.25


def stamp(what: str, model_revision: str | None, threads: str = "one thread", **facts: Any) -> dict[str, Any]:
    """The head of a result file; a rerun goes on only where it is the same.

    Args:
        what: is measured, in one line.
        model_revision: of the bundled model.
        threads: how many run, for the line about the machine.
        facts: everything else that the numbers depend on.
    """
    return {
        "what": what,
        "device": "cpu",
        "dtype": "float32",
        "machine": f"{platform.system()} {platform.machine()}, {threads}",
        "model_revision": model_revision,
        **facts,
        "versions": {"draftgraph": tool_version(), "torch": torch.__version__},
    }


def read_cells(path: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that an earlier run with the same :func:`stamp` left."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    cells: list[dict[str, Any]] = found.pop("cells", [])
    return cells if found == head else []


def bundled_model(temperature: float = BUNDLED_TEMPERATURE) -> Checkpoint:
    """The bundled model with its logits divided by another temperature than the committed one, in memory only.

    The output layer is linear in the weight of the last normalisation, so that weight is scaled; 1 is the model as it
    was trained, and a larger temperature leaves it in more doubt.
    """
    checkpoint = load_checkpoint("bundled")
    if temperature != BUNDLED_TEMPERATURE:
        weights = dict(checkpoint.denoiser.model.named_parameters())  # type: ignore[attr-defined]
        with torch.no_grad():
            weights["model.norm.weight"].mul_(BUNDLED_TEMPERATURE / temperature)
    return checkpoint
