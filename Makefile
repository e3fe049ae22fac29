# Each target does its own set-up: a .venv in this folder, made once, versions from constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: install browser demo test lint vendor clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# The report is tested in a browser.
browser:
	@command -v chromium >/dev/null || .ci/install-chromium

demo: install
	@rm -rf demo
	$(BIN)/ushape example demo/cells --count 48
	$(BIN)/ushape example demo/new --count 8 --seed 1
	$(BIN)/ushape train demo/cells -o demo/run --minutes 1.8
	$(BIN)/ushape evaluate demo/run demo/new
	$(BIN)/ushape predict demo/run demo/new/images -o demo/masks --overlay
	@echo
	@echo "Report: demo/run/report.html"
	@echo "Masks:  demo/masks (the overlays beside them show the outlines)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint browser
	$(BIN)/pytest -n auto --durations 8

# The library that the report draws with; needs Node. The result is committed.
vendor:
	cd src/ushape/reports/templates/vendor && npm ci --no-audit --no-fund && npm run build
	rm -rf src/ushape/reports/templates/vendor/node_modules

clean:
	rm -rf .venv demo runs
