#!/usr/bin/env bash
# Every committed benchmark that decodes the bundled model, made anew after its weights have changed; scripts/results.sh
# must have run before, as some read its traces. Those that time something want a machine with nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
TRACES=${RUNS:-runs/results}/method/traces

echo "== forwards and tokens"
for name in identity informed pruning refresh_drafts; do
    "$PYTHON" "benchmarks/$name.py" --out "benchmarks/results/$name.json"
done
"$PYTHON" benchmarks/informed_tuning.py --cells 1 0 --trials 40 --search-prompts 24 \
    --out benchmarks/results/informed_tuning.json
pairs=()
for policy in static-1 threshold-0.9; do
    pairs+=("$TRACES/$policy-L32-T0-search-bundled" "$TRACES/$policy-L32-T0-test-own")
done
"$PYTHON" benchmarks/paired_methods.py "${pairs[@]}" --out benchmarks/results/paired_methods.json

echo "== times"
for name in informed_time informed_cost engines recording_overhead; do
    "$PYTHON" "benchmarks/$name.py" --out "benchmarks/results/$name.json"
done
"$PYTHON" -m scripts.results_tables
