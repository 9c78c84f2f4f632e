# `make` lists the targets.  Everything runs in .venv, made from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RECIPES ?= 50000
EVERY ?= 3
COMPILED ?= 100
RESUMES ?= 200
export TRANSFORMERS_SOURCE ?= $(CURDIR)/build/source/transformers-5.24.0
export LLAMA_CPP_SOURCE ?= $(CURDIR)/build/source/llama_cpp_python-0.3.36/vendor/llama.cpp
SAMPLE ?= 200

.PHONY: help train check test prove claims zoo bench-env families ecosystem mutate examples fix clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

train: $(INSTALLED)  ## train recipes/llama.yaml on text that ships with Python, then sample from it
	$(BIN)/python -m builder train recipes/llama.yaml

check: $(INSTALLED)  ## before each commit: format, lint, types, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 -m 'not slow'

test: $(INSTALLED)  ## everything that CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2

prove: $(INSTALLED)  ## 50,000 recipes, a third of the laws each, as many faulty pages; 200 runs killed (RECIPES=..., RESUMES=...)
	HYPOTHESIS_PROFILE=prove RECIPES=$(RECIPES) EVERY=$(EVERY) COMPILED=$(COMPILED) \
	  $(BIN)/pytest -q -n 2 tests/test_laws.py tests/test_routes.py tests/test_fuzz.py
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability $(RESUMES)

claims: $(INSTALLED)  ## try every published claim that ships; what it finds is in docs/ablations.md
	$(BIN)/python -m builder ablate $(foreach page,$(wildcard recipes/claims/*.yaml),--claims $(page)) --jobs 2

zoo: $(INSTALLED)  ## put each bug that the field has shipped into the code: which law sees it
	$(BIN)/python -m tests.zoo $(BUGS)

ecosystem: $(INSTALLED)  ## install the extras, and fetch the sources of transformers and llama.cpp into build/
	timeout 600 $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[eval,peft,onnx,gguf]'
	mkdir -p build/source
	cd build/source && for package in transformers==5.24.0 llama-cpp-python==0.3.36; do \
	  timeout 200 ../../$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: $$package; done
	cd build/source && for archive in *.tar.gz; do tar xzf $$archive; done

bench-env: $(INSTALLED)  ## the libraries that `bench` compares with, in environments of their own in build/bench
	for package in litgpt==0.5.13 x-transformers==2.31.10; do \
	  $(PYTHON) -m venv build/bench/$${package%%==*} && build/bench/$${package%%==*}/bin/pip install \
	    --quiet --disable-pip-version-check torch==2.13.0 numpy $$package || exit 1; done

families: $(INSTALLED)  ## carry every variant of every family over and back; makes the table of docs/families.md
	$(BIN)/python -m tests.families

mutate: $(INSTALLED)  ## 200 mutants of blocks/ by cosmic-ray (SAMPLE=..., 0 for all): which survive
	$(PYTHON) -m venv .venv-mutate
	.venv-mutate/bin/pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0 parso==0.8.7
	mkdir -p build
	.venv-mutate/bin/python tests/zoo/sow.py blocks/*.py > build/sown.jsonl
	$(BIN)/python -m tests.zoo.mutate build/sown.jsonl $(SAMPLE)

examples: $(INSTALLED)  ## every command of the README, every recipe
	$(BIN)/pytest -q tests/test_readme.py tests/test_recipes.py

fix: $(INSTALLED)  ## tidy: format and fix lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and what tools leave behind; runs/ stays
	rm -rf $(VENV) .venv-mutate build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
