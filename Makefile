# Each target sets up a virtual environment in .venv if needed, with the versions of constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: install browser demo lint test test-slow coverage docs vendor clean

install: .venv/installed

# ushape as its users install it, without extras.
.venv/default: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed: .venv/default
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@

# The tests marked "browser" open reports in Chromium.
browser:
	@command -v chromium >/dev/null || .ci/install-chromium

demo: .venv/default
	@rm -rf demo
	$(BIN)/ushape example demo/cells --count 48
	$(BIN)/ushape example demo/new --count 8 --seed 1
	$(BIN)/ushape train demo/cells -o demo/run --minutes 1.8
	$(BIN)/ushape evaluate demo/run demo/new
	$(BIN)/ushape predict demo/run demo/new/images -o demo/masks --overlay
	@echo
	@echo "Report: demo/run/report.html"
	@echo "Masks:  demo/masks (with an overlay image for each mask)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --no-namespace-packages src/ushape/export/standalone/template/predict.py

# Static checks and all quick tests.
test: lint
	$(BIN)/pytest -n auto -m "not slow" --durations 8

# Whole commands, interrupted processes, fuzzing, real data and reports in a browser.
test-slow: install browser
	$(BIN)/pytest -n auto -m slow --durations 8

# All tests; fails if less than 90 % of the lines are covered. The details are in htmlcov/index.html.
coverage: install browser
	@rm -f .coverage .coverage.*
	$(BIN)/pytest -n auto --cov --cov-report term --cov-report html

# The website, in site/. Warnings, such as broken links, are errors.
docs: install
	$(BIN)/mkdocs build --strict

# The plotting library of the report; needs Node.js. The result is committed.
vendor:
	cd src/ushape/reports/templates/vendor && npm ci --no-audit --no-fund && npm run build
	rm -rf src/ushape/reports/templates/vendor/node_modules

clean:
	rm -rf .venv demo runs site htmlcov .coverage .coverage.*
