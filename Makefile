# Every command prepares what it needs; a second run finds it ready.
PYTHON ?= python3
BIN := .venv/bin
# Half of the time of a test is waiting for a service, so there are more workers than cores.
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() + 1, 4))')
# The tests of one file share the services that they start, so they stay together.
TESTS := $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Compiled files are kept, whatever the shell says: to compile the tests again costs each worker 8 s.
unexport PYTHONDONTWRITEBYTECODE
SEED ?= $(shell date +%s)
READY := .venv/ready local/node_modules/ready

.DEFAULT_GOAL := help
.PHONY: help install demo start plan reconcile test check browser screenshots nightly scan format bench faults fuzz hapi clean

help: ## Show this
	@grep -hE '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

install: $(READY) ## Install what every other command needs, below the project

demo: $(READY) ## Send the samples through the whole route on this machine, and show what arrived
	@$(BIN)/python -m local.demo

start: $(READY) ## Keep the whole route running on this machine, until Ctrl-C
	@$(BIN)/python -m local.start

plan: $(READY) ## Print what the relay would send for FILE=bundle.json, without sending it
	@$(BIN)/python -m integration plan $(FILE)

reconcile: $(READY) ## Find and mend rows that differ from FHIR, by the settings in the environment; ARGS="--all --dry-run" compares all that rows show, and looks only
	@$(BIN)/python -m integration reconcile $(ARGS)

test: $(READY) ## Run what a change needs, against the real storage emulator and the real FHIR server
	@TEST_FACTOR=0.34 $(TESTS) -m "not slow and not hapi and not java"

check: $(READY) ## Format, lint, types, Bicep and all tests, as CI does
	@echo "== format"; $(BIN)/ruff format --check .
	@echo "== lint"; $(BIN)/ruff check .
	@echo "== types"; $(BIN)/mypy
	@echo "== bicep"; infra/check.sh
	@echo "== tests"; $(TESTS) -m "not hapi and not java and not browser"

browser: $(READY) ## Try every page of the app in a Chromium, as people do
	@$(TESTS) -m "browser and not nightly"

screenshots: $(READY) ## Take the pictures of the pages for README.md, where there is a Chromium
	@$(BIN)/python -m tests.browser.take_screenshots

# Not among the requirements of development: it brings a hundred packages, each at a version of its own choice.
scan: .local/checkov/ready ## Have the Bicep files looked at by a security scanner
	@.local/checkov/bin/checkov --config-file infra/.checkov.yaml --directory infra

format: $(READY) ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(READY) ## Measure the route against a bare client, on this machine; PARTS="planning memory" measures those alone
	@$(BIN)/python -m bench $(PARTS)

faults: $(READY) ## Kill, starve and confuse the route some thousand times, and count what became of each entry
	@$(BIN)/python -m faults

nightly: $(READY) ## Look for what the usual cases do not show: random ones, faults, a client in Java, HAPI's server; SEED=... repeats a run
	@echo "== seed $(SEED)"
	@TEST_SEED=$(SEED) TEST_FACTOR=10 $(TESTS) -m "hypothesis or seeded" --hypothesis-seed=$(SEED)
	@$(TESTS) -m browser
	@$(TESTS) -m java
	@$(BIN)/python -m faults --number 3000 --seed $(SEED)
	@$(BIN)/python -m fuzz --seed $(SEED)
	@$(MAKE) --no-print-directory hapi

# One server each: equivalence empties it, and bundles from elsewhere refer to what they do not bring,
# which HAPI's server refuses unless it is told not to look. It takes more than UPSTREAM_TIMEOUT for 500
# conditional creates, so units are smaller.
hapi: $(READY) ## Run journeys and equivalence against HAPI's server, where Java 17 and Maven are there
	@$(BIN)/python -m local.hapi $(BIN)/python -m pytest -q tests/hapi tests/journeys \
		--ignore tests/journeys/test_real_bundles.py
	@HAPI_LINKS=any UNIT_MAX_ENTRIES=100 $(BIN)/python -m local.hapi $(BIN)/python -m pytest -q \
		tests/journeys/test_real_bundles.py
	@HAPI_LINKS=any $(BIN)/python -m local.hapi $(BIN)/python -m pytest -q tests/equivalence

fuzz: $(READY) ## Try some 50,000 hostile proofs of senders, send intake some 60,000 hostile deliveries, and count what became of them
	@$(BIN)/python -m fuzz

clean: ## Remove what the other commands have made
	rm -rf .venv .local local/node_modules

.venv/ready: requirements.txt requirements-dev.txt
	@echo "== installing Python packages into .venv"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; make PYTHON=... names another")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.local/checkov/ready: infra/requirements.txt
	@echo "== installing checkov into .local/checkov"
	@$(PYTHON) -m venv .local/checkov
	@.local/checkov/bin/python -m pip install --quiet --disable-pip-version-check -r infra/requirements.txt
	@touch $@

# `npm ci` empties the folder: through a link it would empty somebody else's.
local/node_modules/ready: local/package.json local/package-lock.json
	@test ! -L local/node_modules || { echo "local/node_modules is a link: remove it first"; exit 1; }
	@echo "== installing Node packages into local/node_modules"
	@cd local && npm ci --no-audit --no-fund --loglevel=error
	@touch $@
