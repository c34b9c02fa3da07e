"""The divergence file: what ``draftgraph verify --out`` writes, JSON for figures and one CSV row per divergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.files import write_csv
from figures.records.divergence import DivergenceFile, DivergenceRow, Way
from figures.records.record import save_record
from studies.divergence.summary import PATH, TOKENS, Arm, DivergenceReport

DIVERGENCE_COLUMNS = tuple(item.name for item in fields(DivergenceRow))
#: Of the margins of all decisions: enough for a curve, whatever the number of decisions.
_QUANTILES = 201


def save_divergence(report: DivergenceReport, config: Mapping[str, Any], out: Path) -> tuple[Path, Path]:
    """Write the report as JSON, and its divergences as CSV beside it, one row each; returns both paths.

    Args:
        report: what was found.
        config: what was decoded and how, for the reader.
        out: the JSON file.
    """
    margins = report.decision_margins
    quantiles = np.quantile(margins, np.linspace(0, 1, _QUANTILES)).tolist() if len(margins) else []
    record = DivergenceFile(
        dtype=report.dtype,
        prompts=report.prompts,
        arms=tuple(_way(arm) for arm in report.arms),
        divergences=tuple(row for arm in report.arms for row in _rows(arm)),
        decisions=len(margins),
        decision_margin_quantiles=tuple(quantiles),
        comparisons=report.comparisons,
        reference_forwards=report.reference_forwards,
        config=dict(config),
        sentence=report.sentence,
    )
    save_record(record, out)
    table = csv_path(out)
    write_csv(table, DIVERGENCE_COLUMNS, record.divergences)
    return out, table


def csv_path(out: Path) -> Path:
    """Where the divergences of ``out`` are written."""
    return out.with_name(out.name.removesuffix(".json") + ".csv")


def _rows(arm: Arm) -> list[DivergenceRow]:
    return [
        DivergenceRow(arm=arm.name, **asdict(found), tokens_differ=arm.tokens_differ[found.prompt_index])
        for found in arm.divergences
    ]


def _way(arm: Arm) -> Way:
    tokens, path = arm.share(TOKENS), arm.share(PATH)
    return Way(
        arm=arm.name,
        label=arm.label,
        batch=arm.batch,
        prompts=len(arm.path_parts),
        tokens_differ=tokens.count,
        tokens_differ_low=tokens.low,
        tokens_differ_high=tokens.high,
        path_parts=path.count,
        path_parts_low=path.low,
        path_parts_high=path.high,
        token_agreement=arm.token_agreement,
        token_agreement_low=arm.token_agreement_low,
        token_agreement_high=arm.token_agreement_high,
        forwards=arm.forwards,
        rows=arm.rows,
        seconds=arm.seconds,
    )
