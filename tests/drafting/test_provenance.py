"""Whom a graph is valid for, and where it says that it comes from."""

import pytest

from calibrate.version import tool_version
from drafting.provenance import search_provenance, trace_validity
from verify.graph.file import Validity

RUN = {
    "model": "toy",
    "model_revision": "r1",
    "policy": "static:1",
    "block_length": 8,
    "cache": "dual",
    "temperature": 0.0,
    "top_j": 4,
    "dtype": "float32",
    "generation_length": 64,
    "prompts": 3,
    "prompt_set_hash": "ab",
    "device": "cpu",
}


def test_a_graph_is_valid_for_the_recording_it_comes_from() -> None:
    assert trace_validity(RUN) == Validity("toy", "r1", "static:1", 8, "dual", 0.0, 4)


def test_facts_that_were_not_recorded_are_named() -> None:
    with pytest.raises(ValueError, match=r"recording lack cache, top_j, expected model, .*; record again"):
        trace_validity({name: fact for name, fact in RUN.items() if name not in ("cache", "top_j")})


def test_provenance_names_the_tool_the_search_and_the_recording() -> None:
    found = search_provenance(RUN, "00ff", "published", 10, ["aa", "bb"], reading="degree0", seed=0, params=None)
    assert found == {
        "tool": "draftgraph", "tool_version": tool_version(), "search": "published", "budget": 10, "trace_hash": "00ff",
        "searched_prompts": ["aa", "bb"],
        "prompt_set_hash": "ab", "prompts": 3, "dtype": "float32", "generation_length": 64,
        "reading": "degree0", "seed": 0,
    }  # fmt: skip
