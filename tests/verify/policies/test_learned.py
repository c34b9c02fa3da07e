"""Learn2PD: what a filter lets pass, its file, and how a specification names it."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from calibrate.recording.recorder import TraceBuilder
from drafting.anchors import AnchorTable
from drafting.replay import replay
from drafting.searches.greedy import greedy
from drafting.trie import PrefixTrie
from tests.support.histories import drive, view_of
from tests.support.models import END_ID, random_formulas, tiny_denoiser
from tests.support.observing import Facts
from verify.decoding import DecodeConfig, decode
from verify.drafters.informed import InformedDrafter
from verify.files.strict_json import StrictJsonError
from verify.graph.file import GraphFile, Validity
from verify.graph.validity import read_validity
from verify.policies import learned
from verify.policies.contract import PolicyError
from verify.policies.learned import ARRAYS, FilterFile, Learn2PD
from verify.policies.randomness import StepRandom
from verify.policies.specification import canonical_policy, make_policy

FIRST = StepRandom(0, 0, 0, 1)


def arrays_of(length, seed=None, scale=10.0, shift=-5.0):
    """A filter; without ``seed`` its log-odds are ``scale * c + shift`` of every position's own confidence c."""
    if seed is not None:
        rng = np.random.default_rng(seed)
        shapes = ((length, length), (length,)) * 2
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in zip(ARRAYS, shapes, strict=True)}
    eye = np.eye(length, dtype=np.float32)
    zero = np.zeros(length, dtype=np.float32)
    return dict(zip(ARRAYS, (eye, zero, scale * eye, zero + np.float32(shift)), strict=True))


@pytest.fixture(scope="module")
def denoiser():
    return tiny_denoiser()


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Write a filter into the working folder; gives its digest."""
    monkeypatch.chdir(tmp_path)
    learned._load.cache_clear()

    def write(arrays, name="f.safetensors"):
        data = arrays if isinstance(arrays, bytes) else save(arrays)
        (tmp_path / name).write_bytes(data)
        return hashlib.sha256(data).hexdigest()[:16]

    return write


def still(*tops, token=3, vocabulary=6):
    """Logits with these probabilities of ``token`` (an id for all, or one each), the rest spread evenly; 0 masked."""
    tokens = [token] * len(tops) if isinstance(token, int) else token
    rows = np.full((len(tops), vocabulary), -np.inf)
    for row, top, best in zip(rows, tops, tokens, strict=True):
        row[1:] = np.log((1 - top) / (vocabulary - 2))
        row[best] = np.log(top)
    return rows


def committed(policy, view, state=0, rng=FIRST):
    commits, state = policy.step(view, state, rng)
    return dict(zip(commits.positions.tolist(), commits.tokens.tolist(), strict=True)), state


# ---------------------------------------------------------------- what is committed


@pytest.mark.parametrize("seed", range(8))
def test_a_naive_network_agrees(saved, seed):
    """One neuron at a time; what is committed counts 1."""
    saved(arrays_of(5, seed))
    w1, b1, w2, b2 = (arrays_of(5, seed)[name].tolist() for name in ARRAYS)
    rng = np.random.default_rng(seed)
    distributions = [np.log(rng.dirichlet(np.full(7, 0.3), size=5)) for _ in range(6)]
    for logits in distributions:
        logits[:, 0] = -np.inf
    expected, masked = [], list(range(5))
    for logits in distributions:
        p = [[float(np.exp(x)) for x in row] for row in logits]
        p = [[x / sum(row) for x in row] for row in p]
        c = [max(p[i]) if i in masked else 1.0 for i in range(5)]
        h = [max(0.0, sum(w * x for w, x in zip(row, c, strict=True)) + b) for row, b in zip(w1, b1, strict=True)]
        f = [sum(w * x for w, x in zip(row, h, strict=True)) + b for row, b in zip(w2, b2, strict=True)]
        best = min(masked, key=lambda i: (-c[i], i))
        chosen = [i for i in masked if i == best or 1 / (1 + np.exp(-f[i])) > 0.9]
        expected.append({i: p[i].index(max(p[i])) for i in chosen})
        masked = [i for i in masked if i not in chosen]
        if not masked:
            break
    assert drive(make_policy("learn2pd:f.safetensors:0.9"), distributions)[0] == expected


def test_the_border_is_left(saved):
    """log-odds 4 c - 2 at c = 1/2 are exactly 0: sigmoid 1/2 is not above 1/2, and the next number is."""
    saved(arrays_of(3, scale=4.0, shift=-2.0))
    half = np.log(np.array([[1e-300, 0.75, 0.25], [1e-300, 0.5, 0.5], [1e-300, 0.5, 0.5]]))
    assert committed(make_policy("learn2pd:f.safetensors:0.5"), view_of(half, [0, 1, 2]))[0] == {0: 1}
    less = make_policy(f"learn2pd:f.safetensors:{float(np.nextafter(0.5, 0))!r}")
    assert committed(less, view_of(half, [0, 1, 2]))[0] == {0: 1, 1: 1, 2: 1}


def test_the_best_goes_where_nothing_passes(saved):
    saved(arrays_of(3, shift=-99.0))
    policy = make_policy("learn2pd:f.safetensors")
    assert committed(policy, view_of(still(0.7, 0.9, 0.9), [0, 1, 2]))[0] == {1: 3}  # ties: lower position
    assert committed(policy, view_of(still(0.7, 0.9, 0.8), [0, 2]), 3, FIRST.after())[0] == {2: 3}
    assert committed(policy, view_of(still(0.7, 0.9, 0.8), [0]), 3, FIRST.after())[0] == {0: 3}


def test_with_tau_1_nothing_passes(saved):
    saved(arrays_of(3, shift=99.0))
    assert committed(make_policy("learn2pd:f.safetensors:1"), view_of(still(0.7, 0.9, 0.9), [0, 1, 2]))[0] == {1: 3}
    assert len(committed(make_policy("learn2pd:f.safetensors"), view_of(still(0.7, 0.9, 0.9), [0, 1, 2]))[0]) == 3


def test_committed_positions_count_1_and_absent_ones_0(saved):
    """A filter that asks of position 0 what 1, 2 and 3 are: positions 1 (committed) and 2; 3 lies behind the block."""
    arrays = arrays_of(4, shift=-1.75)
    arrays[ARRAYS[2]][:] = 0
    arrays[ARRAYS[2]][0] = [0, 1, 1, 1]
    saved(arrays)
    policy = make_policy("learn2pd:f.safetensors:0.5")
    view = view_of(still(0.6, 0.5, 0.8), [0, 2])  # 1 + 0.8 + 0 > 1.75, the log-odds of position 0
    found, state = committed(policy, view, 3, FIRST.after())
    assert found == {0: 3, 2: 3} and state == 3
    first, state = committed(policy, view_of(still(0.6, 0.5, 0.8), [0, 1, 2]))  # 0.5 + 0.8 + 0
    assert first == {2: 3} and state == 3


def test_the_end_fills_the_block(saved):
    saved(arrays_of(6, scale=100.0, shift=-70.0))  # c > 0.7 passes
    logits = still(0.6, 0.9, 0.8, 0.9, 0.5, 0.95, token=[3, 3, 5, 5, 3, 3])
    whole = view_of(logits, range(6))
    assert committed(make_policy("learn2pd:f.safetensors:0.5"), whole)[0] == {1: 3, 2: 5, 3: 5, 5: 3}
    assert committed(make_policy("learn2pd:f.safetensors:0.5:5"), whole)[0] == {1: 3, 2: 5, 3: 5, 4: 5, 5: 5}
    # An end that does not pass ends nothing, also where it is the best and goes.
    unsure = still(0.6, 0.65, 0.5, token=[3, 5, 3])
    assert committed(make_policy("learn2pd:f.safetensors:0.5:5"), view_of(unsure, range(3)))[0] == {1: 5}


# ---------------------------------------------------------------- the file, and the specification


def test_a_specification_says_which_filter_it_is(saved):
    digest = saved(arrays_of(4))
    policy = make_policy("learn2pd:f.safetensors")
    assert policy == Learn2PD(FilterFile("f.safetensors", digest))
    assert policy.spec == f"learn2pd:f.safetensors#{digest}" and make_policy(policy.spec) == policy
    assert make_policy("learn2pd:./f.safetensors:0.960").spec == f"learn2pd:./f.safetensors#{digest}"
    for text in (":0.9", ":0.96:7", ":0.9:0", ":0.9@temperature=0.7"):
        spec = make_policy(f"learn2pd:f.safetensors{text}").spec
        assert spec == f"learn2pd:f.safetensors#{digest}{text}" and make_policy(spec).spec == spec
    assert (policy.needs, policy.ranks, policy.step_size, policy.end) == ("ranks", 1, None, None)


def test_a_filter_that_changed_is_not_taken_for_the_old_one(saved):
    old = make_policy(f"learn2pd:f.safetensors#{saved(arrays_of(4))}")
    assert old.initial_state() == 0
    learned._load.cache_clear()
    new = saved(arrays_of(4, seed=1))
    with pytest.raises(PolicyError, match=f"has digest {new}, but the policy was made with {old.filter.digest}; put"):
        old.initial_state()
    assert make_policy("learn2pd:f.safetensors") != old


def test_a_graph_for_a_filter_is_read_where_the_filter_is_not(saved):
    spec = "learn2pd:elsewhere/f.safetensors#0123456789abcdef:0.9"
    assert make_policy(spec).spec == canonical_policy(spec, 0.0) == spec
    GraphFile.from_nodes([((1, 1),)], Validity("m", None, spec, 8, "dual", 0.0, 4))
    with pytest.raises(PolicyError, match=r"elsewhere/f.safetensors' cannot be read \(no such file or directory\)"):
        make_policy(spec).initial_state()
    # Named without a digest nothing says which it is; a stored text like that stays as it is.
    with pytest.raises(PolicyError, match="policy 'learn2pd:none': the filter 'none' cannot be read"):
        make_policy("learn2pd:none")
    assert canonical_policy("learn2pd:none", 0.0) == "learn2pd:none"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("learn2pd", "it has 0 parameters, expected 1 to 3; the form is learn2pd:FILE[:tau[:end]]"),
        ("learn2pd:f#12", "FILE is 'f#12', expected FILE or FILE#DIGEST (16 hexadecimal digits), or bundled"),
        ("learn2pd:#0123456789abcdef", "FILE is '#0123456789abcdef', expected FILE"),
        ("learn2pd:f#0123456789abcdef:0", "tau is '0', expected a number above 0 and at most 1"),
        ("learn2pd:f#0123456789abcdef:0.9:-1", "end is '-1', expected an integer of at least 0"),
    ],
)
def test_a_bad_parameter_is_named(spec, message):
    with pytest.raises(PolicyError) as caught:
        make_policy(spec)
    assert f"policy {spec!r}: {message}" in str(caught.value)


def other(change):
    arrays = arrays_of(4)
    change(arrays)
    return save(arrays)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04pickle", "is no safetensors file of ours: header: expected"),
        (other(lambda a: a.pop(ARRAYS[1])), r"holds hidden.weight \[4, 4\], output.bias .*; expected hidden.weight, h"),
        (other(lambda a: a.update({ARRAYS[0]: np.ones((4, 5), np.float32)})), r"holds .*hidden.weight \[4, 5\]"),
        (other(lambda a: a.update(more=np.ones(1, np.float32))), r"holds .*more \[1\]"),
        (save({}), "holds nothing; expected"),
    ],
)
def test_a_file_that_is_no_filter_is_refused_before_the_first_step(saved, data, message):
    saved(data)
    policy = make_policy("learn2pd:f.safetensors")
    with pytest.raises(PolicyError, match=message):
        policy.initial_state()


def test_a_longer_block_is_refused(saved):
    saved(arrays_of(4))
    message = "'f.safetensors' is for blocks of at most 4 positions, this block has 5"
    with pytest.raises(PolicyError, match=message):
        make_policy("learn2pd:f.safetensors").step(view_of(still(*[0.9] * 5), range(5)), 0, FIRST)


def test_the_bundled_filter_is_the_one_that_its_name_stands_for():
    policy = make_policy("learn2pd:bundled")
    assert len(policy.filter.load()) == 32
    assert policy.spec == f"learn2pd:bundled#{learned.BUNDLED_DIGEST}" == learned.RULES[0].examples[0]


# ---------------------------------------------------------------- in the loop


@pytest.mark.parametrize("rest", ["0.5", "0.5:20", "0.5@temperature=0.7"])
@pytest.mark.parametrize("cache", ["dual", "block_causal"])
def test_speculation_is_lossless_and_predicted(saved, denoiser, cache, rest):
    """A filter that passes confidences above 0.2, and asks a little of the neighbours; 20 is a token that is said."""
    arrays = arrays_of(8, scale=40.0, shift=-8.0)
    arrays[ARRAYS[2]] += 0.5 * arrays_of(8, seed=5)[ARRAYS[0]]
    saved(arrays)
    policy, prompt = make_policy(f"learn2pd:f.safetensors:{rest}"), (5, 9, 13, 17, 21)
    config = DecodeConfig(8, 24, cache, top_j=4, end_token_ids=(END_ID,))
    builder, seen = TraceBuilder(), Facts()
    plain = decode(denoiser, prompt, policy, config, observer=builder)
    decode(denoiser, prompt, policy, config, observer=seen)
    sizes = [len(fact.commit_position) for fact in seen.steps]
    assert len(set(sizes)) > 1, "some steps take more than others"
    anchors = AnchorTable.from_traces(builder.build())
    nodes = greedy(PrefixTrie.from_anchors(anchors), 16).nodes
    for drafts in (nodes, random_formulas(2, 24, step_size=None), InformedDrafter(5)):
        found = decode(denoiser, prompt, policy, config, drafts)
        assert (found.tokens, found.steps) == (plain.tokens, plain.steps)
        if drafts is nodes:
            assert found.forwards == replay(nodes, anchors).forwards
            assert found.forwards < plain.forwards or rest.endswith(":20")  # the end leaves little to save


def test_the_end_ends_the_sequence_with_its_block(saved, denoiser):
    saved(arrays_of(8, shift=99.0))
    prompt, config = (5, 9, 13, 17, 21), DecodeConfig(8, 24, top_j=4)
    free = decode(denoiser, prompt, make_policy("learn2pd:f.safetensors"), config)
    end = free.tokens[2]
    cut = decode(
        denoiser, prompt, make_policy(f"learn2pd:f.safetensors:0.96:{end}"), replace(config, end_token_ids=(end,))
    )
    first = free.tokens.index(end)
    assert cut.tokens == [*free.tokens[:first], *[end] * (8 - first)] and cut.end == first


def test_a_file_from_elsewhere_opens_no_path_that_it_names(tmp_path, monkeypatch):
    """Not a secret, whose digest a message would tell, and not a pipe, which never ends."""
    secret, pipe = tmp_path / "secret", tmp_path / "pipe"
    secret.write_text("of nobody's concern", encoding="utf-8")
    os.mkfifo(pipe)
    for path in (secret, pipe):
        stated = {**Validity("toy", None, "static:1", 8, "dual", 0.0, 4).stated(), "policy": f"learn2pd:{path}"}
        with pytest.raises(StrictJsonError, match="expected a path with its digest behind '#'"):
            read_validity(stated)
        assert canonical_policy(f"learn2pd:{path}", 0.0) == f"learn2pd:{path}"
    with pytest.raises(PolicyError, match=r"cannot be read \(no regular file\)"):
        make_policy(f"learn2pd:{pipe}")
    with pytest.raises(PolicyError, match=r"cannot be read \(embedded null byte\)"):
        make_policy("learn2pd:\0")
