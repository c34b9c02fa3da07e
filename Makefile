# make install | demo | test | test-sglang | lint | format | fuzz-c | clean. Each first brings the virtual environment up
# to date.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := verify calibrate drafting studies figures
FUZZ_SECONDS ?= 3600

.PHONY: install demo test test-sglang lint format fuzz-c clean
.DEFAULT_GOAL := test

# One pip call, with the constraints in force: a call without them would fetch another torch, with gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/draftgraph calibrate --policy static:1 --policy threshold:0.9 --budgets 0,3,10 \
		--search-prompts 24 --test-prompts 24 --measured-prompts 6 --batch-size 8 --out runs/demo --overwrite
	$(BIN)/draftgraph latency --drafts 0-5 --repeats 25 --out runs/demo/latency.json --overwrite
	$(BIN)/draftgraph budget runs/demo/traces/static-1 runs/demo/traces/threshold-0.9 \
		--latency runs/demo/latency.json --out runs/demo --figures --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist loadfile

# Against the real package, in an environment of its own: sglang's CUDA packages stay out (its own list would draw
# them), and tests/support/sglang_real.py stands in for the two that are imported and not used.
SGLANG_VENV ?= .venv-sglang
$(SGLANG_VENV)/.installed: pyproject.toml constraints.txt tests/sglang/requirements.txt
	test -x $(SGLANG_VENV)/bin/python || $(PYTHON) -m venv $(SGLANG_VENV)
	$(SGLANG_VENV)/bin/python -m pip install --quiet -c constraints.txt torch numpy transformers safetensors pytest setuptools
	$(SGLANG_VENV)/bin/python -m pip install --quiet --no-deps -r tests/sglang/requirements.txt
	$(SGLANG_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

test-sglang: $(SGLANG_VENV)/.installed
	$(SGLANG_VENV)/bin/python -m pytest -q tests/sglang

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Hostile input for draftgraph.h, under both sanitizers (docs/runtime-c.md); needs clang with libFuzzer.
fuzz-c: $(STAMP)
	mkdir -p runs/fuzz-c/found
	$(BIN)/python -m tests.verify.runtimes.test_c_header runs/fuzz-c/seeds
	clang -std=c99 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I verify/runtimes/c \
		tests/verify/runtimes/c/fuzz.c -o runs/fuzz-c/fuzz -lm
	runs/fuzz-c/fuzz -max_len=4096 -timeout=60 -use_value_profile=1 -max_total_time=$(FUZZ_SECONDS) \
		-artifact_prefix=runs/fuzz-c/ runs/fuzz-c/found runs/fuzz-c/seeds

clean:
	rm -rf runs/demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
