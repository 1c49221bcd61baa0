# unit.mk: builds and runs the tests of the pure parts, which need neither PostgreSQL nor
# a broker.  Run it from the top of the tree:
#
#	make -f test/unit/unit.mk unit            the tests
#	make -f test/unit/unit.mk unit-sanitize   the same under ASan and UBSan
#	make -f test/unit/unit.mk cost            what they cost, in instructions
#	make -f test/unit/unit.mk fuzz            format_json under libFuzzer, FUZZ_SECONDS long
#	make -f test/unit/unit.mk fuzz-option_list  the same of option_list

BUILD ?= build
FUZZ_SECONDS ?= 20
UNIT_CC ?= gcc
SANITIZE_CC ?= clang

JSON_FLAGS := $(shell pkg-config --cflags json-c)
JSON_LIBS := $(shell pkg-config --libs json-c)
CMOCKA_FLAGS := $(shell pkg-config --cflags cmocka)
CMOCKA_LIBS := $(shell pkg-config --libs cmocka)
RDKAFKA_LIBS := $(shell pkg-config --libs rdkafka)

UNIT_CFLAGS = -std=gnu99 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 -g -iquote src $(JSON_FLAGS) $(CMOCKA_FLAGS)
# Chunks so small that the fuzzer fills them.
FUZZ_CFLAGS = -DSPINE_ARENA_CHUNK=512
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

TESTS = arena decimal json_reader path json_paths json_suite format_json reduce generator option_list
EVENT = event/arena event/decimal event/json_reader event/path event/json_paths event/json_walk event/format_json event/format event/key_hash event/reduce
PURE = $(EVENT) orders/generator kafka/option_list

# What scarce_memory.h needs.
SCARCE = -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=free

unit: $(TESTS:%=$(BUILD)/unit/test_%)
	set -e; for program in $^; do $$program; done

unit-sanitize: $(TESTS:%=$(BUILD)/unit-sanitize/test_%)
	set -e; for program in $^; do $$program; done

cost: $(BUILD)/unit/cost
	test/unit/cost.sh $<

# Inputs that the fuzzer finds stay in $(BUILD); the seeds in the tree do not change.
fuzz: fuzz-format_json
fuzz-format_json: SEEDS = test/fuzz/format_json_corpus
fuzz-option_list: SEEDS = test/fuzz/option_list_corpus
fuzz-format_json fuzz-option_list: fuzz-%: $(BUILD)/fuzz/fuzz_%
	mkdir -p $(BUILD)/fuzz/$*
	cp $(SEEDS)/* $(BUILD)/fuzz/$*/
	$< -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
		-artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/$*

# Objects, in one directory for each way to build. The compiler tracks the headers.
$(BUILD)/unit/%.o: src/%.c
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/unit/%.o: test/unit/%.c
	@mkdir -p $(@D)
	$(UNIT_CC) $(UNIT_CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/unit-sanitize/%.o: src/%.c
	@mkdir -p $(@D)
	$(SANITIZE_CC) $(UNIT_CFLAGS) $(SANITIZE) -MMD -MP -c -o $@ $<
$(BUILD)/unit-sanitize/%.o: test/unit/%.c
	@mkdir -p $(@D)
	$(SANITIZE_CC) $(UNIT_CFLAGS) $(SANITIZE) -MMD -MP -c -o $@ $<
$(BUILD)/fuzz/%.o: src/%.c
	@mkdir -p $(@D)
	$(SANITIZE_CC) $(UNIT_CFLAGS) $(FUZZ_CFLAGS) $(SANITIZE) -fsanitize=fuzzer -MMD -MP -c -o $@ $<
$(BUILD)/fuzz/%.o: test/fuzz/%.c
	@mkdir -p $(@D)
	$(SANITIZE_CC) $(UNIT_CFLAGS) $(SANITIZE) -fsanitize=fuzzer -MMD -MP -c -o $@ $<

$(foreach kind,unit unit-sanitize,$(BUILD)/$(kind)/test_arena $(BUILD)/$(kind)/test_format_json): LINK_FLAGS = $(SCARCE)

# Every program links all the pure parts, as there are only a few.
$(BUILD)/unit/test_%: $(BUILD)/unit/test_%.o $(PURE:%=$(BUILD)/unit/%.o)
	$(UNIT_CC) $(LINK_FLAGS) -o $@ $^ $(JSON_LIBS) $(CMOCKA_LIBS) $(RDKAFKA_LIBS)
$(BUILD)/unit/cost: $(BUILD)/unit/cost.o $(PURE:%=$(BUILD)/unit/%.o)
	$(UNIT_CC) -o $@ $^ $(JSON_LIBS)
$(BUILD)/unit-sanitize/test_%: $(BUILD)/unit-sanitize/test_%.o $(PURE:%=$(BUILD)/unit-sanitize/%.o)
	$(SANITIZE_CC) $(SANITIZE) $(LINK_FLAGS) -o $@ $^ $(JSON_LIBS) $(CMOCKA_LIBS) $(RDKAFKA_LIBS)
$(BUILD)/fuzz/fuzz_format_json: $(BUILD)/fuzz/fuzz_format_json.o $(EVENT:%=$(BUILD)/fuzz/%.o)
	$(SANITIZE_CC) $(SANITIZE) $(SCARCE) -fsanitize=fuzzer -o $@ $^ $(JSON_LIBS)
$(BUILD)/fuzz/fuzz_option_list: $(BUILD)/fuzz/fuzz_option_list.o $(BUILD)/fuzz/kafka/option_list.o
	$(SANITIZE_CC) $(SANITIZE) -fsanitize=fuzzer -o $@ $^

-include $(wildcard $(foreach kind,unit unit-sanitize fuzz,$(BUILD)/$(kind)/*.d $(BUILD)/$(kind)/*/*.d))

.PHONY: unit unit-sanitize cost fuzz fuzz-format_json fuzz-option_list
.PRECIOUS: $(BUILD)/unit/%.o $(BUILD)/unit-sanitize/%.o $(BUILD)/fuzz/%.o
