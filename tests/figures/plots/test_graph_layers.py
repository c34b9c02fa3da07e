from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from drafting.graph import DraftGraph
from drafting.trie import PrefixTrie
from figures.canvas.style import SEQUENTIAL
from figures.draw import draw_all
from figures.plots.graph_layers import draw_graph_layers, graph_row, headline, lay_out, node_label, table_graph_layers
from figures.records.run import FigureDataError, Run, load_run
from tests.support.overlaps import assert_legible
from verify.graph.file import GraphFile, Validity, load_graph
from verify.graph.formulas import ROOT, Formula


def artist(figure: Figure, gid: str) -> Any:
    found = [item for item in figure.axes[0].get_children() if item.get_gid() == gid]
    assert len(found) == 1, gid
    return found[0]


def graph_file(nodes: Sequence[Formula], policy: str = "static:1", **values: Any) -> GraphFile:
    validity = Validity("made up", None, policy, 32, "dual", 0.0, 8)
    return GraphFile.from_nodes([ROOT, *nodes], validity, values={"search": values})


def best_graph(run: Run, policy: str) -> GraphFile:
    return run.load_graph(graph_row(run, policy))


@pytest.mark.parametrize(
    ("node", "label"),
    [
        ((), "block\nnow"),
        (((1, 1),), "1"),
        (((3, 2),), "3:2"),
        (((1, 1), (2, 1)), "1 2"),
        (((1, 1), (2, 1), (3, 1)), "1–3"),
        (((1, 1), (2, 1), (3, 1), (5, 2)), "1–3 5:2"),
        (((1, 2), (2, 1), (3, 1), (4, 1), (7, 1)), "1:2 2–4\n7"),
        (((1, 1), (10, 2), (12, 3), (17, 4)), "1 10:2\n12:3\n17:4"),
    ],
)
def test_labels_are_compact_and_say_all(node: Formula, label: str) -> None:
    assert node_label(node) == label


@pytest.mark.parametrize("policy", ["static:1", "threshold:0.9"])
def test_nodes_carry_counts_and_reach(run: Run, policy: str) -> None:
    figure = draw_graph_layers(best_graph(run, policy))
    row = graph_row(run, policy)
    assert (row.method, row.budget) == ("greedy", 32)
    graph = load_graph(run.directory / str(row.graph))
    counts = np.array(graph.values["search"]["node_counts"][1:])
    reach = graph.values["search"]["node_reach"][1:]
    drafts = artist(figure, "drafts")
    areas = drafts.get_sizes()
    assert len(areas) == 32
    large = areas > areas.min()
    assert large.sum() > 10
    np.testing.assert_allclose(areas[large] / counts[large], areas.max() / counts.max())
    bar = figure.axes[1]
    assert bar.get_ylabel() == "probability of\nacceptance (%)"
    top = bar.get_ylim()[1]
    assert 100 * max(reach) <= top < 100 * max(reach) + 10
    np.testing.assert_allclose(drafts.get_facecolors(), [SEQUENTIAL(100 * value / top) for value in reach], atol=1e-9)
    labels = [t.get_text() for t in figure.axes[0].texts]
    assert labels == [node_label(node) for node in graph.nodes]


@pytest.mark.parametrize("policy", ["static:1", "threshold:0.9"])
def test_the_largest_graph_is_legible(run: Run, policy: str) -> None:
    figure = draw_graph_layers(best_graph(run, policy))
    assert_legible(figure)
    axes = figure.axes[0]
    assert axes.get_xlabel() == "denoising steps ahead"
    inside = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1


@pytest.mark.parametrize("policy", ["static:1", "threshold:0.9"])
def test_nodes_of_a_layer_keep_their_distance_and_labels_stay_off_other_nodes(run: Run, policy: str) -> None:
    figure = draw_graph_layers(best_graph(run, policy))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    drafts = artist(figure, "drafts")
    centres = axes.transData.transform(drafts.get_offsets())
    radii = np.sqrt(drafts.get_sizes() / np.pi) * figure.dpi / 72
    for index in range(1, 33):
        box = artist(figure, f"label/{index}").get_window_extent()
        for other, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
            nearest = np.clip(centre, (box.x0, box.y0), (box.x1, box.y1))
            assert np.hypot(*(nearest - centre)) >= radius - 1, (index, other)


def test_layers_are_steps_ahead_and_edges_one_step(run: Run) -> None:
    graph = load_graph(run.directory / str(graph_row(run, "static:1").graph))
    laid = lay_out(graph)
    assert laid.layers == list(graph.depths)
    assert set(laid.edges) == set(graph.edges)
    figure = draw_graph_layers(best_graph(run, "static:1"))
    assert list(artist(figure, "drafts").get_offsets()[:, 0]) == laid.layers[1:]
    segments = artist(figure, "edges").get_segments()
    assert len(segments) == len(graph.edges)
    ends = {(round(line[0][1], 6), round(line[-1][1], 6)) for line in segments}
    assert ends == {(round(laid.places[a], 6), round(laid.places[b], 6)) for a, b in graph.edges}


def test_a_threshold_graph_shows_no_edge_that_a_path_implies() -> None:
    # Under a threshold rule the root may be followed by anything: six edges, of which three say it all.
    nodes: list[Formula] = [((1, 1),), ((1, 1), (2, 1)), ((1, 1), (2, 1), (3, 1))]
    graph = graph_file(nodes, policy="threshold:0.9")
    assert len(graph.edges) == 6
    laid = lay_out(graph)
    assert laid.edges == [(0, 1), (1, 2), (2, 3)]
    assert laid.layers == [0, 1, 2, 3]


def test_the_headline_tells_depth_and_held_out_value(run: Run) -> None:
    graph = load_graph(run.directory / "graphs/static-1-greedy-D10.json")
    title, note = (text.get_text().replace("\n", " ").replace("\u00a0", " ")
                      for text in draw_graph_layers(graph).texts)  # fmt: skip
    worth = graph.values["test"]["accepted_drafts"]
    depth = max(graph.depths)
    assert title == (
        f"static:1, greedy, D = 10: looks up to {depth} steps ahead, {worth:.2f} drafts accepted per anchor on "
        "96 held-out (test) prompts"
    )
    best = max(graph.values["search"]["node_reach"][1:])
    assert f"accepted at {100 * best:.0f} % of anchors" in note


def test_the_table_holds_every_node(run: Run) -> None:
    graph = load_graph(run.directory / str(graph_row(run, "static:1").graph))
    lines = list(csv.DictReader(io.StringIO(table_graph_layers(graph).to_csv())))
    assert [line["formula"] for line in lines] == [" ".join(f"{i}:{j}" for i, j in node) for node in graph.nodes]
    assert [int(line["count"]) for line in lines] == graph.values["search"]["node_counts"]
    assert [float(line["reach"]) for line in lines] == graph.values["search"]["node_reach"]
    assert [int(line["layer"]) for line in lines] == list(graph.depths)
    parents = {(int(parent), int(line["node"])) for line in lines for parent in line["parents"].split()}
    assert parents == set(graph.edges)


@pytest.mark.parametrize("bare", [False, True])
def test_a_graph_without_counts_and_reach_is_drawn_plainly(bare: bool) -> None:
    file = graph_file([((1, 1),), ((2, 1),), ((1, 1), (2, 1))])
    graph = DraftGraph.from_graph_file(file) if bare else file
    figure = draw_graph_layers(graph)
    assert len(figure.axes) == 1  # no colour bar
    assert not figure.legends
    assert len(set(artist(figure, "drafts").get_sizes())) <= 1
    assert table_graph_layers(graph).column("count") == [None] * 4
    assert_legible(figure)


def test_an_annotated_graph_is_laid_out_with_its_own_attributes() -> None:
    a, ab = ((1, 1),), ((1, 1), (2, 1))
    trie = PrefixTrie.from_chains([[a, ab]] * 3 + [[a]] * 3 + [[]] * 4)
    laid = lay_out(DraftGraph.from_formulas([ab, a], step_size=1).annotate(trie))
    assert (laid.nodes, laid.counts, laid.reach) == ((ROOT, a, ab), [10, 6, 3], [1.0, 0.6, 0.3])
    assert_legible(draw_graph_layers(DraftGraph.from_formulas([ab, a], step_size=1).annotate(trie)))


def test_the_shapes_at_both_ends() -> None:
    fan = [((i, j),) for i in range(1, 17) for j in (1, 2)]
    figure = draw_graph_layers(graph_file(fan, node_counts=[99] + [9] * 32))
    assert_legible(figure)


def test_a_deep_chain_is_legible() -> None:
    chain = [tuple((i, 2) for i in range(1, n + 1)) for n in range(1, 32)]
    figure = draw_graph_layers(graph_file(chain[:9], node_reach=[1.0] + [0.5] * 9))
    assert_legible(figure)


def test_which_graph_is_drawn(run: Run) -> None:
    assert graph_row(run, "static:1", budget=8).budget == 8
    with pytest.raises(FigureDataError, match=r"no row of a calibrated graph .* policy static:1, budget of 7"):
        graph_row(run, "static:1", budget=7)
    with pytest.raises(FigureDataError, match="policy static:2, budget up to 32"):
        graph_row(run, "static:2")


def test_a_graph_too_large_to_label_is_not_chosen_by_itself(changed: Callable[..., Path]) -> None:
    def change(payload: dict[str, Any]) -> None:
        rows = [row for row in payload["rows"] if row["method"] == "greedy" and row["budget"] == 32]
        payload["rows"] += [row | {"budget": 64} for row in rows]

    run = load_run(changed(change))
    assert graph_row(run, "static:1").budget == 32
    assert graph_row(run, "static:1", budget=64).budget == 64


def test_a_graph_file_is_drawn_on_its_own(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes((run.directory / "graphs/static-1-greedy-D10.json").read_bytes())
    paths = draw_all(file)
    assert [path.relative_to(tmp_path) for path in paths] == [
        Path(f"mine-figures/graph.{kind}") for kind in ("png", "svg", "csv")
    ]
    with pytest.raises(FigureDataError, match="nothing to draw in it"):
        draw_all(tmp_path)  # a folder of graphs is not a request to draw all of them
    file.write_text('{"format": "draftgraph", "version": 99}')
    with pytest.raises(FigureDataError, match="version"):
        draw_all(file)


def test_a_graph_that_nobody_could_read_is_refused() -> None:
    fan = [((i, j),) for i in range(1, 33) for j in range(1, 9)]
    with pytest.raises(FigureDataError, match="the graph has 257 draft nodes, expected at most 256; a drawing of more"):
        draw_graph_layers(graph_file([*fan, ((1, 1), (2, 1))]))


def test_a_graph_that_knows_its_origin_is_headed_like_its_file() -> None:
    graph = DraftGraph.from_formulas([((1, 1),)], step_size=1).annotate(PrefixTrie.from_chains([[((1, 1),)], []]))
    assert headline(graph, lay_out(graph)) == "D = 1: looks up to 1 step ahead"
    file = graph_file([((1, 1),)])
    graph.graph.update(validity=file.validity, provenance={"search": "greedy"})
    assert headline(graph, lay_out(graph)).startswith("static:1, greedy, D = 1: looks up to 1 step ahead, 0.50 drafts")
