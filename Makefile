# Everything a contributor types. `make serve` and `make test` set up what they need; repeating them costs seconds.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000
ID ?=
FILE ?=
SETTING ?=
JOBS ?= 2

export OMP_WAIT_POLICY ?= PASSIVE
export NO_MKDOCS_2_WARNING ?= 1
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup serve site test test-fast browser lint check fmt results leaderboard notebooks new-paper import exports catalog-report bench-site bench-classifier clean

help:  ## what there is to type
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml scripts/fetch_assets.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.12, say"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[data,text,site,dev]'
	$(BIN)/python scripts/fetch_assets.py
	@touch $@

setup: $(STAMP)  ## create .venv and install

serve: $(STAMP)  ## build the site and serve it, following edits
	@echo "Serving on http://127.0.0.1:$(PORT)/ (Ctrl-C stops)"
	@$(BIN)/mkdocs serve --quiet --dirty --dev-addr 127.0.0.1:$(PORT) --watch papers.yaml --watch docs/results

site: $(STAMP)  ## build the site strictly into site/
	$(BIN)/mkdocs build --strict --clean

browser:
	@command -v chromium >/dev/null || test -n "$$INVERSION_ATLAS_NO_BROWSER" || scripts/install-chromium

test: $(STAMP) browser  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

test-fast: $(STAMP)  ## tests that train nothing and open no browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not slow and not browser"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: lint  ## catalog, lint, staleness; seconds
	$(BIN)/python -m scripts.catalog check
	$(BIN)/python -m scripts.catalog format --check
	$(BIN)/python -m scripts.catalog schema --check
	$(BIN)/python -m implementations.results --check
	$(BIN)/python -m implementations.leaderboard --check
	$(BIN)/python -m scripts.notebooks check

fmt: $(STAMP)  ## format code and papers.yaml, export the schema
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format --quiet .
	$(BIN)/python -m scripts.catalog format
	$(BIN)/python -m scripts.catalog schema

results: $(STAMP)  ## measure and record: ID=gmi, or all that are stale
	$(BIN)/python -m implementations.results $(ID)

leaderboard: $(STAMP)  ## measure classifier attacks on equal terms: ID=gmi, or all that are stale
	$(BIN)/python -m implementations.leaderboard $(ID)

notebooks: $(STAMP)  ## run notebooks: ID=gmi, or all that are stale
	$(BIN)/python -m scripts.notebooks run $(ID)

new-paper: $(STAMP)  ## start a paper: ID=... SETTING=...
	$(BIN)/python -m scripts.new_paper "$(ID)" "$(SETTING)"

import: $(STAMP)  ## bring papers into the catalog: FILE=x.bib, an arXiv id or a DOI
	$(BIN)/python -m scripts.importer "$(FILE)"

exports: $(STAMP)  ## write the catalog as BibTeX, CSL-JSON, CSV and JSON into build/exports/
	$(BIN)/python -m scripts.exports

catalog-report: $(STAMP)  ## how good the catalog's data are, and what could be better
	$(BIN)/python -m scripts.report

bench-site: $(STAMP)  ## time, memory and sizes of builds with 600, 2,500 and 10,000 more entries; takes minutes
	$(BIN)/python scripts/bench_browser.py
	$(BIN)/python scripts/bench_site.py

bench-classifier: $(STAMP)  ## time inversion in one batch against a loop over classes and a toolbox; takes minutes
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python scripts/bench_classifier.py 1
	$(BIN)/python scripts/bench_classifier.py

clean:  ## remove the environment and what was built
	rm -rf $(VENV) site build docs/assets/vendor *.egg-info .pytest_cache .ruff_cache .hypothesis
