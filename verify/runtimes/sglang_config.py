"""The file that SGLang is started with for draft graphs (``--dllm-algorithm-config``): written and read here.

It is a YAML mapping of plain numbers and texts that names a graph file or a drafter file. SGLang reads it; what reaches
us is a dictionary, and it is trusted as little as any other file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verify.drafters.contract import Drafter, Evidence, Proposal
from verify.drafters.file import DRAFTER_FORMAT, load_drafter
from verify.drafters.graph import GraphDrafter
from verify.files.strict_json import StrictJsonError, read_json
from verify.files.writing import write_atomically
from verify.graph.file import MAX_BYTES, MAX_KEYS, GraphFile, load_graph
from verify.graph.validity import Validity
from verify.policies.confidence import Dynamic, StaticTopK, Threshold
from verify.policies.contract import Policy
from verify.policies.specification import make_policy

#: The name that SGLang knows the algorithm by.
ALGORITHM = "DraftGraph"
#: The algorithm of SGLang whose steps are taken.
BASE = "LowConfidence"

KEYS = ("block_size", "threshold", "algorithm", "draftgraph_file", "draftgraph_drafts", "draftgraph_max_rows")

#: Keys of SGLang's other algorithms, and what these do that drafts do not allow.
_CHANGES = "changes tokens that are committed already"
_OTHERS = {
    "JointThreshold": (("edit_threshold", "max_post_edit_steps", "penalty_lambda", "vectorized_decoding"), _CHANGES),
    "JointThresholdInDel": ((), "inserts and deletes positions"),
    "Gemma4Renoise": (
        ("max_denoising_steps", "t_min", "t_max", "confidence_threshold", "stability_threshold"),
        "masks committed positions again",
    ),
}


class RuntimeConfigError(ValueError):
    """A configuration, or a model, that drafts cannot run with."""


class CompletingGraph(GraphDrafter):
    """The drafts of a graph, those that complete the block too: their keys and values are what the next block reads."""

    def for_sequence(self) -> CompletingGraph:
        return self

    def propose(self, evidence: Evidence) -> Proposal:
        base = evidence.base
        ranks = self.ranker.rank(base.ranked, base.index, evidence.masked)
        return Proposal.of(self.filler.fill(evidence.block, ranks, complete=True)[0])


@dataclass(frozen=True, eq=False)
class ServerDrafts:
    """What a server is asked to draft.

    Attributes:
        drafter: makes the drafts of every request.
        drafts: drafts per request and forward at most.
        max_rows: rows of a forward at most, those of the requests included; None: as many as requests may run.
        policy: SGLang's rule as one of ours; a drafter that looks ahead predicts with it.
    """

    drafter: Drafter
    drafts: int
    max_rows: int | None
    policy: Policy


def threshold_of(policy: str) -> float:
    """The ``threshold`` under which SGLang's ``LowConfidence`` follows a rule of ours.

    It commits every position whose probability is above the threshold, or the best one without such. That is
    ``dynamic:tau``, and ``static:1`` at a threshold of 1. ``threshold:tau`` commits a probability of exactly tau too;
    drafts that are filled for one are as good for the other.

    Raises:
        RuntimeConfigError: any other rule, or tokens that are drawn.
    """
    rule = make_policy(policy, stored=True)
    if rule.temperature == 0:
        if isinstance(rule, StaticTopK) and rule.k == 1 and rule.order == "confidence":
            return 1.0
        if isinstance(rule, Threshold) or (isinstance(rule, Dynamic) and rule.quota == 1):
            return float(rule.tau)
    raise RuntimeConfigError(
        f"SGLang's {BASE} cannot follow policy {policy}; calibrate for dynamic:tau, threshold:tau or static:1"
    )


def write_sglang_config(
    file: str | Path, out: str | Path, *, drafts: int | None = None, max_rows: int | None = None
) -> None:
    """Write to ``out`` what ``--dllm-algorithm-config`` takes, for the graph or drafter in ``file``.

    Args:
        file: a graph file or a drafter file; its absolute path is written.
        out: the YAML file.
        drafts: drafts per request and forward at most; as many as the file has when left out.
        max_rows: see :class:`ServerDrafts`.

    Raises:
        RuntimeConfigError: the file is for a decode that SGLang's server does not do.
        GraphFileError, DrafterFileError: the file is unsound.
    """
    path = Path(file).resolve()
    _, most, validity = _load(path)
    if validity is None:
        raise RuntimeConfigError(f"{path} does not say for whom it is valid; tune it for a model and a rule first")
    values: dict[str, Any] = {
        "block_size": validity.block_length,
        "threshold": threshold_of(validity.policy),
        "draftgraph_file": str(path),
        "draftgraph_drafts": most if drafts is None else drafts,
    }
    if max_rows is not None:
        values["draftgraph_max_rows"] = max_rows
    read_sglang_config(values, validity.block_length)
    lines = [f"# For {validity.model}: --dllm-algorithm {ALGORITHM} --dllm-algorithm-config {Path(out).name}"]
    lines += [f"{name}: {_yaml(value)}" for name, value in values.items()]
    with write_atomically(out) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _yaml(value: float | str) -> str:
    if isinstance(value, float):  # YAML takes 1e-05 for a text
        return np.format_float_positional(value)
    return json.dumps(value, ensure_ascii=False)


def read_sglang_config(config: Mapping[str, Any], block_size: int) -> ServerDrafts:
    """What the configuration asks for, every value of it checked.

    Args:
        config: the mapping of the YAML file.
        block_size: positions in a block, as SGLang has settled it.

    Raises:
        RuntimeConfigError: a key that is unknown or of another algorithm, a value out of range, or a file that was made
            for another decode than this one.
        GraphFileError, DrafterFileError: the file is unsound.
    """
    _check_keys(config)
    threshold = config.get("threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < math.inf:
        raise RuntimeConfigError(
            f"threshold is {threshold!r}, expected a number above 0; 1 commits one position a step"
        )
    path = config.get("draftgraph_file")
    if not isinstance(path, str):
        raise RuntimeConfigError(f"draftgraph_file is {path!r}, expected the path of a graph file or a drafter file")
    drafter, most, validity = _load(Path(path))
    if validity is not None:
        _check_validity(validity, path, block_size, float(threshold))
    drafts = _whole(config, "draftgraph_drafts", 0)
    rule = "static:1" if threshold >= 1 else f"dynamic:{np.format_float_positional(float(threshold))}"
    return ServerDrafts(
        drafter, most if drafts is None else min(drafts, most), _whole(config, "draftgraph_max_rows", 1),
        make_policy(rule),
    )  # fmt: skip


def _check_keys(config: Mapping[str, Any]) -> None:
    base = config.get("algorithm", BASE)
    if base in _OTHERS:
        raise RuntimeConfigError(
            f"algorithm is {base}, which {_OTHERS[base][1]}; drafts need commits that stay: {ALGORITHM} takes the "
            f"steps of {BASE} only"
        )
    if base != BASE:
        raise RuntimeConfigError(f"algorithm is {base!r}, expected {BASE} (or none)")
    for name in config:
        if name in KEYS:
            continue
        for other, (keys, what) in _OTHERS.items():
            if name in keys:
                raise RuntimeConfigError(
                    f"{name} belongs to {other}, which {what}; {ALGORITHM} takes the steps of {BASE} only: leave it out"
                )
        raise RuntimeConfigError(f"unknown key {name!r}, expected some of {', '.join(KEYS)}")


def _whole(config: Mapping[str, Any], name: str, least: int) -> int | None:
    value = config.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise RuntimeConfigError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return value


def _load(path: Path) -> tuple[Drafter, int, Validity | None]:
    """The drafter in a file, the most drafts that it proposes, and for whom it is valid."""
    try:
        found = read_json(path, MAX_BYTES, MAX_KEYS)
    except StrictJsonError as error:
        raise RuntimeConfigError(f"draftgraph_file {path}: {error}") from None
    if isinstance(found, dict) and found.get("format") == DRAFTER_FORMAT:
        file = load_drafter(path)
        return file.make(), file.drafts, file.validity
    graph = load_graph(path)
    return CompletingGraph(ordered_formulas(graph)), graph.budget, graph.validity


def ordered_formulas(graph: GraphFile) -> list[Any]:
    """The draft formulas, nearest to the root first: whoever takes the first of them has a parent of each."""
    order = sorted(range(1, len(graph.nodes)), key=lambda node: graph.depths[node])
    return [graph.nodes[node] for node in order]


def _check_validity(validity: Validity, path: str, block_size: int, threshold: float) -> None:
    wrong = []
    if validity.block_length != block_size:
        wrong.append(f"blocks of {validity.block_length} positions, and the server has {block_size}")
    if validity.cache != "block_causal":
        wrong.append(f"cache mode {validity.cache}, and the server's is block_causal")
    if validity.schedule is not None:
        wrong.append(f"blocks by {validity.schedule}, and the server's are all of one length")
    tau = threshold_of(validity.policy)
    if tau != threshold:
        wrong.append(f"policy {validity.policy} (threshold {tau}), and the server has threshold {threshold}")
    if wrong:
        raise RuntimeConfigError(f"{path} was made for " + "; for ".join(wrong))
