# Every target is a line or two; what they do lives in the package and in scripts/.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PROTOS := $(shell find proto -name '*.proto')

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench soak proto tools schemas lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(INSTALLED) ## make .venv from the lock

tools: $(INSTALLED) ## find or build every tool that runs and tests use, in .tools/
	@$(BIN)/holdfast tools --dir .tools --yes --dev

demo: tools ## run the packaged experiment and show its verdict (bundle in out/demo/)
	@$(BIN)/holdfast run fleet-under-fire --out out/demo

test: tools ## run every test
	@scripts/test

lint: $(INSTALLED) ## linters, type checkers, generated code in step
	@scripts/lint

bench: tools ## benchmarks, one JSON line each on stdout (some: NAMES="keepalive")
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(NAMES)

soak: tools ## kill a real server, and a fleet's agents, over and over, and judge what clients saw (MINUTES=30)
	@scripts/soak --minutes $(or $(MINUTES),30)
	@scripts/soak-fire --minutes $(or $(MINUTES),20)

proto: $(INSTALLED) ## regenerate the stubs from proto/
	@scripts/proto

schemas: $(INSTALLED) ## renew the published JSON Schemas from the models
	@scripts/schemas

lock: $(INSTALLED) ## renew requirements.lock (hashes, no index addresses)
	@scripts/lock

clean: ## remove what the targets made
	rm -rf .venv .tools out dist
