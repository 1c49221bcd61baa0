# The front door. pgxs.mk builds the extension, PostgreSQL's way; this file passes
# PGXS's own goals on to it, and has the developer's goals. (They cannot share one
# file, because PGXS already has a target named `check`.)
#
# PG_CONFIG=/path/to/pg_config chooses the PostgreSQL, for every goal.

PGXS_GOALS = all install uninstall installcheck installdirs

.PHONY: $(PGXS_GOALS) clean distclean help deps demo demo-stop \
	check check-code check-unit check-regress check-tap check-assert check-kafka check-sql check-k8s check-image check-matrix \
	bench bench-peers bench-tables kafka kafka-stop fuzz lint format format-check image cluster cluster-delete secrets phase-1 tilt

all: ## build the extension (the default)
install: ## install it into the PostgreSQL of PG_CONFIG
uninstall: ## remove it from there
installcheck: ## pg_regress against a running server that preloads spine

$(PGXS_GOALS):
	+@$(MAKE) --no-print-directory -f pgxs.mk $@

clean distclean: ## remove everything that was built (a running demo stays)
	@tools/check.sh clean
	+@$(MAKE) --no-print-directory -f pgxs.mk clean

deps: ## install the packages that building, demo and check need
	@tools/deps.sh check

demo: ## set up and start a private server with live data [BROKERS=host:port]
	@tools/demo.sh start

demo-stop: ## stop the demo and remove everything
	@tools/demo.sh stop

check: ## set up and run every test, in a private copy
	@tools/check.sh all

check-unit: ## unit tests only, plain and with sanitizers
	@tools/check.sh unit

check-regress: ## pg_regress only, on a temporary server
	@tools/check.sh regress

check-tap: ## TAP tests only [T=name of one file]
	@tools/check.sh tap

check-assert: ## pg_regress and TAP tests on a PostgreSQL with assertions [T=name of one file]
	@tools/check.sh assert

check-kafka: ## the tests on a real Kafka [T=name of one file] [BROKERS=host:port]
	@tools/check.sh kafka

check-code: ## the parts of check that depend on versions: without lint and check-k8s
	@tools/check.sh code

check-sql: ## the extension's scripts, with pgspot
	@tools/deps.sh k8s
	@tools/check-sql.sh

check-k8s: ## the cluster's manifests, alert rules and scripts, without a cluster
	@tools/deps.sh k8s
	@tools/check-k8s.sh

check-image: ## build the image on a plain Debian, and try it [SUITE=trixie]
	@tools/check-image.sh $(SUITE)

check-matrix: ## build and test on PostgreSQL 15, 17 and 18 [SUITES="bookworm trixie sid"]
	@tools/check-matrix.sh $(SUITES)

bench: ## measure against limits and peers [PARTS="drain latency ..."] [SIZE=tiny|quick|large] [RUNS=n]
	@tools/deps.sh bench
	@PYTHONDONTWRITEBYTECODE=1 SIZE='$(SIZE)' RUNS='$(RUNS)' EVENTS='$(EVENTS)' ORDERS='$(ORDERS)' \
		bench/bench.py $(PARTS)

bench-peers: ## measure beside other consumers [PEERS="python spark ..."] [EVENTS=200000] [RUNS=n] [JDBC_SINK=dir]
	@tools/deps.sh bench
	@PYTHONDONTWRITEBYTECODE=1 EVENTS='$(EVENTS)' RUNS='$(RUNS)' RATE='$(RATE)' SECONDS='$(SECONDS)' \
		JDBC_SINK='$(JDBC_SINK)' bench/peers.py $(PEERS)

bench-tables: ## write what was measured into docs/BENCHMARKS.md, and draw it
	@PYTHONDONTWRITEBYTECODE=1 bench/tables.py

kafka: ## download and start a real Kafka, on loopback, to try things with
	@tools/kafka.sh get
	@tools/kafka.sh start build/kafka-server
	@cat build/kafka-server/env

kafka-stop: ## stop that Kafka and remove its data
	@tools/kafka.sh stop build/kafka-server

image: ## build the container image [IMAGE=spine-postgres:dev BASE_IMAGE=...]
	@tools/image.sh

cluster: ## create the local cluster "data-platform" (docker, k3d, kubectl)
	@tools/cluster.sh create

cluster-delete: ## delete the cluster and all its data
	@tools/cluster.sh delete

secrets: ## make the cluster's passwords, once
	@tools/cluster.sh secrets

phase-1: ## build the image, bring everything up on the cluster, wait until ready
	@tools/cluster.sh up phase-1-ingest

tilt: ## the same, repeated whenever a source changes [PHASE=phase-1-ingest]
	@tools/cluster.sh tilt $(or $(PHASE),phase-1-ingest)

fuzz: ## fuzz the decoder until you stop it [FUZZ_SECONDS=n]
	@tools/deps.sh check
	+@$(MAKE) --no-print-directory -f test/unit/unit.mk fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),0)

lint: ## check the house rules: includes, names, scripts
	@tools/lint.sh

format: ## format the C files, by .clang-format
	@tools/deps.sh format
	@tools/format.sh

format-check: ## check the form of all files, by .clang-format and .editorconfig
	@tools/deps.sh format
	@tools/format.sh --check

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile
