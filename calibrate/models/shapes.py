"""Models of published shapes with random weights, made on the device: for measuring, where nobody reads the answers.

What a forward pass costs depends on the shape of a model and not on what it learned, so latency, memory and bookkeeping
can be measured without a checkpoint of sixteen gigabytes. A shape is a family's own config.json, read by the family's
adapter, so that what is built is the class that a real checkpoint of this family is loaded into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from calibrate.models.checkpoint import DTYPES, Checkpoint
from calibrate.models.families.llada import LLADA
from calibrate.models.families.loader import native_config
from calibrate.models.families.sdar import SDAR
from calibrate.models.families.spec import FamilySpec
from calibrate.models.hugging_face import HuggingFaceDenoiser


class ShapeError(ValueError):
    """A shape that is not known, or that cannot be made."""


@dataclass(frozen=True)
class Shape:
    """The architecture of a checkpoint, without its weights.

    Attributes:
        name: what tables call it.
        family: the adapter's description of the family.
        config: config.json of the published checkpoint, as far as it shapes the model.
        mask_token_id: the mask's id.
        attention: ``bidirectional`` or ``block_causal``.
    """

    name: str
    family: FamilySpec
    config: Mapping[str, Any]
    mask_token_id: int
    attention: str

    def native(self) -> Any:
        """The native transformers configuration, SDPA attention."""
        config = native_config(self.family, self.config)
        config._attn_implementation = "sdpa"
        return config

    def parameters(self) -> int:
        """Number of weights, counted on the meta device: nothing is allocated."""
        with torch.device("meta"):
            model = self._class()(self.native())
        return sum(weight.numel() for weight in model.parameters())

    def changed(self, name: str, mask_token_id: int, **fields: int) -> Shape:
        """The same architecture in other sizes; ``fields`` are keys of the family's config.json.

        Raises:
            ShapeError: a key that the shape's config does not have.
        """
        if unknown := sorted(set(fields) - set(self.config)):
            raise ShapeError(f"{self.name} has no {', '.join(unknown)}; its sizes are {', '.join(sorted(self.config))}")
        return replace(self, name=name, config={**self.config, **fields}, mask_token_id=mask_token_id)

    def make(self, *, dtype: str = "bfloat16", device: str = "cpu", seed: int = 0) -> Checkpoint:
        """The model with random weights, made where it is to run, in the dtype it is to have.

        Args:
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            device: a torch device.
            seed: of the weights; the same ones come out on the same kind of device.

        Returns:
            A checkpoint without tokenizer and end tokens. Its predictions mean nothing.

        Raises:
            ShapeError: an unknown dtype.
            torch.OutOfMemoryError: the weights do not fit.
        """
        if dtype not in DTYPES:
            raise ShapeError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
        where = torch.device(device)
        before = torch.get_default_dtype()
        with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            torch.manual_seed(seed)
            torch.set_default_dtype(DTYPES[dtype])  # weights are made in it, never converted: half the peak
            try:
                with where:
                    model = self._class()(self.native())
            finally:
                torch.set_default_dtype(before)
        denoiser = HuggingFaceDenoiser(model.requires_grad_(False), self.mask_token_id, self.family.logits_shift)
        return Checkpoint(
            name=self.name, revision=f"random-{seed}", denoiser=denoiser, tokenizer=None, end_token_ids=(),
            block_length=32, attention=(self.attention,), dtype=dtype, family=self.family.name, source=self.name,
        )  # fmt: skip

    def _class(self) -> Any:
        return getattr(transformers, self.family.native)


#: GSAI-ML/LLaDA-8B-Instruct: 8,015,581,184 weights.
LLADA_8B = Shape(
    name="llada-8b-shaped",
    family=LLADA,
    config={
        "model_type": "llada", "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32,
        "mlp_hidden_size": 12288, "embedding_size": 126464, "vocab_size": 126464, "max_sequence_length": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "weight_tying": False, "block_type": "llama",
        "layer_norm_type": "rms", "activation_type": "silu", "rope": True, "include_bias": False,
    },
    mask_token_id=126336,
    attention="bidirectional",
)  # fmt: skip

#: JetLM/SDAR-8B-Chat, which has the shape of Qwen3-8B: 8,190,735,360 weights.
SDAR_8B = Shape(
    name="sdar-8b-shaped",
    family=SDAR,
    config={
        "model_type": "sdar", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "attention_bias": False,
        "tie_word_embeddings": False, "hidden_act": "silu", "use_sliding_window": False,
    },
    mask_token_id=151669,
    attention="block_causal",
)  # fmt: skip

#: The same two architectures for tests and dry runs: some 0.1 million weights.
LLADA_TINY = LLADA_8B.changed(
    "llada-tiny-shaped", 255, d_model=64, n_layers=2, n_heads=4, n_kv_heads=4, mlp_hidden_size=128, embedding_size=256,
    vocab_size=256,
)  # fmt: skip
SDAR_TINY = SDAR_8B.changed(
    "sdar-tiny-shaped", 255, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, intermediate_size=128, vocab_size=256,
)  # fmt: skip

#: LLaDA's architecture at a size whose forward outweighs everything else on a CPU core: 126 million weights.
LLADA_MEDIUM = LLADA_8B.changed(
    "llada-126m-shaped", 8191, d_model=1024, n_layers=8, n_heads=16, n_kv_heads=16, mlp_hidden_size=3072,
    embedding_size=8192, vocab_size=8192,
)  # fmt: skip

SHAPES: Mapping[str, Shape] = {shape.name: shape for shape in (LLADA_8B, SDAR_8B, LLADA_MEDIUM, LLADA_TINY, SDAR_TINY)}


def shape(name: str) -> Shape:
    """The shape called ``name``.

    Raises:
        ShapeError: no such shape.
    """
    if name not in SHAPES:
        raise ShapeError(f"unknown shape {name!r}, expected one of {', '.join(SHAPES)}")
    return SHAPES[name]
