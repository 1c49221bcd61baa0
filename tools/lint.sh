#!/bin/sh
# Checks the house rules that a compiler does not check.
#
#   tools/lint.sh               the sources
#   tools/lint.sh symbols FILE  what a built spine.so shows to the server
set -eu
cd "$(dirname "$0")/.."

# The floors of src/, and whose headers each may use besides its own and those of
# src/ itself: the arrows of docs/ARCHITECTURE.md. src/spine.c, the table of contents,
# may use all; the two programs use nothing of the rest.
floors="
src:
event:
kafka:      event
catalog:    event
apply:      event catalog
process:    event kafka catalog apply
orders:     event kafka catalog apply process
http:
broker:
"

# What knows neither PostgreSQL nor Kafka, so that it can be tested and fuzzed alone.
is_pure() {
    case $1 in
        src/event/* | src/kafka/option_list.[ch] | src/orders/generator.[ch]) return 0 ;;
        *) return 1 ;;
    esac
}

bad=0
complain() {
    echo "lint: $*" >&2
    bad=1
}

is_one_of() {
    word=$1
    shift
    case " $* " in *" $word "*) return 0 ;; esac
    return 1
}

# The headers that a file includes, one a line.
includes() {
    sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1/p' "$1"
}

# Does a header of src/kafka show librdkafka, itself or by what it includes?
shows_library() {
    for inner in $(includes "src/$1"); do
        case $inner in
            librdkafka/*) return 0 ;;
            kafka/*.h) if (shows_library "$inner"); then return 0; fi ;;
        esac
    done
    return 1
}

# The files of the tree, without those that were built.
tree_files() {
    find . \( -name .git -o -path ./build -o -path ./.demo -o -path ./tmp_check \) -prune \
        -o -type f "$@" -print | sed 's,^\./,,'
}

check_includes() {
    for file in src/*.[ch] src/*/*.[ch]; do
        floor=${file%/*}
        floor=${floor##*/}
        [ "$file" != src/spine.c ] || continue
        line=$(echo "$floors" | grep "^$floor:") || {
            complain "$file: no line for $floor in the table of tools/lint.sh"
            continue
        }
        for header in $(includes "$file"); do
            if is_pure "$file"; then
                case $header in
                    postgres*.h | c.h | librdkafka/* | compat.h | error.h)
                        complain "$file: includes $header, but is to be tested alone" ;;
                esac
            fi
            case $floor:$header in
                kafka:librdkafka/* | broker:librdkafka/*) ;;
                *:librdkafka/*) complain "$file: includes $header; only src/kafka knows the library" ;;
                broker:postgres*.h | broker:c.h | broker:libpq*)
                    complain "$file: includes $header, but src/broker knows no PostgreSQL" ;;
            esac
            [ -e "src/$header" ] || continue
            case $floor:$header in
                kafka:*) ;;
                *:kafka/*) ! shows_library "$header" ||
                    complain "$file: includes $header, which shows librdkafka; only src/kafka knows the library" ;;
            esac
            case $floor in
                http | broker)
                    complain "$file: includes $header, but src/$floor uses nothing of src"
                    continue ;;
            esac
            # shellcheck disable=SC2086
            case $header in
                */*) is_one_of "${header%%/*}" "$floor" ${line#*:} ||
                    complain "$file: must not include $header (see the table of tools/lint.sh)" ;;
            esac
        done
    done
}

check_versions() {
    grep -ln PG_VERSION_NUM src/*.[ch] src/*/*.[ch] 2>/dev/null | grep -vxF src/compat.h |
        sed 's/$/: PG_VERSION_NUM belongs into compat.h/'
}

# Lists the functions that a header declares at its top level without the prefix.
# Comments, macros, the insides of braces, types and static functions do not count. The
# name is what comes before the first parenthesis.
unprefixed_functions() {
    for header in src/*.h src/*/*.h; do
        case $header in src/http/* | src/broker/*) continue ;; esac
        awk -v header="$header" '
            { text = text $0 "\n" }
            END {
                gsub(/\\\n/, " ", text)
                while (match(text, /\/\*([^*]|\*+[^*\/])*\*+\//))
                    text = substr(text, 1, RSTART - 1) " " substr(text, RSTART + RLENGTH)
                gsub(/(^|\n)[ \t]*#[^\n]*/, "\n", text)
                while (match(text, /\{[^{}]*\}/))
                    text = substr(text, 1, RSTART - 1) ";" substr(text, RSTART + RLENGTH)
                n = split(text, part, ";")
                for (i = 1; i <= n; i++) {
                    line = part[i]
                    gsub(/[ \t\n]+/, " ", line)
                    if (line !~ /\(/ || line ~ /^ ?(typedef|static|PG_|StaticAssert)/)
                        continue
                    sub(/ ?\(.*/, "", line)
                    sub(/.*[ *]/, "", line)
                    if (line !~ /^spine_/ && line !~ /^_PG_init$/)
                        print header ": " line " lacks the prefix spine_"
                }
            }' "$header"
    done
}

# pgxs.mk names its objects one by one, and must not miss any.
forgotten_objects() {
    listed=$(sed -n 's,^[[:space:]]*\(src/[a-z_/]*\)\.o.*,\1.c,p' pgxs.mk | sort)
    # shellcheck disable=SC2012
    present=$(find src -name "*.c" ! -path "src/http/*" ! -path "src/broker/*" | sort)
    for file in $present; do
        echo "$listed" | grep -qxF "$file" || echo "$file: not in the OBJS of pgxs.mk"
    done
    for file in $listed; do
        [ -e "$file" ] || echo "$file: in the OBJS of pgxs.mk, but does not exist"
    done
}

# The code and the documentation must list the same options, both those that can be
# set and those that cannot.
undocumented_options() {
    for kind in allowed refused; do
        in_code=$(sed -n "/$kind"'_options\[\]/,/^};/s/^\t{*"\([^"]*\)",.*/\1/p' src/kafka/option_list.c | sort)
        in_docs=$(sed -n "/^### Options that are $kind/,/^##/p" docs/CONFIGURATION.md |
            grep -o "\`[a-zA-Z._]*\`" | tr -d '`' | sort)
        [ "$in_code" = "$in_docs" ] ||
            echo "src/kafka/option_list.c and docs/CONFIGURATION.md differ in the options that are $kind:" \
                "$(printf '%s\n%s\n' "$in_code" "$in_docs" | sort | uniq -u | tr '\n' ' ')"
    done
}

# An expected output without a test would never be compared with anything.
orphaned_outputs() {
    for file in expected/*.out; do
        [ -e "$file" ] || continue
        name=$(basename "$file" .out)
        [ -e "test/sql/$name.sql" ] || [ -e "test/sql/${name%_[0-9]}.sql" ] ||
            echo "$file: no test/sql/$name.sql"
    done
}

# Orders and their tenants have a floor of their own, parts of the SQL script, and a room
# in the HTTP server.  Elsewhere "order" is only the order of things.
orders_elsewhere() {
    for file in src/*.[ch] src/*/*; do
        case $file in
            src/spine.c | src/orders/* | src/http/orders* | src/http/page.html) continue ;;
        esac
        grep -niE 'tenant|spineorder|(^|[^a-z])orders([^a-z]|$)|order_(event|id|sender|total)' "$file" |
            sed "s|^\([0-9]*\):.*|$file:\1: only src/orders knows of tenants and orders|"
    done
    grep -nE 'tenant|orders|_order|order_' sql/parts/*.sql | grep -v '^sql/parts/[0-9]*_orders' |
        sed 's/$/: belongs into a part *_orders*/'
}

broken_scripts() {
    for file in $(tree_files -name '*.sh') .ci/run; do
        [ -e "$file" ] || continue
        case $(head -n 1 "$file") in
            *bash*) shell='bash' ;;
            *) shell='sh' ;;
        esac
        "$shell" -n "$file" 2>/dev/null || echo "$file: $shell -n finds errors"
        [ -x "$file" ] || echo "$file: not executable"
    done
    for file in $(tree_files -perm -100 -name '*.p[ly]'); do
        [ "$(head -c 2 "$file")" = '#!' ] || echo "$file: executable, but its first line names no interpreter"
    done
}

# Before PostgreSQL 16 every function that is not static is a global symbol of
# every backend.
foreign_symbols() {
    nm -D --defined-only "$1" | awk '{ print $NF }' |
        grep -vE '^(spine_.*|Spine.*|pg_finfo_.*|_PG_init|Pg_magic_func)$'
}

if [ "${1:-}" = symbols ]; then
    [ -e "$2" ] || { complain "$2: not there"; exit 1; }
    # complain sets a variable, which a pipe would lose in a subshell.
    for symbol in $(foreign_symbols "$2"); do
        complain "$2: exports $symbol; make it static, or prefix it with spine_"
    done
    exit "$bad"
fi

check_includes
found=$(check_versions; unprefixed_functions; forgotten_objects; undocumented_options; orphaned_outputs; orders_elsewhere; broken_scripts)
if [ -n "$found" ]; then
    echo "$found" | sed 's/^/lint: /' >&2
    bad=1
fi
[ "$bad" = 0 ] || exit 1
echo "lint: $(tree_files | wc -l) files, no complaints"
