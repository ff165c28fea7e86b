# Two commands on a fresh machine: `make run` and `make test`. Everything lands in .venv, build and data.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
IMAGE ?= sallyport
WIRE := tests/wire tests/attacks
HOUSES := tests/house tests/deploy tests/demo
BROWSERS := tests/e2e
STORES := tests/store tests/limits tests/commands tests/replicas
ALONE := tests/replicas/test_exact.py tests/replicas/test_store_faults.py
LANES := lint suite wire browsers houses stores alone
PYTEST := $(BIN)/python -m pytest -rsfE
PROGRESS := sed -unE '/^(Collecting|Installing|Successfully)/s/^/  /p'
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/build/bin:$(PATH):/usr/local/go/bin:/usr/sbin

.DEFAULT_GOAL := help
.PHONY: help run test parts suite suite-wire suite-houses suite-stores suite-alone lint bench soak image chart docs clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## The gateway on 127.0.0.1:8080 before a demo service, with two users (FRESH=1 forgets the last run, LISTEN=…)
	@$(BIN)/python -m demo $(if $(FRESH),--fresh) $(if $(LISTEN),--listen $(LISTEN))

test: ## Lint, types and every test, real browsers included
	@$(MAKE) --no-print-directory -j 2 parts $(VENV)/.test
	@rm -f $(LANES:%=build/%.log)
	@$(MAKE) --no-print-directory -j 5 lint suite suite-wire suite-houses suite-stores && \
		$(MAKE) --no-print-directory suite-alone || { scripts/failed $(LANES:%=build/%.log); exit 1; }

parts: # what is used beside Python
	@scripts/system-parts test

# Lanes that wait more than they compute, side by side. The first speaks while it runs, the others when they are done.

suite: # every test that is in no other lane
	@mkdir -p build
	$(PYTEST) $(addprefix --ignore=,$(WIRE) $(BROWSERS) $(HOUSES) $(STORES)) 2>&1 | tee build/suite.log

suite-wire: # the data path and every attack as it ships, compiled (all others run it as it is written); then browsers
	$(call lane,wire,scripts/compile $(VENV) && if [ -d build/compiled ]; then export SALLYPORT_COMPILED=1; fi && \
		$(PYTEST) -o pythonpath="build/compiled ." -o cache_dir=build/pytest-wire $(WIRE))
	$(call lane,browsers,$(PYTEST) -o cache_dir=build/pytest-browsers $(BROWSERS))

suite-houses: # whole houses: processes, and proxies before them
	$(call lane,houses,$(PYTEST) -o cache_dir=build/pytest-houses $(HOUSES))

suite-stores: # what is kept, by several at once, in stores that fail
	$(call lane,stores,$(PYTEST) -o cache_dir=build/pytest-stores $(STORES) $(addprefix --ignore=,$(ALONE)))

suite-alone: # a minute under load, and how long people wait for stores that fail: nothing beside them
	@mkdir -p build
	$(PYTEST) $(ALONE) 2>&1 | tee build/alone.log

define lane
@mkdir -p build
@{ $(2); } >build/$(1).log 2>&1 || { cat build/$(1).log; exit 1; }
@grep -E "LEFT OUT|SKIPPED|passed" build/$(1).log | sed "s/^/$(1): /"
endef

fuzz: $(VENV)/.fuzz ## Fuzz the parsers, each target for FUZZ_SECONDS (60); FUZZ="target headers" names some
	$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),60) $(FUZZ)

lint: $(VENV)/.test ## Style, format and types
	@mkdir -p build
	{ $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy; } 2>&1 | tee build/lint.log

bench: $(VENV)/.run ## Measure everything, beside nginx, Caddy, Go and an identity proxy (ARGS="--write" keeps the tables)
	@scripts/system-parts bench
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mypy>=2.4' 'setuptools>=77' types-PyYAML
	@scripts/compile $(VENV)
	@$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.test ## Twenty rolling restarts under a thousand requests a second; two minutes, and what was counted
	@$(BIN)/python -m tests.house.rolling $(ARGS)

image: ## Build the container image
	docker build --tag $(IMAGE):$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .

chart: ## Lint and render the Helm chart
	@scripts/system-parts chart
	helm lint helm
	@mkdir -p build
	helm template sallyport helm --kube-version 1.31.0 > build/chart.yaml
	@echo "Rendered to build/chart.yaml"

docs: $(VENV)/.run ## Write the references again from the code
	$(BIN)/python -m gateway schema --write docs

clean: ## Remove everything that was made here
	rm -rf $(VENV) build data dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(BIN)/python:
	@scripts/venv $(VENV)

# `|` : a rebuilt interpreter does not need a second installation; a changed list of dependencies does.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "Installing Sallyport ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --editable . | $(PROGRESS)
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "Installing Sallyport and what its tests use ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile --editable '.[test,geoip]' | $(PROGRESS)
	@touch $@ $(VENV)/.run

# atheris is not made for every machine; without it the inputs are mutated blindly, and the run says so.
$(VENV)/.fuzz: $(VENV)/.test
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[fuzz]' | $(PROGRESS) || true
	@touch $@
