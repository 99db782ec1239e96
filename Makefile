# Each target does its own set-up; run again, the set-up takes a second.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check bench lock clean
PYTHON := .venv/bin/python
KEEP ?=

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## .venv with every program, the locked packages, Mosquitto and whatever else is missing
	@tools/setup

demo: setup ## the whole way on real input: build, sign, push, roll out, swap, refuse, resume
	@$(PYTHON) demo/run.py $(if $(KEEP),--keep)

test: ## the checks and the test suite (under 15 minutes on 2 cores)
	@tools/setup --test
	@$(MAKE) --no-print-directory check
	@$(PYTHON) -m pytest -n auto --dist worksteal

test-all: ## the slow suites too (arm64 under qemu)
	@tools/setup --slow
	@$(MAKE) --no-print-directory check
	@$(PYTHON) -m pytest -n auto --dist worksteal -m "slow or not slow"

check: setup ## ruff, mypy and the import rules
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

bench: setup ## the benchmarks, as ratios in one run, on the bundles of the demo
	@test -d demo/run/bundles || $(PYTHON) demo/run.py
	@for name in loop swap quality faults; do echo "== $$name"; $(PYTHON) benchmarks/$$name.py || exit 1; done

lock: ## resolve the dependencies again
	@tools/lock

clean: ## what the other targets made, downloads excepted
	@rm -rf .venv demo/run demo/summary.json .mypy_cache .ruff_cache .pytest_cache .hypothesis
