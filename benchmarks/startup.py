"""What starting the command line costs: processor seconds, and their ratio to ``python -c "import torch"``.

    python benchmarks/startup.py [--repeats 5] [--out FILE]

Processor seconds (user and system) of whole processes, the least of several repeats: what an idle core needs, whatever
else the machine does. The ratio holds on other machines too, where seconds do not. The graph and the traces that
``evaluate`` and ``search`` read are recorded first, with the bundled model (12 prompts, static:1).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def seconds(arguments: list[str], repeats: int) -> float:
    """Least processor seconds of a process over ``repeats`` runs; raises ``CalledProcessError`` when one fails."""
    least = float("inf")
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "startup.json")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    command = ["-m", "studies.cli"]
    with tempfile.TemporaryDirectory() as folder:
        traces, graph = f"{folder}/traces", f"{folder}/graph.json"
        for made in (
            ["record", "--limit", "12", "--policy", "static:1", "--out", traces],
            ["search", traces, "--out", graph],
        ):
            subprocess.run([sys.executable, *command, *made], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        torch = seconds(["-c", "import torch"], options.repeats)
        rows = []
        for arguments in (
            ["--version"],
            ["--help"],
            ["record", "--help"],
            ["inspect", graph],
            ["evaluate", graph, "--traces", traces],
            ["search", traces, "--out", graph, "--overwrite"],
            ["compare", graph, graph, "--traces", traces],
            ["export", graph, "--out", f"{folder}/graph.safetensors", "--overwrite"],
        ):
            taken = seconds([*command, *arguments], options.repeats)
            shown = " ".join("..." if word.startswith(folder) else word for word in arguments)
            rows.append({"command": shown, "seconds": round(taken, 3), "ratio": round(taken / torch, 3)})
            print(f"{shown:<40} {taken:6.2f} s  {taken / torch:5.2f} of import torch")
    facts = {
        "what": "least processor seconds of a process, and their ratio to python -c 'import torch'",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "repeats": options.repeats,
        "import_torch_seconds": round(torch, 3),
        "rows": rows,
    }
    options.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
