"""Every family's checkpoint, in its own layout, arrives in a class of transformers and keeps its promises there."""

import pytest
import torch

from calibrate.models.checkpoint import load_checkpoint
from calibrate.models.families import FAMILIES, REFUSED, AdapterError, family_of
from tests.support.families import CONFIGS, END, HEAD_WIDTH, MASK, NATIVE, VOCABULARY, save, weights
from tests.support.models import random_formulas
from verify.decoding import DecodeConfig, decode, decode_batch
from verify.engines.cache import CacheKeeper
from verify.engines.packing import forward_expanded, forward_packed
from verify.engines.rows import RowEngine
from verify.layout import SequenceLayout
from verify.policies.specification import make_policy, step_sizes

L = 4
PROMPT = (5, 9, 13, 17, 21, 25, 29, 33, 37)
# What the families' own modelling code gave for these weights (float32, transformers 4.52, docs/models.md): the
# logits of tokens 10 to 15 in row 9 of the tokens 3 ... 10 followed by four masks.
GOLDEN = {
    "llada": [-5.0884, -0.3673, -1.1557, 1.3416, 2.4286, 3.7714],
    "dream": [-0.1479, 2.7516, 0.4329, 4.1443, 2.7896, 0.2749],
    "sdar": [-2.4533, 1.3222, 0.5962, 3.5205, 8.6317, 1.9981],
    "llada2": [-3.3768, 3.3274, -0.4248, 2.8941, -1.6298, 2.2207],
    "qwen3": [3.6195, 6.8852, -8.9017, -5.0796, -6.6094, 2.9206],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: save(family, root / family) for family in CONFIGS}


@pytest.fixture(scope="module")
def loaded(folders):
    return {family: load_checkpoint(folder) for family, folder in folders.items()}


@pytest.fixture(params=CONFIGS)
def family(request):
    return request.param


def modes(family):
    return ("block_causal",) if family in ("sdar", "llada2") else ("none", "prefix", "dual")


def everything(rows):
    return torch.ones(1, rows, rows, dtype=torch.bool)


def blocks(rows, length=L):
    number = torch.arange(rows) // length
    return (number[None, :] <= number[:, None])[None]


def close(one, other, atol=2e-5):
    torch.testing.assert_close(one, other, atol=atol, rtol=1e-5)


# ---------------------------------------------------------------- what arrives


def test_facts(loaded, family):
    checkpoint = loaded[family]
    native, shift = NATIVE[family]
    assert type(checkpoint.denoiser.model).__name__ == native
    assert type(checkpoint.denoiser.model).__module__.startswith("transformers.")
    assert checkpoint.denoiser.logits_shift == shift
    assert checkpoint.mask_token_id == MASK
    assert checkpoint.end_token_ids == (END,)  # the published ids are beyond this vocabulary
    assert checkpoint.denoiser.vocabulary_size == VOCABULARY
    assert checkpoint.block_length == {"sdar": 4, "llada2": 32, "qwen3": 32}.get(family)
    assert checkpoint.attention == {
        "sdar": ("block_causal",), "llada2": ("block_causal",), "qwen3": ("bidirectional", "block_causal"),
    }.get(family, ("bidirectional",))  # fmt: skip
    assert checkpoint.family is not None and len(checkpoint.revision) == 16


def test_published_facts():
    """The ids that a full-size checkpoint has, where config.json and tokenizer do not say."""
    published = {spec.name: (spec.mask_token_id, spec.end_token_ids, spec.block_length) for spec in FAMILIES}
    assert published["LLaDA"] == (126336, (126081, 126348), None)
    assert published["Dream"] == (151666, (151643, 151645), None)
    assert published["SDAR"] == (151669, (151643, 151645), 4)
    assert published["LLaDA2"] == (156895, (156892,), 32)


def test_the_logits_are_those_of_the_familys_own_code(loaded, family):
    tokens = torch.tensor([[*range(3, 11), *[MASK] * 4]])
    attention_mask = blocks(12) if family in ("sdar", "llada2") else everything(12)
    logits, _ = loaded[family].denoiser(tokens, torch.arange(12)[None], attention_mask)
    close(logits[0, 9, 10:16], torch.tensor(GOLDEN[family]), atol=1e-4)


def test_fused_projections_are_split_in_order(loaded):
    made = weights("llada2")["model.layers.1.attention.query_key_value.weight"]
    attention = loaded["llada2"].denoiser.model.model.layers[1].self_attn
    rows = [part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert [len(part) for part in rows] == [4 * HEAD_WIDTH, 2 * HEAD_WIDTH, 2 * HEAD_WIDTH]
    assert torch.equal(torch.cat(rows), made)


def test_the_routers_bias_is_loaded_and_stays_float32(folders):
    checkpoint = load_checkpoint(folders["llada2"], dtype="bfloat16")
    gate = checkpoint.denoiser.model.model.layers[1].mlp.gate
    assert gate.e_score_correction_bias.dtype == torch.float32
    close(gate.e_score_correction_bias, weights("llada2")["model.layers.1.mlp.gate.expert_bias"])
    assert checkpoint.denoiser.model.model.layers[1].mlp.experts.down_proj.dtype == torch.bfloat16


def test_half_precision(folders, family):
    denoiser = load_checkpoint(folders[family], dtype="bfloat16").denoiser
    assert denoiser.model.dtype == torch.bfloat16


def test_a_checkpoint_in_shards(folders, tmp_path):
    import json

    from safetensors.torch import load_file, save_file

    whole = load_file(folders["llada"] / "model.safetensors")
    index = {}
    for number, name in enumerate(whole):
        shard = f"model-{number % 2 + 1:05d}-of-00002.safetensors"
        index[name] = shard
    for shard in set(index.values()):
        save_file({name: whole[name] for name in whole if index[name] == shard}, tmp_path / shard)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llada"]))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    one, other = load_checkpoint(folders["llada"]).denoiser.model, load_checkpoint(tmp_path).denoiser.model
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_hub_id_fetches_no_code(folders, monkeypatch):
    """What is fetched of a family is configuration, tokenizer and safetensors; the commit is the revision."""
    asked = {}

    def snapshot(name, allow_patterns):
        asked[name] = allow_patterns
        return str(folders["dream"])

    def stated(name, **options):
        return dict(CONFIGS["dream"]), {}

    monkeypatch.setattr("calibrate.models.checkpoint.snapshot_download", snapshot)
    monkeypatch.setattr("calibrate.models.checkpoint.PretrainedConfig.get_config_dict", stated)
    checkpoint = load_checkpoint("someone/Dream-7B")
    assert (checkpoint.name, checkpoint.revision, checkpoint.family) == ("someone/Dream-7B", "dream", "Dream")
    assert asked == {"someone/Dream-7B": ["*.json", "*.safetensors", "*.txt", "*.jinja"]}


def test_every_family_is_found_by_its_model_type_and_no_other_is():
    for family, config in CONFIGS.items():
        found = family_of(config)
        assert found is not None and found.native == NATIVE[family][0]
    assert family_of({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}) is None
    assert family_of({}) is None
    for name in REFUSED:
        with pytest.raises(AdapterError, match=f"{name} is not supported: "):
            family_of({"model_type": "llada", "architectures": [name]})


# ---------------------------------------------------------------- rows, shift, cache


def test_hidden_rows_do_not_count(loaded, family):
    """The mask is really used: rows of a later block change nothing for an earlier one, nor does one hidden row."""
    denoiser = loaded[family].denoiser
    tokens = torch.arange(3, 15)[None]
    changed = tokens.clone()
    changed[0, 8:] = 40
    before, _ = denoiser(tokens, torch.arange(12)[None], blocks(12))
    after, _ = denoiser(changed, torch.arange(12)[None], blocks(12))
    close(before[:, :8], after[:, :8])
    # Row 8 of a shifted model speaks from row 7, which did not change.
    first = 9 if denoiser.logits_shift else 8
    assert ((before - after)[:, first:].abs().amax(dim=-1) > 1e-2).all()


def test_the_shift_is_applied_once(loaded, family):
    denoiser = loaded[family].denoiser
    tokens, positions = torch.arange(3, 13)[None], torch.arange(10)[None]
    raw = denoiser.model(input_ids=tokens, attention_mask=everything(10)[:, None], position_ids=positions).logits
    logits, _ = denoiser(tokens, positions, everything(10))
    expected = torch.cat([raw[:, :1], raw[:, :-1]], dim=1) if denoiser.logits_shift else raw
    close(logits, expected)
    rows = torch.tensor([7, 0, 3])
    chosen, _ = denoiser(tokens, positions, everything(10), logit_rows=rows)
    close(chosen, expected[:, rows])


def test_the_shift_follows_positions_not_the_order_of_rows(loaded):
    denoiser = loaded["dream"].denoiser
    tokens, positions = torch.arange(3, 13)[None], torch.arange(10)[None]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    one, _ = denoiser(tokens, positions, everything(10))
    other, _ = denoiser(tokens[:, order], positions[:, order], everything(10))
    close(one[:, order], other)


def keeper_at(denoiser, mode, number):
    """The refresh of block ``number`` of a four-block sequence whose earlier blocks are filled; and the sequence."""
    layout = SequenceLayout.make(len(PROMPT), 4 * L, L, mode)
    sequence = torch.full((layout.length,), MASK)
    sequence[: len(PROMPT)] = torch.tensor(PROMPT)
    keeper = CacheKeeper(denoiser, layout, mode)
    for k, start in enumerate(layout.block_starts):
        logits, frame = keeper.refresh(sequence, start)
        if k == number:
            return logits, frame, sequence, start
        free = sequence[start : start + L] == MASK
        sequence[start : start + L][free] = torch.arange(41 + k, 41 + k + int(free.sum()))
    raise AssertionError(number)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_cached_equals_uncached(loaded, family, number):
    """A block on its cached context has the logits of its refresh forward, and those of one forward over everything.

    The whole-sequence forward is the model's own, without cache and adapter; the shift is done by hand.
    """
    denoiser = loaded[family].denoiser
    for mode in modes(family):
        refreshed, frame, sequence, start = keeper_at(denoiser, mode, number)
        again = forward_packed(denoiser, frame, sequence[start : start + L][None])
        close(again.logits, refreshed.logits)
        rows = start + L if mode == "block_causal" else len(sequence)
        attention_mask = blocks(rows) if mode == "block_causal" else everything(rows)
        raw = denoiser.model(
            input_ids=sequence[None, :rows],
            attention_mask=attention_mask[:, None],
            position_ids=torch.arange(rows)[None],
        ).logits
        first = start - denoiser.logits_shift
        close(refreshed.logits, raw[:, first : first + L])


@pytest.mark.parametrize("number", [0, 2])
def test_packed_equals_expanded_equals_single(loaded, family, number):
    """Four states of one block: beside each other, below each other, and one at a time; also for a shifted model,

    where a draft's first row speaks from the row before the block and the second draft's first row does not from the
    first draft's last.
    """
    denoiser = loaded[family].denoiser
    for mode in modes(family):
        _, frame, sequence, start = keeper_at(denoiser, mode, number)
        block = sequence[start : start + L]
        states = torch.stack([block] * 4)
        states[1, -1], states[2, -2:], states[3, -1] = 50, torch.tensor([51, 52]), 53
        single = torch.cat([forward_packed(denoiser, frame, state[None]).logits for state in states])
        close(forward_expanded(denoiser, frame, states).logits, single)
        packed = forward_packed(denoiser, frame, states).logits
        if mode in ("dual", "block_causal"):
            close(packed, single)
        else:  # the live suffix sees the real block, so only the real block is exact
            close(packed[0], single[0])


def test_the_row_before_the_block_is_the_cached_one(loaded):
    """Dual mode: its logits were computed once, at the refresh, and do not move with the block or with drafts."""
    denoiser = loaded["dream"].denoiser
    for mode in ("prefix", "dual"):
        refreshed, frame, sequence, start = keeper_at(denoiser, mode, 1)
        states = sequence[start : start + L].repeat(3, 1)
        states[:, 1:] = torch.tensor([[44, 45, 46], [47, 48, 49], [50, 51, 52]])
        for forward in (forward_packed, forward_expanded):
            first = forward(denoiser, frame, states).logits[:, 0]
            close(first, refreshed.logits[:, 0].expand(3, -1))


def test_a_shifted_context_keeps_only_the_rows_that_can_be_asked_for(loaded):
    denoiser = loaded["dream"].denoiser
    for mode, kept in (("prefix", 1), ("dual", 2)):
        _, frame, sequence, start = keeper_at(denoiser, mode, 1)
        edge = frame.cache.edge
        assert edge.hidden.shape[1] == kept
        assert edge.positions[0, edge.columns].tolist() == [start - 1, len(sequence) - 1][:kept]
    # The last block of dual mode has nothing behind it.
    _, frame, _, start = keeper_at(denoiser, "dual", 3)
    assert frame.cache.edge.positions[0, frame.cache.edge.columns].tolist() == [start - 1]


def test_a_shifted_model_can_be_block_causal(loaded):
    """No family here is both, but nothing forbids it: a growing cache moves its edge along."""
    denoiser = loaded["dream"].denoiser
    for number in (0, 1, 3):
        refreshed, frame, sequence, start = keeper_at(denoiser, "block_causal", number)
        rows = start + L
        raw = denoiser.model(
            input_ids=sequence[None, :rows], attention_mask=blocks(rows)[:, None], position_ids=torch.arange(rows)[None]
        ).logits
        close(refreshed.logits, raw[:, start - 1 : rows - 1])
        close(forward_packed(denoiser, frame, sequence[start:rows][None]).logits, refreshed.logits)
        assert frame.cache.edge.columns.tolist() == [start - 1]


def test_a_batch_of_shifted_sequences(loaded):
    """Two prompts of different lengths, the shorter one padded in front by a row that nobody sees."""
    denoiser = loaded["dream"].denoiser
    prompts = [torch.tensor([5, 6, 7, 8, 9]), torch.tensor([15, 16, 17, 18])]
    blocks_of = torch.tensor([[41, 42, MASK], [MASK, 44, 45]])
    context_rows, block_rows = torch.arange(5), torch.arange(5, 8)
    tokens = torch.stack([torch.cat([torch.zeros(5 - len(p)).long(), p]) for p in prompts])
    positions = torch.stack([torch.arange(8), torch.arange(-1, 7)]).clamp(min=0)
    attention_mask = torch.ones(2, 8, 8, dtype=torch.bool)
    attention_mask[1, 1:, 0] = False
    whole, cached = denoiser(
        torch.cat([tokens, blocks_of], dim=1), positions, attention_mask, logit_rows=block_rows, cache_rows=context_rows
    )
    cached, _ = denoiser(blocks_of, positions[:, 5:], attention_mask[:, 5:], cached)
    close(cached, whole)
    for number, prompt in enumerate(prompts):
        alone = torch.cat([prompt, blocks_of[number]])[None]
        rows = alone.shape[1]
        logits, _ = denoiser(alone, torch.arange(rows)[None], everything(rows))
        close(whole[number], logits[0, -3:])


@pytest.mark.parametrize("policy", ["static:2", "threshold:0.95"])
def test_speculation_is_lossless_for_every_family(loaded, family, policy):
    denoiser = loaded[family].denoiser
    graphs = [random_formulas(seed, 40, step_sizes(policy), ranks=7) for seed in range(3)]
    saved = 0
    for mode in modes(family):
        for backend in ("packed", "expanded") if mode in ("dual", "block_causal") else ("expanded",):
            config = DecodeConfig(block_length=8, generation_length=16, cache=mode, backend=backend)
            plain = decode(denoiser, PROMPT, make_policy(policy), config)
            assert MASK not in plain.tokens
            for graph in graphs:
                drafted = decode(denoiser, PROMPT, make_policy(policy), config, graph)
                assert drafted.tokens == plain.tokens
                saved += plain.forwards - drafted.forwards
    assert saved > 0


def test_a_batch_of_every_family_decodes_as_its_sequences_alone(loaded, family):
    """Static buffers and padding under each family's classes: rotary parts, expert routing, grouped keys, the shift."""
    checkpoint = loaded[family]
    denoiser, policy = checkpoint.denoiser, make_policy("static:1")
    assert denoiser.offers_slots
    prompts = list(enumerate([PROMPT, PROMPT[:3], PROMPT + PROMPT[:2]]))
    for mode in modes(family):
        for backend in ("packed", "expanded"):
            config = DecodeConfig(L, 2 * L, mode, backend, top_j=4)
            graph = random_formulas(3, 5)
            together = dict(decode_batch(denoiser, prompts, policy, config, graph, batch_size=3))
            for prompt_index, prompt in prompts:
                alone = decode(
                    denoiser,
                    prompt,
                    policy,
                    config,
                    graph,
                    prompt_index=prompt_index,
                    engine=RowEngine(denoiser, mode, backend),
                )
                assert together[prompt_index].tokens == alone.tokens
                assert together[prompt_index].accepted == alone.accepted
