"""Train the bundled model: `python -m scripts.bundled_model.train --out runs/bundled/model` (see README.md here).

A plain `LlamaForCausalLM` that is always given a full four-dimensional mask, hence not causal. Its length is counted in
optimizer steps: the learning rate warms up, stays, and falls to zero over the last part of `--steps`. Nothing depends
on the clock.

`--work` holds all that an interrupted run needs to go on: weights, averages, momenta, step, and the states of the
generators that draw texts and masks. (Initial weights are all that torch's own generator decides.) Ctrl-C ends after
the step in hand and keeps everything; the same command goes on. On one machine with the same number of threads the
weights are those of an uninterrupted run bit for bit on a CPU; on a GPU sums of gradients may be added in another
order, so there they agree in distribution only.
"""

import signal
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from calibrate.progress import RichReporter
from scripts.bundled_model.batches import IGNORE, Batch, BatchStream, Weights
from scripts.bundled_model.export import build_model, export
from scripts.bundled_model.looks import append, look, sentences
from scripts.bundled_model.optimizer import Optimizer
from scripts.bundled_model.tasks import MAKERS
from verify.files.writing import write_atomically

WARM_UP = 60
WEIGHTS = "lists=1,code=1,stories=1.5,lines=1.5"


@dataclass(frozen=True)
class Settings:
    """What decides the weights of a run; kept in its checkpoint and in the exported model."""

    steps: int
    batch_rows: int
    layers: int
    width: int
    lr: float
    adam_lr: float
    weight_decay: float
    flat: float
    average: float
    seed: int
    weights: str
    late: float
    device: str
    threads: int
    compiled: bool


def read_weights(text: str) -> list[tuple[int, Weights]]:
    """Read the mixture of domains, `lists=1,code=1`, or several in turn, `0:lists=1,code=1;2000:lists=1,lines=2`.

    A domain that is not named is not drawn.

    Raises:
        ValueError: an unknown domain, a weight below 0, no weight above 0, or steps that do not ascend from 0.
    """
    stages: list[tuple[int, Weights]] = []
    for part in text.split(";"):
        step, colon, pairs = part.rpartition(":")
        weights = {}
        for pair in pairs.split(","):
            domain, _, weight = pair.strip().partition("=")
            if domain not in MAKERS:
                raise ValueError(f"unknown domain {domain!r} in {text!r}, expected {', '.join(MAKERS)}")
            weights[domain] = float(weight)
        if min(weights.values()) < 0 or not sum(weights.values()) > 0:
            raise ValueError(f"weights must not be below 0, and one must be above 0; got {part!r}")
        stages.append((int(step) if colon else 0, weights))
    steps = [step for step, _ in stages]
    if steps[0] != 0 or any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"stages must begin at step 0 and ascend, got {text!r}")
    return stages


def weights_at(stages: list[tuple[int, Weights]], step: int) -> Weights:
    """Return the mixture that holds at a step."""
    return next(weights for begin, weights in reversed(stages) if begin <= step)


def learning_rate_scale(step: int, steps: int, flat: float) -> float:
    """Warm up over 60 steps, stay, then fall linearly to zero from the share `flat` of the steps on.

    `step` counts from 0; the last one has a scale above 0.
    """
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, (1 - step / steps) / (1 - flat))


class Training:
    """A model with its optimizer and its stream of batches, at some step."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.model = build_model(settings.layers, settings.width)
        self.model = self.model.to(device=settings.device, dtype=torch.bfloat16)
        self.optimizer = Optimizer(self.model, settings.lr, settings.adam_lr, settings.weight_decay)
        self.batches = BatchStream(settings.batch_rows, settings.seed, settings.late)
        self.mixture = read_weights(settings.weights)
        self.rows = self.targets = 0
        self.stages: list[dict[str, Any]] = []
        self.loss = torch.compile(self._loss, dynamic=False) if settings.compiled else self._loss

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.optimizer.steps)

    def _loss(self, tokens: Tensor, targets: Tensor, bias: Tensor, places: Tensor) -> Tensor:
        logits = self.model(input_ids=tokens, attention_mask=bias, position_ids=places).logits.float().flatten(0, 1)
        return nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE)

    def advance(self) -> float:
        """Do one optimizer step; return the loss before it, nats per masked token."""
        settings = self.settings
        batch: Batch = self.batches.next(weights_at(self.mixture, self.step))
        tokens, targets, places, visible = (
            x.to(settings.device) for x in (batch.tokens, batch.targets, batch.places, batch.visible)
        )
        bias = torch.zeros(visible.shape, dtype=torch.bfloat16, device=settings.device)
        bias = bias.masked_fill_(~visible, -1e30)[:, None]
        loss = self.loss(tokens, targets, bias, places)
        loss.backward()
        scale = learning_rate_scale(self.step, settings.steps, settings.flat)
        # A young average forgets faster, so that early looks do not show the random weights of the start.
        self.optimizer.step(scale, min(settings.average, self.step / (self.step + 20)))
        self.rows += batch.tokens.numel()
        self.targets += int((batch.targets != IGNORE).sum())
        return float(loss.item())

    def facts(self) -> dict[str, Any]:
        """What `draftgraph.json` says about the training so far."""
        return {"steps": self.step, "rows": self.rows, "targets": self.targets, "stages": self.stages}

    def save(self, path: Path) -> None:
        """Write all that is needed to go on."""
        state = {"optimizer": self.optimizer.state(), "batches": self.batches.state(), **self.facts()}
        with write_atomically(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Take up a checkpoint if there is one, and note the settings from here on where they are new.

        Raises:
            ValueError: a checkpoint of another shape or seed.
        """
        if path.exists():
            state = torch.load(path, map_location=self.settings.device, weights_only=True)
            for name in ("layers", "width", "seed"):
                mine, theirs = getattr(self.settings, name), state["stages"][-1][name]
                if mine != theirs:
                    raise ValueError(f"{path} was trained with {name} {theirs}, got {mine}; give another --work")
            self.optimizer.load(state["optimizer"])
            self.batches.load(state["batches"])
            self.rows, self.targets, self.stages = state["rows"], state["targets"], state["stages"]
        stage = vars(self.settings)
        last = {k: v for k, v in self.stages[-1].items() if k != "from_step"} if self.stages else None
        if stage != last:
            self.stages = [*self.stages, {"from_step": self.step, **stage}]


class Interrupt:
    """Ctrl-C and SIGTERM set `asked` once; a second one ends the program as ever."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for each, handler in self.before.items():
            signal.signal(each, handler)


def run(settings: Settings, out: Path, work: Path, look_every: int, look_prompts: int, save_every: int) -> bool:
    """Train to the end or until interrupted; return whether the end was reached.

    `work` gets `state.pt`, `losses.csv` and `looks.csv`, `out` the exported model at every look and at the end.
    """
    reporter = RichReporter(Console())
    torch.set_num_threads(settings.threads)
    training = Training(settings)
    checkpoint = work / "state.pt"
    training.resume(checkpoint)
    mixture = sorted({domain for _, weights in training.mixture for domain, weight in weights.items() if weight > 0})
    size = sum(p.numel() for p in training.model.parameters())
    reporter.say(f"{size:,} parameters, step {training.step} of {settings.steps}; Ctrl-C keeps what is done")
    losses: list[tuple[int, float]] = []

    def keep() -> None:
        nonlocal losses
        if losses:
            mean = sum(loss for _, loss in losses) / len(losses)
            reporter.say(f"step {training.step}: mean loss of {len(losses)} steps {mean:.4f}")
        training.save(checkpoint)
        append(work / "losses.csv", ("step", "loss"), losses)
        losses = []

    def judge() -> None:
        export(training.model, training.optimizer.average, out, training.facts())
        found = look(out, mixture, look_prompts, settings.device)
        for sentence in sentences(found):
            reporter.say(sentence)
        rows = [(training.step, *row) for row in found]
        append(work / "looks.csv", ("step", "measure", "attention", "of", "value"), rows)

    with Interrupt() as interrupt, reporter.task("training", settings.steps) as done:
        done(training.step)
        while training.step < settings.steps and not interrupt.asked:
            losses.append((training.step + 1, training.advance()))
            done(training.step)
            if training.step % save_every == 0:
                keep()
            if training.step % look_every == 0 and training.step < settings.steps and not interrupt.asked:
                judge()
        if losses:
            keep()
        finished = training.step >= settings.steps and not interrupt.asked
        if finished:  # also when a run is repeated that had nothing left to do but this
            judge()
    return finished


def main(
    out: Path = typer.Option(..., help="Folder of the exported model; not the bundled one until it is evaluated."),
    work: Path = typer.Option(Path("runs/bundled/work"), help="Folder of the checkpoint and the logs."),
    steps: int = typer.Option(2600, min=1, help="Optimizer steps of this and earlier runs in WORK together."),
    batch_rows: int = typer.Option(8192, min=192, help="Positions per step."),
    layers: int = typer.Option(6, min=1),
    width: int = typer.Option(256, min=32),
    weights: str = typer.Option(
        WEIGHTS, help="How often each domain is drawn; STEP:MIXTURE;... changes it on the way."
    ),
    late: float = typer.Option(
        0.3, min=0.0, max=1.0, help="Share of blocks that are known but for some positions of a short span."
    ),
    lr: float = typer.Option(0.02, help="Of Muon, for the hidden matrices."),
    adam_lr: float = typer.Option(0.002, help="Of Adam, for the rest."),
    weight_decay: float = 0.02,
    flat: float = typer.Option(0.5, help="Share of the steps before the learning rate begins to fall."),
    average: float = typer.Option(0.99, help="Decay of the averaged weights, which are the ones exported."),
    seed: int = 0,
    device: str = typer.Option("cpu", help="cpu or cuda."),
    threads: int = typer.Option(2, min=1),
    compiled: bool = typer.Option(True, help="Use torch.compile."),
    look_every: int = typer.Option(500, min=1, help="Steps between two looks at validity and calibration."),
    look_prompts: int = typer.Option(20, min=1, help="Prompts per domain and attention kind in a look."),
    save_every: int = typer.Option(50, min=1, help="Steps between two checkpoints."),
) -> None:
    """Train up to STEPS and write the model to OUT. To end sooner, interrupt and give fewer STEPS: the learning rate
    then falls from there."""
    values = locals()
    settings = Settings(**{name: values[name] for name in Settings.__dataclass_fields__})
    if not run(settings, out, work, look_every, look_prompts, save_every):
        typer.echo(f"interrupted; the checkpoint is in {work}, the same command goes on from it")
        raise typer.Exit(130)


if __name__ == "__main__":
    typer.run(main)
