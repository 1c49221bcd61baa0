# Builds spine-http. pgxs.mk includes this file and installs the program. By itself:
#
#   make -f src/http/http.mk HTTP_OUT=DIR [SANITIZE=1] DIR/spine-http
#
# It uses none of PGXS's flags: spine-http is a client program like any other.
PG_CONFIG ?= pg_config
HTTP_OUT ?= build/http
HTTP_OBJS = $(patsubst src/http/%.c,$(HTTP_OUT)/%.o,$(wildcard src/http/*.c))
HTTP_PACKAGES = libmicrohttpd json-c zlib

HTTP_CFLAGS = -std=gnu11 -O2 -g -pthread -Wall -Wextra $(if $(WERROR),-Werror) \
	$(if $(SANITIZE),-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
HTTP_CPPFLAGS = -I$(shell $(PG_CONFIG) --includedir) $(shell pkg-config --cflags $(HTTP_PACKAGES)) \
	-I$(HTTP_OUT) -DSPINE_VERSION='"$(shell sed -n "s/^default_version = '\(.*\)'/\1/p" spine.control)"'
HTTP_LIBS = -L$(shell $(PG_CONFIG) --libdir) -lpq $(shell pkg-config --libs $(HTTP_PACKAGES))

$(HTTP_OUT)/spine-http: $(HTTP_OBJS)
	$(CC) $(HTTP_CFLAGS) -o $@ $^ $(HTTP_LIBS)

$(HTTP_OUT)/%.o: src/http/%.c $(wildcard src/http/*.h) $(HTTP_OUT)/page.inc src/http/http.mk
	$(CC) $(HTTP_CFLAGS) $(HTTP_CPPFLAGS) -c -o $@ $<

$(HTTP_OUT)/page.inc: src/http/page.html src/http/embed-page.sh
	@mkdir -p $(@D)
	src/http/embed-page.sh $< >$@.new && mv $@.new $@
