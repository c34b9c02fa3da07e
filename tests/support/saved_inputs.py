"""Saved files with made-up but plausible numbers, in the form in which studies write them; nothing here is a result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

Payload = dict[str, Any]

BUDGETS = range(1, 9)  # of the front over rows
DOMAINS = ("lists", "code", "stories", "lines", "all")  # of the study of domains


def write(path: Path, payload: Payload) -> Path:
    path.write_text(json.dumps(payload))
    return path


def calibration_size() -> Payload:
    rows, answers = [], []
    for budget, helps in ((10, False), (32, True)):
        for size, value in ((5, 2.6), (10, 2.75), (20, 2.8), (22, 2.82), (40, 2.84), (43, 2.85)):
            value += 0.02 * budget
            rows.append(
                {
                    "method": "greedy", "budget": budget, "search_prompts": size, "draws": 1 if size == 43 else 10,
                    "in_sample_nfe_reduction": value + 2 / size, "prompts": 21, "nfe_reduction": value,
                    "nfe_reduction_low": value - 0.2, "nfe_reduction_high": value + 0.2,
                    "draws_low": value - 0.5 / size,
                    "draws_high": value + 0.4 / size, "accepted_drafts": 2.9, "forwards_plain": 1408,
                    "forwards_mean": 492.5,
                }
            )  # fmt: skip
        answers.append(
            {
                "budget": budget, "half": 22, "whole": 43, "gain": 0.03 if helps else -0.01,
                "gain_interval": [0.01, 0.05] if helps else [-0.04, 0.02], "more_would_help": helps, "sentence": "...",
            }
        )  # fmt: skip
    config = {"seed": 0, "draws": 10, "traces": ["a", "b"], "tool_version": "0.1.0"}
    return {"format": "draftgraph-calibration-size", "version": 1, "config": config, "rows": rows, "answers": answers}


def ablation(study: str) -> Payload:
    """Each value is a function of setting, method and budget, so that tests can state it again."""
    settings = {
        "domain": [f"{made} -> {run}" for made in DOMAINS for run in DOMAINS],
        "policy": ["static:1", "static:2", "threshold:0.95", "threshold:0.9", "threshold:0.8", "threshold:0.7"],
        "temperature": ["0", "0.25", "0.5", "0.75", "1"],
        "block-length": ["8", "16", "32"],
        "method": ["static:1", "threshold:0.9"],
        "accumulation": ["static:1"],
    }[study]
    methods = {
        "domain": ["chain", "greedy"],
        "method": ["chain", "published:degree0", "published:degree1/all", "greedy", "cut"],
        "accumulation": [
            "published:degree0", "published:degree1/all", "published:degree1/chosen", "published:total/all",
            "published:total/chosen",
        ],
    }.get(study, ["chain", "published:degree1/all", "greedy"])  # fmt: skip
    rows = []
    for place, setting in enumerate(settings):
        for number, method in enumerate(methods):
            for budget in (5, 10, 16):
                for split in ("search", "test"):
                    value = nfe(study, setting, place, number, budget) + (0.1 if split == "search" else 0.0)
                    rows.append(
                        {
                            "study": study, "setting": setting, "method": method, "budget": budget, "nodes": budget,
                            "split": split, "prompts": 48, "accepted_drafts": 1.1 * (value - 1),
                            "accepted_drafts_visited": value - 1, "accepted_drafts_low": value - 1.1,
                            "accepted_drafts_high": 1.3 * value, "forwards_plain": 3000,
                            "forwards_predicted": round(3000 / value), "nfe_reduction": value,
                            "nfe_reduction_low": value - 0.15, "nfe_reduction_high": value + 0.2,
                            "bound": 9.0 if split == "search" else None, "gap": None, "search_seconds": 0.01,
                        }
                    )  # fmt: skip
    config = {"study": study, "model": "synthetic", "cache": "dual", "budgets": [5, 10, 16]}
    return {"format": "draftgraph-ablation", "version": 1, "config": config, "question": "What?", "rows": rows}


def nfe(study: str, setting: str, place: int, number: int, budget: int) -> float:
    """The held-out nfe reduction that :func:`ablation` writes."""
    if study == "domain":
        made, run = setting.split(" -> ")
        base = {"lists": 2.9, "code": 2.6, "stories": 1.9, "lines": 2.2, "all": 2.4}[run]
        # The chain is made on nothing; a graph of another domain loses, one of all domains less.
        return base - 0.4 if number == 0 else base - {run: 0.0, "all": 0.1}.get(made, 0.3) + 0.01 * budget
    return 2.5 - 0.2 * place + 0.15 * number + 0.01 * budget


def study() -> Payload:
    """A study of one objective: 60 trials, one of them bad, one failed and one pruned."""
    trials: list[Payload] = []
    for n in range(60):
        value = 0.36 + 0.03 / (1 + n) + 0.002 * (n * 7 % 5)
        warm = {0: "greedy", 1: "published:degree1/all"}.get(n)
        trials.append(_trial(n, [0.9 if n == 7 else value], "pruned" if n == 9 else "complete", warm))
    trials[8] |= {"values": [], "value": None, "state": "fail"}
    trials[9]["values"] = [0.355]  # of few prompts: no record
    forwards = {
        "chain": 390, "tree_greedy": 372, "published:degree1/all": 388, "published:degree1/chosen": 391, "greedy": 368,
        "cut": 368, "exact": 369, "optuna": 360,
    }  # fmt: skip
    rows = []
    for method, count in forwards.items():
        for budget in (5, 10):
            for split in ("validation", "test"):
                own = count - 10 * (budget == 10)
                rows.append(
                    {
                        "method": method, "budget": budget, "split": split, "forwards_plain": 1000, "forwards": own,
                        "nfe_reduction": 1000 / own,
                    }
                )  # fmt: skip
    verdicts = {name: verdict(name, 0.02 * n - 0.01) for n, name in enumerate(forwards) if name != "optuna"}
    return {
        **_study_header("forwards"),
        "objective": "forward passes per denoising step on held-out prompts, mean over the budgets",
        "trials": trials,
        "best": {"number": 59, "value": 0.3605, "params": {}, "warm_start": None, "nodes": [], "complete": True},
        "importances": [{"depth_discount": 0.6, "parent_bonus": 0.3, "vocabulary_exponent": 0.1}],
        "baselines": rows,
        "comparisons": verdicts,
        "pareto": [],
    }


def verdict(against: str, difference: float) -> Payload:
    zero = abs(difference) < 0.04
    told = "cannot be told apart: the interval contains zero" if zero else "differ: the interval leaves zero out"
    return {
        "against": against, "difference": difference, "interval": [difference - 0.04, difference + 0.04],
        "level": 0.95, "prompts": 16, "contains_zero": zero, "forwards_ratio": 1.01,
        "sentence": f"the Optuna graph and the {against} graph {told} (nfe reduction {difference:+.3f}, 95% interval).",
        "by_budget": [],
    }  # fmt: skip


def pareto(kind: str) -> Payload:
    """A study of two objectives, kind "query_tokens" or "domains"."""
    if kind == "query_tokens":
        axes = [
            {"name": "tokens_per_forward", "direction": "maximize", "unit": "tokens per forward pass"},
            {"name": "query_tokens", "direction": "minimize", "unit": "query tokens per forward pass, L * (1 + D)"},
        ]
        # Optuna is better than greedy from D = 4 on, on the folds; on test prompts from D = 6 on.
        front = [_front("optuna", d, 1.5 + 0.1 * d + 0.02 * (d - 3), 1.5 + 0.1 * d + 0.01 * (d - 5)) for d in BUDGETS]
        for method, less in (("chain", 0.3), ("published:degree1/all", 0.2), ("published:degree0", 0.4), ("greedy", 0)):
            front += [_front(method, d, 1.5 + 0.1 * d - less, 1.5 + 0.1 * d - less) for d in BUDGETS]
        trials = [_trial(n, [1.4 + 0.1 * (n % 8), 64.0 + 32 * (n % 8)], "complete", None) for n in range(30)]
    else:
        axis = {"name": "forwards_per_step", "direction": "minimize", "unit": "forward passes per denoising step"}
        axes = [axis | {"domain": "code"}, axis | {"domain": "lists"}]
        values = [("optuna", [0.36 + 0.01 * n, 0.42 - 0.01 * n]) for n in range(4)]
        values += [("greedy", [0.38, 0.41]), ("chain", [0.45, 0.46])]
        front = [{"method": name, "budget": None, "values": own, "test_values": None} for name, own in values]
        trials = [_trial(n, [0.36 + 0.004 * n, 0.45 - 0.002 * n], "complete", None) for n in range(20)]
    importances = [{"budget": 0.7, "markov": 0.3}, {"budget": 1.0}]
    return {**_study_header(kind), "axes": axes, "trials": trials, "importances": importances, "pareto": front}


def _study_header(kind: str) -> Payload:
    return {
        "format": "draftgraph-study", "version": 1, "name": "draftgraph", "trace_hash": "ab",
        "config": {"kind": kind, "budgets": [5, 10]},
        "run": {"model": "synthetic", "policy": "static:1", "cache": "dual", "block_length": 32},
        "search_prompts": 48, "test_prompts": 16, "optuna_version": "5.0.0",
    }  # fmt: skip


def _trial(number: int, values: list[float], state: str, warm: str | None) -> Payload:
    return {
        "number": number, "params": {"markov": 0.5}, "values": values, "state": state, "seconds": 0.1,
        "warm_start": warm, "prompts_seen": None,
    }  # fmt: skip


def _front(method: str, budget: int, value: float, tested: float) -> Payload:
    rows = 32.0 * (1 + budget)
    return {"method": method, "budget": budget, "values": [value, rows], "test_values": [tested, rows]}


def latency(drafts: int = 16) -> Payload:
    """A device with tiles of 128 rows: every fourth draft costs, and the first three nothing."""
    count = list(range(drafts + 1))
    median = [10.0 + 4.0 * (d // 4) for d in count]
    return {
        "format": "draftgraph-latency", "version": 1, "tool_version": "0.1.0", "device": "synthetic device",
        "dtype": "float32", "model": "synthetic", "backend": "packed", "block_length": 32, "context_length": 128,
        "batch": 1, "drafts": count, "query_tokens": [32 * (1 + d) for d in count], "latency": median,
        "low": [value - 0.5 for value in median], "high": [value + 1.0 for value in median], "refresh": 12.5,
        "repeats": 15, "unit": "ms", "note": "",
    }  # fmt: skip


def budget(best: int = 3) -> Payload:
    rows = []
    for d in range(9):
        forwards = round(1000 / (1 + 0.3 * d))
        time = 10.0 + 4.0 * (d // 4)
        spent = 200 * 10.0 + (forwards - 200) * time  # 200 refresh forwards carry no drafts
        speedup = 10_000 / spent
        rows.append(
            {
                "budget": d, "latency": time, "choice_speedup": 1.02 * speedup, "forwards": forwards,
                "milliseconds_per_forward": spent / forwards, "milliseconds_per_prompt": spent / 16,
                "speedup": speedup, "speedup_low": speedup - 0.08, "speedup_high": speedup + 0.09,
            }
        )  # fmt: skip
    return {
        "format": "draftgraph-budget", "version": 1, "sentence": "...", "at_edge": False, "search": "greedy",
        "budget": best, "budget_chosen_on": "search", "rows": rows, "latency": latency(8),
        "predicted_speedup": rows[best]["speedup"], "predicted_speedup_interval": [1.1, 1.3],
        "validity": {
            "model": "synthetic", "model_revision": None, "policy": "static:1", "block_length": 32, "cache": "dual",
            "temperature": 0.0, "top_j": 8,
        },
    }  # fmt: skip


def divergence(drafts: int = 6, batch: int = 9, tokens: int = 2) -> Payload:
    """Of 48 prompts ``drafts`` and ``batch`` leave the path; of each way's first ``tokens`` the tokens differ too."""
    counts = {"repeat": 0, "batch": batch, "blank": max(drafts - 1, 0), "drafts": drafts}
    labels = {"repeat": "plain again", "batch": "plain, batch 8", "blank": "blank drafts", "drafts": "speculation"}
    arms, divergences = [], []
    for place, (name, count) in enumerate(counts.items()):
        differ = min(count, tokens)
        arms.append(
            {
                "arm": name, "label": labels[name], "batch": 8 if name == "batch" else 1, "prompts": 48,
                "tokens_differ": differ, "tokens_differ_low": 0.5 * differ / 48,
                "tokens_differ_high": differ / 48 + 0.1, "path_parts": count,
                "path_parts_low": 0.5 * count / 48, "path_parts_high": count / 48 + 0.1,
                "token_agreement": 1.0 - 0.01 * differ, "token_agreement_low": 0.9, "token_agreement_high": 1.0,
                "forwards": 3000, "rows": 90000, "seconds": 12.5,
            }
        )  # fmt: skip
        for number in range(count):
            divergences.append(
                {
                    "arm": name, "prompt_index": number,
            "block": 0, "step": 3, "kind": "another position", "position": 5,
                    "other_position": 2, "margin": 0.0 if number == 0 else 10 ** (-4.5 + 0.3 * number + 0.1 * place),
                    "noise": 0.004, "tokens_differ": number < differ,
                }
            )  # fmt: skip
    comparisons = [
        {"first": "drafts", "second": "batch", "measure": measure, "only_first": 1, "only_second": 4, "p_value": 0.375,
         "verdict": "cannot be told apart"}
        for measure in ("tokens", "path")
    ]  # fmt: skip
    return {
        "format": "draftgraph-divergence", "version": 1, "tool_version": "0.1.0", "sentence": "...",
        "config": {"model": "synthetic", "policy": "static:1", "cache": "dual", "drafts": 10},
        "dtype": "bfloat16", "prompts": 48, "reference_forwards": 3000, "arms": arms, "comparisons": comparisons,
        "divergences": divergences, "decisions": 3000,
        "decision_margin_quantiles": [(k / 200) ** 4 for k in range(201)],
    }  # fmt: skip


def quality(domains: int = 2, prompts: int = 48) -> Payload:
    """Bold rules lose answers on the second and later tasks; drafts of D save 1 + log(1 + D) of the forward passes."""
    rules = {
        "static:1": (60.0, 0.0), "static:2": (30.0, 0.15), "static:4": (15.0, 0.5), "threshold:0.9": (20.0, 0.05),
        "threshold:0.8": (16.0, 0.15), "threshold:0.5": (8.0, 0.7),
    }  # fmt: skip
    rows = []
    for place, domain in enumerate(("lists", "lines", "stories", "code", "sums")[:domains]):
        for policy, (forwards, lost) in rules.items():
            valid = round(prompts * (0.98 - (lost if place else 0.0)))
            share = valid / prompts
            for method, budget in ((None, 0), ("greedy", 5), ("greedy", 10), ("informed", 5), ("informed", 10)):
                saved = 1 + (0.4 if method == "greedy" else 0.7) * math.log(1 + budget) * forwards / 60
                rows.append(
                    {
                        "domain": domain, "policy": policy, "method": method or "plain", "budget": budget,
                        "prompts": prompts, "valid": valid, "valid_low": max(0.0, share - 0.08),
                        "valid_high": min(1.0, share + 0.06), "forwards": forwards / saved,
                        "forwards_low": 0.9 * forwards / saved, "forwards_high": 1.1 * forwards / saved,
                        "nfe_reduction": saved, "nfe_reduction_low": saved - 0.05, "nfe_reduction_high": saved + 0.1,
                        "exact": True, "replayed": method is not None, "nodes": budget or None,
                        "measured_prompts": 4 if method else 0, "measured_identical": 4 if method else 0,
                        "forwards_measured": 50 if method else 0, "forwards_predicted": 50 if method else None,
                    }
                )  # fmt: skip
    config = {"study": "quality", "model": "synthetic", "cache": "dual", "block_length": 32, "dtype": "float32"}
    left_out = [{"reason": "no reference answer", "prompts": 3}]
    return {"format": "draftgraph-quality", "version": 1, "config": config, "rows": rows, "left_out": left_out}
