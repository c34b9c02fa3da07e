"""Spread the confidences of the trained model: `python -m scripts.bundled_model.soften --temperature 2.25`.

The bundled domains are lookups, and a model that has learned them is sure of nearly every token from the first step on.
That is of no use to someone who studies decode rules: a threshold rule would commit whole blocks at once and leave
nothing to speculate about, quite unlike the large models that such rules are made for. So all logits are divided by a
temperature, once and for all, by dividing the weight of the last normalisation (the output layer is linear in it). The
order of tokens at a position stays as it was trained, and so do greedy answers up to the order in which positions are
committed; only probabilities move away from 1. At 2.25, `threshold:0.9` commits some three tokens a step.
"""

import json
import os

import torch
import typer
from safetensors.torch import load_file, save_file

from calibrate.bundled import MODEL_DIR

NORM = "model.norm.weight"
FACT = "logit_temperature"


def soften(temperature: float) -> None:
    """Give the bundled weights the logit temperature TEMPERATURE, whatever they had before.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"a logit temperature must be above 0, got {temperature}")
    weights_path, facts_path = MODEL_DIR / "model.safetensors", MODEL_DIR / "draftgraph.json"
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    weights = load_file(weights_path)
    before = float(facts.get(FACT, 1.0))
    weights[NORM] = (weights[NORM].double() * (before / temperature)).to(torch.float32)
    facts[FACT] = temperature
    for path in (weights_path, facts_path):
        temporary = path.with_name(path.name + ".tmp")
        if path is weights_path:
            save_file(weights, temporary, metadata={"format": "pt"})
            temporary.chmod(0o644)
        else:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def main(temperature: float = 2.25) -> None:
    """Divide the logits of the bundled model by TEMPERATURE (relative to the weights as they were trained)."""
    soften(temperature)
    typer.echo(f"logit temperature {temperature:g} in {MODEL_DIR}")


if __name__ == "__main__":
    typer.run(main)
