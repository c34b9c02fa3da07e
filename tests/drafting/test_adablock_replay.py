"""Blocks of different lengths through recording and replay: what is predicted is what is counted."""

from dataclasses import replace

import numpy as np
import pytest

from calibrate.recording.recorder import record
from calibrate.recording.states import record_states
from calibrate.traces.state_log import read_states
from calibrate.traces.table import TraceError
from drafting.anchors import AnchorTable
from drafting.provenance import trace_validity
from drafting.replay import replay
from drafting.state_replay import replay_states
from tests.support.models import END_ID, random_formulas, tiny_checkpoint
from verify.decoding import DecodeConfig, decode_batch
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import InformedSettings
from verify.graph.file import GraphFile, load_graph, save_graph
from verify.policies.specification import make_policy, step_sizes
from verify.verifier import ValidityMismatchError, Verifier

PROMPTS = [[5, 9, 14, 3, 22, 7], [4, 8, 15, 16, 23], [3, 9]]
SPEC = f"adablock:0.15:{'+'.join(map(str, range(3, 48, 4)))}:5"
CONFIG = DecodeConfig(
    block_length=8, generation_length=21, end_token_ids=(END_ID,), top_j=3, schedule=SPEC
)  # fmt: skip
EXACT = [("dual", "packed"), ("none", "expanded"), ("prefix", "expanded")]


@pytest.fixture(scope="module")
def checkpoint():
    return tiny_checkpoint(seed=3)


def counted(checkpoint, policy, config, drafts, *names):
    found = dict(decode_batch(checkpoint.denoiser, list(enumerate(PROMPTS)), policy, config, drafts, batch_size=2))
    return [[getattr(found[k], name) for k in range(3)] for name in names]


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("spec", ["static:1", "static:2", "threshold:0.2"])
def test_a_trace_predicts_every_graph(checkpoint, tmp_path, spec, cache, backend):
    policy, config = make_policy(spec), replace(CONFIG, cache=cache, backend=backend)
    traces = record(checkpoint, PROMPTS, policy, config, tmp_path)
    table = AnchorTable.from_traces(traces, max_depth=None)
    lengths = np.diff(traces.masked_ptr)[traces.step == 1]
    assert len(set(lengths.tolist())) > 2
    assert lengths.tolist() == table.block_tokens.tolist()
    for graph in range(3):
        formulas = random_formulas(graph, 10, step_sizes(spec), ranks=7)
        forwards, steps = counted(checkpoint, policy, config, formulas, "forwards", "steps")
        found = replay(formulas, table)
        assert found.forwards_per_prompt.tolist() == forwards
        assert found.plain_per_prompt.tolist() == steps


@pytest.mark.parametrize(("cache", "backend"), EXACT)
@pytest.mark.parametrize("spec", ["static:1", "threshold:0.2"])
def test_a_state_log_predicts_what_was_recorded(checkpoint, tmp_path, spec, cache, backend):
    policy, config = make_policy(spec), replace(CONFIG, cache=cache, backend=backend)
    drafter = InformedDrafter(5, InformedSettings(copies=True))
    log = record_states(checkpoint, PROMPTS, policy, config, tmp_path, drafter)
    assert len({len(end) for end in log.ends.values()}) > 2
    found = replay_states(log, drafter)
    forwards, tokens, steps = counted(checkpoint, policy, config, drafter, "forwards", "query_tokens", "steps")
    assert found.exact and found.proposed
    assert found.forwards_per_prompt.tolist() == forwards
    assert found.query_tokens_per_prompt.tolist() == tokens
    assert found.plain_per_prompt.tolist() == steps
    assert found.tokens_per_prompt.tolist() == [
        sum(len(end) for (owner, _), end in log.ends.items() if owner == k) for k in range(3)
    ]
    again = read_states(tmp_path)
    assert again.log_hash() == log.log_hash()


def test_a_schedule_is_a_fact_of_a_recording_and_of_its_graphs(checkpoint, tmp_path):
    policy = make_policy("static:1")
    traces = record(checkpoint, PROMPTS, policy, CONFIG, tmp_path / "trace")
    assert traces.metadata["schedule"] == SPEC
    with pytest.raises(TraceError, match=r"schedule: there 'adablock:0.15:.*, now None"):
        fixed = replace(CONFIG, schedule=None, generation_length=24)
        record(checkpoint, PROMPTS, policy, fixed, tmp_path / "trace")
    graph = GraphFile.from_nodes([((1, 1),), ((1, 1), (2, 1))], trace_validity(traces.metadata))
    save_graph(graph, tmp_path / "graph.json")
    read = load_graph(tmp_path / "graph.json")
    assert read.validity.schedule == SPEC
    named = dict(model="tiny", model_revision="seed-3")
    found = Verifier(read, checkpoint.denoiser, policy, CONFIG, **named).decode(PROMPTS[0])
    assert found.forwards == replay(read.nodes, AnchorTable.from_traces(traces)).forwards_per_prompt[0]
    with pytest.raises(ValidityMismatchError, match=r"schedule: .*, the run has None"):
        Verifier(read, checkpoint.denoiser, policy, replace(CONFIG, schedule=None), **named)


def test_a_file_without_a_schedule_does_not_mention_one(checkpoint, tmp_path):
    facts = {
        "model": "toy", "model_revision": None, "policy": "static:1", "block_length": 8, "cache": "dual",
        "temperature": 0.0, "top_j": 3,
    }  # fmt: skip
    graph = GraphFile.from_nodes([((1, 1),)], trace_validity(facts))
    save_graph(graph, tmp_path / "graph.json")
    assert "schedule" not in (tmp_path / "graph.json").read_text()
    assert load_graph(tmp_path / "graph.json").validity == graph.validity
