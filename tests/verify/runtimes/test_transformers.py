"""Drafts through the real ``generate`` of transformers, on tiny checkpoints of every family that is loaded."""

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteria

from calibrate.models.checkpoint import load_checkpoint
from calibrate.models.hugging_face import HuggingFaceDenoiser
from drafting.anchors import AnchorTable
from drafting.replay import replay
from tests.support.calibrated import calibrated
from tests.support.families import MASK, NATIVE, save
from tests.support.models import END_ID, MASK_ID, tiny_llama
from verify.decoding import DecodeConfig, decode
from verify.drafters.file import DrafterFile, save_drafter
from verify.drafters.informed import InformedDrafter
from verify.graph.file import save_graph
from verify.policies.specification import make_policy
from verify.runtimes.transformers import GenerateError, draftgraph_generate
from verify.runtimes.transformers_probe import MaskIgnoredError
from verify.verifier import ValidityMismatchError

PROMPT = (5, 9, 13, 17, 21, 25)
#: Cache modes that fit each family's attention, with a policy for each.
CASES = [
    ("llada", "dual", "threshold:0.9"), ("llada", "none", "static:1"), ("dream", "dual", "static:1"),
    ("dream", "prefix", "threshold:0.9"), ("sdar", "block_causal", "dynamic:0.9"),
    ("llada2", "block_causal", "static:1"), ("qwen3", "dual", "threshold:0.9"), ("qwen3", "block_causal", "static:1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {family: load_checkpoint(save(family, root / family, seed=3)) for family in NATIVE}


@pytest.fixture(scope="module")
def model():
    return tiny_llama(3)


def graph_of(policy, cache="dual", prompts=(PROMPT,), revision=None):
    """A graph for the tiny model, in blocks of 8."""
    return calibrated(rows_of(tiny_llama(3)), prompts, policy, config16(cache=cache), revision=revision)[0]


def predicted(graph, traces):
    """Forwards by prompt."""
    return replay(graph.nodes[1:], AnchorTable.from_traces(traces, max_depth=None)).forwards_per_prompt.tolist()


def rows_of(model):
    return HuggingFaceDenoiser(model, MASK_ID)


def config16(ends=(), cache="dual", backend="packed"):
    return DecodeConfig(8, 16, cache, backend, end_token_ids=ends, top_j=4)


def generated(model, prompts=(PROMPT,), new=16, **options):
    options = {"max_new_tokens": new, "return_dict_in_generate": True, "do_sample": False, **options}
    return model.generate(torch.tensor(prompts), custom_generate=draftgraph_generate, **options)


@pytest.mark.parametrize(("family", "cache", "policy"), CASES)
def test_every_family_through_generate(families, family, cache, policy):
    """Tokens equal plain ones, forwards are those of the loop, and those that a replay of the plain trace predicts."""
    checkpoint = families[family]
    model, shift = checkpoint.denoiser.model, NATIVE[family][1]
    assert type(model).__name__ == NATIVE[family][0]
    backend = "expanded" if cache in ("none", "prefix") else "packed"
    options = {
        "mask_token_id": MASK, "logits_shift": shift, "backend": backend, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    graph, traces, (plain,) = calibrated(checkpoint.denoiser, [PROMPT], policy, config16(cache=cache, backend=backend))
    found = generated(model, policy=policy, cache=cache, block_length=8, **options)
    assert found.sequences[0].tolist() == [*PROMPT, *plain.tokens[:16]]
    assert found.forwards.tolist() == found.steps.tolist() == [plain.forwards]
    fast = generated(model, drafts=graph, **options)
    assert torch.equal(fast.sequences, found.sequences) and torch.equal(fast.steps, found.steps)
    assert fast.forwards.tolist() == predicted(graph, traces) and fast.forwards < plain.forwards


def test_a_batch_padded_on_the_left(model):
    """Rows are those that each prompt has alone; what is generated ends with the first end token, then padding."""
    prompts = [PROMPT, PROMPT[:3], (40, 41, 42, 43, 44)]
    longest = max(map(len, prompts))
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    denoiser, policy = rows_of(model), make_policy("threshold:0.5")
    graph, _, plain = calibrated(denoiser, prompts, policy.spec, config16())
    ends = (plain[0].tokens[3], plain[1].tokens[9])  # such that rows end differently
    lengths = set()
    for options in ({"mask_token_id": MASK_ID}, {"denoiser": denoiser}):
        found = generated(
            model, padded, attention_mask=mask, drafts=graph, eos_token_id=list(ends), pad_token_id=0, **options
        )
        width = found.sequences.shape[1] - longest
        for row, prompt in enumerate(prompts):
            alone = decode(denoiser, prompt, policy, config16(ends), graph.nodes[1:])
            tokens = alone.tokens[: alone.end + 1]
            assert found.sequences[row].tolist() == [*padded[row], *tokens, *[0] * (width - len(tokens))]
            assert found.forwards[row] == alone.forwards
            lengths.add(len(tokens))
    assert len(lengths) > 1


def test_files_and_drafters(model, tmp_path):
    """A path, a loaded file, a drafter file and a drafter give the same tokens."""
    graph = graph_of("static:1")
    save_graph(graph, tmp_path / "graph.json")
    save_drafter(DrafterFile(3, validity=graph.validity), tmp_path / "drafter.json")
    plain = generated(model, policy="static:1", block_length=8, mask_token_id=MASK_ID)
    stated = {"policy": "static:1", "block_length": 8}
    for drafts, more in (
        (str(tmp_path / "graph.json"), {}), (tmp_path / "drafter.json", {}), (InformedDrafter(3), stated),
        (graph.nodes[1:], stated),
    ):  # fmt: skip
        found = generated(model, drafts=drafts, mask_token_id=MASK_ID, **more)
        assert torch.equal(found.sequences, plain.sequences)
        assert found.forwards < plain.forwards and torch.equal(found.steps, plain.steps)


def test_drawn_tokens(model):
    """Keyed noise, so that drafts meet it too; rows of one prompt draw their own."""
    two = [PROMPT, PROMPT]
    graph = graph_of("static:1@temperature=0.9", prompts=two)
    fast = generated(model, two, drafts=graph, mask_token_id=MASK_ID, eos_token_id=None)
    plain = generated(
        model, two, policy=graph.validity.policy, block_length=8, mask_token_id=MASK_ID, eos_token_id=None
    )
    assert torch.equal(fast.sequences, plain.sequences) and (fast.forwards < plain.forwards).any()
    assert not torch.equal(fast.sequences[0], fast.sequences[1])


def test_the_plain_return_value_and_the_configured_mask_token(model):
    ids = torch.tensor([PROMPT])
    stated = {"max_new_tokens": 8, "custom_generate": draftgraph_generate, "policy": "static:2", "block_length": 8}
    tokens = model.generate(ids, mask_token_id=MASK_ID, **stated)
    model.config.mask_token_id = MASK_ID
    try:
        assert torch.equal(tokens, model.generate(ids, **stated))
    finally:
        del model.config.mask_token_id
    assert tokens.shape[1] <= len(PROMPT) + 8 and not (tokens == MASK_ID).any()


class Never(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "num_beams is 2, but blocks are decoded without beams"),
        ({"do_sample": True}, "do_sample is True, but how tokens are drawn is part of the policy"),
        ({"repetition_penalty": 1.2}, "asks for RepetitionPenaltyLogitsProcessor, which would change"),
        ({"stopping_criteria": [Never()]}, "stopping by Never is not possible"),
        ({"policy": None}, "nothing says by which policy to decode; give policy"),
        ({"mask_token_id": None}, "LlamaForCausalLM names no mask token in its configuration; give mask_token_id"),
        ({"attention_mask": [[1, 1, 1, 1, 1, 0]]}, "does not pad on the left alone; set padding_side='left'"),
        ({"position_ids": [[2, 3, 4, 5, 6, 7]]}, "position_ids do not count a prompt's tokens from 0"),
        ({"max_new_tokens": 12}, "generation length 12 is no multiple of block length 8; use 16"),
        ({"logits_shift": 2}, "logits_shift is 2, expected 0 or 1"),
        ({"mask_token_id": 99}, "mask token id 99 is outside the model's vocabulary of 48"),
    ],
)
def test_what_cannot_be_followed_is_refused(model, options, message):
    stated = {"policy": "static:1", "block_length": 8, "mask_token_id": MASK_ID, **options}
    for name in ("attention_mask", "position_ids"):
        if name in stated:
            stated[name] = torch.tensor(stated[name])
    with pytest.raises(ValueError, match=message):
        generated(model, **stated)


def test_a_cache_of_the_caller_is_refused(model):
    cache = DynamicCache()
    cache.update(torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8), 0)
    with pytest.raises(GenerateError, match="past_key_values holds 3 rows"):
        draftgraph_generate(
            model, torch.tensor([PROMPT]), generation_config=GenerationConfig(max_new_tokens=8), policy="static:1",
            past_key_values=cache,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "static:2"}, "policy: the drafts were made for 'static:1', the run has 'static:2'; leave out"),
        ({"cache": "prefix"}, "cache: the drafts were made for 'dual', the run has 'prefix'"),
        ({"block_length": 16}, "block length: the drafts were made for 8, the run has 16"),
        ({"schedule": "adablock:0.3:5"}, "schedule: the drafts were made for None, the run has 'adablock"),
    ],
)
def test_what_contradicts_the_file_is_refused(model, options, message):
    with pytest.raises(GenerateError, match=message):
        generated(model, drafts=graph_of("static:1"), mask_token_id=MASK_ID, **options)


def test_drafts_of_another_commit_are_refused(model):
    graph = graph_of("static:1", revision="a" * 40)
    model.config._commit_hash = "b" * 40
    try:
        with pytest.raises(ValidityMismatchError, match=f"tiny at commit {'a' * 40}, the model was loaded from"):
            generated(model, drafts=graph, mask_token_id=MASK_ID)
        model.config._commit_hash = "a" * 40
        generated(model, drafts=graph, mask_token_id=MASK_ID)
    finally:
        model.config._commit_hash = None


def test_a_denoiser_of_something_else_is_refused(model):
    with pytest.raises(GenerateError, match="holds another model than the one that generates"):
        generated(model, policy="static:1", denoiser=rows_of(tiny_llama(4)))
    with pytest.raises(GenerateError, match=f"mask_token_id is 7, but the denoiser's is {MASK_ID}"):
        generated(model, policy="static:1", denoiser=rows_of(model), mask_token_id=7)


def test_a_model_that_ignores_its_mask_is_found_once(monkeypatch):
    """The question is asked in the first call for a model, and not again."""
    asked = []
    monkeypatch.setattr("verify.runtimes.transformers.probe_mask", asked.append)
    fresh = tiny_llama(5)
    for _ in range(2):
        generated(fresh, policy="static:4", block_length=8, new=8, mask_token_id=MASK_ID)
    assert len(asked) == 1

    def ignored(denoiser):
        raise MaskIgnoredError("it ignores its mask")

    monkeypatch.setattr("verify.runtimes.transformers.probe_mask", ignored)
    with pytest.raises(MaskIgnoredError):
        generated(tiny_llama(6), policy="static:4", block_length=8, new=8, mask_token_id=MASK_ID)


def test_the_same_as_the_loop_with_static_buffers(model):
    """With a checkpoint's denoiser the batch goes through its static buffers."""
    prompts, denoiser = [PROMPT, PROMPT[::-1]], rows_of(model)
    graph, traces, plain = calibrated(denoiser, prompts, "static:1", config16((END_ID,)))
    found = generated(model, prompts, drafts=graph, denoiser=denoiser, eos_token_id=END_ID)
    assert found.forwards.tolist() == predicted(graph, traces)
    for row, prompt in enumerate(prompts):
        tokens = plain[row].tokens[: plain[row].end + 1]
        assert found.sequences[row].tolist()[: len(prompt) + len(tokens)] == [*prompt, *tokens]
