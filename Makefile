# Every target does its own set-up: on a fresh machine `make demo` or `make test` is the only command needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Installed once; again only where what is installed has changed. The C++ sources need CMake, the rest is read where it stands;
# but an editable install knows which modules were folders, and engine/config has become one.
INSTALLED := $(VENV)/installed
INSTALLED_FROM := pyproject.toml constraints.txt CMakeLists.txt $(wildcard kernels/native/*) engine/config/__init__.py
# Tests run in two processes: one thread each, and idle threads sleep.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

# PORT=8800, or SERVE='--model FOLDER': any option of dragnoise serve.
PORT ?= 8765

.PHONY: demo studio browser test attack lint types docs check clean venv

demo: $(INSTALLED)
	$(BIN)/dragnoise demo -o demo/

studio: $(INSTALLED)
	$(BIN)/dragnoise serve --port $(PORT) $(SERVE)

# What the page's tests drive; they are skipped where it is missing. Debian's, where this may install it.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    apt-get update --quiet >/dev/null && apt-get install --yes --quiet --no-install-recommends chromium >/dev/null; } || \
	  echo "no chromium: the page's tests are skipped"

test: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

# The whole of tests/attack (make test tries a small lot of each), and its tables.
attack: $(INSTALLED)
	ATTACK=whole $(ONE_THREAD) $(BIN)/python -m pytest -n 2 tests/attack $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy
	$(BIN)/mypy tests examples

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

check: lint types docs test

venv: $(INSTALLED)

$(INSTALLED): $(INSTALLED_FROM)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is %d.%d: set PYTHON= to 3.11 or newer" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]' --constraint constraints.txt
	touch $@

clean:
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
