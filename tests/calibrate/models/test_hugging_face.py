"""The Hugging Face denoiser: cached caches, batches and masks change nothing that they should not."""

import pytest
import torch
from transformers import DynamicCache

from calibrate.models.hugging_face import HuggingFaceDenoiser
from tests.support.models import MASK_ID, tiny_denoiser, tiny_llama

V = 48


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


def some_tokens(*shape, seed=0):
    return torch.randint(3, V, shape, generator=torch.Generator().manual_seed(seed))


def all_visible(rows, columns):
    return torch.ones(1, rows, columns, dtype=torch.bool)


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_shapes(denoiser):
    tokens, positions = some_tokens(2, 7), torch.arange(7).expand(2, 7)
    logits, cache = denoiser(tokens, positions, all_visible(7, 7))
    assert logits.shape == (2, 7, V) and cache is None
    logits, cache = denoiser(tokens, positions, all_visible(7, 7), cache_rows=torch.tensor([0, 1, 4]))
    assert logits.shape == (2, 7, V) and len(cache) == 3
    rows = torch.tensor([5, 2])
    chosen, _ = denoiser(tokens, positions, all_visible(7, 7), logit_rows=rows)
    close(chosen, logits[:, rows])


def test_the_visibility_is_used_as_it_is(denoiser):
    """A row's logits depend on exactly the rows that it may look at."""
    tokens, positions = some_tokens(1, 5), torch.arange(5)[None]
    attention_mask = torch.eye(5, dtype=torch.bool)[None]
    attention_mask[0, 3, 0] = True  # row 3 sees itself and row 0
    before, _ = denoiser(tokens, positions, attention_mask)
    changed = tokens.clone()
    changed[0, 0] = tokens[0, 0] % 40 + 4
    after, _ = denoiser(changed, positions, attention_mask)
    close(before[0, [1, 2, 4]], after[0, [1, 2, 4]])
    assert (before[0, 3] - after[0, 3]).abs().max() > 1e-2


def test_positions_count_not_the_order_of_rows(denoiser):
    tokens, positions = some_tokens(1, 6), torch.arange(6)[None]
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    one, _ = denoiser(tokens, positions, all_visible(6, 6))
    other, _ = denoiser(tokens[:, order], positions[:, order], all_visible(6, 6))
    close(one[:, order], other)


def test_a_cached_context_equals_a_full_recompute_in_block_causal(denoiser):
    """Three blocks of four, cached one after the other: the third sees what a single full forward sees."""
    length, block = 12, 4
    tokens, rows = some_tokens(1, length), torch.arange(length)[None]
    whole = rows[0][None] // block <= rows[0][:, None] // block
    expected, _ = denoiser(tokens, rows, whole[None])
    cache = None
    for start in range(0, length, block):
        part = slice(start, start + block)
        logits, cache = denoiser(
            tokens[:, part], rows[:, part], all_visible(block, start + block), cache, cache_rows=torch.arange(block)
        )
        close(logits, expected[:, part])
        assert len(cache) == start + block


def test_a_cached_context_equals_transformers_own_cache(denoiser):
    """Keys and values cached under bidirectional attention, picked from both sides of the live rows."""
    tokens, rows = some_tokens(1, 9), torch.arange(9)
    keep, live = torch.tensor([0, 1, 2, 7, 8]), torch.tensor([3, 4, 5, 6])
    _, cache = denoiser(tokens, rows[None], all_visible(9, 9), cache_rows=keep)
    changed = some_tokens(1, 4, seed=1)
    logits, _ = denoiser(changed, live[None], all_visible(4, 9), cache)
    with torch.inference_mode():
        full = denoiser.model(
            tokens, attention_mask=all_visible(9, 9)[:, None], position_ids=rows[None], use_cache=True
        )
        cache = DynamicCache()
        for depth, layer in enumerate(full.past_key_values.layers):
            cache.update(layer.keys[:, :, keep], layer.values[:, :, keep], depth)
        expected = denoiser.model(
            changed, attention_mask=all_visible(4, 9)[None], position_ids=live[None], past_key_values=cache
        )
    close(logits, expected.logits)


def test_a_context_is_not_changed_by_its_use(denoiser):
    tokens, rows = some_tokens(1, 6), torch.arange(6)[None]
    _, cache = denoiser(tokens, rows, all_visible(6, 6), cache_rows=torch.arange(4))
    before = [(keys.clone(), values.clone()) for keys, values in cache.layers]
    one, _ = denoiser(tokens[:, 4:], rows[:, 4:], all_visible(2, 6), cache)
    again, longer = denoiser(tokens[:, 4:], rows[:, 4:], all_visible(2, 6), cache, cache_rows=torch.tensor([1]))
    assert torch.equal(one, again)
    assert (len(cache), len(longer)) == (4, 5)
    for (keys, values), (old_keys, old_values) in zip(cache.layers, before, strict=True):
        assert torch.equal(keys, old_keys) and torch.equal(values, old_values)


def test_an_empty_context_is_none(denoiser):
    """Block-causal decoding caches zero rows when the first block begins at position 0."""
    tokens, rows = some_tokens(1, 4), torch.arange(4)[None]
    logits, cache = denoiser(tokens, rows, all_visible(4, 4), cache_rows=torch.arange(0))
    assert len(cache) == 0
    again, longer = denoiser(tokens, rows, all_visible(4, 4), cache, cache_rows=torch.arange(2))
    close(logits, again)
    assert len(longer) == 2


def test_a_context_of_batch_one_serves_any_batch(denoiser):
    tokens, rows = some_tokens(1, 5), torch.arange(8)
    _, cache = denoiser(tokens, rows[None, :5], all_visible(5, 5), cache_rows=torch.arange(5))
    batch = some_tokens(3, 3, seed=2)
    together, _ = denoiser(batch, rows[5:].expand(3, 3), all_visible(3, 8), cache)
    for tokens_of_one, logits in zip(batch, together, strict=True):
        alone, _ = denoiser(tokens_of_one[None], rows[None, 5:], all_visible(3, 8), cache)
        close(logits, alone[0])


def test_a_visibility_per_batch_element(denoiser):
    tokens, rows = some_tokens(1, 4).repeat(2, 1), torch.arange(4).expand(2, 4)
    attention_mask = torch.stack([torch.ones(4, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool)])
    both, _ = denoiser(tokens, rows, attention_mask)
    for b in range(2):
        alone, _ = denoiser(tokens[:1], rows[:1], attention_mask[b : b + 1])
        close(both[b], alone[0])
    assert (both[0] - both[1]).abs().max() > 1e-2


def test_eager_attention_equals_sdpa(denoiser):
    model = tiny_llama()
    model.set_attn_implementation("eager")
    eager = HuggingFaceDenoiser(model, MASK_ID)
    tokens, rows = some_tokens(1, 7), torch.arange(7)[None]
    attention_mask = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    attention_mask |= torch.eye(7, dtype=torch.bool)
    kept = torch.tensor([0, 3])
    one, cache = denoiser(tokens, rows, attention_mask, cache_rows=kept)
    other, eager_cache = eager(tokens, rows, attention_mask, cache_rows=kept)
    close(one, other)
    visible = all_visible(2, 4)
    one, _ = denoiser(tokens[:, :2], rows[:, :2], visible, cache)
    other, _ = eager(tokens[:, :2], rows[:, :2], visible, eager_cache)
    close(one, other)


def test_attention_that_ignores_masks_is_refused():
    model = tiny_llama()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="'flash_attention_2' ignores a 4-D mask; load with "):
        HuggingFaceDenoiser(model, MASK_ID)


def test_the_mask_token_must_be_in_the_vocabulary():
    with pytest.raises(ValueError, match="mask token id 48 is outside the model's vocabulary of 48"):
        HuggingFaceDenoiser(tiny_llama(), V)


def test_the_model_is_put_in_evaluation_mode():
    model = tiny_llama().train()
    HuggingFaceDenoiser(model, MASK_ID)
    assert not model.training
