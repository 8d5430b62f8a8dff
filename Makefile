# Main targets: `make run` and `make test`. Everything is installed into .venv.

VENV := .venv
PYTHON := $(VENV)/bin/python
WANTED := $(shell cat .python-version)
# The fastest interpreter of the version in .python-version, from pyenv or on PATH; else a suitable one. One that was built with
# optimisations runs a plain loop in half to two thirds of the time; the loop finds it, whatever its build settings say.
CANDIDATES = $(shell pyenv prefix $(WANTED) 2>/dev/null || pyenv prefix $$(pyenv latest $(WANTED) 2>/dev/null) 2>/dev/null)
define SUITABLE
import sys, time, venv, ensurepip
def loop():
    began = time.process_time()
    for number in range(1_000_000): pass
    return time.process_time() - began
version = ".".join(map(str, sys.version_info[:2]))
if sys.version_info >= (3, 12):
    print(*(("a", min(loop() for _ in range(5))) if version == "$(WANTED)" else ("b", 0)), sys.executable)
endef
export SUITABLE
NAMES = python$(WANTED) python3 python3.14 python3.13 python3.12
FIND_PYTHON = found="$$(for folder in $(addsuffix /bin,$(CANDIDATES)) $$(echo "$$PATH" | tr ':' ' '); do for name in $(NAMES); do \
	[ -x "$$folder/$$name" ] && readlink -f "$$folder/$$name"; done; done | awk '!seen[$$0]++' | \
	while read -r python; do "$$python" -c "$$SUITABLE" 2>/dev/null; done | sort -s -k1,1 -k2,2n | head -n 1 | cut -d' ' -f3-)"; \
	if [ -n "$$found" ]; then echo "$$found"; else echo "Python 3.12 or newer (with venv) is needed" >&2; exit 1; fi

# Arguments of `manage.py up`, of pytest, of the laboratory and of the benchmarks: make test ARGS="-k ledger -n 0"
ARGS ?=

# Two test processes, each with databases of its own; a file stays in one, and the longest come first (tests/conftest.py).
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

# The type checker imports the settings, which need server addresses; no connection is made.
SETTINGS := DATABASE_URL=postgres://nobody@127.0.0.1/none REDIS_URL=redis://127.0.0.1:1/0 \
	SECRET_KEY=only-for-the-type-checker-which-signs-nothing

.PHONY: run test test-deep lab soak bench lint client client-sync venv clean
.DEFAULT_GOAL := run

run: $(VENV)/.run
	@exec $(PYTHON) manage.py up --demo $(ARGS)

test: $(VENV)/.test
	$(PYTHON) -m pytest $(SIDE_BY_SIDE) $(ARGS)

# Longer runs of what `make test` samples: generated calls and orders of events, storms, half an hour of chaos, 100 histories.
test-deep: $(VENV)/.test
	DEEP=1 $(PYTHON) -m pytest $(SIDE_BY_SIDE) --timeout 3600 $(ARGS)
	$(PYTHON) -m tests.chaos --minutes 30
	$(PYTHON) -m tests.histories --runs 100

# A service of several hosts as network namespaces on this machine (Linux, root, Debian's packages), and strikes against all of it.
# make lab ARGS="--seed 7 --strikes 20"
lab: $(VENV)/.test
	@$(PYTHON) -m tests.lab $(ARGS)

# Two hours of steady traffic: nothing may grow. make soak ARGS="--hours 0.5"
soak: $(VENV)/.test
	DEEP=1 PYTHONPATH=client/src $(PYTHON) -m tests.soak $(ARGS)

bench: $(VENV)/.test
	$(PYTHON) -m bench $(ARGS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(SETTINGS) $(VENV)/bin/mypy manage.py registry queueing payments sandbox
	cd client && ../$(VENV)/bin/mypy
	$(PYTHON) client/tools/generate.py --check
	git ls-files '*.html' | xargs -r $(VENV)/bin/djade --check --target-version 6.1
	$(PYTHON) manage.py makemigrations --check --dry-run
	$(PYTHON) -m pytest -q tests/test_structure.py

# Wheel and sdist of the Python client in client/dist. Its tests are in tests/client.
client: $(VENV)/.test
	$(PYTHON) client/tools/generate.py --check
	rm -rf client/dist
	$(PYTHON) -m build --no-isolation client

# The client's blocking half, from the asynchronous one.
client-sync: $(VENV)/.test
	$(PYTHON) client/tools/generate.py

venv: $(VENV)/.test

$(VENV)/.python:
	@python="$$($(FIND_PYTHON))" && echo "creating $(VENV) with $$python" && "$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-dev.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
