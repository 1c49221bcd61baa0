# Builds, installs and checks the extension with PostgreSQL's PGXS.
# The goals are PGXS's: all, install, uninstall, clean, installcheck.
# WERROR=1 turns on more warnings and makes them errors (gcc and clang).

MODULE_big = spine

# One line per room, in the order of DESIGN.md. tools/lint.sh compares this
# list with the files that are there.
OBJS = \
	src/spine.o \
	src/settings.o \
	src/kafka_options.o \
	src/option_list.o \
	src/shared.o \
	src/status.o \
	src/totals.o \
	src/counters.o \
	src/wait.o \
	src/topic_offsets.o \
	src/session.o \
	src/catalog.o \
	src/own_tables.o \
	src/target.o \
	src/trust.o \
	src/decode.o \
	src/reduce.o \
	src/generate.o \
	src/kafka.o \
	src/consume.o \
	src/bind.o \
	src/apply.o \
	src/offsets.o \
	src/dead_letters.o \
	src/attempt.o \
	src/search.o \
	src/batch.o \
	src/worker.o \
	src/worker_state.o \
	src/trouble.o \
	src/assignment.o \
	src/probe.o \
	src/launcher.o \
	src/guard.o \
	src/broker.o \
	src/backpressure.o \
	src/delivery.o \
	src/produce.o \
	src/producer.o

# The HTTP server and the embedded broker: programs of their own, which PGXS
# installs beside psql.
SCRIPTS_built = build/http/spine-http build/broker/spine-broker

EXTENSION = spine
DATA = $(wildcard sql/spine--*.sql)

# pg_regress looks for sql/ and expected/ in its output directory before it
# looks in test/. An output directory of its own keeps it from running an
# extension script of sql/ as a test; the link in it leads to expected/.
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OUT = build/regress
REGRESS_OPTS = --inputdir=test --outputdir=$(REGRESS_OUT)
REGRESS_PREP = $(REGRESS_OUT)/expected

# TAP tests start servers, and PostgreSQL refuses to do that as root.
ifneq ($(shell id -u),0)
TAP_TESTS = 1
PROVE_TESTS = $(sort $(wildcard test/t/*.pl))
endif

EXTRA_CLEAN = build tmp_check

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
ifneq ($(MAKECMDGOALS),clean)
$(error PostgreSQL's build files were not found through PG_CONFIG=$(PG_CONFIG); "make deps" installs them)
endif
clean:
	rm -rf $(OBJS) $(MODULE_big).so $(EXTRA_CLEAN)
else

# The LLVM bitcode for JIT inlining would need one exact version of clang, and
# no function of ours is worth inlining into a query.
override with_llvm = no

# As system headers, PostgreSQL's own do not trip over our stricter warnings.
PG_CPPFLAGS = -isystem $(includedir_server) $(shell pkg-config --cflags rdkafka json-c)
SHLIB_LINK = $(shell pkg-config --libs rdkafka json-c)

# Unused parameters are no mistake of ours: a callback takes what its caller
# gives, and so does every SQL function.
ifdef WERROR
PG_CFLAGS += -Wall -Wextra -Werror -Wno-unused-parameter
endif
# PostgreSQL's flags are those of the compiler it was built with, gcc.
ifneq ($(findstring clang,$(CC)),)
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument
endif

include $(PGXS)

include src/http/http.mk
include src/broker/broker.mk

# PGXS installs them by their names, but would remove them by their paths.
uninstall: uninstall-programs
uninstall-programs:
	rm -f '$(DESTDIR)$(bindir)/spine-http' '$(DESTDIR)$(bindir)/spine-broker'

# PGXS tracks no headers; and objects made for another PostgreSQL, by another
# compiler or with other warnings must be made again.
$(OBJS): $(wildcard src/*.h) build/made-for

made_for = $(VERSION) $(includedir_server) $(CC) $(WERROR)
build/made-for: FORCE
	@mkdir -p $(@D)
	@echo '$(made_for)' | cmp -s - $@ || echo '$(made_for)' > $@

$(REGRESS_OUT)/expected:
	@mkdir -p $(@D)
	@ln -sfn ../../expected $@

.PHONY: FORCE uninstall-programs
FORCE:

endif
