"""The bundled model: a small masked diffusion language model that ships with the repository.

Only constants and paths live here, so that importing the package costs nothing (no torch, no transformers). How text,
vocabulary and weights were made: ``scripts/bundled_model``.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Hugging Face layout: config.json, model.safetensors, tokenizer files, and draftgraph.json.
MODEL_DIR = HERE / "model"
#: calibration.jsonl, validation.jsonl, test.jsonl.
PROMPTS_DIR = HERE / "prompts"

DOMAINS = ("lists", "code")
ATTENTION_KINDS = ("bidirectional", "block_causal")
SPLITS = ("calibration", "validation", "test")

#: Positions denoised together.
BLOCK_LENGTH = 32
#: Positions offered to an answer; every answer with its end-of-text token fits.
GENERATION_LENGTH = 96
