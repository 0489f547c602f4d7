# What a person does with a checkout; `make` alone lists it. Needs git, make and Python >= 3.11, nothing more.

PYTHON ?= python3
VENV ?= .venv
STAMP := $(VENV)/.installed
RUN := PATH="$$(cd "$(VENV)/bin" && pwd):$$PATH"
# Order and dice of the tests: the same each time, so that what is red is red again.
SEED ?= 1130
# Else each of the many processes of a demo or a test run would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test check soak audit coverage bench bench-loader bench-train bench-memory results golden docs secrets clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

install: $(STAMP) ## set up .venv, again whenever pyproject.toml has changed

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "orch needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --upgrade pip
	"$(VENV)/bin/python" -m pip install --quiet --no-compile --editable '.[dev]'
	@"$(VENV)/bin/python" -m compileall -qq -j 0 -x 'site-packages/(.*/)?(tests?|testing|mypyc?|pip|setuptools)/' "$(VENV)/lib" orchestrator worker || true # pip takes one core
	@touch "$(STAMP)"

demo: $(STAMP) ## train the packaged digits from submit to prediction
	@$(RUN) orch demo

test: $(STAMP) ## run the tests, several at a time; SEED=2 in another order, with other dice
	@$(RUN) pytest -n auto --dist worksteal --randomly-seed=$(SEED) --hypothesis-seed=$(SEED)

check: $(STAMP) ## format, lint, types, imports, models against migrations, known vulnerabilities
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy --num-workers 2
	@$(RUN) lint-imports --no-logo
	@$(RUN); home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && export ORCH_HOME="$$home" && orch db upgrade && orch db check
	@$(RUN) .ci/audit

soak: $(STAMP) ## run the fault tests at full length, for hours
	@$(RUN) python -m tests.faults.sabotage --table docs/reliability.md
	@$(RUN) python -m tests.faults.fuzz --examples 100000
	@$(RUN) python -m tests.faults.failpoints --all
	@$(RUN) python -m tests.faults.resume --schedules 50
	@$(RUN) python -m tests.faults.machine --examples 1400
	@$(RUN) python -m tests.faults.resume --schedules 2 --network densenet121
	@$(RUN) python -m tests.faults.soak --jobs 500 --kills 1000 --report docs/soak-sqlite.md
	@$(RUN) python -m tests.faults.soak --jobs 500 --kills 1000 --database postgresql --report docs/soak-postgres.md

audit: $(STAMP) ## look up known vulnerabilities of what is installed
	@$(RUN) .ci/audit

coverage: $(STAMP) ## run the tests and say which lines and branches they miss
	@$(RUN) pytest --cov --cov-report=term

bench: $(STAMP) ## measure against the peers and write the table of the README
	@$(RUN) python -m benchmarks

bench-loader: $(STAMP) ## measure the loading of pictures and write its lines of the table
	@$(RUN) python -m benchmarks.loading --write

bench-train: $(STAMP) ## measure training and write its lines, with ORCH_TEST_PHOTOS fine-tuning too; QUICK=1 only prints
	@$(RUN) python -m benchmarks.training --write $(if $(QUICK),--quick)
	@$(RUN) python -m benchmarks.overhead --write $(if $(QUICK),--quick)
	@$(RUN) python -m benchmarks.saving --write $(if $(QUICK),--quick)
	@$(RUN) python -m benchmarks.tuning --write $(if $(QUICK),--quick)

bench-memory: $(STAMP) ## measure the memory modes and write their lines; QUICK=1 only prints
	@$(RUN) python -m benchmarks.memory --write $(if $(QUICK),--quick)

results: $(STAMP) ## train on the photographs of ORCH_TEST_PHOTOS for docs/results.md, for hours; QUICK=1 a tiny run
	@$(RUN) python -m benchmarks.modes $(if $(QUICK),--quick)
	@$(RUN) python -m benchmarks.results $(if $(QUICK),--quick)

golden: $(STAMP) ## write the golden files of what --json prints, and docs/json.md
	@$(RUN) python -m tests.golden
	@$(RUN) python -m docs.payloads

docs: $(STAMP) ## write the table of docs/settings.md, and the session and the pictures of the README
	@$(RUN) python -m docs.settings
	@$(RUN) python -m docs.pictures

secrets: ## make the passwords that docker-compose.yml reads; those that exist stay
	@PYTHON="$(PYTHON)" sh docs/secrets.sh

clean: ## remove what these targets made, except the secrets
	rm -rf "$(VENV)" .orch .bench dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
