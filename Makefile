# vmferry: see CONTRIBUTING.md. Everything runs from a fresh Debian 12 machine with python3-venv, make and git.
SHELL := /bin/bash
PYTHON ?= python3
comma := ,
VENV := .venv
BIN := $(VENV)/bin
LAB ?= lab
# Tests mostly wait, for leases above all: each process of theirs has a lab of its own.
WORKERS ?= 3
STAMP := $(VENV)/.installed
# The lab needs root: namespaces, bridges, libvirtd.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo --preserve-env=CI$(comma)KEEP$(comma)PAIRS$(comma)NESTED$(comma)RUNS)

.PHONY: help venv system system-lab system-browser system-test system-nested test test-nested check demo demo-drain demo-down bench bench-nested \
  screenshots lab lab-down lab-shell lab-nested lab-nested-down lab-nested-shell docs lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

system: ## Debian packages that are needed to build and run
	@.ci/install-packages build runtime

system-lab: ## Debian packages that the lab of real hosts needs as well
	@.ci/install-packages build runtime lab

system-browser: ## Debian packages of a browser that shows what was made
	@.ci/install-packages browser

system-test: ## Debian packages that the tests need on top: a browser, a container engine
	@.ci/install-packages build runtime lab browser containers

system-nested: ## Debian packages that the nested lab needs (stock kernels, kernel NFS, LVM, KVM guests)
	@.ci/install-packages build runtime lab nested

$(STAMP): .ci/requirements.txt pyproject.toml
	@$(MAKE) --no-print-directory system
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

venv: $(STAMP) ## virtual environment with pinned dependencies

test: venv system-test ## all tests, the lab's and the containers' included
	$(AS_ROOT) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

test-nested: venv system-nested ## the guide's own machines: stock kernels, NFS, LVM, KVM guests; NESTED=name uses that one
	@began=$$SECONDS; \
	$(AS_ROOT) $(BIN)/python -m pytest tests/lab/nested --timeout 900; result=$$?; \
	echo "nested lab: $$((SECONDS - began)) s"; exit $$result

check: venv ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: venv system-lab ## a real VM moves between two real hosts, by the ordinary CLI; KEEP=1 leaves everything running
	@$(AS_ROOT) $(BIN)/python -m tests.demo

demo-drain: venv system-lab system-browser ## a host is emptied: nine guests on three hosts, one of which cannot move; KEEP=1 as above
	@$(AS_ROOT) $(BIN)/python -m tests.demo.drain

demo-down: venv ## end what KEEP=1 make demo left running
	@$(AS_ROOT) $(BIN)/python -m tests.demo down

bench: venv system-lab ## measure against virsh; PAIRS=30
	@$(AS_ROOT) $(BIN)/python -m tests.benchmarks

bench-nested: venv system-nested ## the guide's own experiment: 512 MiB on NFS over 100 Mbit/s; RUNS=4
	@$(AS_ROOT) $(BIN)/python -m tests.benchmarks.nested

lab: venv system-lab ## bring up three hosts; LAB=name
	@$(AS_ROOT) $(BIN)/python -m tests.lab up --name $(LAB)

lab-down: venv ## take them down again
	@$(AS_ROOT) $(BIN)/python -m tests.lab down --name $(LAB)

lab-shell: venv ## a shell that reaches the lab's hosts
	@$(AS_ROOT) $(BIN)/python -m tests.lab shell --name $(LAB)

lab-nested: venv system-nested ## bring up two emulated hosts and an NFS server; LAB=name
	@$(AS_ROOT) $(BIN)/python -m tests.lab.nested up --name $(LAB)

lab-nested-down: venv ## take them down again
	@$(AS_ROOT) $(BIN)/python -m tests.lab.nested down --name $(LAB)

lab-nested-shell: venv ## a shell that reaches them
	@$(AS_ROOT) $(BIN)/python -m tests.lab.nested shell --name $(LAB)

screenshots: venv system-test ## take the README's pictures anew
	@$(AS_ROOT) $(BIN)/python -m tests.flower.screenshots

docs: venv ## generate the pages that come from code
	$(BIN)/python -m docs.generate

lock: venv ## pin all dependencies anew
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --extra dev --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file .ci/requirements.txt pyproject.toml

clean: ## remove what builds leave behind
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
