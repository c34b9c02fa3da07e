"""Training a filter: the examples in traces, gradients against finite differences, and a file that decodes."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.traces.table import TraceError
from studies import learned_filter
from studies.learned_filter import Examples, measure, train
from tests.support.study_toys import write_folder
from tests.support.toy import toy_traces
from verify.files.tensors import parse_tensors
from verify.policies.learned import ARRAYS
from verify.policies.specification import make_policy


def traces_of(seed, **changes):
    """Toy traces with confidences that say how likely the top token stays."""
    found = toy_traces(seed, **{"prompts": 10, "length": 6, **changes})
    rng = np.random.default_rng(seed)
    shape = found.top_probability.shape
    return replace(found, top_probability=np.sort(rng.random(shape))[:, ::-1].astype(np.float32))


@pytest.mark.parametrize("case", [{}, dict(rule="threshold:0.5"), dict(idle=0.2), dict(surprises=0.3)])
def test_examples_are_what_the_trace_says(case):
    """One step and one position at a time."""
    traces = traces_of(3, **case)
    examples, written = Examples.of(traces), traces.committed_blocks()
    assert examples.masked.any(axis=1).all() and (~examples.masked).any()
    for s in range(traces.n_steps):
        low, high = traces.masked_ptr[s : s + 2]
        here = traces.masked_position[low:high].tolist()
        outcome = written[int(traces.prompt_index[s]), int(traces.block[s])]
        for position in range(6):
            assert examples.masked[s, position] == (position in here)
            if position in here:
                entry = low + here.index(position)
                assert examples.confidences[s, position] == traces.top_probability[entry, 0]
                assert examples.final[s, position] == (traces.top_token[entry, 0] == outcome[position])
            else:
                assert examples.confidences[s, position] == 1
    np.testing.assert_array_equal(examples.prompt, traces.prompt_index)


def loss(weights, examples):
    inner = np.maximum(examples.confidences @ weights[0].T + weights[1], 0)
    odds = inner @ weights[2].T + weights[3]
    return np.where(examples.final, np.logaddexp(0, -odds), np.logaddexp(0, odds))[examples.masked].mean()


def test_gradients_are_those_of_the_loss():
    examples = Examples.of(traces_of(1))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((6, 6), (6,)) * 2]
    found = learned_filter._gradients(weights, examples, np.arange(len(examples.prompt)))
    for number, weight in enumerate(weights):
        for index in np.ndindex(weight.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [one.copy() for one in weights]
                moved[number][index] += step
                ends.append(loss(moved, examples))
            assert found[number][index] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def separable(steps=400, length=5, seed=0):
    """A position is final if its confidence is above 0.6."""
    rng = np.random.default_rng(seed)
    confidences = rng.random((steps, length)).astype(np.float32)
    return Examples(confidences, confidences > 0.6, np.ones((steps, length), bool), np.arange(steps) // 40)


def test_what_can_be_learned_is_learned():
    arrays = train(separable(), epochs=400, rate=0.02)
    passed, final = measure(arrays, separable(seed=1), 0.9)
    assert 0.3 < passed < 0.4 and final > 0.99
    again = train(separable(), epochs=400, rate=0.02)
    assert all((arrays[name] == again[name]).all() and arrays[name].dtype == np.float32 for name in ARRAYS)
    assert np.isnan(measure(arrays, separable(), 1 - 1e-12)[1])


def test_the_command_writes_a_filter_that_is_taken(tmp_path):
    folder = write_folder(traces_of(2), tmp_path / "traces")
    path = tmp_path / "f.safetensors"
    arguments = [str(folder), "--out", str(path), "--epochs", "3"]
    done = CliRunner().invoke(learned_filter_app(), arguments)
    assert done.exit_code == 0 and "of the masked positions held out" in done.output
    assert len(make_policy(f"learn2pd:{path}").filter.load()) == 6
    metadata = parse_tensors(path.read_bytes())[1]
    assert metadata["format"] == "draftgraph-filter" and metadata["block_length"] == "6"
    assert len(metadata["trace_hash"]) == 64
    one = write_folder(traces_of(2, prompts=1), tmp_path / "one")
    done = CliRunner().invoke(learned_filter_app(), [str(one), "--out", str(tmp_path / "g.safetensors")])
    assert done.exit_code != 0 and not (tmp_path / "g.safetensors").exists()


def learned_filter_app():
    import typer

    app = typer.Typer()
    app.command()(learned_filter.main)
    return app


def test_blocks_of_different_lengths_are_refused():
    traces = traces_of(3)
    scheduled = replace(traces, metadata={**traces.metadata, "schedule": "adablock:0.3:5"})
    with pytest.raises(TraceError, match=r"recorded under adablock:0\.3:5; a filter needs blocks of one length"):
        Examples.of(scheduled)
