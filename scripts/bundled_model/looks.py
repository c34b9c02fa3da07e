"""Looks at a model while it is trained: quick enough to be taken often, printed, and kept in a file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from calibrate.bundled import ATTENTION_KINDS, BLOCK_LENGTH
from calibrate.models.checkpoint import Checkpoint, load_checkpoint
from scripts.bundled_model.measures import RATIOS, confidence, decode_domain, examples
from verify.files.writing import write_atomically

#: Texts per domain whose masked positions tell the calibration error of a look.
_TEXTS = 64


def look(directory: Path, domains: Sequence[str], prompts: int, device: str) -> list[tuple[str, str, str, float]]:
    """Measure the exported model in `directory` on validation prompts.

    Returns:
        (measure, attention kind, what of, value): the share of valid answers under static:1 for every domain, and the
        calibration error for every mask ratio, over the texts of all domains.
    """
    threads = torch.get_num_threads()
    checkpoint: Checkpoint = load_checkpoint(directory, device=device)
    torch.set_num_threads(threads)  # loading a small model settles on one thread, training wants its own number
    found: list[tuple[str, str, str, float]] = []
    sets = {domain: examples("validation", domain, max(prompts, _TEXTS)) for domain in domains}
    for kind in ATTENTION_KINDS:
        for domain, those in sets.items():
            decoded = decode_domain(checkpoint, those[:prompts], "static:1", kind, BLOCK_LENGTH)
            found.append(("valid", kind, domain, float(decoded.valid.mean())))
        texts = [prompt for those in sets.values() for prompt in those[:_TEXTS]]
        for ratio in RATIOS:
            error = confidence(checkpoint.denoiser.model, texts, kind, BLOCK_LENGTH, ratio).error
            found.append(("calibration error", kind, f"{ratio:g}", error))
    return found


def sentences(found: Sequence[tuple[str, str, str, float]]) -> list[str]:
    """The measures of a look, one line for each measure and attention kind."""
    lines: dict[str, list[str]] = {}
    for measure, kind, of, value in found:
        lines.setdefault(f"{measure}, {kind}", []).append(f"{of} {value:.2f}" if value > 0.1 else f"{of} {value:.3f}")
    return [f"  {name}: {', '.join(cells)}" for name, cells in lines.items()]


def append(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Add rows to a CSV file, which is whole before and after."""
    before = path.read_text(encoding="utf-8") if path.exists() else ",".join(columns) + "\n"
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        file.write(before)
        csv.writer(file, lineterminator="\n").writerows(rows)
