# Two commands for a newcomer: `make demo` and `make test`. Debian 12 with git, make and python3-venv is enough.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin
PIP    := $(RUN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint serve bench soak servers lock clean

demo: $(VENV)/.run
	@$(RUN)/yongtong demo $(if $(KEEP),--keep)

test: $(VENV)/.test
	@TMPDIR=$(TMP) $(RUN)/python -m pytest -n 2 $(T)

# Where there is memory for it the tests' files lie there: what they ask is what a killed process leaves, not a power cut.
TMP = $(shell test "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 8000000 2>/dev/null && echo /dev/shm || echo "$${TMPDIR:-/tmp}")

lint: $(VENV)/.test
	@$(RUN)/ruff format --check . && $(RUN)/ruff check . && $(RUN)/mypy && $(RUN)/lint-imports --no-cache

serve: $(VENV)/.run
	@$(RUN)/yongtong serve

bench: $(VENV)/.test
	@$(RUN)/python -m bench $(if $(ONLY),--only $(ONLY))

soak: $(VENV)/.test
	@$(RUN)/python -m bench.soak
	@YONGTONG_KILL_ROUNDS=20 $(RUN)/python -m pytest -n 2 tests/whole/test_kills.py > bench/kills.txt; cat bench/kills.txt
	@$(RUN)/python -m bench.mixed --engine sqlite --write && $(RUN)/python -m bench.mixed --engine postgresql --write
	@YONGTONG_FUZZ_EXAMPLES=5000 $(RUN)/python -m pytest -n 0 tests/security/test_fuzz.py tests/security/test_mutants.py tests/formats/test_dxf_fuzz.py tests/formats/test_dxf_attacks.py
	@$(RUN)/python -m bench.cascade --districts 10 --keep

# What tests talk to, from Debian's packages, as root; only what is missing. Without it, tests are skipped by name.
servers:
	@for program in node:nodejs npm:npm openssl:openssl curl:curl mosquitto:mosquitto mosquitto_pub:mosquitto-clients \
	    ogr2ogr:gdal-bin softhsm2-util:softhsm2 php:php-cli xmlsec1:xmlsec1 pdftotext:poppler-utils \
	    rabbitmqctl:rabbitmq-server pg_ctlcluster:postgresql; do \
	    PATH="$$PATH:/usr/sbin" command -v $${program%%:*} >/dev/null || missing="$$missing $${program##*:}"; done; \
	test -z "$$missing" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }
	@ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql-postgis >/dev/null; }
	@php -m 2>/dev/null | grep -qi "^soap$$" || { apt-get update -qq && apt-get install -y -qq --no-install-recommends php-soap php-xml >/dev/null; }
	@npm install --prefix .node --no-save --no-audit --no-fund --silent soap@1.13.0

# New locks, with hashes and no addresses. Needs `uv`.
lock:
	@uv pip compile $(LOCK) pyproject.toml requirements-build.in -o requirements.lock
	@uv pip compile $(LOCK) --constraint requirements.lock --extra test pyproject.toml requirements-build.in -o requirements-test.lock
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt install python3"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (Debian 12: apt install python3)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "venv is missing: apt install python3-venv"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Fetching the locked parts (about 175 MB, once) …"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-test.lock
	@echo "Fetching what only tests need …"
	@$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

clean:
	@rm -rf $(VENV) build state keys partners .mypy_cache .ruff_cache .hypothesis
