"""The divergence file: what ``draftgraph verify --out`` writes, JSON for figures and one CSV row per divergence."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.files import write_atomically, write_json
from calibrate.version import tool_version
from studies.divergence.divergences import Divergence
from studies.divergence.summary import PATH, TOKENS, Arm, DivergenceReport

DIVERGENCE_FORMAT = "draftgraph-divergence"
DIVERGENCE_VERSION = 1
PARTING_COLUMNS = ("arm", *(item.name for item in fields(Divergence)), "tokens_differ")
#: Of the margins of all decisions: enough for a curve, whatever the number of decisions.
_QUANTILES = 201


def save_divergence(report: DivergenceReport, config: Mapping[str, Any], out: Path) -> tuple[Path, Path]:
    """Write the report as JSON, and its divergences as CSV beside it, one row each; returns both paths.

    Args:
        report: what was found.
        config: what was decoded and how, for the reader.
        out: the JSON file.
    """
    divergences = [row for arm in report.arms for row in _parting_rows(arm)]
    margins = report.decision_margins
    write_json(
        out,
        {
            "format": DIVERGENCE_FORMAT,
            "version": DIVERGENCE_VERSION,
            "tool_version": tool_version(),
            "config": dict(config),
            "sentence": report.sentence,
            "dtype": report.dtype,
            "prompts": report.prompts,
            "reference_forwards": report.reference_forwards,
            "arms": [_arm_row(arm) for arm in report.arms],
            "comparisons": [asdict(comparison) for comparison in report.comparisons],
            "divergences": divergences,
            "decisions": len(margins),
            "decision_margin_quantiles": (
                np.quantile(margins, np.linspace(0, 1, _QUANTILES)).tolist() if len(margins) else []
            ),
        },
    )
    table = csv_path(out)
    text = io.StringIO()
    writer = csv.DictWriter(text, PARTING_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(divergences)
    with write_atomically(table) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return out, table


def csv_path(out: Path) -> Path:
    """Where the divergences of ``out`` are written."""
    return out.with_name(out.name.removesuffix(".json") + ".csv")


def _parting_rows(arm: Arm) -> list[dict[str, Any]]:
    return [
        {"arm": arm.name, **asdict(divergence), "tokens_differ": arm.tokens_differ[divergence.prompt_index]}
        for divergence in arm.divergences
    ]


def _arm_row(arm: Arm) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm.name, "label": arm.label, "batch": arm.batch, "prompts": len(arm.path_parts)}
    for name, measure in (("tokens_differ", TOKENS), ("path_parts", PATH)):
        share = arm.share(measure)
        row |= {name: share.count, f"{name}_low": share.low, f"{name}_high": share.high}
    return row | {
        "token_agreement": arm.token_agreement,
        "token_agreement_low": arm.token_agreement_low,
        "token_agreement_high": arm.token_agreement_high,
        "forwards": arm.forwards,
        "rows": arm.rows,
        "seconds": arm.seconds,
    }
