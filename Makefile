# korch: `make up` starts a cluster with a sample application, `make test` runs everything, `make down` takes it all back.
SHELL := /bin/bash
VENV ?= $(CURDIR)/.venv
PY := $(VENV)/bin/python
DATA ?= $(CURDIR)/.korch
ROOT := $(shell [ "$$(id -u)" = 0 ] && echo yes)
BIND ?= 127.0.0.1:6443
NODES ?= 1

.PHONY: help up down test dev system images lint fmt unit e2e bench wheel clean
help: ## Show this.
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

up: dev images ## Build, install what is missing, start a cluster and a sample application, say what to type next.
	@$(PY) scripts/sample.py --data-dir $(DATA) --bind $(BIND) --nodes $(if $(ROOT),$(NODES),0)

down: ## Stop the cluster and leave nothing behind but its data directory.
	@if [ -x $(VENV)/bin/korch ]; then $(VENV)/bin/korch down --data-dir $(DATA); fi

test: dev images ## Install what the tests need and run all of them.
	@VENV=$(VENV) IMAGES=$(DATA)/images scripts/test.sh

dev: system ## Make the virtual environment, the schema, the stubs and the extension.
	@VENV=$(VENV) scripts/dev.sh

system: ## Install containerd, runc, CNI plugins and friends from Debian when they are missing (as root).
	@scripts/system.sh

images: ## Make the images that nodes need, locally.
	@if [ -n "$(ROOT)" ]; then $(PY) -m korch_agent.local_images $(DATA)/images; fi

lint: ## Run every check that needs no tests.
	@VENV=$(VENV) scripts/lint.sh

fmt: ## Format everything.
	$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix . && cargo fmt

bench: ## Run the benchmarks; results go to benches/results.
	@VENV=$(VENV) IMAGES=$(DATA)/images scripts/bench.sh

wheel: ## Build the wheels that users install.
	@VENV=$(VENV) scripts/wheel.sh

clean: down ## Remove what was built and the data directory.
	rm -rf $(VENV) target build dist wheels $(DATA)
