"""What every figure owes its reader, whatever the saved file holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import figures.draw
from figures.draw import draw_all
from tests.support import saved_inputs
from tests.support.overlaps import outside, visible_texts
from tests.support.synthetic_run import write_run

#: Begins like mathematics, which matplotlib would try to parse and stop at.
HOSTILE = "$\\frac{ $x_{"
#: Fields whose text is a name or a remark; others are words of the format.
FREE = {
    "model", "device", "dtype", "policy", "cache", "label", "search", "note", "method", "against", "name", "domain",
    "warm_start", "reading", "first", "second",
}  # fmt: skip
KINDS: dict[str, Callable[[], saved_inputs.Payload]] = {
    "calibration-size": saved_inputs.calibration_size,
    "study": saved_inputs.study,
    "front-query-tokens": lambda: saved_inputs.pareto("query_tokens"),
    "front-domains": lambda: saved_inputs.pareto("domains"),
    "latency": saved_inputs.latency,
    "budget": saved_inputs.budget,
    "divergence": saved_inputs.divergence,
    "quality": saved_inputs.quality,
    **{
        f"ablate-{study}": lambda study=study: saved_inputs.ablation(study)  # type: ignore[misc]
        for study in ("domain", "policy", "temperature", "block-length", "method", "accumulation")
    },
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that draw_all saves, in its order."""
    found: list[Figure] = []
    save = figures.draw.save_figure
    monkeypatch.setattr(figures.draw, "save_figure", lambda figure, *rest: found.append(figure) or save(figure, *rest))
    return found


def hostile(value: Any, key: str = "") -> Any:
    """``value`` with every name in it made to begin like mathematics."""
    if isinstance(value, dict):
        # The importances of a study are named by its parameters.
        return {HOSTILE + k if key == "importances" else k: hostile(item, k) for k, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, key) for item in value]
    # Without drafts a row of a study of quality is plain by this word.
    return HOSTILE + value if isinstance(value, str) and key in FREE and value != "plain" else value


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_never_parsed_as_mathematics(kind: str, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_all(saved_inputs.write(tmp_path / "file.json", hostile(KINDS[kind]())))
    assert drawn
    for figure in drawn:
        assert "$\\frac{" in texts(figure)
        assert not any(text.get_parse_math() for text in figure.findobj(Text))  # type: ignore[attr-defined]
        assert not outside(figure, visible_texts(figure))


def test_names_of_a_run_are_never_parsed_as_mathematics(tmp_path: Path, drawn: list[Figure]) -> None:
    run = write_run(tmp_path / "run", anchors=100)
    payload = json.loads((run / "results.json").read_text())
    payload["rows"] = [row for row in payload["rows"] if row["method"] != "lp_bound"]
    (run / "results.json").write_text(json.dumps(hostile(payload)))
    draw_all(run)
    assert len(drawn) == 7
    for figure in drawn:
        # A drawing of a graph repeats nothing of the results, only what the graph file says.
        assert "$\\frac{" in texts(figure) or "denoising steps ahead" in texts(figure)


def test_a_graph_file_is_never_parsed_as_mathematics(tmp_path: Path, drawn: list[Figure]) -> None:
    run = write_run(tmp_path / "run", anchors=100)
    payload = json.loads((run / "graphs/static-1-greedy-D10.json").read_text())
    payload["provenance"]["search"] = HOSTILE
    draw_all(saved_inputs.write(tmp_path / "graph.json", payload))
    assert "$\\frac{" in texts(drawn[0])


def few(value: Any) -> Any:
    """``value`` with five prompts wherever it counts the prompts that judge."""
    if isinstance(value, dict):
        return {k: 5 if k in ("prompts", "test_prompts", "search_prompts") else few(v) for k, v in value.items()}
    return [few(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("latency", "budget", "calibration-size")])
def test_no_figure_concludes_anything_from_five_prompts(kind: str, tmp_path: Path, drawn: list[Figure]) -> None:
    small = {"divergence": lambda: saved_inputs.divergence(2, 3), "quality": lambda: saved_inputs.quality(prompts=5)}
    payload = small.get(kind, KINDS[kind])()
    draw_all(saved_inputs.write(tmp_path / "file.json", few(payload)))
    for figure in drawn:
        heading = figure.texts[0].get_text().replace("\n", " ")
        assert heading.startswith("Only 5 "), heading
        assert heading.endswith(" prompts: too few to conclude anything")


def test_a_curve_of_calibration_sizes_concludes_nothing_from_five_prompts(tmp_path: Path, drawn: list[Figure]) -> None:
    payload = saved_inputs.calibration_size()
    for row in payload["rows"]:
        row["prompts"] = 5
    draw_all(saved_inputs.write(tmp_path / "file.json", payload))
    assert drawn[0].texts[0].get_text() == "Only 5 held-out (test) prompts: too few to conclude anything"


def test_a_run_concludes_nothing_from_five_prompts(tmp_path: Path, drawn: list[Figure]) -> None:
    run = write_run(tmp_path / "run", anchors=100)
    (run / "results.json").write_text(json.dumps(few(json.loads((run / "results.json").read_text()))))
    draw_all(run)
    headings = [figure.texts[0].get_text().replace("\n", " ") for figure in drawn]
    said = "Only 5 held-out (test) prompts: too few to conclude anything"
    searched = "Only 5 search prompts: too few to conclude anything"
    assert [heading for heading in headings if "looks up to" not in heading] == [said, said, said, searched, searched]


@pytest.mark.parametrize("kind", KINDS)
def test_per_cent_is_written_in_one_way(kind: str, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_all(saved_inputs.write(tmp_path / "file.json", KINDS[kind]()))
    for figure in drawn:
        whole = texts(figure).replace("\u00a0", " ")
        assert not [place for place in range(1, len(whole)) if whole[place] == "%" and whole[place - 1].isdigit()]
