#!/usr/bin/env bash
# Every committed study of docs/results, made anew on the bundled model: some forty minutes on two cores.
# A run that was stopped goes on; delete runs/results to start over.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
RUNS=${RUNS:-runs/results}
OUT=docs/results
mkdir -p "$OUT"

for study in ${STUDIES:-method accumulation domain temperature block-length policy}; do
    echo "== $study"
    "$BIN/draftgraph" ablate "$study" --out "$RUNS/$study"
    cp "$RUNS/$study/study.csv" "$OUT/$study.csv"
done
