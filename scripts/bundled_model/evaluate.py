"""What the bundled model can do, measured on test prompts: `python -m scripts.bundled_model.evaluate DIRECTORY`.

Writes `evaluation.json`, `evaluation.md` and the figure `reliability` into DIRECTORY. Every measurement is a cell that
is written as soon as it is known, so an interrupted evaluation of the same weights with the same options goes on.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from scipy.stats import binomtest

from calibrate.bundled import ATTENTION_KINDS, BLOCK_LENGTH
from calibrate.bundled.answers import GRAMMARS
from calibrate.bundled.grammar import expectation
from calibrate.files import write_json
from calibrate.models.checkpoint import load_checkpoint
from calibrate.models.folder import folder_digest
from calibrate.progress import RichReporter
from figures.canvas.output import save_figure
from scripts.bundled_model.evaluation_report import draw_reliability, markdown, table_reliability
from scripts.bundled_model.measures import (
    CACHES,
    RATIOS,
    Decoded,
    confidence,
    decode_domain,
    examples,
    likelihood,
    ratio_rows,
    reliability,
    score,
)
from scripts.bundled_model.tasks import MAKERS
from studies.statistics.intervals import PromptBootstrap
from verify.files.writing import write_atomically

BLOCK_LENGTHS = (4, 8, 16, 32)
RULES = ("static:2", "static:4", *(f"threshold:{tau:g}" for tau in (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)))
#: Domains whose answers are drawn, so that their entropy is above 0.
DRAWN = ("stories", "lines")
Cell = dict[str, Any]


def decoded_cell(found: Decoded) -> Cell:
    """Share of valid answers with its 95 % interval (Wilson), forwards per answer, steps per full block."""
    good, number = int(found.valid.sum()), len(found.valid)
    interval = binomtest(good, number).proportion_ci(0.95, "wilson")
    return {
        "prompts": number,
        "valid": good / number,
        "interval": [float(interval.low), float(interval.high)],
        "forwards_per_answer": float(found.forwards.mean()),
        "steps_per_full_block": found.steps_per_full_block,
        "full_blocks": sum(map(len, found.block_steps)),
    }


class Evaluation:
    """Cells by name, each measured once for these weights and options."""

    def __init__(self, path: Path, options: Cell) -> None:
        self.path, self.options, self.cells = path, options, dict[str, Cell]()
        if path.exists():
            report = json.loads(path.read_text(encoding="utf-8"))
            if report.get("options") == options:
                self.cells = report["cells"]

    def cell(self, name: str, measure: Callable[[], Cell]) -> Cell:
        """Return the cell of this name, measured now if it is new."""
        if name not in self.cells:
            self.cells[name] = measure()
            write_json(self.path, {"options": self.options, "cells": self.cells})
        return self.cells[name]


def plan(
    directory: Path, domains: tuple[str, ...], prompts: int, texts: int, seed: int
) -> dict[str, Callable[[], Cell]]:
    """Name every cell, with what measures it."""
    checkpoint = load_checkpoint(directory)
    model = checkpoint.denoiser.model
    sets = {domain: examples("test", domain, max(prompts, texts), seed) for domain in domains}
    cells: dict[str, Callable[[], Cell]] = {}

    def valid(domain: str, rule: str, kind: str, length: int) -> Cell:
        return decoded_cell(decode_domain(checkpoint, sets[domain][:prompts], rule, kind, length))

    def calibration(domain: str, kind: str, ratio: float) -> Cell:
        return asdict(confidence(model, sets[domain][:texts], kind, BLOCK_LENGTH, ratio, seed))

    def calibration_of_all(kind: str, ratio: float) -> Cell:
        rows = [row for those in sets.values() for row in ratio_rows(those[:texts], kind, BLOCK_LENGTH, ratio, seed)]
        found = torch.cat(score(model, rows)).numpy()
        return asdict(reliability(found[:, 0], found[:, 1]))

    def bits_of(domain: str, kind: str, order: int | None) -> Cell:
        those = sets[domain][:texts]
        found = likelihood(model, those, kind, BLOCK_LENGTH, order)
        ratio = PromptBootstrap(len(those), seed=seed).ratio(found.model, found.grammar)
        expected = [expectation(GRAMMARS[domain](prompt.text or "")) for prompt in those]
        return {
            "texts": len(those),
            "model_bits_per_token": float(found.model.sum() / found.tokens.sum()),
            "grammar_bits_per_token": float(found.grammar.sum() / found.tokens.sum()),
            "entropy_per_token": sum(e.bits for e in expected) / sum(e.symbols + 1 for e in expected),
            "ratio": ratio.estimate,
            "interval": ratio.pair(),
        }

    def named(name: str, measure: Callable[..., Cell], *arguments: Any) -> None:
        cells[name] = lambda: measure(*arguments)

    for kind in ATTENTION_KINDS:
        for domain in domains:
            for length in BLOCK_LENGTHS:
                named(f"valid/{domain}/static:1/{kind}/{length}", valid, domain, "static:1", kind, length)
        for ratio in RATIOS:
            named(f"calibration/all/{kind}/{ratio:g}", calibration_of_all, kind, ratio)
            for domain in domains:
                named(f"calibration/{domain}/{kind}/{ratio:g}", calibration, domain, kind, ratio)
        for domain in [domain for domain in domains if domain in DRAWN]:
            named(f"likelihood/{domain}/{kind}/left to right", bits_of, domain, kind, None)
            named(f"likelihood/{domain}/{kind}/random order", bits_of, domain, kind, seed)
        for domain in domains:
            for rule in RULES:
                named(f"valid/{domain}/{rule}/{kind}/{BLOCK_LENGTH}", valid, domain, rule, kind, BLOCK_LENGTH)
    return cells


def main(
    directory: Path = typer.Argument(..., help="Folder of an exported model."),
    domains: str = typer.Option(",".join(MAKERS), help="Domains that the model was trained on."),
    prompts: int = typer.Option(200, min=1, help="Test prompts per domain that are decoded."),
    texts: int = typer.Option(200, min=2, help="Test texts per domain for calibration and likelihood."),
    seed: int = 0,
    threads: int = typer.Option(2, min=1),
) -> None:
    """Measure the model in DIRECTORY on fresh prompts of the test split, in float32."""
    chosen = tuple(domains.split(","))
    cells = plan(directory, chosen, prompts, texts, seed)
    torch.set_num_threads(threads)
    options = {"weights": folder_digest(directory), "domains": list(chosen), "prompts": prompts, "texts": texts}
    options |= {"seed": seed, "split": "test", "dtype": "float32", "caches": CACHES, "block_length": BLOCK_LENGTH}
    evaluation = Evaluation(directory / "evaluation.json", options)
    reporter = RichReporter(Console())
    with reporter.task("measurements", len(cells)) as done:
        for number, (name, measure) in enumerate(cells.items()):
            evaluation.cell(name, measure)
            done(number + 1)
    found = {name: evaluation.cells[name] for name in cells}
    text = markdown(options, found)
    with write_atomically(directory / "evaluation.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    save_figure(draw_reliability(options, found), directory / "reliability", table_reliability(found))
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
