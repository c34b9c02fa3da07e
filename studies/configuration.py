"""What a study depends on, and the prompts that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from calibrate.checkpoints import Checkpoint
from calibrate.prompts import Prompt, encode_prompts, load_prompt_set

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class CalibrationConfig:
    """Everything a calibration run depends on; written to ``config.json`` as it is.

    ``search_prompts`` and ``test_prompts`` cut the splits; None takes them whole. The runtime verifier runs on the
    first ``measured_prompts`` of the test split; None is all of them. ``prompts`` and ``held_out`` are ``bundled`` or
    JSONL files; a file for ``prompts`` without one for ``held_out`` is cut in two, by prompt. ``certify`` bounds every
    graph by the price sweep (``studies.closure``), so that each row says how far it can be from the best of its size.
    """

    model: str = "bundled"
    prompts: str = "bundled"
    held_out: str | None = None
    policies: tuple[str, ...] = ("threshold:0.9",)
    temperature: float = 0.0
    block_length: int = 32
    generation_length: int = 96
    context: str = "dual"
    backend: str = "packed"
    budgets: tuple[int, ...] = (0, 3, 5, 8, 10)
    methods: tuple[str, ...] = ("chain", "published", "greedy")
    top_j: int = 8
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    search_prompts: int | None = 64
    test_prompts: int | None = 48
    measured_prompts: int | None = None
    mask_token_id: int | None = None
    certify: bool = True


def encoded_splits(config: CalibrationConfig, checkpoint: Checkpoint) -> tuple[list[Tokens], list[Tokens]]:
    """Token ids of the search and the test prompts of a configuration.

    Raises:
        ValueError: (PromptError) a prompt set that cannot be read or encoded.
    """
    return encode_splits(prompt_splits(config), checkpoint)


def encode_splits(
    splits: tuple[list[Prompt], list[Prompt]], checkpoint: Checkpoint
) -> tuple[list[Tokens], list[Tokens]]:
    """Token ids of both splits; raises PromptError as in ``calibrate.prompts.encode_prompts``."""
    vocabulary = checkpoint.denoiser.vocabulary_size
    search, test = (encode_prompts(split, checkpoint.tokenizer, vocabulary) for split in splits)
    return search, test


def prompt_splits(config: CalibrationConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Search and test prompts; no prompt is in both. Raises ``ValueError`` as in ``load_prompt_set``."""
    search = load_prompt_set(config.prompts, "calibration")
    if config.held_out is not None or config.prompts.partition("/")[0] == "bundled":
        test = load_prompt_set(config.held_out or config.prompts, "test")
    else:
        if len(search) < 2:
            raise ValueError(
                f"{config.prompts} holds one prompt; a search and a held-out split need at least two, "
                "or give --held-out"
            )
        search, test = search[::2], search[1::2]
    return search[: config.search_prompts], test[: config.test_prompts]
