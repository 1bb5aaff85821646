# Everything runs in a virtual environment of its own, made on first use. `make VENV=…` uses another place.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# FAISS comes in two packages that exclude each other: one for machines with an NVIDIA GPU, one for the others.
FAISS := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
DEMO := $(VENV)/.installed-$(FAISS)
DEVELOPMENT := $(VENV)/.installed-$(FAISS)-dev

.PHONY: help demo test test-all lint docs docs-serve bench torture clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

demo: $(DEMO)  ## train a tiny model with a backdoor, ingest its data, search; installs what that needs
	$(BIN)/rapidin demo

test: $(DEVELOPMENT)  ## run the quick tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-all: $(DEVELOPMENT)  ## run the quick, slow and browser tests (a browser is Chromium or Chrome)
	$(BIN)/python -m pytest -m "not gpu"

lint: $(DEVELOPMENT)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DEVELOPMENT)  ## build the documentation into site/; a dead link is an error
	$(BIN)/mkdocs build --strict --quiet

docs-serve: $(DEVELOPMENT)  ## show the documentation at http://127.0.0.1:8000 while it is edited
	$(BIN)/mkdocs serve

torture: $(DEVELOPMENT)  ## kill, fill disks, fail power, alter bytes, read while one writes; MINUTES=20
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),20)

bench: $(DEVELOPMENT)  ## run the benchmarks that need nothing but this repository
	$(BIN)/python -m benchmarks.projection
	$(BIN)/python -m benchmarks.caching speed memory sweep --quick
	$(BIN)/python -m benchmarks.retrieval scan growth --quick

$(DEMO): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(FAISS)]"
	touch $@

# kronfluence lists torchvision, which it never imports. The build of torchvision in the package index belongs to
# another build of torch than the one above, and transformers fails if it finds a torchvision that does not fit. So
# kronfluence is installed without what it lists; the extra `dev` has the rest of that.
$(DEVELOPMENT): $(DEMO)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(FAISS),dev]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps kronfluence
	touch $@

clean:  ## remove the environment and everything that tests, demo and documentation made
	rm -rf $(VENV) rapidin-demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
