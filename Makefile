# What developers and CI run. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

E2E := tests/e2e
# What is about offsets, recovery, gaps and explain.
E2E_PARTITIONED := backfill commands explain resume session_takeover small_deliveries sse_resume tail ws
CONFORMANCE := tests/conformance
FAULTS := tests/faults
# They run with eight partitions too, the first on a Redis Cluster.
PARTITIONED := cluster.test.mjs node_killed.test.mjs rolling_restart.test.mjs
SYSTEMS := tests/systems
CHAT := examples/chat
# `cargo build` and `cargo test` share the dev profile, so that nothing is compiled twice.
ROOMCAST_BIN ?= $(CURDIR)/target/debug/roomcast
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := frames engineio socketio ws_json offset sse_query msgpack emitter stream_entry token backend_answer proxy_header http1 resp
DENY_VERSION := 0.20.2
IMAGE ?= roomcast

.PHONY: help build test test-rust test-e2e test-attacks test-conformance test-packages test-systems test-chat test-proxies test-deploy test-site test-documents test-examples test-dist test-dist-here test-dist-built test-faults site manifests tools lint deny advisories dist image fuzz bench

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

build: ## build the binary that the outside tests run
	cargo build --locked

test: tools build test-rust test-e2e test-attacks test-conformance test-packages test-systems test-chat test-proxies test-deploy test-site test-documents test-examples test-dist test-faults ## everything: cargo test, then the built binary with real clients and a real Redis, well and failing

test-rust: ## unit and integration tests
	cargo test --locked

test-e2e: build ## the outside tests alone (node --test in tests/e2e), those of E2E_PARTITIONED a second time over a log with partitions
	cd $(E2E) && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=2 *.test.mjs
	cd $(E2E) && ROOMCAST_BIN="$(ROOMCAST_BIN)" ROOMCAST_PARTITIONS=8 node --test --test-reporter=spec --test-concurrency=2 $(E2E_PARTITIONED:%=%.test.mjs)

# One after the other: each measures a bystander, who must have the machine to itself but for the attack.
test-attacks: build ## hostile outsiders, users, tenants and backends, with a bystander who must notice nothing
	cd tests/attacks && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=1 *.test.mjs

# One after the other: the cases are about timers of a few hundred milliseconds.
test-conformance: build ## the cases of the public conformance suites of Engine.IO 4 and Socket.IO 5
	cd $(CONFORMANCE) && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=1 *.test.mjs

test-packages: build ## packages/: the npm packages against the built binary
	cd tests/packages && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=2 *.test.mjs

test-systems: build ## the five systems of examples/, each by its own file, frontend and backend
	cd $(SYSTEMS) && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=2 *.test.mjs

# One after the other: the latency that a test measures is then the chat's own.
test-chat: build ## examples/chat in a real browser, two windows and more
	cd $(CHAT) && npm run --silent build
	cd tests/chat && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=1 *.test.mjs

test-proxies: build ## nginx, HAProxy and Caddy in front: two nodes, and suites of tests/e2e (PROXIES)
	ROOMCAST_BIN="$(ROOMCAST_BIN)" tests/proxies/run.sh

test-deploy: build ## deploy/: the chart, manifests, Compose, the systemd unit, alerts and the dashboard, each by its own tools
	cd tests/deploy && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=2 *.test.mjs

# The packages are those of a release, for this machine's architecture (DIST_TARGETS), but with a binary that is quick to build.
test-dist: ## packages, image and installers: built, installed and run
	if packaging/tools.sh $${DIST_TARGETS:-$$(uname -m)}; then $(MAKE) test-dist-here; elif [ $$? = 3 ]; then \
	  echo "test-dist is LEFT OUT: Rust's libraries for static binaries cannot be fetched on this machine" >&2; else exit 1; fi

test-dist-here:
	DIST_PROFILE=dev DIST_TARGETS="$${DIST_TARGETS:-$$(uname -m)}" DEB_COMPRESSION=0 packaging/dist.sh
	$(MAKE) test-dist-built

test-dist-built: ## the same for what `make dist` built before
	cd tests/dist && node --test --test-reporter=spec --test-concurrency=2 *.test.mjs

test-site: ## docs/ as a static site, in a real browser
	cd tests/site && node --test --test-reporter=spec *.test.mjs

test-documents: build ## every code block of README.md, docs/ and packages/, as it stands there
	cd tests/documents && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=2 *.test.mjs

# One after the other: each builds and starts a whole application.
test-examples: build ## the examples for other stacks, each by its one command
	cd tests/examples && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=1 *.test.mjs

# One after the other: each row has a machine of two cores to itself, or its deadlines say nothing.
test-faults: build ## nodes, Redis and connections that fail under load (FAULT_SECONDS, FAULT_SEED)
	cd $(FAULTS) && ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=1 *.test.mjs
	cd $(FAULTS) && ROOMCAST_PARTITIONS=8 ROOMCAST_BIN="$(ROOMCAST_BIN)" node --test --test-reporter=spec --test-concurrency=1 $(PARTITIONED)

site: ## docs/ as a searchable static site, in site/dist
	cd site && npm ci --silent --no-audit --no-fund && npm run build

manifests: ## deploy/kubernetes from the chart, and the chart's copies of the alerts and the dashboard
	tests/.venv/bin/python deploy/render.py

tools: ## install what the tests need and the machine misses
	tests/install-tools.sh

lint: deny ## formatting, clippy, licences and sources of dependencies
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

# Not `cargo deny check` whole: `advisories` fetches a database from a host that not every machine reaches. See there.
# Building the tool takes minutes, so it stays in ~/.cargo/bin; its quality of code does not matter, hence no optimisation.
deny:
	@cargo deny --version >/dev/null 2>&1 || \
	  cargo install cargo-deny --locked --version $(DENY_VERSION) \
	    --config profile.release.lto=false --config profile.release.opt-level=0 --config profile.release.codegen-units=16
	cargo deny --locked check licenses bans sources

dist: ## what a release publishes, in target/dist: binaries, .deb, npm and PyPI packages, SBOM (DIST_TARGETS, DIST_PROFILE)
	packaging/dist.sh

image: ## the container image of this machine's architecture, from what `make dist` built (IMAGE=roomcast)
	packaging/image.sh "$(IMAGE)"

# Needs the database of advisories: fetched from GitHub, or with ADVISORY_DB=<clone of rustsec/advisory-db> taken from there
# on a machine that reaches no network (CONTRIBUTING.md).
advisories: ## known vulnerabilities of dependencies
	@cargo deny --version >/dev/null 2>&1 || $(MAKE) deny
	if [ -n "$(ADVISORY_DB)" ]; then .ci/advisories-offline "$(ADVISORY_DB)"; else cargo deny --locked check advisories; fi

# cargo-fuzz asks for nightly features; RUSTC_BOOTSTRAP lets the stable compiler have them.
fuzz: ## every fuzz target for FUZZ_SECONDS (60) each
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096; done

bench: ## the benchmarks
	cargo bench --locked
