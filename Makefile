# Front door: `make demo` runs the main job, `make test` passes the tests; both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SYSTEM_PACKAGES := qemu-user g++-aarch64-linux-gnu g++-arm-linux-gnueabihf adb

.PHONY: setup system mca demo test test-long lint bench bench-kernels bench-networks bench-arm bench-pruning clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pconvgen needs Python 3.11 or newer, found $$($(PYTHON) --version); set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[arm,demo,dev]'
	@touch $(STAMP)

# The ARM emulator, cross compilers and adb are Debian packages. Without them ARM libraries are still built, but not run.
system:
	@if command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-g++ >/dev/null \
	  && command -v arm-linux-gnueabihf-gcc >/dev/null && command -v adb >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $(SYSTEM_PACKAGES)"; \
	  apt-get update -qq && apt-get install -y -qq $(SYSTEM_PACKAGES) >/dev/null; \
	else \
	  echo "MISSING: some of $(SYSTEM_PACKAGES) (apt-get install them as root)."; \
	  echo "SKIPPED for it: everything that runs ARM code, or that talks to phones. Building ARM libraries works."; \
	fi

demo: setup system
	$(BIN)/python -m benchmarks.demo

# Random workloads of each kernel template, others for each commit; `make test WORKLOADS=2000` before a release.
WORKLOADS ?= 500
test: setup system mca
	$(BIN)/python -m pytest -n 2 --durations 10 --workloads $(WORKLOADS) tests

# Twenty times as many random workloads of each kernel template, and what takes minutes, such as tuning on a farm,
# networks of other people's packages, and each network with each structure.
PACKAGES := tests/conformance/packages.txt
test-long: setup system mca
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(PACKAGES) || \
	  { echo "MISSING: some of $(PACKAGES)."; echo "SKIPPED for it: networks of packages."; }
	$(BIN)/python -m pytest -n 2 --durations 10 --workloads 10000 --long tests

# The package as it is installed, templates and schedules in their places, in which types and imports are checked.
HOUSE := build/house
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf $(HOUSE) && mkdir -p $(HOUSE)
	@cp -r pconvgen pyproject.toml $(HOUSE) && cp -r templates schedules $(HOUSE)/pconvgen
	cd $(HOUSE) && $(abspath $(BIN))/mypy --cache-dir $(abspath .mypy_cache)
	cd $(HOUSE) && $(abspath $(BIN))/lint-imports --no-cache --no-logo

# Both run to their end, so that a missed promise of one does not hide the other's; either fails the target.
bench:
	@status=0; for part in kernels networks; do $(MAKE) bench-$$part || status=1; done; exit $$status

bench-kernels: setup
	$(BIN)/python -m benchmarks.kernels

bench-networks: setup
	$(BIN)/python -m benchmarks.networks

# llvm-mca, for cycle estimates of ARM code; older releases than 16 have no model of the cores.
mca:
	@for v in 19 18 17 16; do command -v llvm-mca-$$v >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing llvm, for llvm-mca"; \
	  apt-get update -qq; \
	  for v in 19 18 17 16; do apt-get install -y -qq --no-install-recommends llvm-$$v >/dev/null && exit 0; done; \
	fi; \
	echo "MISSING: llvm-mca 16 or newer (apt-get install llvm-19 as root)."; \
	echo "SKIPPED for it: cycle estimates. Instructions are counted without them."

bench-arm: setup system mca
	@status=0; for part in kernels networks; do $(BIN)/python -m benchmarks.arm.$$part || status=1; done; exit $$status

bench-pruning: setup
	$(BIN)/python -m benchmarks.pruning

clean:
	rm -rf $(VENV) build dist *.egg-info out
