# Every target installs what it needs and says what it does. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

UV := .cache/uv/bin/uv
PATH := $(CURDIR)/.venv/bin:$(PATH)
# ROLE=docker_engine tests one role only.
ROLE ?=
# BENCH="--quick" times less; docs/bench.md has the flags.
BENCH ?=
# ALL=1 removes the lab's images too.
ALL ?=
export LAB_INSTALL ?= 1
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup lab lab-hosts lab-down test test-unit test-lint test-roles molecule test-lab bench dashboards docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv is installed into a folder of its own. Debian and Ubuntu ship Python without the module that makes such folders.
$(UV):
	@echo "setup: fetching uv"
	@python3 -c 'import ensurepip' 2>/dev/null || { echo "setup: Python's venv module is missing (python3-venv)"; \
	  [ "$(LAB_INSTALL)" = 1 ] && $(SUDO) apt-get install --yes --no-install-recommends python3-venv; }
	@python3 -m venv .cache/uv
	@.cache/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'

.venv/.synced: $(UV) pyproject.toml uv.lock .python-version
	@echo "setup: making the Python environment in .venv"
	@$(UV) sync --locked --quiet
	@touch $@

setup: .venv/.synced ## Make the Python environment

lab: setup ## Make the lab and run every week in it
	@ai-idp lab up

lab-down: setup ## Remove the lab (ALL=1: its images too)
	@ai-idp lab down $(if $(ALL),--all)

# The lab's images mostly wait for downloads and disks, so they are made beside what needs the processor.
test: ## Run every test
	@echo "test: test-lint, test-unit and the lab's images at the same time; each speaks when it is done"
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-lint test-unit lab-hosts
	@$(MAKE) --no-print-directory molecule
	@$(MAKE) --no-print-directory test-lab

test-lint: setup ## ansible-lint, yamllint, ruff, mypy
	@echo "test-lint: ruff, mypy, yamllint, ansible-lint"
	@ruff check .
	@ruff format --check .
	@mypy
	@yamllint --strict .
	@ansible-lint --strict

test-unit: setup ## Unit tests of modules, filters and the command line
	@echo "test-unit: modules, filters, command line"
	@pytest tests/unit --numprocesses=auto --maxprocesses=4 --dist=worksteal

lab-hosts: setup
	@echo "lab-hosts: images and hosts of the lab"
	@ai-idp lab up --hosts-only

molecule: setup
	@echo "test-roles: check, converge, idempotence, verify$(if $(ROLE), of $(ROLE))"
	@tests/run-molecule $(ROLE)

test-roles: lab-hosts ## Molecule: every role, or ROLE=name
	@$(MAKE) --no-print-directory molecule

test-lab: setup ## The whole platform in the lab, asked by real clients
	@echo "test-lab: the platform in the lab"
	@ai-idp lab up
	@pytest tests/integration --durations=15

bench: setup ## Time no-change runs against stock settings and against a former tree
	@PYTHONPATH=tools python -m bench $(BENCH)

dashboards: setup ## Write Grafana's dashboards from their description
	@PYTHONPATH=tools python -m dashboards

docs: setup ## Write the roles' READMEs from their argument specs, and the table of doors from the inventory
	@python tools/role_readmes.py
	@python tools/doors.py

clean: ## Remove what was made here, the lab excepted
	rm -rf .venv .cache .ansible artifacts .mypy_cache .pytest_cache .ruff_cache
