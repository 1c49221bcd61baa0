#!/bin/sh
# The house rules that a compiler does not check.
#
#   tools/lint.sh               the sources
#   tools/lint.sh symbols FILE  what a built spine.so shows to the server
set -eu
cd "$(dirname "$0")/.."

# Who may include whom, room by room: the arrows of docs/ARCHITECTURE.md. Every
# room may also use those of $common and itself; spine.c, the table of contents,
# may use all. A new room needs a line here.
common="record compat settings shared status"
rooms="
record:
compat:
decode:         record
reduce:         record
generate:       record
option_list:
kafka_options:  option_list
settings:       kafka_options
shared:
record_time:
offsets:
status:         offsets
totals:
counters:
attempt:
catalog:
own_tables:
kafka:          kafka_options
consume:        kafka offsets
bind:           decode record_time
target:         bind catalog decode
trust:          target catalog own_tables
apply:          target trust reduce
dead_letters:   consume offsets record_time
search:         apply attempt dead_letters target
batch:          search apply dead_letters offsets target trust decode attempt
worker_state:   search attempt catalog consume offsets target
trouble:        worker_state
assignment:     worker_state attempt trouble trust
worker:         assignment batch counters trouble trust worker_state
probe:          catalog counters worker
launcher:       counters probe worker broker producer
guard:          catalog launcher
broker:         offsets
backpressure:   kafka
delivery:       counters kafka generate backpressure session
session:        kafka
produce:        session delivery
producer:       session delivery
wait:           catalog session
topic_offsets:  session
"

# The rooms that know neither PostgreSQL nor Kafka, so that they can be tested
# and fuzzed alone.
pure="record decode reduce generate option_list"

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

# The headers a file includes, one a line.
includes() {
    sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]\([^">]*\)[">].*/\1/p' "$1"
}

# The files to look at: of the tree, without what was built.
tree_files() {
    find . \( -name .git -o -path ./build -o -path ./.demo -o -path ./tmp_check \) -prune \
        -o -type f "$@" -print | sed 's,^\./,,'
}

check_includes() {
    for file in src/*.c src/*.h; do
        [ -e "$file" ] || continue
        room=$(basename "${file%.*}")
        if [ "$room" != spine ]; then
            line=$(echo "$rooms" | grep "^$room:") || {
                complain "$file: no line for $room in the table of tools/lint.sh"
                continue
            }
            allowed="$room ${line#*:}"
            # shellcheck disable=SC2086
            is_one_of "$room" $pure || allowed="$allowed $common"
        fi
        for header in $(includes "$file"); do
            # shellcheck disable=SC2086
            if is_one_of "$room" $pure; then
                case $header in
                    postgres*.h | c.h | librdkafka/* | compat.h)
                        complain "$file: includes $header, but $room is pure" ;;
                esac
            fi
            if [ "$room" = spine ] || [ ! -e "src/$header" ]; then
                continue
            fi
            # shellcheck disable=SC2086
            is_one_of "${header%.h}" $allowed ||
                complain "$file: must not include $header (see the table of tools/lint.sh)"
        done
    done
    # the programs: neither knows the extension, and the broker no PostgreSQL
    for file in src/http/*.[ch] src/broker/*.[ch]; do
        [ -e "$file" ] || continue
        floor=${file%/*}
        for header in $(includes "$file"); do
            if [ ! -e "$floor/$header" ] && [ -e "src/${header#../}" ]; then
                complain "$file: includes $header, but $floor uses nothing of src"
            fi
            case $floor:$header in
                src/broker:postgres*.h | src/broker:c.h | src/broker:libpq*)
                    complain "$file: includes $header, but $floor knows no PostgreSQL" ;;
            esac
        done
    done
}

check_versions() {
    grep -ln PG_VERSION_NUM src/*.c src/*.h 2>/dev/null | grep -vxF src/compat.h |
        sed 's/$/: PG_VERSION_NUM belongs into compat.h/'
}

# Function declarations at the top level of a header whose name lacks the
# prefix. Comments, macros, the insides of braces, types and static functions
# do not count; the name is what stands before the first parenthesis.
unprefixed_functions() {
    for header in src/*.h; do
        [ -e "$header" ] || continue
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

# pgxs.mk names its objects one by one; none may be forgotten.
forgotten_objects() {
    listed=$(sed -n 's,^[[:space:]]*\(src/[a-z_]*\)\.o.*,\1.c,p' pgxs.mk | sort)
    # shellcheck disable=SC2012
    present=$(ls src/*.c 2>/dev/null | sort)
    for file in $present; do
        echo "$listed" | grep -qxF "$file" || echo "$file: not in the OBJS of pgxs.mk"
    done
    for file in $listed; do
        [ -e "$file" ] || echo "$file: in the OBJS of pgxs.mk, but not there"
    done
}

# The options that can be set, and those that cannot, are in the code and in the
# documentation.
undocumented_options() {
    for kind in allowed refused; do
        in_code=$(sed -n "/$kind"'_options\[\]/,/^};/s/^\t{*"\([^"]*\)",.*/\1/p' src/option_list.c | sort)
        in_docs=$(sed -n "/^### Options that are $kind/,/^##/p" docs/CONFIGURATION.md |
            grep -o '`[a-zA-Z._]*`' | tr -d '`' | sort)
        [ "$in_code" = "$in_docs" ] ||
            echo "src/option_list.c and docs/CONFIGURATION.md differ in the options that are $kind:" \
                "$(printf '%s\n%s\n' "$in_code" "$in_docs" | sort | uniq -u | tr '\n' ' ')"
    done
}

# An expected output without its test would never be compared with anything.
orphaned_outputs() {
    for file in expected/*.out; do
        [ -e "$file" ] || continue
        name=$(basename "$file" .out)
        [ -e "test/sql/$name.sql" ] || [ -e "test/sql/${name%_[0-9]}.sql" ] ||
            echo "$file: no test/sql/$name.sql"
    done
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
}

# Before PostgreSQL 16 every function that is not static is a global symbol of
# every backend.
foreign_symbols() {
    nm -D --defined-only "$1" | awk '{ print $NF }' |
        grep -vE '^(spine_.*|Spine.*|pg_finfo_.*|_PG_init|Pg_magic_func)$'
}

if [ "${1:-}" = symbols ]; then
    [ -e "$2" ] || { complain "$2: not there"; exit 1; }
    # complain sets a variable: no pipe, which would lose it in a subshell.
    for symbol in $(foreign_symbols "$2"); do
        complain "$2: exports $symbol; make it static, or prefix it with spine_"
    done
    exit "$bad"
fi

check_includes
found=$(check_versions; unprefixed_functions; forgotten_objects; undocumented_options; orphaned_outputs; broken_scripts)
if [ -n "$found" ]; then
    echo "$found" | sed 's/^/lint: /' >&2
    bad=1
fi
[ "$bad" = 0 ] || exit 1
echo "lint: $(tree_files | wc -l) files, no complaints"
