"""The benchmark of the runtime core measures what it says, on little."""

import json
import sys

import pytest

from benchmarks import runtime_core


def test_all_of_it_on_little(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_core, "NODES", 300)
    monkeypatch.setattr(runtime_core, "VOCABULARY", 32)
    monkeypatch.setattr(sys, "argv", ["runtime_core", "--cases", "6", "--out", str(tmp_path / "found.json")])
    runtime_core.main()
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["loading"]["nodes"] == 300 and found["loading"]["edges"] > 300
    assert found["vectors"]["agreed"] == {"numpy": 6, "torch": 6}
    assert sum(found["vectors"]["by_accepted_drafts"].values()) == 6
    for core in ("numpy", "torch"):
        assert min(found["anchor"][core].values()) >= 0 and len(found["anchor"][core]) == 4
