"""What a graph file says about its origin: for whom it is valid, and which search over which traces found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibrate.version import tool_version
from verify.graph.file import Validity
from verify.graph.validity import REQUIRED


def trace_validity(run: Mapping[str, Any]) -> Validity:
    """For whom a graph from a recording is valid; ``run`` is ``Traces.metadata``, the facts in its manifest.

    Raises:
        ValueError: a fact that graphs need was not recorded.
    """
    missing = [name for name in REQUIRED if name not in run]
    if missing:
        raise ValueError(
            f"the facts of the recording lack {', '.join(missing)}, expected {', '.join(REQUIRED)}; record again"
        )
    return Validity(**{name: run[name] for name in REQUIRED}, schedule=run.get("schedule"))


#: The field of a provenance that holds the hashes of all prompts that had a part in choosing the graph.
SEARCHED_PROMPTS = "searched_prompts"


def search_provenance(
    run: Mapping[str, Any],
    trace_hash: str,
    search: str,
    budget: int,
    searched_prompts: Sequence[str],
    **more: Any,
) -> dict[str, Any]:
    """The provenance of a graph file: the tool, the search, and the recording of the *search* prompts.

    Args:
        run: facts of the recording, see :func:`trace_validity`; what a recording does not state is left out.
        trace_hash: ``Traces.trace_hash()`` of it.
        search: name of the method.
        budget: draft nodes asked for.
        searched_prompts: ``Traces.prompt_hashes()`` of every prompt that chose the graph. A value on one of them is no
            held-out value, and commands that find one say so.
        more: further facts: the seed, what was chosen, parameters. Those that are None are left out.
    """
    recorded = ("prompt_set_hash", "prompts", "dtype", "generation_length")
    facts = {"tool": "draftgraph", "tool_version": tool_version(), "search": search, "budget": budget}
    facts |= {"trace_hash": trace_hash, SEARCHED_PROMPTS: list(searched_prompts)} | {
        name: run[name] for name in recorded if name in run
    }
    return facts | {name: value for name, value in more.items() if value is not None}
