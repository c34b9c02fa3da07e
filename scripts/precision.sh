#!/usr/bin/env bash
# docs/results/precision-*.json and .csv: what bfloat16 changes, through batching and through speculation. Some half an
# hour on two cores. The bundled model is sure of its tokens; the random one never is, so there every divergence shows.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
RUNS=${RUNS:-runs/precision}
OUT=${OUT:-docs/results}
PROMPTS=${PROMPTS:-48}
ONLY=${ONLY:-}  # the name of one measurement; all when empty
mkdir -p "$RUNS" "$OUT"

"$BIN/python" - "$RUNS" <<'PYTHON'
import json, pathlib, sys
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

runs = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2, pad_token_id=None,
                     bos_token_id=None, eos_token_id=2)
LlamaForCausalLM(config).save_pretrained(runs / "random")
(runs / "random" / "draftgraph.json").write_text(json.dumps({"mask_token_id": 1, "end_token_ids": [2]}))
rng = np.random.default_rng(0)
various = [{"tokens": rng.integers(3, 256, rng.integers(8, 40)).tolist()} for _ in range(256)]
for name, lines in (("prompts", various), ("one-length", [{"tokens": rng.integers(3, 256, 24).tolist()} for _ in various])):
    (runs / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
PYTHON

measure() {  # NAME POLICY MODEL SEARCH-OPTIONS... -- VERIFY-OPTIONS...
    local name=$1 policy=$2 model=$3
    shift 3
    [ -z "$ONLY" ] || [ "$ONLY" = "$name" ] || return 0
    local search=()
    while [ "$1" != -- ]; do search+=("$1"); shift; done
    shift
    [ -d "$RUNS/$name" ] || "$BIN/draftgraph" record --model "$model" --policy "$policy" --limit 48 "${search[@]}" --out "$RUNS/$name"
    "$BIN/draftgraph" search "$RUNS/$name" --budget 10 --out "$RUNS/$name.graph.json" --overwrite
    "$BIN/draftgraph" verify "$RUNS/$name.graph.json" --model "$model" --limit "$PROMPTS" --dtype bf16 --batch-size 8 \
        "$@" --out "$OUT/precision-$name.json" --overwrite
}

for policy in static:1 threshold:0.9; do
    measure "bundled-${policy/:/-}" "$policy" bundled -- --split test
done
for policy in static:1 threshold:0.15; do
    measure "random-${policy/:/-}" "$policy" "$RUNS/random" --prompts "$RUNS/prompts.jsonl" -- --prompts "$RUNS/prompts.jsonl"
done
# The same model on prompts of one length, whose batches need no padding.
measure random-one-length static:1 "$RUNS/random" --prompts "$RUNS/one-length.jsonl" -- --prompts "$RUNS/one-length.jsonl"
