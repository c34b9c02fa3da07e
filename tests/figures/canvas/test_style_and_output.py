from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.lines import Line2D

import figures
from figures.canvas.output import Table, save_figure
from figures.canvas.page import drawable, finish, legend_columns, new_figure
from figures.canvas.style import (
    METHOD_STYLES,
    READING_STYLES,
    SEQUENTIAL,
    WIDTH,
    method_order,
    method_style,
)
from figures.canvas.words import cautious, percent, plural, prompts_of
from figures.records.words import facts, file_name

# Machado, Oliveira and Fernandes (2009), severity 1.0, for linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def lab(colour: object, deficiency: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as someone with the deficiency sees it."""
    rgb = np.array(to_rgb(colour))  # type: ignore[arg-type]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(DEFICIENCIES[deficiency] @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_methods_stay_apart_under_colour_vision_deficiencies(deficiency: str) -> None:
    usual = ("chain", "tree_greedy", "published", "greedy", "exact", "lp_bound")
    for first, second in itertools.combinations(usual, 2):
        colours = [lab(METHOD_STYLES[name].colour, deficiency) for name in (first, second)]
        assert np.linalg.norm(colours[0] - colours[1]) > 15, (first, second)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_readings_of_the_published_rule_stay_apart(deficiency: str) -> None:
    for first, second in itertools.combinations(READING_STYLES.values(), 2):
        colours = [lab(style.colour, deficiency) for style in (first, second)]
        assert np.linalg.norm(colours[0] - colours[1]) > 15, (first, second)
    assert len({style.marker for style in READING_STYLES.values()}) == len(READING_STYLES)


def test_one_reading_looks_like_the_rule() -> None:
    style = method_style("published:degree1/all")
    assert (style.colour, style.marker) == (METHOD_STYLES["published"].colour, METHOD_STYLES["published"].marker)
    assert style.label == "published, degree1/all"
    names = ["greedy", "published:total/all", "chain"]
    assert sorted(names, key=method_order) == ["chain", "published:total/all", "greedy"]


@pytest.mark.parametrize("most", [3, 5])
def test_a_legend_is_never_wider_than_the_figure(most: int) -> None:
    handles = [Line2D([], [], label="a long name of a method " * (1 + n % 2)) for n in range(7)]
    figure = new_figure(2.0)
    finish(figure, "A headline", "", handles, columns=most)
    axes = figure.subplots()
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= axes.get_tightbbox().y0
    assert legend_columns([1.0], most) == 1
    assert legend_columns([1.0, 2.0, 1.5], 5) == 3
    assert legend_columns([3.0, 3.0, 3.0], 5) == 2
    assert legend_columns([2.0] * 6, 5) == 4  # two columns of two, two of one


def test_markers_and_colours_are_used_once() -> None:
    styles = list(METHOD_STYLES.values())
    assert len({style.marker for style in styles}) == len(styles)
    assert len({style.colour for style in styles} - {METHOD_STYLES["plain"].colour}) == len(styles) - 1
    assert len({style.label for style in styles}) == len(styles)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_sequential_map_only_gets_darker(deficiency: str) -> None:
    lightness = [lab(SEQUENTIAL(value)[:3], deficiency)[0] for value in np.linspace(0, 1, 32)]
    assert all(a > b for a, b in itertools.pairwise(lightness))
    white = lab("white", deficiency)
    assert np.linalg.norm(lab(SEQUENTIAL(0.0)[:3], deficiency) - white) > 15


def test_a_method_of_somebody_else_has_a_style_that_stays() -> None:
    style = method_style("their_search")
    assert style == method_style("their_search")
    assert style.label == "their search"
    assert style.marker not in {known.marker for known in METHOD_STYLES.values()}
    names = ["zeta", "greedy", "alpha", "chain", "lp_bound"]
    assert sorted(names, key=method_order) == ["chain", "greedy", "lp_bound", "alpha", "zeta"]


def test_a_heading_is_wrapped_into_the_figure_and_kept_clear_of_the_panels() -> None:
    figure = new_figure(3.0)
    axes = figure.subplots()
    headline, note = "A headline that is long " * 8 + "and says 99 % at D = 10", "A note," + " longer still" * 30
    finish(figure, headline, note)
    figure.draw_without_rendering()
    first, second = figure.texts
    for text in (first, second):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= axes.get_tightbbox().y1
        assert text.get_text().count("\n") >= 2
    assert first.get_window_extent().y0 >= second.get_window_extent().y1
    assert not any(line.startswith(("%", "=")) for line in first.get_text().splitlines())
    for text, whole in ((first, headline), (second, note)):
        assert text.get_text().replace("\n", " ").replace("\u00a0", " ") == whole


def test_saving_writes_three_files_and_leaves_no_other(tmp_path: Path) -> None:
    figure = new_figure(2.0)
    figure.subplots().plot([0, 1], [1, 3])
    table = Table(("policy", "x", "y"), (("threshold:0.9, b", 1, 0.1), ('say "x"', None, 1 / 3)))
    stem = tmp_path / "deep" / "curve-threshold-0.9"
    paths = save_figure(figure, stem, table)
    assert [path.name for path in paths] == [f"curve-threshold-0.9.{kind}" for kind in ("png", "svg", "csv")]
    assert sorted(path.name for path in stem.parent.iterdir()) == sorted(path.name for path in paths)
    assert imread(paths[0]).shape[:2] == (2.0 * 200, WIDTH * 200)
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    rows = list(csv.DictReader(io.StringIO(paths[2].read_text())))
    assert rows == [
        {"policy": "threshold:0.9, b", "x": "1", "y": "0.1"},
        {"policy": 'say "x"', "x": "", "y": repr(1 / 3)},
    ]
    before = {path: path.read_bytes() for path in paths}
    save_figure(figure, stem, table)
    assert {path: path.read_bytes() for path in paths} == before


def test_a_figure_that_cannot_be_drawn_leaves_the_old_files(tmp_path: Path) -> None:
    figure = new_figure(2.0)
    axes = figure.subplots()
    old = save_figure(figure, tmp_path / "curve", Table(("x",), ((1,),)))
    before = [path.read_bytes() for path in old]
    axes.yaxis.set_major_formatter(lambda value, _: {}[value])  # fails when it is rendered
    with pytest.raises(KeyError):
        save_figure(figure, tmp_path / "curve", Table(("x",), ((2,),)))
    assert [path.read_bytes() for path in old] == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a row of 2 cells expected"):
        Table(("a", "b"), ((1, 2), (1,)))
    assert Table(("a", "b"), ((1, 2), (3, 4))).column("b") == [2, 4]


def test_small_words() -> None:
    assert file_name("graph", "threshold:0.9") == "graph-threshold-0.9"
    assert file_name("graph", "a/../b c", None) == "graph-a-..-b-c"
    assert [plural(1, "prompt"), plural(12000, "prompt")] == ["1 prompt", "12,000 prompts"]
    assert prompts_of("test", [1, 1]) == "1 held-out (test) prompt"
    assert prompts_of("search", [8, 9]) == prompts_of("search", [None]) == "search prompts"
    found = {"model": "m", "policy": None, "batch": 1}
    assert facts(found, ("model", "policy", "batch", "dtype"), search="greedy") == "Model: m, batch: 1, search: greedy."
    assert facts({}, ("model",)) == ""


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"), (0.0001, "less than 0.1 %"), (0.004, "0.4 %"), (0.0949, "9 %"), (0.994, "99 %"), (0.997, "99.7 %"),
        (0.99949, "99.9 %"), (0.9999, "more than 99.9 %"), (1, "100 %"), (1.04, "104 %"),
    ],
)  # fmt: skip
def test_only_a_whole_is_100_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_twelve_prompts_are_the_fewest_to_conclude_from() -> None:
    assert cautious("It wins", [12, None, 48]) == cautious("It wins", [None]) == "It wins"
    assert cautious("It wins", [48, 11]) == "Only 11 held-out (test) prompts: too few to conclude anything"
    assert cautious("It wins", [1], "search") == "Only 1 search prompt: too few to conclude anything"


def test_texts_are_shown_as_they_are() -> None:
    figure = new_figure(2.0)
    axes = figure.subplots()
    axes.set_title("$\\frac{", loc="left")
    axes.set_xlabel("a\x1b[2Jb\u202e")
    axes.set_xticks([0, 1], ["$x$", "$$"])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: "$\\frac{")  # these are made while the figure is drawn
    finish(figure, "A model called $\\frac{ costs 5$ and 6$", "$", [Line2D([], [], label="$\\sqrt{")])
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert {"$\\frac{", "$x$", "$$", "$\\sqrt{", "A model called $\\frac{ costs 5$ and 6$"} <= set(shown)
    assert axes.get_xlabel() == "a\ufffd[2Jb\ufffd"
    assert not any(text.get_parse_math() for text in figure.findobj(matplotlib.text.Text) if text.get_text())
    assert drawable("two\nlines") == "two\nlines"


def test_a_long_word_is_broken_and_short_lines_are_filled() -> None:
    figure = new_figure(2.0)
    figure.subplots()
    # 1.6 lines: filled, not balanced to 80 % of the width as older figures were.
    headline = "word " * 25
    finish(figure, headline, "/a/very/long/path" * 20)
    figure.draw_without_rendering()
    lines = figure.texts[0].get_text().splitlines()
    widths = [len(line) for line in lines]
    assert len(lines) == 2
    assert figure.texts[0].get_window_extent().width > 0.9 * figure.bbox.width
    assert widths[1] < widths[0]
    for text in figure.texts:
        assert text.get_window_extent().x1 <= figure.bbox.x1
    assert figure.texts[1].get_text().replace("\n", "") == "/a/very/long/path" * 20


def test_drawing_needs_no_pyplot_and_no_settings(run: figures.Run) -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 3, "axes.titlesize": 40, "xtick.labelsize": 1}):
        figure = figures.draw_nfe_vs_budget(run)
        figure.draw_without_rendering()
        sizes = {text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()}
    assert min(sizes) >= 7
    assert max(sizes) <= 12
    assert dict(matplotlib.rcParams) == before


def test_unknown_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'; it has .*draw_all"):
        figures.nonsense  # noqa: B018
    assert "draw_all" in dir(figures)
    assert all(getattr(figures, name) for name in figures.__all__)
