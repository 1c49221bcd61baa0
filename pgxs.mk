# Builds, installs and checks the extension with PostgreSQL's PGXS, whose goals it has:
# all, install, uninstall, clean, installcheck.
# WERROR=1 turns on more warnings and makes them errors (gcc and clang).

MODULE_big = spine

# Floor by floor, from what depends on nothing to what depends on everything.
# tools/lint.sh compares this list with the files that are there.
OBJS = \
	src/spine.o \
	src/error.o \
	src/event/arena.o \
	src/event/decimal.o \
	src/event/json_reader.o \
	src/event/path.o \
	src/event/json_paths.o \
	src/event/json_walk.o \
	src/event/format_json.o \
	src/event/format.o \
	src/event/key_hash.o \
	src/event/reduce.o \
	src/kafka/cluster.o \
	src/kafka/option_list.o \
	src/kafka/options.o \
	src/kafka/configuration.o \
	src/kafka/client.o \
	src/kafka/client_cache.o \
	src/kafka/producer.o \
	src/kafka/partition.o \
	src/kafka/record_buffer.o \
	src/kafka/group_commit.o \
	src/kafka/consumer_assignment.o \
	src/kafka/consumer_batch.o \
	src/kafka/question.o \
	src/kafka/consumer.o \
	src/kafka/reader.o \
	src/catalog/extension.o \
	src/catalog/own_tables.o \
	src/catalog/place.o \
	src/catalog/mapping.o \
	src/catalog/pipeline.o \
	src/catalog/topics.o \
	src/catalog/gate.o \
	src/catalog/server.o \
	src/apply/transaction.o \
	src/apply/statement.o \
	src/apply/watch.o \
	src/apply/role.o \
	src/apply/trust.o \
	src/apply/view.o \
	src/apply/conflict.o \
	src/apply/table.o \
	src/apply/table_insert.o \
	src/apply/populate.o \
	src/apply/column.o \
	src/apply/field_text.o \
	src/apply/reading.o \
	src/apply/headers.o \
	src/apply/record_field.o \
	src/apply/bind.o \
	src/apply/compare.o \
	src/apply/expression.o \
	src/apply/json_chain.o \
	src/apply/record_row.o \
	src/apply/projection.o \
	src/apply/sink.o \
	src/apply/sink_append.o \
	src/apply/sink_upsert.o \
	src/apply/key_bytes.o \
	src/apply/newest.o \
	src/apply/kept_rows.o \
	src/apply/rows.o \
	src/apply/lookup.o \
	src/apply/postpone.o \
	src/apply/plan.o \
	src/apply/write.o \
	src/apply/apply.o \
	src/apply/check.o \
	src/apply/search.o \
	src/apply/dead_letters.o \
	src/apply/records.o \
	src/apply/record_json.o \
	src/apply/preview.o \
	src/process/settings.o \
	src/process/shared.o \
	src/process/status.o \
	src/process/counters.o \
	src/process/default_cluster.o \
	src/process/server_options.o \
	src/process/server_cluster.o \
	src/process/server_guard.o \
	src/process/position_row.o \
	src/process/positions.o \
	src/process/batch.o \
	src/process/share.o \
	src/process/worker_batch.o \
	src/process/worker_share.o \
	src/process/worker_startup.o \
	src/process/worker.o \
	src/process/worker_status.o \
	src/process/session_settings.o \
	src/process/assignment.o \
	src/process/find_topics.o \
	src/process/probe.o \
	src/process/child.o \
	src/process/launcher.o \
	src/process/database_holds.o \
	src/process/embedded_broker.o \
	src/process/catalog_changes.o \
	src/process/look.o \
	src/process/own_pipeline.o \
	src/process/peek.o \
	src/process/preview.o \
	src/process/topic_offsets.o \
	src/process/pipeline_check.o \
	src/process/explain.o \
	src/process/send.o \
	src/process/wait.o \
	src/orders/generator.o \
	src/orders/tenant.o \
	src/orders/session.o \
	src/orders/total_table.o \
	src/orders/sums.o \
	src/orders/changes.o \
	src/orders/totals.o \
	src/orders/produced.o \
	src/orders/backpressure.o \
	src/orders/order_sender.o \
	src/orders/order_functions.o \
	src/orders/producer_worker.o \
	src/orders/orders.o

# The HTTP server and the embedded broker are separate programs. PGXS installs them
# beside psql.
SCRIPTS_built = build/http/spine-http build/broker/spine-broker

# CREATE EXTENSION runs one script; sql/parts has it in parts, in their order.
# The steps from earlier versions are scripts by themselves.
EXTENSION = spine
EXTENSION_SCRIPT = build/sql/spine--$(shell sed -n "s/^default_version = '\(.*\)'/\1/p" spine.control).sql
DATA_built = $(EXTENSION_SCRIPT)
DATA = $(wildcard sql/spine--*--*.sql)

# pg_regress looks for sql/ and expected/ in its output directory before it looks in
# test/. With an output directory of its own it cannot run an extension script of sql/
# as a test. A link in that directory leads to expected/.
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OUT = build/regress
REGRESS_OPTS = --inputdir=test --outputdir=$(REGRESS_OUT)
REGRESS_PREP = $(REGRESS_OUT)/expected

# TAP tests start servers, which PostgreSQL refuses to do as root.
ifneq ($(shell id -u),0)
TAP_TESTS = 1
PROVE_TESTS = $(sort $(wildcard test/t/*.pl))
endif

EXTRA_CLEAN = build tmp_check test/module/test_records.o

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
ifneq ($(MAKECMDGOALS),clean)
$(error PostgreSQL's build files were not found through PG_CONFIG=$(PG_CONFIG); "make deps" installs them)
endif
clean:
	rm -rf $(OBJS) $(MODULE_big).so $(EXTRA_CLEAN)
else

# LLVM bitcode for JIT inlining would need one exact version of clang, and none of our
# functions is worth inlining into a query.
override with_llvm = no

# As system headers, PostgreSQL's own do not trip over our stricter warnings.
PG_CPPFLAGS = -iquote $(CURDIR)/src -isystem $(includedir_server) $(shell pkg-config --cflags rdkafka json-c)
SHLIB_LINK = $(shell pkg-config --libs rdkafka json-c)

# Unused parameters are no mistake: a callback and an SQL function have the parameters
# that their caller passes.
ifdef WERROR
PG_CFLAGS += -Wall -Wextra -Werror -Wno-unused-parameter
endif
# PostgreSQL's flags are meant for the compiler that built it, gcc.
ifneq ($(findstring clang,$(CC)),)
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

include $(PGXS)

include src/http/http.mk
include src/broker/broker.mk

# PGXS installs the programs by their names, but would remove them by their paths.
uninstall: uninstall-programs
uninstall-programs:
	rm -f '$(DESTDIR)$(bindir)/spine-http' '$(DESTDIR)$(bindir)/spine-broker'

# PGXS tracks no headers; and objects made for another PostgreSQL, by another
# compiler or with other warnings must be made again.
$(OBJS): $(wildcard src/*.h src/*/*.h) build/made-for

# For test/t/034_records.pl: the extension's objects, and SQL functions that call into
# them. Whatever spine.so shows to the server, this library has its own.
test-module: build/test_records.so
build/test_records.so: $(filter-out src/spine.o,$(OBJS)) test/module/test_records.o
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_SL) -shared -Wl,-Bsymbolic -o $@ $(SHLIB_LINK)
test/module/test_records.o: $(wildcard src/*.h src/*/*.h) build/made-for

made_for = $(VERSION) $(includedir_server) $(CC) $(WERROR)
build/made-for: FORCE
	@mkdir -p $(@D)
	@echo '$(made_for)' | cmp -s - $@ || echo '$(made_for)' > $@

# The directory is newer than the script when a part is gone.
$(EXTENSION_SCRIPT): sql/parts $(sort $(wildcard sql/parts/*.sql)) spine.control
	@mkdir -p $(@D)
	awk 'FNR == 1 && NR > 1 { print "" } { print }' $(filter sql/parts/%,$^) > $@

$(REGRESS_OUT)/expected:
	@mkdir -p $(@D)
	@ln -sfn ../../expected $@

.PHONY: FORCE uninstall-programs test-module
FORCE:

endif
