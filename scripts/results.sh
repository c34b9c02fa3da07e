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

# What needs no further decode: the traces of the method study are searched, resampled and tuned on.
TRACES="$RUNS/method/traces"
"$BIN/draftgraph" calibration-size "$TRACES/static-1-L32-T0-search-bundled" --budgets 5,10,16,32 \
    --test "$TRACES/static-1-L32-T0-test-own" --out "$OUT/calibration-size.json" --overwrite
for policy in static-1 threshold-0.9; do
    for kind in forwards query_tokens domains; do
        "$BIN/draftgraph" study "$TRACES/$policy-L32-T0-search-bundled" --test "$TRACES/$policy-L32-T0-test-own" \
            --kind "$kind" --prompts bundled --trials 200 --out "$RUNS/study-$policy-$kind" --overwrite
    done
    cp "$RUNS/study-$policy-forwards/study.json" "$OUT/optuna-$policy.json"
done

# Every method, really run: forwards counted against forwards predicted.
"$BIN/draftgraph" calibrate --policy static:1 --policy threshold:0.9 --budgets 0,3,10,32 --measured-prompts 4 \
    --methods chain,tree_greedy,sequoia,published,greedy,cut,exact --out "$RUNS/verified" --overwrite
"$BIN/python" - "$RUNS/verified/results.json" "$OUT/verified.csv" <<'PYTHON'
import csv, json, sys
columns = ["policy", "method", "reading", "budget", "nodes", "measured_prompts", "forwards_predicted_measured",
           "forwards_measured", "tokens_identical"]
rows = [row for row in json.load(open(sys.argv[1]))["rows"] if row["split"] == "test"]
with open(sys.argv[2], "w", newline="") as stream:
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows([["" if row[c] is None else row[c] for c in columns] for row in rows])
PYTHON
"$BIN/python" -m scripts.results_tables  # the text around the tables is for somebody to read again
