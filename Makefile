# Two commands need nothing but a Debian machine with Python 3.11 and make: `make demo`, `make test`.
# Everything else is for people who work on Sluicegate.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet --use-pep517

# The compiled build, beside the checkout: it never runs what stands in the working tree.
COMPILED := $(VENV)/compiled

# nginx lives in /usr/sbin, which an ordinary user's PATH leaves out on Debian.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest compiled test-compiled check format bench bench-peers bench-targets lock packages clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.base  ## install, start an example origin and the gateway before it
	@exec $(BIN)/sluicegate demo

test: $(VENV)/.dev packages  ## install what the tests need, then run them all
	@$(BIN)/python -m pytest -v -rs $(ARGS)

test-newest: $(VENV)/.dev packages  ## most of the tests, with the newest dependencies that pyproject.toml allows
	@PYTHON=$(PYTHON) .ci/newest $(VENV) $(ARGS)

compiled: $(COMPILED)/.built  ## the request path compiled to C, a wheel in dist/, installed in an environment of its own
	@echo "the wheel: $$(ls dist/compiled/*.whl)" && $(COMPILED)/bin/sluicegate --version

test-compiled: $(COMPILED)/.built packages  ## the same tests, against the compiled build
	@rm -rf build/tree && mkdir -p build/tree
	@tar -c --exclude='./.*venv' --exclude=./build --exclude=./dist --exclude=./.git --exclude=__pycache__ . | tar -x -C build/tree
	@cd build/tree && $(abspath $(BIN))/python -m zipfile -e ../../dist/compiled/*.whl .wheel
	@cd build/tree/.wheel && find . -name '*.so' -exec cp --parents {} .. \;
	@cd build/tree && export PYTHONPATH=$$PWD && $(abspath $(BIN))/python -m pytest -rs $(ARGS)

check: $(VENV)/.dev  ## format, lint, types and the rules of the architecture
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_architecture.py

format: $(VENV)/.dev  ## format and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev packages  ## requests per second beside a bare aiohttp pass-through
	@$(BIN)/python -m bench.passthrough $(ARGS)

bench-peers: $(VENV)/.peers packages  ## the same beside nginx, HAProxy, Traefik and Caddy, limits in Redis too
	@$(BIN)/python -m bench.peers $(ARGS)

bench-targets: $(VENV)/.peers $(COMPILED)/.built packages  ## every target of speed in one table; exits with 1 where one is missed
	@$(BIN)/python -m bench.targets --compiled $(COMPILED)/bin/python $(ARGS)

# One resolution for every Python and machine that Sluicegate runs on. No index stands in the
# locks: pip asks the one that the machine is set up for. UPGRADE=1 moves to the newest releases.
COMPILE = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

lock: $(VENV)/lock/bin/uv  ## write the two lock files anew
	@$(COMPILE) pyproject.toml -o requirements.lock
	@$(COMPILE) pyproject.toml --group test --group lint -c requirements.lock -o requirements-dev.lock

packages:
	@.ci/packages

clean:  ## forget the virtual environment and what the tools left
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps hold what was installed for: a changed lock or pyproject.toml installs again.
$(VENV)/bin/python:
	@PYTHON=$(PYTHON) .ci/venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python requirements.lock pyproject.toml
	@echo "installing Sluicegate into $(VENV)"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base requirements-dev.lock
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# Built again whenever a module or the build itself has changed. About 100 s on two cores.
$(COMPILED)/.built: $(VENV)/.dev hatch_build.py $(shell find proxy -name '*.py')
	@echo "compiling, which takes a minute or two"
	@rm -rf dist/compiled
	@mkdir -p build && HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m hatchling build -t wheel -d dist/compiled \
		>build/compiled.log 2>&1 || { cat build/compiled.log >&2; exit 1; }
	@[ -x $(COMPILED)/bin/python ] || PYTHON=$(PYTHON) .ci/venv $(COMPILED)
	@$(COMPILED)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	@$(COMPILED)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --force-reinstall dist/compiled/*.whl
	@touch $@

# Not locked, as nothing but a table depends on them; what cannot be had is left out of it.
PEERS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["bench"], sep="\n")
$(VENV)/.peers: $(VENV)/.dev
	@echo "installing what is compared into $(VENV)"
	@$(BIN)/python -c '$(PEERS)' | while read -r peer; do $(PIP) "$$peer" || echo "without $$peer" >&2; done
	@touch $@

$(VENV)/lock/bin/uv: $(VENV)/bin/python
	@PYTHON=$(PYTHON) .ci/venv $(VENV)/lock
	@$(@D)/python -m pip install --disable-pip-version-check --quiet 'uv>=0.8'
