# Everything a person does with this repository. README.md says more.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
DATA_DIR ?= .data
SEED ?= 1
SCALE ?= 1
REV ?= HEAD
N ?=
FATES ?= 200
VENV := .venv
BIN := $(VENV)/bin
export DATA_DIR

.PHONY: help up manage reset test test-fast test-browser faults pipeline isolation fuzz pages check format lock bench bench-compare bench-fleet bench-growth bench-live bench-hung-aws bench-verdicts sim sim-mutants
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

up: $(VENV)/.run ## everything, running at http://127.0.0.1:8000 (PORT, DATA_DIR)
	@exec $(BIN)/python -m portal.local.up

manage: ## manage.py of the running portal: make manage ARGS="sandbox status"
	@[ -f "$$DATA_DIR/env" ] || { echo "Nothing runs on $$DATA_DIR: start it with make up."; exit 1; }
	set -a; . "$$DATA_DIR/env"; set +a
	"$(BIN)/python" manage.py $(ARGS)

reset: ## drop the data of `make up`
	@$(PYTHON) -m portal.local.setup reset

# Keep bytecode whatever the shell says: without it each process compiles the tests and all imports again.
test test-fast faults pipeline isolation fuzz pages: export PYTHONDONTWRITEBYTECODE :=

# Four workers for two cores: many tests wait for a process or a browser. An idle worker takes tests from a busy one.
# What the markers leave out as a whole is not imported either: that takes each worker a second.
test: $(VENV)/.dev ## the suite, browser included; without the walks and kills of `make faults`, `isolation`, `fuzz`, `pages`
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m "not faults and not pages and not isolation and not fuzz" \
	  --ignore tests/faults --ignore tests/fuzz $(ARGS)

faults: $(VENV)/.dev ## kill, stop and restart the portal's processes: nothing is lost, nothing doubled (N=500 for the full form)
	@N=$(N) SEED=$(SEED) $(BIN)/python -m pytest -n 3 --dist worksteal -m faults $(ARGS)

pipeline: $(VENV)/.dev ## 200 scripted fates of an upgrade: does the exit code of a pipeline's script equal the verdict? (FATES, SEED)
	@FATES=$(FATES) SEED=$(SEED) $(BIN)/python -m pytest tests/faults/test_pipeline.py $(ARGS)

isolation: $(VENV)/.dev ## every route x method x actor; then the reads without their scope, one at a time: what leaks?
	@$(BIN)/python -m pytest -n 3 --dist worksteal tests/portal/test_isolation.py tests/portal/test_policies.py
	$(BIN)/python -m bench.scope_mutants $(ARGS)

fuzz: $(VENV)/.dev ## hostile requests, forms and replies of AWS: no error, nothing executed (N=10000 for the full form)
	@N=$(N) $(BIN)/python -m pytest -n 3 --dist worksteal -m fuzz $(ARGS)

pages: $(VENV)/.dev ## walk through every page with axe (WCAG 2.2 AA), light and dark, from 320 px up; pictures in DATA_DIR/pages
	@mkdir -p "$$DATA_DIR/pages"
	SCREENSHOTS="$$(realpath "$$DATA_DIR/pages")" $(BIN)/python -m pytest -n 3 --dist worksteal -m pages $(ARGS)
	echo "Pictures of the pages: $$DATA_DIR/pages"

test-fast: $(VENV)/.dev ## what needs no process of its own and no browser: while you work
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not process and not browser and not isolation and not fuzz" --ignore tests/fuzz \
	  $(ARGS)

test-browser: ## install Chromium (Debian's, without windows: 6 times faster), then run the tests that drive it
	@command -v chromium-headless-shell >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium-headless-shell)
	$(MAKE) test ARGS="-m browser"

bench: $(VENV)/.dev ## what each route costs, beside two yardsticks; then the reconciler (SCALE=10, ARGS="--routes list --seconds 1")
	@$(BIN)/python -m bench --scale $(SCALE) $(ARGS)

bench-compare: $(VENV)/.dev ## the same for the revision REV and for the present tree, and what changed
	@$(BIN)/python -m bench.compare $(REV) --scale $(SCALE) $(ARGS)

bench-fleet: $(VENV)/.dev ## 1,000 upgrades at once in 10,000 organizations: how late, how fair, how many calls to AWS
	@$(BIN)/python -m bench.fleet $(ARGS)

bench-growth: $(VENV)/.dev ## every route for an organization with ten times the rows of another (SCALE=10, ARGS="--routes list")
	@$(BIN)/python -m bench.growth --scale $(SCALE) $(ARGS)

bench-live: $(VENV)/.dev ## 1,000 open live pages that poll at their own pace, and triggers meanwhile (ARGS="--pages 1000 --seconds 60")
	@$(BIN)/python -m bench.live_pages $(ARGS)

bench-hung-aws: $(VENV)/.dev ## how long people wait for pages while AWS hangs and ten others watch logs and metrics
	@$(BIN)/python -m bench.hung_aws $(ARGS)

bench-verdicts: $(VENV)/.dev ## the short form of the simulation: is any verdict wrong? (ARGS="--worlds 100 --seed 2")
	@$(BIN)/python -m sim --worlds 500 $(ARGS)

sim: $(VENV)/.dev ## simulate 2,000 rollouts of each strategy with all faults: SEED=1, ARGS="--worlds 500" for the short form
	@$(BIN)/python -m sim --seed $(SEED) $(ARGS)

sim-mutants: $(VENV)/.dev ## break the engine in 31 ways and print how many of them the short form notices
	@$(BIN)/python -m sim.mutants $(ARGS)

# Settings that let code be looked at without a database, a broker or AWS; and those of a production site.
CHECK_ENV := DEMO=1 DATABASE_URL=postgresql://localhost/none CELERY_BROKER_URL=redis://localhost CACHE_URL=locmem://
DEPLOY := $(CHECK_ENV) DEMO=0 SECRET_KEY=$$(head -c 48 /dev/urandom | base64 -w0) ALLOWED_HOSTS=portal.example \
  CACHE_URL=redis://localhost

check: $(VENV)/.dev ## formatting, lint, types, templates, migrations, deployment settings
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(CHECK_ENV) $(BIN)/mypy
	$(BIN)/djlint --lint --quiet templates
	$(CHECK_ENV) $(BIN)/python -W ignore manage.py makemigrations --check --dry-run
	$(DEPLOY) $(BIN)/python manage.py check --deploy --fail-level WARNING

format: $(VENV)/.dev ## format the code
	@$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.dev ## lock the dependencies again, with hashes
	@for name in requirements requirements-demo requirements-dev; do
	  $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 \
	    --custom-compile-command "make lock" $$name.in -o $$name.txt
	done

# The virtual environment, updated when the locked requirements change.
$(VENV)/.run: requirements-demo.txt
	@$(PYTHON) -m portal.local.setup install requirements-demo.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt
	@$(PYTHON) -m portal.local.setup install requirements-dev.txt
	touch $@ $(VENV)/.run
