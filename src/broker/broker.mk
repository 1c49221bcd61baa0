# Builds spine-broker. pgxs.mk includes this file and installs the program. By itself:
#
#   make -f src/broker/broker.mk BROKER_OUT=DIR DIR/spine-broker
#
# It needs neither flags nor headers of PostgreSQL.
BROKER_OUT ?= build/broker
BROKER_OBJS = $(patsubst src/broker/%.c,$(BROKER_OUT)/%.o,$(wildcard src/broker/*.c))

BROKER_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra $(if $(WERROR),-Werror)
BROKER_CPPFLAGS = $(shell pkg-config --cflags rdkafka)
BROKER_LIBS = $(shell pkg-config --libs rdkafka)

$(BROKER_OUT)/spine-broker: $(BROKER_OBJS)
	$(CC) $(BROKER_CFLAGS) -o $@ $^ $(BROKER_LIBS)

$(BROKER_OUT)/%.o: src/broker/%.c $(wildcard src/broker/*.h) src/broker/broker.mk
	@mkdir -p $(@D)
	$(CC) $(BROKER_CFLAGS) $(BROKER_CPPFLAGS) -c -o $@ $<
