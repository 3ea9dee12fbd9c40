# make install       into .venv
# make demo          install, then the whole pipeline on the simulated brain
# make test          install, then checks of style and structure, then the tests
# make test-slurm    install, then the demo on a SLURM of this machine alone (as root, on Debian)
# make test-browser  install, then the report's page in a real Chromium (Debian's, which root gets)
# make docs          install what it needs, then the documentation as a site into site/, and check it
# make lint          the checks only
# make requirements  pin requirements.txt anew (UPGRADE=--upgrade for the newest versions)
# make schema        write workflow/schemas/config.schema.json and the tables of config/README.md anew

PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.docs_installed
export PATH := $(CURDIR)/$(BIN):$(PATH)
SHELL := /bin/bash

.PHONY: install demo test test-slurm test-browser docs lint requirements schema

install: $(INSTALLED)

# what needs no training first, so that there is something to look at while the rest is trained
demo: $(INSTALLED)
	snakemake --cores $(CORES) --config 'methods=[linear, mind]'
	@echo "A first picture, without training: results/demo/report/index.html. Synth-by-Reg follows."
	snakemake --cores $(CORES)
	@echo "Open results/demo/report/index.html"

test: lint
	python -m pytest

test-slurm: $(INSTALLED)
	tests/slurm/install.sh
	python -m pytest -m slurm tests/slurm

test-browser: $(INSTALLED)
	tests/browser/install.sh
	python -m pytest -m browser tests/browser

# warnings are errors; from the second call on without a network. What is checked in ordinary tests too
# is in tests/unit/test_docs.py and tests/unit/test_site.py
docs: $(DOCS_INSTALLED)
	rm -rf site
	python -m sphinx -q -W --keep-going -b html -c docs -d site/.doctrees . site
	python docs/check_site.py site
	rm -rf site/.doctrees
	@echo "Open site/index.html"

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	snakemake --lint
	lint-imports

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(DOCS_INSTALLED): requirements-docs.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

# without the part of a version that names a build, and without where it came from
requirements: $(INSTALLED)
	for name in requirements requirements-docs; do \
		pip-compile --quiet $(UPGRADE) --strip-extras --no-header --no-annotate \
			--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
			--output-file $$name.txt $$name.in && \
		sed -i -e 's/+[a-z0-9.]*$$//' -e '/^#/d' -e '/^$$/d' $$name.txt && \
		sed -i "1i # Pinned by \`make requirements\` from $$name.in." $$name.txt || exit 1; \
	done

schema: $(INSTALLED)
	python -m sbr_core.config
