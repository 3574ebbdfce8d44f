# Each target checks what it needs and does what is missing first; `make` shows them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
DEMO := .cache/demo
DEMO_MODEL := $(DEMO)/efficientnet-lite0/1/model.onnx
EXTENSION := server/kingpole/_core.abi3.so
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-loadtest
CLIENTS := .cache/clients/.installed
# What a server with the demo model needs; the clients of other servers are there for the tests.
SERVER := $(INSTALLED) $(EXTENSION) $(DEMO_MODEL)
RUST_SOURCES := $(shell find protocol/rust server/core -name '*.rs' -o -name Cargo.toml 2>/dev/null) Cargo.toml protocol/schema/*.fbs protocol/schema/*.proto
SOURCES := hatch_build.py server/kingpole backends clients/python loadtest protocol docker

.PHONY: help setup demo serve test check bench bench-clients conformance fuzz clean checkgenerate prerequisites \
	test-rust test-python test-clients

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SERVER) $(CLIENTS) ## create .venv, build the extension, convert the demo model (repeated: seconds)
	@echo "ready; next: make demo"

demo: $(SERVER) ## start the server, ask what is in a picture over every core protocol, stop it
	@$(PYTHON) -m kingpole.demo $(DEMO)

serve: $(SERVER) ## start the server with the demo model and keep it running (Ctrl-C stops it)
	@$(PYTHON) -m kingpole serve $(DEMO)

test: setup ## run every test
	@$(MAKE) test-rust
	@$(MAKE) test-python
	@$(MAKE) test-clients
	@$(MAKE) conformance

test-rust: prerequisites
	PYO3_PYTHON=$(CURDIR)/$(PYTHON) cargo test --workspace

test-python: setup
	$(PYTHON) -m pytest

test-clients: setup ## run the tests of the clients whose toolchains are here (KINGPOLE_REQUIRE=1: a missing one is a failure)
	clients/each test

conformance: setup ## hold every client to the same cases against the real server
	protocol/conformance/run --tries 2 $(if $(filter 1,$(KINGPOLE_REQUIRE)),--require)

check: setup ## formatters, linters, type checkers, layers, generated files
	cargo fmt --all --check
	PYO3_PYTHON=$(CURDIR)/$(PYTHON) cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	@clients/each check
	@$(MAKE) checkgenerate

checkgenerate: setup ## regenerate what is generated, and fail if that differs from what is committed
	@.ci/checkgenerate

bench: setup $(BENCH_INSTALLED) ## measure against Triton and mosec (minutes; BENCH=--full for longer cells)
	sh loadtest/peers/setup.sh
	$(PYTHON) -m loadtest.bench $(BENCH)

bench-clients: setup $(BENCH_INSTALLED) ## measure what a request costs each client, beside generated stubs and the bare transport (minutes)
	$(PYTHON) -m loadtest.clients.bench $(BENCH)

fuzz: ## fuzz the decoders on one core (FUZZ_SECONDS=60 or FUZZ_RUNS=1000000 a target; TARGETS="frame_decode ...")
	@protocol/fuzz/run $(TARGETS)

clean: ## remove everything that was built or downloaded here
	rm -rf $(VENV) .cache target protocol/fuzz/target dist $(EXTENSION) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

prerequisites:
	@.ci/prerequisites

# Stamps: a file is made after everything it stands for is in place, so an interrupted setup is simply repeated.
$(INSTALLED): pyproject.toml clients/python/pyproject.toml hatch_build.py | prerequisites
	@test -x $(PYTHON) || { echo "creating $(VENV)"; python3 -m venv $(VENV); }
	$(PYTHON) -m pip install --disable-pip-version-check 'hatchling>=1.27' editables
	$(PYTHON) -m pip install --disable-pip-version-check --no-build-isolation -e clients/python[grpc,aio] -e '.[onnx,client,demo,dev]'
	@# pyright fetches its own JavaScript at the first run: now, so that later runs need no network
	$(BIN)/pyright --version
	cargo fetch --quiet
	@touch $(EXTENSION) $@

$(BENCH_INSTALLED): pyproject.toml | $(INSTALLED)
	$(PYTHON) -m pip install --disable-pip-version-check --no-build-isolation -e clients/python -e '.[loadtest]'
	@touch $@

# Other projects' clients, which the tests hold against our server; each in an environment of its own.
$(CLIENTS): server/tests/clients/setup | $(INSTALLED)
	PYTHON=$(CURDIR)/$(PYTHON) server/tests/clients/setup
	@touch $@

$(EXTENSION): $(RUST_SOURCES) | $(INSTALLED)
	$(PYTHON) hatch_build.py
	@touch $@

$(DEMO_MODEL): server/kingpole/demo/efficientnet.py | $(INSTALLED)
	$(PYTHON) -m kingpole.demo.efficientnet --uint8 $@
