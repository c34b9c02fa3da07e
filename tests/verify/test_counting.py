"""Counts of a served graph: what the counter counts is what the decode's books and a replay of its trace say."""

import json
from pathlib import Path

import numpy as np
import pytest

from calibrate.recording.recorder import record
from drafting.anchors import AnchorTable
from drafting.replay import node_visits, replay
from tests.support.models import random_formulas, tiny_checkpoint
from verify.counting import AcceptanceCounter, AcceptanceCounts, CountsFileError, load_counts, save_counts
from verify.decoding import DecodeConfig, decode_batch
from verify.graph.formulas import formula
from verify.graph.validity import Validity
from verify.policies.specification import make_policy, step_sizes

CONFIG = DecodeConfig(block_length=8, generation_length=24, top_j=4)
PROMPTS = [(5, 9, 13, 17, 21), (6, 7, 8), (30, 31, 32, 33), (40, 3)]
VALIDITY = Validity("toy", None, "static:1", block_length=8, cache="dual", temperature=0.0, top_j=4)


@pytest.mark.parametrize(("policy", "batch_size"), [("static:1", 3), ("static:2", 1), ("threshold:0.2", 1)])
def test_counts_are_those_of_the_books_and_of_the_replay(policy: str, batch_size: int, tmp_path: Path) -> None:
    checkpoint, rule = tiny_checkpoint(), make_policy(policy)
    traces = record(checkpoint, PROMPTS, rule, CONFIG, tmp_path / "traces")
    table = AnchorTable.from_traces(traces, max_depth=None)
    seen = {state for chain in table.chains() for state in chain[:2]}
    nodes = sorted(seen | set(map(formula, random_formulas(0, 4, step_sizes(policy), 8, 4))), key=lambda n: (len(n), n))
    counter = AcceptanceCounter(nodes, checkpoint.denoiser.mask_token_id)
    results = dict(
        decode_batch(
            checkpoint.denoiser, list(enumerate(PROMPTS)), rule, CONFIG, nodes,
            batch_size=batch_size, observer=counter, forward_observer=counter,
        )
    )  # fmt: skip
    found, replayed = counter.counts(), replay(nodes, table)
    assert found.forwards.tolist() == [results[n].forwards for n in range(4)] == replayed.forwards_per_prompt.tolist()
    assert found.accepted_drafts.tolist() == [sum(results[n].accepted) for n in range(4)]
    assert found.accepted_drafts.sum() > 0
    assert found.anchors.tolist() == replayed.anchors_visited.tolist()
    assert found.accepted_drafts.tolist() == replayed.accepted_visited.tolist()
    assert np.array_equal(found.accepted, node_visits(nodes, table))


def test_another_graph_than_the_decodes_is_refused() -> None:
    checkpoint = tiny_checkpoint()
    counter = AcceptanceCounter([((1, 1),), ((2, 1),)], checkpoint.denoiser.mask_token_id)
    with pytest.raises(ValueError, match="1 drafts, expected the 2 nodes that can be filled there"):
        list(
            decode_batch(
                checkpoint.denoiser, [(0, PROMPTS[0])], make_policy("static:1"), CONFIG, [((1, 1),)],
                observer=counter, forward_observer=counter,
            )
        )  # fmt: skip


def counts(**changes: object) -> AcceptanceCounts:
    facts = dict(
        validity=VALIDITY,
        by="node",
        forwards=np.array([9, 5]),
        anchors=np.array([8, 4]),
        accepted=np.array([[3, 2], [4, 0]]),
        nodes=((), ((1, 1),), ((1, 1), (2, 1))),
    )
    return AcceptanceCounts(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"validity": None, "nodes": None}, {"by": "depth"}])
def test_a_file_is_read_as_it_was_written(changes: dict, tmp_path: Path) -> None:
    written = counts(**changes)
    save_counts(written, tmp_path / "counts.json")
    found = load_counts(tmp_path / "counts.json")
    for name, value in vars(written).items():
        assert (
            np.array_equal(getattr(found, name), value)
            if isinstance(value, np.ndarray)
            else (getattr(found, name) == value)
        )
    empty = counts(forwards=np.zeros(0, int), anchors=np.zeros(0, int), accepted=np.zeros((0, 2), int))
    save_counts(empty, tmp_path / "empty.json")
    assert load_counts(tmp_path / "empty.json").requests == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "draftgraph"}, 'format: expected "draftgraph-counts", found "draftgraph"'),
        ({"version": 2}, "version: expected 1"),
        ({"more": 1}, "expected no field but"),
        ({"by": "token"}, 'by: expected "node" or "depth", found "token"'),
        ({"anchors": [8]}, "anchors: expected 2 counts, found 1"),
        ({"anchors": [8, 6]}, "anchors[1]: expected at most the 5 forwards of the request, found 6"),
        ({"accepted": [[3, 2], [4]]}, "accepted[1]: expected 2 counts, found 1"),
        ({"accepted": [[3, 2], [5, 0]]}, "accepted[1]: expected counts of at most the 4 anchors of the request, found"),
        ({"accepted": [[3, -2], [4, 0]]}, "accepted[0][1]: expected an integer of at least 0, found -2"),
        ({"accepted": [[3], [4]]}, "accepted[0]: expected 2 counts, one a node without the root, found 1"),
        ({"by": "depth", "accepted": [[3, 2], [1, 2]]}, "accepted[1]: expected counts that do not grow with the depth"),
        ({"accepted": 5}, "accepted: expected a list of one list a request, found 5"),
        ({"forwards": [9.0, 5]}, "forwards[0]: expected an integer of at least 0, found 9.0"),
        ({"nodes": [[[1, 1]]]}, "nodes[0]: expected the root, []"),
        ({"validity": {}}, "validity: expected the field"),
    ],
)
def test_a_hostile_file_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    save_counts(counts(), tmp_path / "counts.json")
    payload = json.loads((tmp_path / "counts.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps({**payload, **change}))
    with pytest.raises(CountsFileError) as caught:
        load_counts(tmp_path / "bad.json")
    assert message in str(caught.value) and str(tmp_path / "bad.json") in str(caught.value)


def test_nothing_wrong_is_written(tmp_path: Path) -> None:
    with pytest.raises(CountsFileError, match=r"anchors\[0\]: expected at most the 9 forwards"):
        save_counts(counts(anchors=np.array([10, 4])), tmp_path / "counts.json")
    assert not (tmp_path / "counts.json").exists()
