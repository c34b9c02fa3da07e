"""The commands of docs/models.md, from a checkpoint to a graph, on tiny checkpoints of the same families."""

import json
import re
import shlex

import pytest

from tests.support.command_line import run
from tests.support.families import save
from tests.support.paths import ROOT

RECIPES = re.findall(r"    MODEL=(\S+)\n((?:    draftgraph .*\n)+)", (ROOT / "docs" / "models.md").read_text("utf-8"))
FAMILIES = {"GSAI-ML/LLaDA": "llada", "Dream-org": "dream", "JetLM/SDAR": "sdar", "inclusionAI/LLaDA2": "llada2"}


def write_prompts(path, first):
    lines = [{"tokens": [3 + (7 * n + k * k) % 45 for k in range(5 + n % 3)]} for n in range(first, first + 3)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_there_is_one_for_each_family():
    assert [len(lines.splitlines()) for _, lines in RECIPES] == [5] * len(FAMILIES)


@pytest.mark.parametrize(("model", "lines"), RECIPES)
def test_a_recipe_runs(model, lines, tmp_path, monkeypatch):
    """As it stands, but for the model, the prompts (token ids need no template) and the length."""
    monkeypatch.chdir(tmp_path)
    family = next(family for name, family in FAMILIES.items() if model.startswith(name))
    folder = str(save(family, tmp_path / "model"))
    sets = {"": write_prompts(tmp_path / "search.jsonl", 0), "test": write_prompts(tmp_path / "test.jsonl", 7)}
    for line in lines.splitlines():
        prompts = sets["test" if "--split test" in line or " verify " in line else ""]
        line = line.replace(" --chat", "").replace(" --split test", "").replace(" --limit 50", "")
        arguments = [{"$MODEL": folder, "$PROMPTS": prompts}.get(word, word) for word in shlex.split(line)[1:]]
        if arguments[0] in ("record", "verify"):
            arguments += ["--generation-length", "32"]
        said = run(*arguments)
    assert "identical token sequences" in said and "3 of 3" in said
