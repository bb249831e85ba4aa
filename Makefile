# The two main targets are `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done; echo python-3.11-or-newer-not-found)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed
PAGE_STAMP := $(VENV)/.page-tools
ARGS ?=
# Three test processes: one runs the tests that need the engine, because they look at everything on
# it. More processes than CPUs are fine, because most tests wait longer than they compute.
STREAMS ?= -n 3 --no-loadscope-reorder

# COVERAGE=1 measures every process that the tests start, and fails below the figure that
# pyproject.toml asks for. It costs about a third more time.
COVERAGE ?=

.PHONY: help demo page test coverage check unit engine podman test-tools demo-image bench soak chaos fuzz acceptance compile docs lock clean

help:
	@echo "make demo    run the food-delivery application through a lunch rush, then print a report"
	@echo "make page    build the web page; installs Node and esbuild as pinned packages"
	@echo "make test    run all tests"
	@echo "make coverage  run all tests and report the lines and branches that they reach"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make engine  install a Docker Engine and a base image (Debian, Ubuntu; as root)"
	@echo "make test-tools  the same, and the programs that only the tests need"
	@echo "make podman  run the tests of the Docker runtime on Podman, if it is installed (as root)"
	@echo "make soak    run ROLLOUTS=100 rolling updates under load, with RUNTIME=process or docker"
	@echo "make chaos   run STEPS=60 random operations with SEED=1 on a mesh with a separate engine (as root)"
	@echo "make fuzz    fuzz the HTTP parsers for FUZZ_SECONDS=60 with atheris, which it installs"
	@echo "make acceptance  run every check at full length: tests, soak, chaos, fuzz, benchmarks (hours; as root)"
	@echo "make compile compile the hot modules of the request path to C (mypyc), into build/compiled"
	@echo "make bench   compare the proxy with nginx, HAProxy and others"
	@echo "make docs    build the documentation as a site, into build/site"

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys' 2>/dev/null || { echo "meshd needs Python 3.11 or newer, and none was found; set PYTHON=/path/to/python3" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "cannot create a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "installing pinned dependencies into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m demo_services.scenario $(ARGS)

# Node and the driver of a browser, which only the web page and its tests need.
$(PAGE_STAMP): $(STAMP) web/requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r web/requirements.lock
	@touch $@

page: $(PAGE_STAMP)
	@$(BIN)/python web/build.py --require

# Without the page all tests but its own run.
.PHONY: try-page
try-page: $(STAMP)
	@$(MAKE) --no-print-directory page || echo "make: the web page is not built; its tests are left out" >&2

test: $(STAMP) try-page
	@$(if $(COVERAGE),rm -rf build/coverage && mkdir -p build/coverage)
	@$(BIN)/python $(if $(COVERAGE),-m coverage run) -m pytest -W error $(STREAMS) $(ARGS)
	@$(if $(COVERAGE),$(BIN)/python -m coverage combine -q && $(BIN)/python -m coverage report $(if $(MESHD_REQUIRE_ENGINE),--fail-under=93))

coverage:
	@$(MAKE) --no-print-directory test COVERAGE=1

unit: $(STAMP)
	@$(BIN)/python -m pytest -W error tests/unit $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

engine:
	@deploy/engine/install

test-tools:
	@deploy/engine/install tests

podman: $(STAMP)
	@$(BIN)/python -m tests.support.podman $(BIN)/python -m pytest -W error tests/engine/test_runtime_conformance.py -k docker $(ARGS)

demo-image: $(STAMP)
	@$(BIN)/python -m demo_services.image $(ARGS)

bench: $(STAMP)
	@$(BIN)/python -m bench.proxy $(ARGS)

soak: $(STAMP)
	@$(BIN)/python -m tests.soak.run --rollouts $(or $(ROLLOUTS),100) --runtime $(or $(RUNTIME),process) $(ARGS)

chaos: $(STAMP)
	@$(BIN)/python -m tests.soak.chaos --steps $(or $(STEPS),60) --seed $(or $(SEED),1) $(ARGS)

fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check 'atheris>=3,<4'
	@$(BIN)/python tests/fuzz/run.py

# Every long check at full length; `.ci/run` runs a short form of each.
acceptance: $(STAMP)
	@MESHD_REQUIRE_ENGINE=1 MESHD_ACCEPTANCE=1 $(MAKE) check test
	@$(MAKE) podman
	@$(MAKE) soak RUNTIME=process ROLLOUTS=100
	@$(MAKE) soak RUNTIME=docker ROLLOUTS=100
	@$(MAKE) chaos STEPS=300
	@$(MAKE) fuzz FUZZ_SECONDS=600
	@test -z "$$MESHD_TRACES" || $(BIN)/python -m bench.autoscaling --curve
	@$(MAKE) compile
	@$(MAKE) bench

# Only into build/compiled: a compiled file next to the sources would shadow them.
compile: $(STAMP)
	@rm -rf build/wheel build/compiled
	@MESHD_COMPILE=1 $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w build/wheel .
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/compiled build/wheel/*.whl
	@echo "run it with: PYTHONPATH=build/compiled $(BIN)/python -P -m meshd.cli.main"

# The builder is not part of the tests' environment until this target is made.
$(DOCS_STAMP): $(STAMP) requirements-docs.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

docs: $(DOCS_STAMP)
	@$(BIN)/python -m docs.site.build $(ARGS)

lock: $(STAMP)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml --extra demo --extra otlp --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -c requirements-dev.lock --group docs -o requirements-docs.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -c requirements-dev.lock demo_services/requirements.in -o demo_services/requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links -c requirements-dev.lock web/requirements.in -o web/requirements.lock

clean:
	rm -rf $(VENV) web/node_modules meshd/ui/static build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
