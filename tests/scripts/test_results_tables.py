"""The results page shows what its files hold."""

from __future__ import annotations

import pytest

from scripts import results_tables
from scripts.results_tables import PAGE, TABLES, estimate, filled, markdown


def test_the_page_shows_what_its_files_hold():
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text) == text, "run python -m scripts.results_tables, and read the text around the tables again"
    for name in TABLES:
        assert text.count(f"<!-- table {name} -->\n|") == 1, name


def test_a_table_is_put_in_its_place_and_nothing_else_changes(monkeypatch):
    monkeypatch.setitem(TABLES, "one", lambda: markdown(["a", "b"], [[1, "x"]]))
    text = "before\n<!-- table one -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    expected = "before\n<!-- table one -->\n| a | b |\n| --- | --- |\n| 1 | x |\n<!-- end -->\nafter <!-- end -->\n"
    assert filled(text) == filled(filled(text)) == expected


def test_an_unknown_table_is_refused():
    with pytest.raises(KeyError, match="two"):
        filled("<!-- table two -->\n<!-- end -->\n")


def test_rows_of_two_tasks_are_added_up(monkeypatch, tmp_path):
    """Forwards of an answer are means over the task's prompts: 3 prompts of 10 and 1 of 2 are 32 forwards in all."""
    (tmp_path / "docs" / "results").mkdir(parents=True)
    header = "domain,policy,method,budget,prompts,valid,forwards,replayed\n"
    rows = "a,r#0,plain,0,3,2,10,True\nb,r#0,plain,0,1,1,2,True\n"
    rows += "a,r#0,informed,5,3,2,5,True\nb,r#0,informed,5,1,1,1,False\n"
    (tmp_path / "docs" / "results" / "rules.csv").write_text(header + rows, encoding="utf-8")
    monkeypatch.setattr(results_tables, "ROOT", tmp_path)
    cells = [cell.strip() for cell in results_tables._rules_table().splitlines()[2].split("|")]
    assert cells[1:8] == ["`r`", "3/4", "8.0", "", "", "", "2.00*"]


def test_estimate():
    assert estimate((1.0, 0.954, 1.046)) == "1.00 [0.95, 1.05]"
    assert estimate((1.0, 0.954, 1.046), 3) == "1.000 [0.954, 1.046]"
