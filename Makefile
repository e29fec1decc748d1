# Every target installs what it needs first; `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= data
RECIPE ?= tiny
UPDATES ?= 9000
# The live model begins with what the other one has learned.
BEGIN := $(if $(filter tiny-live,$(RECIPE)),--begin src/conure/data/tiny)

.PHONY: demo test conformance page browser lint parity train bench install clean

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py $(ARGS)

test: lint
	$(BIN)/pytest

# Other people's clients, in an environment of their own.
conformance: $(VENV)/dev $(VENV)/clients/installed
	CONURE_PYTHON=$(abspath $(BIN)/python) $(VENV)/clients/bin/python -m pytest -c tests/conformance/pytest.ini tests/conformance

# The page and the TypeScript client need Node, which nobody else does: what is built of the page is kept.
page: node_modules/installed
	npm run -s -w page build

browser: $(VENV)/dev node_modules/installed
	command -v chromium >/dev/null || (apt-get update -q && apt-get install -qy chromium)
	CONURE_PYTHON=$(abspath $(BIN)/python) npm run -s -w clients/typescript test
	CONURE_PYTHON=$(abspath $(BIN)/python) npm run -s -w page test

node_modules/installed: package-lock.json
	npm ci --no-audit --no-fund
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

# Everything below needs environments of its own; see tools/ and bench/.
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
