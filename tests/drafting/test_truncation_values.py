"""What the static buffers say of a cut graph is what the traces say of it."""

from dataclasses import replace

import pytest

from drafting.anchors import AnchorTable
from drafting.searching import search
from drafting.values import path_value
from tests.support.toy import toy_traces
from verify.graph.buffers import static_buffers

FACTS = {"model": "toy", "model_revision": None, "cache": "dual", "temperature": 0.0}


@pytest.mark.parametrize("rule", ["static:1", "static:2", "threshold:0.8"])
@pytest.mark.parametrize("method", ["exact", "published"])
def test_every_beginning_is_worth_what_the_traces_say(rule: str, method: str) -> None:
    traces = toy_traces(5, prompts=6, rule=rule)
    traces = replace(traces, metadata=traces.metadata | FACTS)
    anchors = AnchorTable.from_traces(traces, None)
    graph = search(traces, method=method, budget=10).to_graph_file()
    buffers = static_buffers(graph)
    nodes = [graph.nodes[node] for node in buffers["truncation"]]
    found = [path_value(nodes[1 : 1 + size], anchors) for size in range(len(nodes))]
    assert buffers["truncation_value"].tolist() == pytest.approx(found, abs=1e-6)
    assert found[-1] > found[0] == 0
