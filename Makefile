# Everything runs in a virtual environment of its own, made on first use. `make VENV=… ` to use another place.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# faiss comes in two packages that must never meet: with an NVIDIA GPU the one, without it the other.
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
INSTALLED := $(VENV)/.installed-$(EXTRA)

.PHONY: demo test test-all lint bench clean

demo: $(INSTALLED)  ## train a tiny backdoored model, ingest, search
	$(BIN)/rapidin demo

test: $(INSTALLED)  ## the quick tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-all: $(INSTALLED)  ## the quick and the slow tests, and those in a browser (chromium or Chrome)
	$(BIN)/python -m pytest -m "not gpu"

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## the benchmarks that need nothing but this repository
	$(BIN)/python -m benchmarks.projection
	$(BIN)/python -m benchmarks.caching speed memory sweep --quick
	$(BIN)/python -m benchmarks.retrieval scan growth --quick

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRA),dev]"
	touch $@

clean:  ## remove the environment and everything made by tests and demo
	rm -rf $(VENV) rapidin-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
