VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)

.PHONY: help install demo test slow docs engines bench results lint types clean
help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(BIN)/unipeft-train: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

install: $(BIN)/unipeft-train ## the environment, with tested versions

demo: install ## train MAM on film-review sentiment, in miniature: a few minutes on a CPU
	$(BIN)/unipeft train task=sst2 method=mam scale=mini

test: install ## the tests: no network beyond the install
	$(BIN)/pytest -q -n 2 -m "not slow"

slow: install ## the tests that take minutes: 200 wrong inputs, killed runs, the compiler
	$(BIN)/pytest -q -n 2 -m slow --timeout 2400

$(BIN)/mkdocs: pyproject.toml constraints.txt | install
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(BIN)/mkdocs ## the documentation, site/index.html; broken links and anchors are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -f docs/site/mkdocs.yml

engines: install ## a grid on joblib and on Ray, a worker of each killed (Slurm: scripts/slurm_ci.sh)
	$(BIN)/pip install -q -c constraints.txt -e '.[ray]'
	$(BIN)/python scripts/engines.py joblib
	$(BIN)/python scripts/engines.py ray

bench: install ## speed against PEFT and transformers on this machine
	$(BIN)/python scripts/bench --json outputs/bench

results: install ## docs/results.md, its figures and report, from the stored runs in docs/results/
	$(BIN)/python scripts/results write

lint: install ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install ## mypy, strict
	$(BIN)/mypy

clean: ## the environment and caches
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
