"""Shapes: the numbers of the published checkpoints, and models that decode."""

from __future__ import annotations

import pytest
import torch

from calibrate.models.shapes import (
    LLADA_8B,
    LLADA_MEDIUM,
    LLADA_TINY,
    SDAR_8B,
    SDAR_TINY,
    SHAPES,
    Shape,
    ShapeError,
    shape,
)
from verify.decoding import DecodeConfig, decode
from verify.policies.specification import make_policy


@pytest.mark.parametrize(
    ("made", "parameters"),
    # As the published checkpoints' own files have them (safetensors' totals on the hub).
    [(LLADA_8B, 8_015_581_184), (SDAR_8B, 8_190_735_360)],
)
def test_the_published_number_of_weights(made: Shape, parameters: int) -> None:
    assert made.parameters() == parameters


def test_what_the_adapters_make_of_the_numbers() -> None:
    llada, sdar = LLADA_8B.native(), SDAR_8B.native()
    assert type(llada).__name__ == "LlamaConfig" and type(sdar).__name__ == "Qwen3Config"
    assert (llada.num_key_value_heads, sdar.num_key_value_heads) == (32, 8)
    assert (llada.vocab_size, sdar.vocab_size) == (126464, 151936)
    assert llada.max_position_embeddings == 4096 and sdar.head_dim == 128
    assert LLADA_MEDIUM.parameters() == 125_846_528


@pytest.mark.parametrize(("made", "cache"), [(LLADA_TINY, "dual"), (SDAR_TINY, "block_causal")])
def test_a_shape_decodes(made: Shape, cache: str) -> None:
    checkpoint = made.make(dtype="float32")
    config = DecodeConfig(8, 16, cache)
    result = decode(checkpoint.denoiser, range(2, 12), make_policy("static:2"), config)
    assert len(result.tokens) >= 16 and made.mask_token_id not in result.tokens


def test_weights_are_made_in_the_dtype_and_from_the_seed() -> None:
    state = torch.random.get_rng_state()
    one, again, other = (LLADA_TINY.make(dtype="bfloat16", seed=seed) for seed in (1, 1, 2))
    assert {weight.dtype for weight in one.denoiser.model.parameters()} == {torch.bfloat16}
    weights = [made.denoiser.model.get_input_embeddings().weight for made in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(state, torch.random.get_rng_state()) and torch.get_default_dtype() == torch.float32
    assert one.revision == "random-1" and one.name == "llada-tiny-shaped"


def test_what_is_refused() -> None:
    assert shape("sdar-8b-shaped") is SDAR_8B and len(SHAPES) == 5
    with pytest.raises(ShapeError, match="unknown shape 'gpt'"):
        shape("gpt")
    with pytest.raises(ShapeError, match="unknown dtype 'int8'"):
        LLADA_TINY.make(dtype="int8")
    with pytest.raises(ShapeError, match="llada-8b-shaped has no hidden_size"):
        LLADA_8B.changed("other", 1, hidden_size=8)
