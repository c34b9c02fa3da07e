"""Traces in memory and on disk: what is written is what is read, and what is broken is refused by name."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibrate.traces.folder import check_folder
from calibrate.traces.table import (
    MANIFEST_NAME,
    TRACE_FORMAT_VERSION,
    TraceError,
    Traces,
    read_manifest,
    read_shard,
    read_traces,
    table_to_traces,
    traces_to_table,
    write_shard,
)

COLUMNS = (
    "prompt_index", "block", "step", "masked_ptr", "masked_position", "top_token", "top_probability",
    "commit_ptr", "commit_position", "commit_token",
)  # fmt: skip
TOP_J = 3


def made_up(prompt_indices, seed=0, block_length=6):
    """Random traces: two blocks a prompt, one or two commits a step; shaped like a decode, true of no model."""
    rng = np.random.default_rng(seed)
    rows, masked, tokens, probabilities, commits, written = [], [], [], [], [], []
    for prompt_index in prompt_indices:
        for block in range(2):
            left = list(range(block_length))
            step = 0
            while left:
                step += 1
                rows.append((prompt_index, block, step))
                order = rng.permutation(left)
                masked.append(order)
                tokens.append(np.stack([rng.permutation(50)[:TOP_J] for _ in order]))
                probabilities.append(-np.sort(-rng.random((len(order), TOP_J)), axis=1))
                count = min(len(left), int(rng.integers(1, 3)))
                commits.append(order[:count])
                written.append(tokens[-1][:count, 0])
                left = [position for position in left if position not in order[:count]]
    prompt_index, block, step = (np.array(column, dtype=np.int32) for column in zip(*rows, strict=True))
    return Traces(
        prompt_index=prompt_index,
        block=block,
        step=step,
        masked_ptr=np.cumsum([0, *map(len, masked)]).astype(np.int64),
        masked_position=np.concatenate(masked).astype(np.int16),
        top_token=np.concatenate(tokens).astype(np.int32),
        top_probability=np.concatenate(probabilities).astype(np.float32),
        commit_ptr=np.cumsum([0, *map(len, commits)]).astype(np.int64),
        commit_position=np.concatenate(commits).astype(np.int16),
        commit_token=np.concatenate(written).astype(np.int32),
        metadata={"top_j": TOP_J, "policy": "made up"},
    )


def same(one, other):
    for name in COLUMNS:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture
def folder(tmp_path):
    """A trace folder of prompts 0-4 in two shards, the later one first on disk."""
    path = tmp_path / "trace"
    path.mkdir()
    manifest = {"version": TRACE_FORMAT_VERSION, "run": {"top_j": TOP_J, "policy": "made up"}}
    (path / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    traces = made_up(range(5))
    write_shard(path / "shard-000000.parquet", traces_to_table(traces.select([3, 4])))
    write_shard(path / "shard-000002.parquet", traces_to_table(traces.select([0, 1, 2])))
    return path


def test_a_table_holds_everything():
    traces = made_up(range(3))
    same(table_to_traces(traces_to_table(traces), TOP_J, {}), traces)


def test_rows_are_put_in_order():
    traces = made_up(range(3))
    table = traces_to_table(traces)
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    same(table_to_traces(shuffled, TOP_J, {}), traces)


def test_a_step_without_commits_survives():
    traces = made_up(range(1))
    nothing = {
        "commit_ptr": np.zeros_like(traces.commit_ptr),
        "commit_position": traces.commit_position[:0],
        "commit_token": traces.commit_token[:0],
    }
    empty = Traces(**{**vars(traces), **nothing})
    same(table_to_traces(traces_to_table(empty), TOP_J, {}), empty)


def test_a_folder_is_read_back_whole(folder):
    traces = read_traces(folder)
    same(traces, made_up(range(5)))
    assert traces.metadata == {"top_j": TOP_J, "policy": "made up"}
    assert (traces.top_j, traces.n_steps) == (TOP_J, len(traces.prompt_index))


def test_events_are_kept(tmp_path):
    traces = made_up(range(1))
    events = ["refresh", *[""] * (traces.n_steps - 2), "block_end"]
    write_shard(tmp_path / "shard-000000.parquet", traces_to_table(traces, events))
    assert read_shard(tmp_path / "shard-000000.parquet").column("event").to_pylist() == events


def test_select_takes_whole_prompts():
    traces = made_up(range(5))
    some = traces.select([4, 1])
    assert np.unique(some.prompt_index).tolist() == [1, 4]
    same(some, Traces(**vars(made_up(range(5)).select({1, 4}))))
    # ragged columns keep their rows together
    row = int(np.flatnonzero(traces.prompt_index == 1)[2])
    at = int(np.flatnonzero(some.prompt_index == 1)[2])
    low, high = traces.masked_ptr[row], traces.masked_ptr[row + 1]
    got = slice(some.masked_ptr[at], some.masked_ptr[at + 1])
    np.testing.assert_array_equal(some.masked_position[got], traces.masked_position[low:high])
    np.testing.assert_array_equal(some.top_token[got], traces.top_token[low:high])
    same(traces.select(range(5)), traces)
    assert traces.select([]).n_steps == traces.select([9]).n_steps == 0


def test_the_hash_depends_on_what_acceptance_depends_on():
    traces = made_up(range(2))
    assert traces.trace_hash() == made_up(range(2)).trace_hash()
    for name in COLUMNS:
        column = getattr(traces, name).copy()
        column.reshape(-1)[-1] += 1
        changed = Traces(**{**vars(traces), name: column})
        assert (changed.trace_hash() == traces.trace_hash()) == (name == "top_probability"), name
    assert Traces(**{**vars(traces), "metadata": {"other": 1}}).trace_hash() == traces.trace_hash()
    assert made_up(range(2), seed=1).trace_hash() != traces.trace_hash()


def test_committed_blocks():
    traces = made_up(range(2))
    written = traces.committed_blocks()
    assert sorted(written) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(sorted(block) == list(range(6)) for block in written.values())
    assert written[0, 0][int(traces.commit_position[0])] == traces.commit_token[0]


# ---------------------------------------------------------------- broken folders


@pytest.mark.parametrize("keep", [0, 3, 200, -1, -9])
def test_a_truncated_shard_is_refused(folder, keep):
    shard = folder / "shard-000002.parquet"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(TraceError, match=r"shard-000002.parquet cannot be read .*; delete shard-000002.parquet"):
        read_traces(folder)


def test_a_flipped_bit_is_found_or_harmless(folder):
    """Everywhere in the file: never other facts than were written, never an error that names no file."""
    shard = folder / "shard-000002.parquet"
    whole, expected = shard.read_bytes(), made_up(range(5))
    found = 0
    for at in range(0, len(whole), 37):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        shard.write_bytes(damaged)
        try:
            same(read_traces(folder), expected)
        except TraceError as error:
            assert "shard-000002.parquet" in str(error)
            found += 1
    assert found > len(whole) / 37 / 2


def test_foreign_columns_are_refused(folder):
    table = traces_to_table(made_up([7])).rename_columns({"step": "steps"})
    write_shard(folder / "shard-000007.parquet", table)
    with pytest.raises(
        TraceError, match=r"shard-000007.parquet has columns \['prompt_index', 'block', 'steps'.*expected \["
    ):
        read_traces(folder)


def test_a_column_of_another_type_is_refused(folder):
    table = traces_to_table(made_up([7]))
    table = table.set_column(2, "step", table.column("step").cast(pa.int64()))
    write_shard(folder / "shard-000007.parquet", table)
    with pytest.raises(TraceError, match=r"shard-000007.parquet: step is int64, expected int32; delete"):
        read_traces(folder)


def test_a_file_that_is_no_parquet_is_refused(folder):
    (folder / "shard-000009.parquet").write_text("hello", encoding="utf-8")
    with pytest.raises(TraceError, match=r"shard-000009.parquet cannot be read"):
        read_traces(folder)


def test_a_prompt_in_two_shards_is_refused(folder):
    write_shard(folder / "shard-000001.parquet", traces_to_table(made_up([2])))
    with pytest.raises(TraceError, match="holds a prompt in two shards"):
        read_traces(folder)


def test_shards_and_manifest_must_belong_together(folder):
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["run"]["top_j"] = TOP_J + 1
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(TraceError, match=r"column top_token has \d+ entries, expected \d+ \(top_j=4\)"):
        read_traces(folder)


def test_a_folder_without_shards_is_refused(folder):
    for shard in folder.glob("shard-*"):
        shard.unlink()
    with pytest.raises(TraceError, match="holds no trace shard; the recording was stopped before its first prompt"):
        read_traces(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TraceError, match=r"holds no manifest.json, so it is not a trace folder"):
            read_traces(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 2, "run": {"top_j": 3}}', "has trace format version 2, this draftgraph reads 1"),
        ('{"run": {"top_j": 3}}', "has trace format version None"),
        ("[1]", "has trace format version None"),
        ('{"version": 1}', "lacks the facts of the run"),
        ('{"version": 1, "run": {"top_j": "3"}}', "lacks the facts of the run"),
        ('{"version": 1, "run": {"top_j": 0}}', "lacks the facts of the run"),
        ('{"version": 1, "run": {', "is not valid JSON"),
        ("", "is not valid JSON"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(folder, text, message):
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(TraceError, match=message):
        read_traces(folder)


def test_a_manifest_in_another_encoding_is_refused(folder):
    (folder / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match="is not valid JSON"):
        read_manifest(folder)


def test_a_shard_is_whole_or_absent(tmp_path, monkeypatch):
    table = traces_to_table(made_up([0]))

    def half(table, path, **_):
        path.write_bytes(b"PAR1 half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "shard-000000.parquet", table)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("policy", "temperature", "complete"),
    [
        ("static:1", 0.7, "static:1@temperature=0.7"),
        ("static:1@temperature=0.7,top_k=9", 0.7, "static:1@temperature=0.7,top_k=9"),
        ("static:1", 0, "static:1"),
        ("elsewhere:1", 0.7, "elsewhere:1"),
    ],
)
def test_a_policy_is_complete_where_the_temperature_stood_beside_it(folder, policy, temperature, complete):
    """Manifests were written so before specifications held the sampling; a continued recording must find its own."""
    manifest = {"version": TRACE_FORMAT_VERSION, "run": {"top_j": TOP_J, "policy": policy, "temperature": temperature}}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    assert read_traces(folder).metadata == {"top_j": TOP_J, "policy": complete, "temperature": temperature}
    assert check_folder(folder, {"policy": complete, "temperature": temperature})


def test_a_policy_with_another_temperature_than_the_manifest_is_refused(folder):
    run = {"top_j": TOP_J, "policy": "static:1@temperature=1", "temperature": 0}
    manifest = {"version": TRACE_FORMAT_VERSION, "run": run}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(TraceError, match=r"manifest\.json: policy .* has temperature 1, but temperature 0 is stated"):
        read_traces(folder)
