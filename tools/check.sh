#!/usr/bin/env bash
# Builds and tests spine in a copy of the tree, against a private copy of the
# machine's PostgreSQL.
#
#   tools/check.sh all       everything, in a fresh copy that is removed again
#   tools/check.sh code      the same, without the checks that do not depend on the
#                            versions of PostgreSQL, libraries and compilers
#   tools/check.sh unit      the unit tests          \  in a copy that is kept,
#   tools/check.sh regress   pg_regress              |  so that the next run
#   tools/check.sh tap       the TAP tests [T=name]  |  builds only what changed
#   tools/check.sh assert    those two, on a server  |
#                            with assertions         |
#   tools/check.sh kafka     tests on a real Kafka   /  [T=name] [BROKERS=host:port]
#   tools/check.sh clean     remove the kept copy
#
# PostgreSQL refuses to run as root, and root's tree is often closed to others. So
# when root runs this, the copy is under ${TMPDIR:-/var/tmp}, and an unprivileged
# user does all the work there. For anyone else the copy is in build/.
#
# The last line is "N passed, N failed". It counts cmocka, pg_regress and TAP tests,
# and those of tools/check-k8s.sh.
set -eu -o pipefail

fuzz_seconds=${FUZZ_SECONDS:-20}
logs=build/check-failed         # where a failed run leaves its logs, in the tree

say() {
    printf '==> %s\n' "$*"
}

# --------------------------------------------------------------------------
# Inside: in the copy, as the unprivileged user
# --------------------------------------------------------------------------

passed=0
failed=0

# These add up the closing lines of a test program's log. The programs of the first
# three print one such line when all is well, and other lines when it is not.
count_cmocka() {        # one closing per test program
    awk '/^\[  PASSED  \] [0-9]+ test/ { p += $4 }
         /^\[  FAILED  \] [0-9]+ test/ { f += $4 }
         END { print p + 0, f + 0 }' "$1"
}

count_regress() {
    awk '/All [0-9]+ tests? passed/ { for (i = 1; i < NF; i++) if ($i == "All") p = $(i + 1) }
         /[0-9]+ of [0-9]+ tests? failed/ { for (i = 2; i < NF; i++) if ($i == "of") { f = $(i - 1); p = $(i + 1) - f } }
         END { print p + 0, f + 0 }' "$1"
}

count_tap() {           # a file that broke off counts as at least one failure
    awk '/\(Wstat: .* Tests: [0-9]+ Failed: [0-9]+\)/ {
             sub(/\)$/, ""); bad += $NF; f += ($NF > 0 ? $NF : 1) }
         /^Files=[0-9]+, Tests=[0-9]+/ { split($2, t, /[=,]/); n = t[2] }
         END { print n - bad, f + 0 }' "$1"
}

count_closing() {       # for a script that counts by itself
    awk '/^[0-9]+ passed, [0-9]+ failed$/ { p = $1; f = $3 }
         END { print p + 0, f + 0 }' "$1"
}

# step NAME COMMAND...: runs one step and shows its output; ends the whole run when
# the step fails.
step() {
    local name=$1 start=$SECONDS log="$work/logs/$1.log"
    shift
    say "$name"
    if "$@" 2>&1 | tee "$log"; then
        say "$name: ok, $((SECONDS - start)) s"
    else
        fail "$name" "after $((SECONDS - start)) s"
    fi
}

# tests COUNTER NAME COMMAND...: the same for a step that runs tests, and counts
# them. It is a failure if no test ran.
tests() {
    local counter=$1 name=$2 start=$SECONDS log="$work/logs/$2.log" ok=yes p f
    shift 2
    say "$name"
    "$@" 2>&1 | tee "$log" || ok=
    read -r p f <<<"$("$counter" "$log")"
    passed=$((passed + p))
    failed=$((failed + f))
    if [ -z "$ok" ] || [ "$f" -gt 0 ]; then
        fail "$name" "$p passed, $f failed, after $((SECONDS - start)) s"
    elif [ "$p" = 0 ]; then
        fail "$name" "no test ran"
    fi
    say "$name: ok, $p tests, $((SECONDS - start)) s"
}

# A step may fail without naming a test; the result never reads "0 failed" then.
fail() {
    say "$1: FAILED ($2)"
    [ "$failed" -gt 0 ] || failed=1
    report
    exit 1
}

report() {
    echo "$passed passed, $failed failed" >"$work/result"
}

pgxs() {
    make -s -j "$(nproc)" -f pgxs.mk PG_CONFIG="$pg_config" "$@"
}

with_clang() (
    cd "$work/clang"
    pgxs CC=clang WERROR=1 all
)

# The decoder is fuzzed because anybody may send records; the option list, because an
# administrator writes it.
fuzz() {
    make -f test/unit/unit.mk fuzz FUZZ_SECONDS="$fuzz_seconds"
    make -f test/unit/unit.mk fuzz-option_list FUZZ_SECONDS=$((fuzz_seconds / 4 + 1))
}

# Builds spine and installs it into the private PostgreSQL. Extra arguments go to make.
install_spine() {
    pgxs "$@" all test-module
    pgxs "$@" install
}

# pg_regress starts a server of its own, on a socket in a directory of its own.
regress() {
    echo "shared_preload_libraries = 'spine'" >"$work/regress.conf"
    [ ! -e test/regress.conf ] || cat test/regress.conf >>"$work/regress.conf"
    pgxs installcheck TAP_TESTS= \
        EXTRA_REGRESS_OPTS="--temp-instance='$work/regress-server' --temp-config='$work/regress.conf'" || {
        head -n 100 build/regress/regression.diffs 2>/dev/null
        return 1
    }
}

# tap DIRECTORY OPTION...: all tests of the directory, or the one that T names.
tap() {
    local directory=$1 files=("$1"/*.pl) options=("${@:2}")
    if [ -n "${T:-}" ]; then
        files=("$directory"/*"${T##*/}"*)
        options=(--verbose)
    fi
    if [ ! -e "${files[0]}" ]; then
        echo "no TAP test matches \"${T:-*}\""
        return 1
    fi
    run_prove "$PWD" "${options[@]}" "${files[@]}"
}

# Runs the tests of spine-http again, with sanitizers built in.
http_sanitize() {
    make -s -j "$(nproc)" -f src/http/http.mk PG_CONFIG="$pg_config" SANITIZE=1 WERROR=1 \
        HTTP_OUT=build/http-sanitize build/http-sanitize/spine-http || return
    SPINE_HTTP=$PWD/build/http-sanitize/spine-http run_prove "$PWD/build/http-sanitize" \
        -j "$(nproc)" test/t/03[01]_*.pl
}

# Looks for what does not fail a test by itself: an assertion that failed in a process
# which the test kills, a write past the end of a chunk of memory, something that a
# transaction left open.
traps='TRAP: |WARNING:  (problem in |detected write past |[A-Za-z ]* leak: |resource was not closed|snapshot .* still active)'
no_traps() {
    ! grep -rEs "$traps" build/regress/log tmp_check/log
}

# run_prove DIR ...: runs prove, with the servers and logs of the tests in DIR.
run_prove() {
    local pgxs_dir bindir dir=$1
    shift
    pgxs_dir=$(dirname "$("$pg_config" --pgxs)")/../..
    bindir=$("$pg_config" --bindir)
    rm -rf "$dir/tmp_check"
    mkdir -p "$dir/tmp_check"
    # PostgreSQL 16 and later look at TESTDATADIR and TESTLOGDIR.
    TESTDIR=$dir TESTDATADIR=$dir/tmp_check TESTLOGDIR=$dir/tmp_check/log \
        PATH="$bindir:$PATH" PGPORT=65432 \
        PG_REGRESS="$pgxs_dir/src/test/regress/pg_regress" \
        PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-360}" PGCTLTIMEOUT="${PGCTLTIMEOUT:-360}" \
        PROMTOOL="${promtool:-}" SPINE_SCREENSHOTS="$work/screenshots" \
        prove --timer -I "$pgxs_dir/src/test/perl" -I test/t "$@"
}

inside() {
    local goal=$1
    work=$2
    cd "$work/tree"
    rm -rf "$work/logs" "$work/result" build/regress tmp_check
    mkdir -p "$work/logs" "$work/screenshots" "$TMPDIR"

    if [ "$goal" = all ]; then
        step lint tools/lint.sh
        step format tools/format.sh --check
        step pgspot tools/check-sql.sh
    fi
    if [ "$goal" = assert ]; then
        pg_config=$work/tree/build/assert/bin/pg_config
    elif [ "$goal" != unit ]; then
        step private-postgres tools/private-postgres.sh "$work/pg"
        pg_config=$(tail -n 1 "$work/logs/private-postgres.log")
    fi
    case $goal in
        all | code)
            cp -R . "$work/clang"
            step build-gcc install_spine WERROR=1
            step symbols tools/lint.sh symbols spine.so
            step build-clang with_clang
            ;;
        regress | tap | assert | kafka)
            step build install_spine
            ;;
    esac
    case $goal in
        all | code | unit)
            tests count_cmocka unit make -k -f test/unit/unit.mk unit
            step unit-sanitize make -k -f test/unit/unit.mk unit-sanitize
            step cost make -f test/unit/unit.mk cost
            ;;
    esac
    case $goal in all | code) step fuzz fuzz ;; esac
    case $goal in all | code | regress | assert) tests count_regress regress regress ;; esac
    case $goal in
        all | code | tap | assert)
            step promtool tools/promtool.sh "$work/promtool"
            promtool=$(tail -n 1 "$work/logs/promtool.log")
            ;;
    esac
    case $goal in all) tests count_closing k8s env PROMTOOL="$promtool" tools/check-k8s.sh ;; esac
    case $goal in all | code | tap | assert) tests count_tap tap tap test/t -j "$(nproc)" ;; esac
    case $goal in assert) step traps no_traps ;; esac
    case $goal in all | code) tests count_tap http-sanitize http_sanitize ;; esac
    # one at a time: each file has a Kafka and a server, and kills them
    case $goal in kafka) tests count_tap kafka tap test/kafka ;; esac
    report
}

# --------------------------------------------------------------------------
# Outside: in the tree, as the caller
# --------------------------------------------------------------------------

# The user who does the work: the caller, or, when root calls, the user that the
# PostgreSQL packages create. A command after "${as_worker[@]}" runs as this user.
worker=
as_worker=()
choose_worker() {
    [ "$(id -u)" = 0 ] || return 0
    worker=postgres
    id -u "$worker" >/dev/null 2>&1 || worker=nobody
    as_worker=(setpriv --reuid="$worker" --regid="$(id -g "$worker")" --init-groups --)
}

# Makes the directory for the work and puts its path into $work. The directory that
# is kept for root has an unpredictable name, which build/check-dir remembers.
make_work() {
    local base=$top/build
    mkdir -p "$top/build"
    if [ -n "$worker" ]; then
        base=${TMPDIR:-/var/tmp}
        (cd / && "${as_worker[@]}" test -x "$base") || base=/var/tmp
    fi
    if [ -z "$keeps_copy" ]; then
        work=$(mktemp -d "$base/spine-check.XXXXXX")
    elif [ -n "$worker" ]; then
        work=$(cat "$top/build/check-dir" 2>/dev/null || :)
        if [ ! -d "${work:-/nowhere}" ]; then
            work=$(mktemp -d "$base/spine-check.XXXXXX")
            echo "$work" >"$top/build/check-dir"
        fi
    else
        work=$top/build/check
        mkdir -p "$work"
    fi
    [ -z "$worker" ] || chown "$worker:" "$work"
    work=$(cd "$work" && pwd -P)
}

# Brings the copy up to date. The times of files are kept, so that make builds only
# what changed. Files that are gone from the tree are removed from the copy.
copy_tree() {
    local list old
    scratch=$(mktemp -d)
    list=$scratch/list
    old=$scratch/old
    tools/list-tree.sh >"$list"
    tr '\0' '\n' <"$list" | sort >"$list.now"
    "${as_worker[@]}" mkdir -p "$work/tree"
    "${as_worker[@]}" cat "$work/files" >"$old" 2>/dev/null || :
    comm -23 "$old" "$list.now" | tr '\n' '\0' |
        (cd "$work/tree" && "${as_worker[@]}" xargs -0 -r rm -f --)
    tar -c --no-recursion --null -T "$list" | "${as_worker[@]}" tar -x -C "$work/tree"
    "${as_worker[@]}" tee "$work/files" <"$list.now" >/dev/null
    case $goal in
        kafka | assert)
            "${as_worker[@]}" rm -rf "$work/tree/build/$goal"
            tar -c "build/$goal" | "${as_worker[@]}" tar -x -C "$work/tree"
            ;;
    esac
}

# Starts the inside in a session of its own, so that all its processes can be ended
# together. It gets a clean environment: the caller's PGHOST or MAKEFLAGS would lead
# the tests elsewhere.
run_inside() {
    local tmp=$work/tmp
    # The path of a socket may have 107 bytes, of which a test needs about 40.
    [ ${#tmp} -le 65 ] || tmp=/tmp
    local env=(
        PATH="$PATH" HOME="$work" TERM="${TERM:-dumb}" TMPDIR="$tmp"
        LANG=C.UTF-8 LC_ALL=C.UTF-8 FUZZ_SECONDS="$fuzz_seconds"
    )
    [ -z "${PG_CONFIG:-}" ] || env+=(PG_CONFIG="$PG_CONFIG")
    [ -z "${T:-}" ] || env+=(T="$T")
    [ -z "${BROKERS:-}" ] || env+=(BROKERS="$BROKERS")
    [ -z "${PG_TEST_TIMEOUT_DEFAULT:-}" ] || env+=(PG_TEST_TIMEOUT_DEFAULT="$PG_TEST_TIMEOUT_DEFAULT")
    [ -z "${SPINE_TEST_SEED:-}" ] || env+=(SPINE_TEST_SEED="$SPINE_TEST_SEED")
    [ -z "${SPINE_TEST_KILLS:-}" ] || env+=(SPINE_TEST_KILLS="$SPINE_TEST_KILLS")
    cd "$work"
    "${as_worker[@]}" setsid env -i "${env[@]}" \
        bash "$work/tree/tools/check.sh" --inside "$goal" "$work" 9>&- </dev/null &
    inside_pid=$!
    wait "$inside_pid" && inside_rc=0 || inside_rc=$?
}

# Ends what is left of the inside: its processes and the servers. The servers lead
# sessions of their own, but their data directories have their process ids.
end_inside() {
    local pid_file pid
    kill -TERM -- "-$inside_pid" 2>/dev/null || :
    while IFS= read -r -d '' pid_file; do
        pid=$(head -n 1 "$pid_file" 2>/dev/null) || continue
        case $pid in '' | *[!0-9]*) continue ;; esac
        # A test may have killed its server, and another process may have the number now.
        case $(readlink "/proc/$pid/exe" 2>/dev/null) in
            "$work"/*) kill -QUIT "$pid" 2>/dev/null || : ;;
        esac
    done < <(find "$work" -name postmaster.pid -print0 2>/dev/null)
}

keep_logs() {
    rm -rf "${top:?}/$logs"
    mkdir -p "$top/$logs"
    cp -R "$work/logs/." "$top/$logs" 2>/dev/null || :
    cp -R "$work/tree/build/regress" "$top/$logs/regress" 2>/dev/null || :
    rm -f "$top/$logs/regress/expected"     # a link that leads nowhere here
    cp -R "$work/tree/tmp_check/log" "$top/$logs/tap" 2>/dev/null || :
    cp -R "$work/tree/build/http-sanitize/tmp_check/log" "$top/$logs/tap-sanitize" 2>/dev/null || :
    # the input on which the fuzzer stopped
    cp "$work/tree/build/fuzz"/*-[0-9a-f]* "$top/$logs" 2>/dev/null || :
    say "the logs are in $logs:"
    (cd "$top" && find "$logs" -type f -size +0 | sort | sed 's/^/    /')
}

# Many people see only the last lines of a long output.
say_what_failed() {
    local lines
    lines=$(grep -hE '^#   (Failed test|at .* line )|^(not ok|Bail out)|Wstat: |Dubious|\[  FAILED  \]|: FAILED \(' \
        "$work"/logs/*.log 2>/dev/null | tail -n 30
        grep -rhEs "$traps" "$top/$logs"/*/ | sort -u) || :
    [ -z "$lines" ] || printf '==> what failed:\n%s\n' "$lines"
}

# Keeps what the page looked like in the browser of the tests.
keep_screenshots() {
    [ -n "$(ls "$work/screenshots" 2>/dev/null)" ] || return 0
    rm -rf "${top:?}/build/screenshots"
    cp -R "$work/screenshots" "$top/build/screenshots"
    say "the page, as the browser showed it, is in build/screenshots"
}

finish() {
    trap - EXIT HUP INT TERM
    [ -z "$inside_pid" ] || end_inside
    [ -z "$scratch" ] || rm -rf "$scratch"
    if [ -z "$keeps_copy" ] && [ -n "$work" ]; then
        # A server that is ending may still write a file.
        rm -rf "$work" 2>/dev/null || { sleep 1; rm -rf "$work"; }
    fi
}

clean() {
    local kept
    kept=$(cat "$top/build/check-dir" 2>/dev/null || :)
    case $kept in
        */spine-check.??????) rm -rf "$kept" ;;
    esac
    rm -rf "$top/build/check" "$top/build/check-dir" "$top/build"/spine-check.*
}

outside() {
    goal=$1
    keeps_copy=yes
    work=
    scratch=
    inside_pid=
    inside_rc=1
    umask 022
    choose_worker
    case $goal in all | code) keeps_copy= ;; esac
    case $goal in all) tools/deps.sh check ;; *) tools/deps.sh code ;; esac
    case $goal in
        kafka) tools/kafka.sh get ;;
        assert) tools/assert-postgres.sh ;;
    esac
    choose_worker       # the packages may have created the user
    trap finish EXIT
    trap 'exit 130' HUP INT TERM
    make_work
    if [ -n "$keeps_copy" ]; then
        # One run at a time in the kept copy.
        exec 9>"$top/build/check-lock"
        flock 9
    fi
    copy_tree
    rm -rf "${top:?}/$logs"
    run_inside
    local result
    result=$(cat "$work/result" 2>/dev/null || echo "0 passed, 1 failed")
    [ "$inside_rc" = 0 ] || keep_logs
    keep_screenshots
    [ "$inside_rc" = 0 ] || say_what_failed
    finish
    echo "$result"
    exit "$inside_rc"
}

if [ "${1:-}" = --inside ]; then
    inside "$2" "$3"
    exit
fi

cd "$(dirname "$0")/.."
top=$(pwd -P)
case ${1:-} in
    all | code | unit | regress | tap | assert | kafka) outside "$1" ;;
    clean) clean ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" >&2; exit 2 ;;
esac
