"""A toy decode that yields traces, and the naive oracles: plain Python, written from the definitions alone."""

from __future__ import annotations

import numpy as np

from calibrate.prompts.encoding import prompt_hash
from calibrate.traces.table import Traces
from verify.graph.formulas import Formula, formula

VOCABULARY = 40


def toy_traces(
    seed: int,
    *,
    prompts: int = 4,
    blocks: int = 2,
    length: int = 8,
    top_j: int = 3,
    rule: str = "static:1",
    noise: float = 0.5,
    surprises: float = 0.0,
    idle: float = 0.0,
) -> Traces:
    """Decode ``prompts`` toy prompts of up to ``blocks`` blocks.

    Each position has a latent confidence and latent token scores that drift by ``noise`` per step, so ranks half
    persist, as they do in a model. ``surprises``: how often a committed token lies outside the recorded ranks.
    ``idle``: how often a step commits nothing.
    """
    rng = np.random.default_rng(seed)
    kind, _, value = rule.partition(":")
    rows: list[tuple[int, int, int]] = []
    masked_all, token_all, prob_all, commit_p, commit_t = [], [], [], [], []
    masked_n, commit_n = [], []
    for prompt_index in range(prompts):
        for block in range(int(rng.integers(1, blocks + 1))):
            confidence = rng.normal(size=length)
            score = rng.normal(size=(length, VOCABULARY))
            masked = list(range(length))
            step = 0
            while masked:
                step += 1
                confidence = confidence + noise * rng.normal(size=length)
                score = score + noise * rng.normal(size=score.shape)
                ranked = sorted(masked, key=lambda p: (-confidence[p], p))
                tokens = [np.argsort(-score[p], kind="stable")[:top_j] for p in ranked]
                if kind == "static":
                    count = int(value)
                else:
                    count = max(1, sum(confidence[p] > float(value) for p in ranked))
                if rng.random() < idle:
                    count = 0
                picked = sorted(ranked[:count])
                rows.append((prompt_index, block, step))
                masked_all.extend(ranked)
                token_all.extend(tokens)
                prob_all.extend([np.linspace(0.5, 0.1, top_j)] * len(ranked))
                masked_n.append(len(ranked))
                commit_n.append(len(picked))
                for p in picked:
                    token = int(tokens[ranked.index(p)][min(int(rng.geometric(0.8)), top_j) - 1])
                    commit_p.append(p)
                    commit_t.append(VOCABULARY if rng.random() < surprises else token)
                    masked.remove(p)
    prompt_column, block_column, step_column = (np.array(column, dtype=np.int32) for column in zip(*rows, strict=True))
    return Traces(
        prompt_index=prompt_column,
        block=block_column,
        step=step_column,
        masked_ptr=np.concatenate([[0], np.cumsum(masked_n)]).astype(np.int64),
        masked_position=np.array(masked_all, dtype=np.int16),
        top_token=np.array(token_all, dtype=np.int32).reshape(-1, top_j),
        top_probability=np.array(prob_all, dtype=np.float32).reshape(-1, top_j),
        commit_ptr=np.concatenate([[0], np.cumsum(commit_n)]).astype(np.int64),
        commit_position=np.array(commit_p, dtype=np.int16),
        commit_token=np.array(commit_t, dtype=np.int32),
        metadata={
            "policy": rule,
            "block_length": length,
            "top_j": top_j,
            "prompt_hashes": [prompt_hash([seed, prompt_index]) for prompt_index in range(prompts)],
        },
    )


def naive_blocks(traces: Traces) -> list[dict]:
    """Per block: prompt_index, block, number of steps, and per anchor its chain, by the definitions of
    docs/glossary.md.
    """
    steps: dict[tuple[int, int], list[dict]] = {}
    for s in range(traces.n_steps):
        low, high = traces.masked_ptr[s], traces.masked_ptr[s + 1]
        first, last = traces.commit_ptr[s], traces.commit_ptr[s + 1]
        steps.setdefault((int(traces.prompt_index[s]), int(traces.block[s])), []).append(
            {
                "masked": [int(p) for p in traces.masked_position[low:high]],
                "tokens": [list(map(int, row)) for row in traces.top_token[low:high]],
                "commits": {
                    int(p): int(t)
                    for p, t in zip(traces.commit_position[first:last], traces.commit_token[first:last], strict=True)
                },
            }
        )
    found = []
    for (prompt_index, block), block_steps in steps.items():
        n = len(block_steps)
        chains = []
        for a in range(1, n):  # the anchor after step a
            here = block_steps[a - 1]
            left = [p for p in here["masked"] if p not in here["commits"]]
            chain: list[Formula] = []
            pairs: list[tuple[int, int]] = []
            for later in range(a + 1, n):  # the state after step n is the full block
                commits = block_steps[later - 1]["commits"]
                named = []
                for position, token in commits.items():
                    best = here["tokens"][here["masked"].index(position)]
                    if token in best:
                        named.append((left.index(position) + 1, best.index(token) + 1))
                if not commits or len(named) < len(commits):
                    break
                pairs = pairs + named
                chain.append(formula(pairs))
            chains.append(chain)
        found.append({"prompt_index": prompt_index, "block": block, "steps": n, "chains": chains})
    return found


def naive_accepted(nodes: set[Formula], chain: list[Formula]) -> int:
    accepted = 0
    for state in chain:
        if state not in nodes:
            break
        accepted += 1
    return accepted


def naive_forwards(nodes: set[Formula], block: dict) -> tuple[int, list[int]]:
    """Forwards of one block and the anchors (steps) at which they start, by walking."""
    forwards, anchor, visited = 1, 1, []
    while anchor < block["steps"]:
        visited.append(anchor)
        forwards += 1
        anchor += 1 + naive_accepted(nodes, block["chains"][anchor - 1])
    return forwards, visited


def random_nodes(blocks: list[dict], rng: np.random.Generator, size: int) -> set[Formula]:
    """States that occur, the common ones more often, and one that never does."""
    states = [state for block in blocks for chain in block["chains"] for state in chain]
    chosen = {states[int(n)] for n in rng.integers(len(states), size=size)} if states else set()
    return chosen | {((99, 1),)}
