"""Dream's order ``origin``: its schedule, its noise, what it commits, and that drafts change nothing."""

import math

import numpy as np
import pytest
import torch

from calibrate.recording.states import record_states
from drafting.state_replay import replay_states
from tests.studies.runs.test_replay_matches_runtime import agree, graphs_for, observed
from tests.support.models import MASK_ID, random_formulas, tiny_checkpoint, tiny_denoiser, tiny_llama
from tests.support.observing import Facts, books_balance, same_facts
from verify.decoding import MAX_EMPTY_STEPS, DecodeConfig, DecodeError, decode
from verify.drafters.informed import InformedDrafter
from verify.policies.contract import BlockView, PolicyError
from verify.policies.dream import Dream
from verify.policies.origin import DreamOrigin
from verify.policies.randomness import StepRandom
from verify.policies.sampling import Sampling
from verify.policies.specification import make_policy

PROMPT = (5, 9, 13, 17, 21)
CONFIG = DecodeConfig(block_length=8, generation_length=24, top_j=4, seed=3)


def view_of(count, logits=None):
    """``count`` masked positions, the last one first; position p has token 100 + p."""
    positions = np.arange(count)[::-1].copy()
    rows = None if logits is None else np.asarray(logits, dtype=float)[positions]
    return BlockView(positions, (100 + positions)[:, None], np.full((count, 1), 0.5), lambda: rows)


def committed(policy, view, step=1, seed=0):
    result, state = policy.step(view, policy.initial_state(), StepRandom(seed, 0, 0, step))
    assert state is None
    return dict(zip(result.positions.tolist(), result.tokens.tolist(), strict=True))


# ---------------------------------------------------------------- text and declarations


@pytest.mark.parametrize(
    ("spec", "policy", "text"),
    [
        ("dream:origin:8", DreamOrigin(8), "dream:origin:8"),
        ("dream:origin:8:0.001", DreamOrigin(8), "dream:origin:8"),
        ("dream:origin:8:0.5", DreamOrigin(8, 0.5), "dream:origin:8:0.5"),
        ("dream:origin:8@temperature=0.70,top_p=0.9", DreamOrigin(8, sampling=Sampling(0.7, 0.9)),
         "dream:origin:8@temperature=0.7,top_p=0.9"),
        ("dream:entropy:8", Dream("entropy", 8), "dream:entropy:8"),
    ],
)  # fmt: skip
def test_a_specification_makes_the_very_same_policy(spec, policy, text):
    assert make_policy(spec) == policy and make_policy(spec).spec == text
    assert make_policy(text) == policy


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dream:origin", "it has 1 parameter, expected 2 or 3"),
        ("dream:origin:0", "S is '0', expected an integer of at least 1"),
        ("dream:origin:8:0", "eps is '0', expected a number above 0 and at most 1"),
        ("dream:origin:8:0.1:1", "it has 4 parameters, expected 2 or 3"),
        ("dream:orign:8", "order is 'orign', expected one of confidence, margin, entropy, origin"),
    ],
)
def test_a_bad_parameter_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}; the form is dream:confidence|margin|entropy|origin:S[:eps]" in str(
        caught.value
    )


def test_what_it_declares():
    policy = make_policy("dream:origin:8@top_p=0.9")
    assert (policy.may_do_nothing, policy.monotone, policy.step_size) == (True, True, None)
    assert (policy.needs, policy.ranks, policy.longest_pause) == ("ranks", 1, 7)
    assert make_policy("dream:origin:8", 0.7).needs == "logits"


# ---------------------------------------------------------------- what is committed


def test_the_schedule():
    policy = DreamOrigin(4, 1e-12)
    assert [policy.share(step) for step in (1, 2, 3, 4, 5)] == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1, 1])
    assert [DreamOrigin(3, 1.0).share(step) for step in (1, 2, 3)] == [0, 0, 1]
    assert DreamOrigin(1).share(1) == 1
    time = torch.linspace(1, 1e-3, 33, dtype=torch.float64)  # as the source writes it
    expected = [float(1 - time[k + 1] / time[k]) for k in range(31)] + [1.0]
    assert [DreamOrigin(32).share(step) for step in range(1, 33)] == pytest.approx(expected)


def test_the_last_step_commits_all_and_any_other_perhaps_nothing():
    policy, view = DreamOrigin(3, 1.0), view_of(3)
    assert [committed(policy, view, step) for step in (1, 2)] == [{}, {}]
    assert committed(policy, view, 3) == committed(policy, view, 4) == {0: 100, 1: 101, 2: 102}
    assert committed(policy, view_of(1), 3) == {0: 100}
    sizes = [len(committed(DreamOrigin(4), view, seed=seed)) for seed in range(400)]
    expected = [400 * math.comb(3, k) * 0.24975**k * 0.75025 ** (3 - k) for k in range(4)]
    observed_sizes = np.bincount(sizes, minlength=4)
    assert ((observed_sizes - expected) ** 2 / expected).sum() < 16.3  # chi-square, 3 degrees, 0.1 %


def test_a_position_does_not_depend_on_which_others_are_masked():
    policy = DreamOrigin(3)
    for seed in range(30):
        whole = committed(policy, view_of(8), seed=seed)
        few = committed(policy, view_of(3), seed=seed)
        assert few == {position: token for position, token in whole.items() if position < 3}


def test_argmax_tokens_need_no_logits_and_nor_does_a_step_without_commits():
    def asked():
        raise AssertionError("logits were fetched")

    view = BlockView(np.array([2, 0]), np.array([[7], [8]]), np.array([[0.5], [0.4]]), asked)
    assert committed(make_policy("dream:origin:1@top_p=0.3,top_k=2"), view) == {2: 7, 0: 8}
    assert committed(make_policy("dream:origin:2:1@temperature=1"), view) == {}


def test_whether_a_position_is_committed_says_nothing_of_its_token():
    """The noise of both has one address; taken from one stream, what is committed early would be token 0 too seldom."""
    policy, view = DreamOrigin(4, sampling=Sampling(1.0)), view_of(1, np.zeros((1, 4)))
    drawn = [committed(policy, view, seed=seed) for seed in range(3000)]
    tokens = np.bincount([one[0] for one in drawn if one], minlength=4)
    assert tokens.sum() == pytest.approx(750, abs=4 * np.sqrt(3000 * 0.25 * 0.75))
    expected = tokens.sum() / 4
    assert ((tokens - expected) ** 2 / expected).sum() < 16.3
    for position in range(3):
        one = StepRandom(1, 2, 3, 4)
        assert one.uniforms(np.arange(3))[position] not in np.round(1 - np.exp(-np.exp(-one.gumbel(position, 4))), 12)


def test_uniform_noise_is_a_function_of_its_address():
    noise = StepRandom(1, 2, 3, 4).uniforms(np.array([5, 0, 2]))
    assert noise.tolist() == StepRandom(1, 2, 3, 4).uniforms(np.arange(9))[[5, 0, 2]].tolist()
    assert StepRandom(1, 2, 3, 4).uniforms(np.array([], dtype=int)).tolist() == []
    addresses = [(1, 2, 3, 4), (0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 5), (1, 2, 4, 3)]
    assert len({float(StepRandom(*one).uniforms(np.array([0]))[0]) for one in addresses}) == len(addresses)
    many = StepRandom(-1, 2**40, 3, 4).uniforms(np.arange(4000))
    assert (many >= 0).all() and (many < 1).all() and abs(many.mean() - 0.5) < 0.03


# ---------------------------------------------------------------- in the loop


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@torch.no_grad()
def naive_origin(prompt, length, steps, eps, temperature, seed):
    """Dream's loop as its source has it, logits unshifted, but for the noise, which is ours: one block, no cache."""
    model, n = tiny_llama(), len(prompt)
    x = torch.tensor([*prompt, *[MASK_ID] * length])
    time = torch.linspace(1, eps, steps + 1, dtype=torch.float64)
    everyone, calls = torch.ones(1, 1, len(x), len(x), dtype=torch.bool), 0
    for i in range(steps):
        if not (x == MASK_ID).any():
            break
        logits = model(x[None], attention_mask=everyone, position_ids=torch.arange(len(x))[None]).logits[0].double()
        logits[:, MASK_ID] = -torch.inf
        calls += 1
        rng = StepRandom(seed, 0, 0, i + 1)
        chance = 1 - time[i + 1] / time[i] if i < steps - 1 else 1
        before = x.clone()
        for k in range(length):
            if before[n + k] == MASK_ID and rng.uniforms(np.arange(k + 1))[k] < chance:
                noisy = logits[n + k]
                if temperature:
                    noisy = noisy / temperature + torch.from_numpy(rng.gumbel(k, len(noisy)))
                x[n + k] = noisy.argmax()
    return x[n:].tolist(), calls


@pytest.mark.parametrize(("steps", "eps"), [(1, 1e-3), (4, 1e-3), (12, 1e-3), (40, 0.2)])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_it_decodes_as_the_source_does(denoiser, steps, eps, temperature):
    policy = DreamOrigin(steps, eps, sampling=Sampling(temperature))
    for seed in (0, 1):
        config = DecodeConfig(12, 12, "none", "expanded", top_j=1, seed=seed)
        expected, calls = naive_origin(PROMPT, 12, steps, eps, temperature, seed)
        plain = decode(denoiser, PROMPT, policy, config)
        assert (plain.tokens, plain.forwards) == (expected, calls)


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
@pytest.mark.parametrize("spec", ["dream:origin:6", "dream:origin:16", "dream:origin:5:0.3@temperature=0.7,top_p=0.9",
                                  "dream:origin:8@top_k=3"])  # fmt: skip
def test_drafts_change_nothing(denoiser, spec, cache):
    policy, config, saved = make_policy(spec), DecodeConfig(8, 24, cache, top_j=4, seed=3), 0
    seen = Facts()
    plain = decode(denoiser, PROMPT, policy, config, observer=seen)
    assert any(len(fact.commit_position) == 0 for fact in seen.steps), "a step without commits is among them"
    for drafts in (random_formulas(1, 40, step_size=None, ranks=6), InformedDrafter(6)):
        drafted = Facts()
        result = decode(denoiser, PROMPT, policy, config, drafts, observer=drafted)
        assert (result.tokens, result.steps) == (plain.tokens, plain.steps)
        books_balance(result)
        same_facts(drafted.steps, seen.steps)
        saved += plain.forwards - result.forwards
    assert saved > 0


def test_another_seed_gives_another_answer_at_temperature_0_too(denoiser):
    policy = make_policy("dream:origin:6")
    one, other = (decode(denoiser, PROMPT, policy, DecodeConfig(8, 24, seed=seed)) for seed in (0, 1))
    assert one.tokens != other.tokens
    assert one.tokens != decode(denoiser, PROMPT, policy, DecodeConfig(8, 24, seed=0), prompt_index=1).tokens


@pytest.mark.parametrize("cache", ["dual", "block_causal"])
@pytest.mark.parametrize("spec", ["dream:origin:5", "dream:origin:12", "dream:origin:4@temperature=0.7"])
def test_replay_counts_as_the_runtime_does(denoiser, spec, cache):
    policy, config = make_policy(spec), DecodeConfig(8, 16, cache, top_j=4)
    traces = observed(denoiser, policy, config)
    graphs = {**graphs_for(traces, policy, 8), "random": random_formulas(2, 12, None, ranks=6)}
    assert agree(denoiser, ((5, 9, 13), (7, 8, 21, 22, 23, 24, 25, 26), (11, 12, 13, 14, 15), (3, 4)),
                 policy, config, traces, graphs) > 0  # fmt: skip


def test_a_state_log_repeats_it(denoiser, tmp_path):
    """At temperature 0 it reads the best tokens only; the seed and the number of the prompt are in the log."""
    prompts, policy = [(5, 9, 13), PROMPT], make_policy("dream:origin:10")
    log = record_states(
        tiny_checkpoint(denoiser=denoiser), prompts, policy, CONFIG, tmp_path / "log", InformedDrafter(6)
    )
    again = replay_states(log, InformedDrafter(6))
    counted = [
        decode(denoiser, prompt, policy, CONFIG, InformedDrafter(6), prompt_index=k) for k, prompt in enumerate(prompts)
    ]
    assert again.exact and again.forwards_per_prompt.tolist() == [one.forwards for one in counted]


def test_a_schedule_longer_than_the_loops_patience(denoiser):
    """One position in 400 steps waits for longer than a policy may that does not say so."""
    policy, pauses = make_policy("dream:origin:400"), []
    for seed in range(4):
        seen = Facts()
        plain = decode(denoiser, PROMPT, policy, DecodeConfig(2, 2, seed=seed), observer=seen)
        assert plain.forwards == plain.steps <= 400
        informed = decode(denoiser, PROMPT, policy, DecodeConfig(2, 2, seed=seed), InformedDrafter(2))
        assert (informed.tokens, informed.steps) == (plain.tokens, plain.steps) and informed.forwards < plain.forwards
        commits = [0, *(fact.step for fact in seen.steps if len(fact.commit_position))]
        pauses.append(int(np.diff(commits).max()))
    assert max(pauses) > MAX_EMPTY_STEPS


def test_a_pause_longer_than_it_says_ends_the_decode(denoiser, monkeypatch):
    monkeypatch.setattr(DreamOrigin, "longest_pause", property(lambda _: 70))
    with pytest.raises(DecodeError, match="committed nothing in 71 steps in a row"):
        decode(denoiser, PROMPT, DreamOrigin(90, 1.0), CONFIG)
