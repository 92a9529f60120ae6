# The project's tasks. `make demo` on a bare Debian machine needs nothing before it.

.NOTPARALLEL:
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
ARGS ?=
MINUTES ?= 10
IMAGE := .cache/demo.qcow2

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ARGS=... is passed on to the program that demo, dev, lab, test, faults, soak, bench and screenshots run"

setup:  ## install what is missing: Debian packages, a running libvirtd, .venv
	@deploy/setup/packages
	@deploy/setup/libvirtd
	@deploy/setup/venv

image:  ## build the demo guest, .cache/demo.qcow2
	@deploy/setup/packages
	@deploy/guest/build $(IMAGE)

demo: setup image  ## boot real guests, break things, watch them being put right
	@$(PYTHON) deploy/demo/demo.py $(ARGS)

dev: setup image  ## a cloud on this machine: Temporal with its web UI, a control worker, a host worker
	@.venv/bin/hostler dev $(ARGS)

lab: setup image  ## three hosts on this machine, and a control plane: for networks that span hosts, migration, power cuts
	@$(PYTHON) -m deploy.lab.lab up $(ARGS)

lab-down: setup  ## end the lab; nothing of it is left
	@$(PYTHON) -m deploy.lab.lab down $(ARGS)

demo-moves: setup image  ## resize, live migrate, lose a host, shelve: one real server in the lab
	@$(PYTHON) -m deploy.demo.moves $(ARGS)

test: setup image  ## run the tests, on real guests too
	@deploy/setup/packages development
	@$(if $(ARGS),$(PYTHON) -m pytest -m "not slow" $(ARGS),$(PYTHON) -m tests)

soak: setup  ## kill every process at random for MINUTES=10, under every operation
	@deploy/setup/packages development
	@$(PYTHON) -m tests.soak --minutes $(MINUTES) $(ARGS)

faults: setup image  ## strike every step of every operation with every fault, on real guests too
	@deploy/setup/packages development
	@$(PYTHON) -m tests.faults $(ARGS)
	@$(if $(ARGS),true,$(PYTHON) -m pytest tests/neighbours tests/soak)
	@$(if $(ARGS),true,$(PYTHON) -m pytest -m sampled)

lint:  ## check style, types, import rules and shell scripts
	@deploy/setup/packages development
	@deploy/setup/venv
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	shellcheck --external-sources $$(git grep --untracked -lE '^#!.*\b(ba)?sh\b' -- ':!*.py' ':!*.md')

format:  ## rewrite the sources in the project's style
	@deploy/setup/venv
	.venv/bin/ruff check --fix-only
	.venv/bin/ruff format

bench: setup image  ## measure
	@$(PYTHON) deploy/bench/bench.py $(ARGS)

screenshots: setup image  ## take the pictures of the documentation again
	@$(PYTHON) deploy/demo/screenshots.py $(ARGS)

lock:  ## pin the newest versions that the pyproject files allow
	@deploy/setup/lock

clean:  ## remove all that was made in this folder
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Left alone: the Debian packages of deploy/setup/packages, libvirtd, and the servers of running clouds. A lab that is up is ended by make lab-down."

.PHONY: help setup image demo demo-moves dev lab lab-down test faults soak lint format bench screenshots lock clean
