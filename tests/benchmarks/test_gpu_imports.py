"""A machine that only lends its GPU has torch and transformers, and not every package that studies use."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT


def test_the_gpu_benchmark_needs_neither_optuna_nor_matplotlib() -> None:
    code = "import sys\nfor name in ('optuna', 'matplotlib', 'typer', 'psutil'): sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
