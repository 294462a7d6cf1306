# make run          everything, on a real PostgreSQL, until Ctrl-C    (make run PORT=8123)
# make test         the checks and the whole test suite
# make lint | fmt   the checks alone | format the code
# make clean        remove what make made, except the data in .valdrix/

.PHONY: run test lint fmt clean install install-dev
.DEFAULT_GOAL := run

PORT ?= 8000
VENV := .venv
# The first of these that is new enough; PYTHON=/path/to/python takes another one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && exit; done; echo python3)

# A stamp is named after everything the environment depends on: the clone's path too, because the
# programs in an environment name it. Equal name, nothing to install, no network.
KEY = $(shell { pwd; $(PYTHON) -V; cat $(1); } 2>/dev/null | cksum | tr ' \t' '--')
RUN_STAMP := $(VENV)/.installed-$(call KEY,requirements.txt)
DEV_STAMP := $(VENV)/.installed-dev-$(call KEY,requirements.txt requirements-dev.txt)
PIP := $(VENV)/bin/python -m pip install -qq --disable-pip-version-check

run: $(RUN_STAMP)
	@$(VENV)/bin/python -m valdrix.embedded.run --port $(PORT)

# A run starts a hundred Pythons: none compiles what another has compiled, whatever the shell says.
test: export PYTHONDONTWRITEBYTECODE :=

# The closing line of pytest is the end of the output.
test: lint
	@$(VENV)/bin/python -m pytest -n 2

lint: $(DEV_STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

fmt: $(DEV_STAMP)
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

install: $(RUN_STAMP)
install-dev: $(DEV_STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	@echo "The data in .valdrix/ was kept."

$(RUN_STAMP):
	$(MAKE_ENVIRONMENT)
	@echo "Installing what Valdrix runs on into $(VENV) (once; needs the network) ..."
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV_STAMP):
	$(MAKE_ENVIRONMENT)
	@echo "Installing what the tests need into $(VENV) (once; needs the network) ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(RUN_STAMP)

# An environment that was made elsewhere, by another Python, or only half, is made anew.
define MAKE_ENVIRONMENT
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Valdrix needs Python 3.11 or newer; '$(PYTHON)' says: $$($(PYTHON) -V 2>&1)." \
		"Install one (Debian, Ubuntu: apt-get install python3 python3-venv)" \
		"or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "'$(PYTHON)' cannot make a virtual environment: its module ensurepip is missing." \
		"Debian, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
@made_by="$$(pwd) $$($(PYTHON) -V)"; \
	{ $(VENV)/bin/python -m pip --version >/dev/null 2>&1 \
		&& test "$$(cat $(VENV)/.made-by 2>/dev/null)" = "$$made_by"; } \
	|| { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && echo "$$made_by" > $(VENV)/.made-by; }
endef

.PHONY: fuzz
# Every operation of the API's description, 500 examples each, all checks (most of an hour).
fuzz: $(DEV_STAMP)
	@$(VENV)/bin/python -m tests.fuzz.running --examples 500

.PHONY: storm-crash
# Kills workers, database sessions and the database under load; figures: docs/ops/crash-storm.md.
storm-crash: $(DEV_STAMP)
	@$(VENV)/bin/python -m tests.crash.storm --json docs/ops/crash-storm.json

# make storm        the storms and the money model in full (minutes): writes docs/ops/storms.md
.PHONY: storm
storm: $(DEV_STAMP)
	@VALDRIX_STORM=1 $(VENV)/bin/python -m pytest -p no:randomly -s --durations=0 \
		tests/concurrency/test_storms.py tests/concurrency/test_money_machine.py

# make bench        the gate against the floors of this machine (minutes): writes docs/benchmarks.md
#                   QUICK=1: one short round; ONLY=throughput,decide: these sections; HISTORY=100000: of
#                   so many decisions; OUT=DIR: not docs/
.PHONY: bench
bench: $(DEV_STAMP)
	@$(VENV)/bin/python -m tests.benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
		$(if $(HISTORY),--history $(HISTORY)) $(if $(OUT),--out $(OUT)) $(if $(STEP),--step "$(STEP)")

# make bench-flood  one tenant's flood and another's p99 (minutes): writes docs/ops/flood.md
.PHONY: bench-flood
bench-flood: $(DEV_STAMP)
	@$(VENV)/bin/python -m tests.benchmarks.flood $(if $(STORE),--store $(STORE)) $(if $(OUT),--out $(OUT))

# make certify-telemetry   the whole C1 matrix, a million events into a dead store, and 2,000 gates
# with telemetry off, on and broken (minutes, 6 GB of disk): writes docs/ops/evidence/telemetry_*
.PHONY: certify-telemetry
certify-telemetry: $(DEV_STAMP)
	@mkdir -p docs/ops/evidence
	$(VENV)/bin/python manage.py certify_telemetry --output docs/ops/evidence/telemetry_c1.json
	$(VENV)/bin/python -m tests.benchmarks.telemetry_dead_store \
		--json docs/ops/evidence/telemetry_dead_store.json
	$(VENV)/bin/python -m tests.benchmarks.telemetry_differential --gates 2000 \
		--json docs/ops/evidence/telemetry_differential.json

# make bench-proof  a million rows exported, verified, replayed, simulated: docs/ops/proof-benchmarks.json
.PHONY: bench-proof
bench-proof: $(DEV_STAMP)
	@VALDRIX_BENCH_ROWS=$(or $(ROWS),1000000) $(VENV)/bin/python -m pytest -p no:randomly -s \
		tests/benchmarks/test_long_history.py
.PHONY: storm-tokens
# 200 approval tokens, 50 presenters of each at once, in one process and over HTTP, and keys rotated
# meanwhile: writes docs/ops/storms.md.
storm-tokens: $(DEV_STAMP)
	@VALDRIX_STORM=1 $(VENV)/bin/python -m pytest -p no:randomly -s --durations=0 \
		tests/concurrency/test_token_storm.py

# make sbom         bills of materials and the source's digest of the commit, signed: OUT=DIR (.valdrix/release)
.PHONY: sbom
sbom: $(DEV_STAMP)
	@mkdir -p $(or $(OUT),.valdrix/release)
	@$(VENV)/bin/python manage.py capture_evidence attestation \
		--output $(or $(OUT),.valdrix/release)/attestation.json

# make dashboard    serves, scrapes and loads for minutes, and draws the shipped dashboard: docs/images/dashboard.*
.PHONY: dashboard
dashboard: $(DEV_STAMP)
	@$(VENV)/bin/python -m tests.dashboard $(if $(OUT),--out $(OUT)) $(if $(SECONDS),--seconds $(SECONDS))
