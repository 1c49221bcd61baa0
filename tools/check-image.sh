#!/usr/bin/env bash
# Builds the container image for real and starts it, without an engine and without a
# registry: with buildah in a chroot, on a base that debootstrap makes.
#
#   tools/check-image.sh [SUITE]    the Debian suite of the base (trixie, because it
#                                   has the image's PostgreSQL 17)
#
# The programs run as in a container, except that the network and the process ids are
# the machine's. MIRROR=... names another mirror for the packages. The last line is
# "N passed, N failed".
set -eu -o pipefail

cd "$(dirname "$0")/.."
top=$(pwd -P)
suite=${1:-trixie}
mirror=${MIRROR:-}
base=localhost/spine-check/base
image=localhost/spine-check/spine-postgres
passed=0
failed=0
all_well=
patience=300            # seconds to wait for something

say() {
    printf '==> %s\n' "$*"
}

# check WHAT COMMAND...: one test, which passes when the command succeeds.
check() {
    local what=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        passed=$((passed + 1))
        echo "ok - $what"
    else
        failed=$((failed + 1))
        echo "not ok - $what"
        sed 's/^/#   /' "$work/said" | tail -n 20
    fi
}

# Tries a command until it succeeds.
eventually() {
    local deadline=$((SECONDS + patience))
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

is() {
    [ "$1" = "$2" ] || { printf 'got:      %s\nexpected: %s\n' "$1" "$2"; return 1; }
}

# --------------------------------------------------------------------------
# Images
# --------------------------------------------------------------------------

# Storage of its own, so that the machine's images are not seen, and none are left.
set_up_storage() {
    cat >"$work/storage.conf" <<-CONF
		[storage]
		driver = "vfs"
		graphroot = "$work/images"
		runroot = "$work/run"
	CONF
    export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot TMPDIR=$work
}

make_base() {
    local container
    debootstrap --variant=minbase "$suite" "$work/debian" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log"
        return 1
    }
    tar -C "$work/debian" -cf "$work/debian.tar" .
    container=$(buildah from scratch)
    buildah add -q "$container" "$work/debian.tar" / >/dev/null
    buildah commit -q --rm "$container" localhost/spine-check/debian
    rm -rf "$work/debian" "$work/debian.tar"
    buildah build -q --format docker -t "$base" -f test/image/Dockerfile.base test/image
}

image_size() {
    buildah images --format '{{.Size}}' "$1"
}

config_of() {
    buildah inspect --type image --format "$1" "$image"
}

# --------------------------------------------------------------------------
# Containers
# --------------------------------------------------------------------------

# run_in CONTAINER COMMAND...: runs it with the volumes that a pod would have. The data
# is not where the image declares a volume, because buildah makes its own one there.
run_in() {
    local container=$1
    shift
    buildah run --volume "$work/data:/data" --volume "$work/etc:/etc/spine" --volume "$work/socket:/run/postgresql" \
        --env PGDATA=/data --env POSTGRES_PASSWORD=secret --env POSTGRES_DB=shop --env PGPORT="$pg_port" \
        "$container" -- "$@"
}

# The buildah process that waits for a container's processes, by the container's name.
declare -A job=()

# Starts what docker would start: the image's entrypoint and command, with arguments.
start_database() {
    local command
    mapfile -t command < <(config_of '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' | sed '/^$/d')
    run_in database "${command[@]}" "$@" >>"$work/database.log" 2>&1 &
    job[database]=$!
}

start_page() {
    run_in page spine-http --port="$http_port" \
        --dbname='host=/run/postgresql user=spine_http dbname=shop' >>"$work/page.log" 2>&1 &
    job[page]=$!
}

descendants() {
    local child
    for child in $(pgrep -P "$1"); do
        echo "$child"
        descendants "$child"
    done
}

# The processes of a container, its main process first, without buildah's own.
processes_of() {
    local pid
    for pid in $(descendants "${job[$1]}"); do
        case $(readlink "/proc/$pid/exe") in
            '' | */buildah | /memfd:buildah-*) ;;
            *) echo "$pid" ;;
        esac
    done
}

main_process() {
    processes_of "$1" | sed -n 1p
}

kill_all() {
    local pids
    pids=$(processes_of "$1")
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill "-$2" $pids 2>/dev/null || :
}

has_ended() {
    ! kill -0 "${job[$1]}" 2>/dev/null
}

sql() {
    run_in database psql -XqtAU postgres -d shop -v ON_ERROR_STOP=1 -c "$1"
}

answers() {             # answers STATUS PATH
    is "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$http_port$2")" "$1"
}

free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

# --------------------------------------------------------------------------
# The tests
# --------------------------------------------------------------------------

has_no_compiler() {
    ! run_in database sh -c 'for tool in cc gcc clang make ld as; do command -v $tool; done; find /spine /usr/include -type f' 2>/dev/null | grep .
}

is_healthy() {          # the image's own health check
    local command
    mapfile -t command < <(config_of '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' | sed '/^$/d')
    is "${command[0]}" CMD && run_in database "${command[@]:1}"
}

is_unhealthy() {
    ! is_healthy
}

# The event ids show that every event is there once, and that the orders match.
has_all() {
    is "$(sql "SELECT count(*), count(DISTINCT event_id), (SELECT count(*) FROM current_orders) = count(DISTINCT (tenant, order_id)) FROM events")" "$1|$1|t"
}

has_orders_of() {
    curl -s "http://127.0.0.1:$http_port/orders?tenant=$1&limit=1" | grep -q '"order_id"'
}

has_setting() {
    is "$(sql "SHOW $1")" "$2"
}

# Only the volumes were written to, so the root may be mounted read-only.
writes_nowhere() {
    local root written
    root=$(buildah mount "$1")
    written=$(find "$root" -xdev -newer "$work/started" ! -type d \
        ! -path "$root/proc/*" ! -path "$root/sys/*" ! -path "$root/dev/*" \
        ! -path "$root/etc/hosts" ! -path "$root/etc/resolv.conf" ! -path "$root/etc/mtab" ! -path "$root/run/.containerenv")
    [ -z "$written" ] || { echo "$written"; return 1; }
}

test_image() {
    check 'the image runs as an unprivileged user' is "$(config_of '{{.OCIv1.Config.User}}')" postgres
    check "the base's entrypoint is kept" is "$(config_of '{{.OCIv1.Config.Entrypoint}}')" '[docker-entrypoint.sh]'
    check "the base's command is kept" is "$(config_of '{{.OCIv1.Config.Cmd}}')" '[postgres]'
    check 'the image has a version' is "$(config_of '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}')" \
        "$(sed -n "s/^default_version = '\(.*\)'/\1/p" spine.control)"
    check 'the image has a revision' is "$(config_of '{{index .OCIv1.Config.Labels "org.opencontainers.image.revision"}}')" \
        "$(git -c safe.directory="$top" rev-parse HEAD 2>/dev/null || :)"
    check 'the image has no compiler and no headers' has_no_compiler
}

test_start() {
    touch "$work/started"
    start_database
    start_page
    check 'the health check waits for the first start' eventually is_healthy
    check 'the server does not run as root' is "$(stat -c %u "/proc/$(head -n 1 "$work/data/postmaster.pid")")" "$uid"
    check 'spine is preloaded' is "$(sql 'SHOW shared_preload_libraries')" spine
    check 'a file of settings is read' has_setting spine.log_interval 17s
    check 'the extension is there' is "$(sql "SELECT extversion FROM pg_extension WHERE extname = 'spine'")" \
        "$(sed -n "s/^default_version = '\(.*\)'/\1/p" spine.control)"
    check 'events flow through the embedded broker' is "$(sql "SELECT spine_produce('acme', 1000), spine_wait()")" '1000|t'
    check 'every event is there once' has_all 1000
    check 'the sidecar is ready' eventually answers 200 /readyz
    check 'the sidecar serves the orders' is "$(curl -s "http://127.0.0.1:$http_port/orders?limit=1" | sed 's/.*"order_id":"\([^"]*\)".*/\1/')" \
        "$(sql 'SELECT order_id FROM spine_orders(max_rows => 1)')"
    check 'the sidecar serves the page' answers 200 /
    check 'the sidecar serves the metrics' is "$(curl -s "http://127.0.0.1:$http_port/metrics" | awk '/^spine_events_applied_total/ { n += $2 } END { print n }')" 1000
}

test_kill() {
    (sql "SELECT spine_produce('globex', 200000)" >/dev/null 2>&1 || :) &
    check 'events are being applied' eventually has_orders_of globex
    kill_all database KILL
    check 'the container is killed meanwhile' eventually has_ended database
    check 'the health check notices' is_unhealthy
    check 'the sidecar lives' answers 200 /healthz
    check 'the sidecar says that the database is away' eventually answers 503 /orders
    start_database
    check 'the next container comes up' eventually is_healthy
    check 'the sidecar is ready again' eventually answers 200 /readyz
    local events
    events=$(sql 'SELECT count(*) FROM events')
    check "the committed events are there: $events" test "$events" -gt 1000
    check 'each committed event is there once' has_all "$events"
    check 'events flow again' is "$(sql "SELECT spine_produce('initech', 1000), spine_wait()")" '1000|t'
    check 'each new event is there once' has_all $((events + 1000))
}

test_stop() {
    local status=0
    kill "-$(config_of '{{.Docker.Config.StopSignal}}')" "$(main_process database)"
    wait "${job[database]}" || status=$?
    check "the container shuts down at the base's stop signal" is "$status $(grep -c 'database system is shut down' "$work/database.log")" '0 2'
    start_database -c spine.batch_rows=77
    check 'arguments are settings of the server' eventually has_setting spine.batch_rows 77
    kill_all page TERM
    check 'the sidecar ends' eventually has_ended page
    check 'the database writes only to its volumes' writes_nowhere database
    check 'the sidecar writes only to its volumes' writes_nowhere page
}

finish() {
    trap - EXIT HUP INT TERM
    local container
    for container in "${!job[@]}"; do
        kill_all "$container" KILL
    done
    wait
    buildah rm --all >/dev/null 2>&1 || :
    if [ -z "$all_well" ]; then
        mkdir -p build/check-image
        cp "$work"/*.log build/check-image
        say 'the logs are in build/check-image'
    fi
    rm -rf "$work"
}

if [ "$(id -u)" != 0 ]; then
    exec sudo MIRROR="$mirror" TMPDIR="${TMPDIR:-/var/tmp}" "tools/${0##*/}" "$suite"
fi
tools/deps.sh image
work=$(mktemp -d "${TMPDIR:-/var/tmp}/spine-image.XXXXXX")
trap finish EXIT
trap 'exit 130' HUP INT TERM
set_up_storage

say "making the base: $suite"
make_base
CONTAINER_TOOL=buildah BASE_IMAGE=$base IMAGE=$image tools/image.sh >"$work/build.log" 2>&1 || {
    tail -n 50 "$work/build.log"
    exit 1
}
say "the image has $(image_size "$image"), its base $(image_size "$base")"

buildah from -q --name database "$image" >/dev/null
buildah from -q --name page "$image" >/dev/null
uid=$(buildah run database -- id -u)
install -d -o "$uid" -m 700 "$work/data"
install -d -o "$uid" "$work/socket"
mkdir "$work/etc"
echo "spine.log_interval = '17s'" >"$work/etc/spine.conf"
chmod 755 "$work"
pg_port=$(free_port 54330)
http_port=$(free_port 18000)

test_image
test_start
test_kill
test_stop

[ "$failed" -gt 0 ] || all_well=yes
finish
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
