"""The kit as others run it: an installed package with a rule, the page's example, and pytest in a fresh interpreter."""

import os
import re
import subprocess
import sys

from tests.support.paths import DOCS, ROOT

IMPURE = '''
import numpy as np
from dataclasses import dataclass

@dataclass(frozen=True)
class Dice(Mine):
    """Commit as many as a die says."""

    name = "dice"

    def choose(self, found, state, rng):
        return int(np.random.randint(1, 7)), state

RULES = (RULE, Rule.of(Dice, "nowhere", ["dice:0.5"]))
'''


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_example_of_the_page(tmp_path):
    """One run: the page's own test, and the kit's on a bad rule of the same package."""
    rule, test = re.findall(
        r"```python\n(.*?)```", (DOCS / "conformance.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (tmp_path / "mine.py").write_text(rule + IMPURE)
    (tmp_path / "test_mine.py").write_text(test)
    info = tmp_path / "draftgraph_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: draftgraph-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[draftgraph.policies]\nmine = mine:RULES\n")
    plugin = ("-p", "studies.conformance.plugin", "--pyargs", "studies.conformance", "test_mine.py")
    code, said = run(tmp_path, *plugin, "--policy", "dice:0.5")
    assert code == 1
    failed = re.findall(r"^FAILED (\S+?)::\S+?\[(.*?)\]", said, flags=re.MULTILINE)
    assert failed and all("dice:0.5" in case for _, case in failed), said[-3000:]
    assert len(failed) == said.count("\nFAILED "), said[-3000:]  # the page's own tests, which have no cases, pass
    assert "dice:0.5 purity" in [case for _, case in failed]
    assert "is not pure" in said
