#!/usr/bin/env bash
# Builds the container image for real, and runs it in containers: alone, as the pods of the
# cluster, and in compose.yaml. No registry is needed: debootstrap makes the base, and a
# stand-in for Redpanda is made of Kafka.
#
#   tools/check-image.sh [SUITE]    the Debian suite of the base (trixie, because it
#                                   has the image's PostgreSQL 17)
#
# An engine that runs is used, and keeps its images; otherwise dockerd is started with a
# socket and a directory of its own. MIRROR=... names another mirror for the packages. The
# last line is "N passed, N failed".
set -eu -o pipefail

cd "$(dirname "$0")/.."
top=$(pwd -P)
suite=${1:-trixie}
mirror=${MIRROR:-}
prefix=spine-check              # begins the names of containers, networks and volumes
mine=localhost/$prefix      # the repositories of the images that are only for this
image=spine-postgres:dev        # as the manifests and compose.yaml have it
phase=k8s/overlays/phase-1-ingest
engine=                 # the process id of our dockerd
socket=
rate=30                 # of compose.yaml, events a second
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

not() {
    ! "$@"
}

# --------------------------------------------------------------------------
# The engine
# --------------------------------------------------------------------------

start_engine() {
    if docker info >/dev/null 2>&1; then
        say "the engine that runs here is used"
        socket=$(docker context inspect --format '{{.Endpoints.docker.Host}}')
        socket=${socket#unix://}
        return
    fi
    say "starting dockerd"
    socket=$work/engine/socket
    export DOCKER_HOST=unix://$socket
    mkdir "$work/engine"
    dockerd --host="$DOCKER_HOST" --data-root="$work/engine/data" --exec-root="$work/engine/exec" \
        --pidfile="$work/engine/pid" >"$work/engine.log" 2>&1 &
    engine=$!
    eventually engine_answers_or_ends
    docker info >/dev/null 2>&1 || { tail -n 20 "$work/engine.log"; return 1; }
}

engine_answers_or_ends() {
    docker info >/dev/null 2>&1 || ! kill -0 "$engine" 2>/dev/null
}

stop_engine() {
    [ -n "$engine" ] || return 0
    kill "$engine"
    wait "$engine" || :
}

# The images that an engine of somebody else has under the names that we need.
remember_images() {
    local name
    for name in "$image" "$redpanda"; do
        docker image inspect --format "{{.Id}} $name" "$name" 2>/dev/null || echo "none $name"
    done >"$work/remembered"
}

give_images_back() {
    local id name now
    while read -r id name; do
        now=$(docker image inspect --format '{{.Id}}' "$name" 2>/dev/null) || now=none
        [ "$now" != "$id" ] || continue     # nothing was built
        docker rmi --force "$name"
        [ "$id" = none ] || docker tag "$id" "$name"
    done <"$work/remembered"
    docker images --quiet "$mine/*" | xargs --no-run-if-empty docker rmi --force
}

# --------------------------------------------------------------------------
# Images
# --------------------------------------------------------------------------

# False: one of them could not be made. (The caller asks, so that "set -e" has no effect here.)
make_images() {
    debootstrap --variant=minbase "$suite" "$work/debian" ${mirror:+"$mirror"} >"$work/build.log" 2>&1 &&
        tar -C "$work/debian" -c . | docker import - "$mine/debian" >>"$work/build.log" &&
        rm -rf "$work/debian" &&
        build_test_image base "$mine/base" test/image &&
        build_test_image compose "$mine/compose" test/image &&
        tools/kafka.sh get &&
        mkdir "$work/redpanda" &&
        cp -R build/kafka test/image/rpk "$work/redpanda" &&
        build_test_image redpanda "$redpanda" "$work/redpanda" &&
        CONTAINER_TOOL=docker BASE_IMAGE=$mine/base IMAGE=$image tools/image.sh >>"$work/build.log" 2>&1
}

build_test_image() {    # FILE NAME CONTEXT
    docker build --tag "$2" --file "test/image/Dockerfile.$1" "$3" >>"$work/build.log" 2>&1
}

image_size() {
    docker image inspect --format '{{.Size}}' "$1" | numfmt --to=iec
}

config_of() {
    docker image inspect --format "{{$1}}" "$image"
}

test_image() {
    check 'the image runs as an unprivileged user' is "$(config_of .Config.User)" postgres
    check "the base's entrypoint is kept" is "$(config_of .Config.Entrypoint)" '[docker-entrypoint.sh]'
    check "the base's command is kept" is "$(config_of .Config.Cmd)" '[postgres]'
    check 'the image has a version' is "$(config_of 'index .Config.Labels "org.opencontainers.image.version"')" "$version"
    check 'the image has a revision' is "$(config_of 'index .Config.Labels "org.opencontainers.image.revision"')" \
        "$(git -c safe.directory="$top" rev-parse HEAD 2>/dev/null || :)"
    check 'the image has no compiler and no headers' has_no_compiler
}

has_no_compiler() {
    ! docker run --rm --entrypoint sh "$image" -c \
        'for tool in cc gcc clang make ld as; do command -v $tool; done; find /spine /usr/include -type f' 2>/dev/null | grep .
}

# --------------------------------------------------------------------------
# What can be asked of a container
# --------------------------------------------------------------------------

sql() {                 # CONTAINER STATEMENT
    docker exec "$1" psql -XqtAU postgres -d shop -v ON_ERROR_STOP=1 -c "$2"
}

gives() {               # CONTAINER QUERY RESULT
    is "$(sql "$1" "$2")" "$3"
}

health() {              # CONTAINER STATE: as the image's health check finds it
    is "$(docker inspect --format '{{.State.Health.Status}}' "$1")" "$2"
}

# The page's answer, asked from inside its own network.
answers() {             # CONTAINER STATUS PATH
    is "$(docker exec "$1" bash -c "exec 3<>/dev/tcp/127.0.0.1/8000; printf 'GET $3 HTTP/1.0\r\n\r\n' >&3; head -n 1 <&3 | cut -d ' ' -f 2")" "$2"
}

# The engine restarts a container whose process was killed, but not one that it killed itself.
kill_process() {        # CONTAINER
    kill -KILL "$(docker inspect --format '{{.State.Pid}}' "$1")"
}

restarts() {            # CONTAINER
    docker inspect --format '{{.RestartCount}}' "$1"
}

has_restarted() {       # CONTAINER TIMES
    [ "$(restarts "$1")" -gt "$2" ] && is "$(docker inspect --format '{{.State.Running}}' "$1")" true
}

count() {               # CONTAINER
    sql "$1" "SELECT count(*) FROM events WHERE tenant = 'acme'" || echo 0
}

has_more_than() {       # CONTAINER EVENTS
    [ "$(count "$1")" -gt "$2" ]
}

warns() {               # CONTAINER
    docker logs "$1" 2>&1 | grep 'WARNING:'
}

# The synthetic events that are sent from now on are applied.
flows() {               # CONTAINER
    local before
    before=$(count "$1")
    eventually has_more_than "$1" $((before + 20))
}

# Gives the workers much to do, for as long as the server and the broker are there.
send_backlog() {        # CONTAINER
    (sql "$1" "SELECT spine_produce('backlog', 200000)" >/dev/null 2>&1 || :) &
    check '... a backlog is being applied' eventually gives "$1" "SELECT count(*) > 0 FROM events WHERE tenant = 'backlog' AND applied_at > now() - interval '10 s'" t
}

# Every record of the log is in the table once, and each order is as its newest event says.
is_whole() {            # CONTAINER
    gives "$1" "
    SELECT (SELECT count(*) FROM events) = (SELECT sum(next_offset) FROM spine_offsets WHERE pipeline = 'orders'),
        (SELECT count(*) = count(DISTINCT event_id) FROM events),
        (SELECT sum(lag) FROM spine_status WHERE pipeline = 'orders') = 0,
        (SELECT count(*) FROM spine_dead_letters),
        (SELECT count(*) FROM (
            SELECT DISTINCT ON (tenant, order_id) tenant, order_id, event_type, event_time FROM events
            ORDER BY tenant, order_id, event_time DESC, kafka_partition, kafka_offset DESC) e
            FULL JOIN current_orders o USING (tenant, order_id)
            WHERE (o.status, o.updated_at) IS DISTINCT FROM (e.event_type, e.event_time)),
        (SELECT sum(orders) FROM spine_stats()) = (SELECT count(*) FROM current_orders)" 't|t|t|0|0|t'
}

# --------------------------------------------------------------------------
# One container, with the embedded broker
# --------------------------------------------------------------------------

test_alone() {
    local server=$prefix-server page=$prefix-page
    local options=(--name "$server" --env POSTGRES_PASSWORD=secret --env POSTGRES_DB=shop
        --volume "$work/etc:/etc/spine:ro" --volume "$server:/var/lib/postgresql/data")
    mkdir "$work/etc"
    echo "spine.log_interval = '17s'" >"$work/etc/spine.conf"
    docker run --detach "${options[@]}" "$image" >/dev/null
    check 'the health check waits for the first start' eventually health "$server" healthy
    check 'spine is preloaded' gives "$server" 'SHOW shared_preload_libraries' spine
    check 'a file of settings is read' gives "$server" 'SHOW spine.log_interval' 17s
    check 'the extension is there' gives "$server" "SELECT extversion FROM pg_extension WHERE extname = 'spine'" "$version"
    check 'events flow through the embedded broker' gives "$server" "SELECT spine_produce('acme', 1000), spine_wait()" '1000|t'
    check 'every event is there once' is_whole "$server"
    docker stop --time 60 "$server" >/dev/null
    check "the server shuts down at the base's stop signal" is \
        "$(docker inspect --format '{{.State.ExitCode}}' "$server") $(docker logs "$server" 2>&1 | grep -c 'database system is shut down')" '0 2'
    docker rm "$server" >/dev/null
    docker run --detach "${options[@]}" "$image" -c spine.batch_rows=77 >/dev/null
    check 'arguments are settings of the server' eventually gives "$server" 'SHOW spine.batch_rows' 77

    docker run --detach --name "$page" --network "container:$server" --volumes-from "$server" \
        "$image" spine-http --dbname='host=127.0.0.1 user=postgres dbname=shop password=secret' >/dev/null
    check 'the health check of spine-http is about spine-http' eventually health "$page" healthy
    docker stop "$server" >/dev/null
    check '... and notices that the database is away' eventually health "$page" unhealthy
    remove_all >/dev/null
}

# --------------------------------------------------------------------------
# As the pods of the cluster: user, read-only root, no capabilities, limits of memory
# --------------------------------------------------------------------------

# An address can be chosen only in a network whose addresses were chosen. The engine knows
# which are free.
make_network() {
    local subnet
    docker network create "$prefix" >/dev/null
    subnet=$(docker network inspect --format '{{(index .IPAM.Config 0).Subnet}}' "$prefix")
    docker network rm "$prefix" >/dev/null
    docker network create --subnet "$subnet" "$prefix" >/dev/null
}

# A container of its own holds the address of a pod, as in Kubernetes: it stays when another
# container of the pod starts again.
start_pod() {           # NAME OPTION...
    docker run --detach --name "$prefix-$1-pod" --network "$prefix" --network-alias "$1" --network-alias "$1-0.$1" \
        --entrypoint sleep "${@:2}" "$image" infinity >/dev/null
}

run_in_pod() {          # FILE KIND/POD CONTAINER OPTION...
    local arguments
    mapfile -d '' -t arguments < <(test/image/pod_options.py "$phase/$1.yaml" "$2" "$3" "$work/pods")
    docker run --name "$prefix-$3" --network "container:$prefix-${2#*/}-pod" --pull=never "${@:4}" "${arguments[@]}"
}

make_topic() {
    run_in_pod topic-init Job/topic-init topic-init --rm
}

start_pods() {
    local pod
    make_network
    mkdir "$work/pods"
    printf 'metadata: {name: postgres-credentials}\nstringData: {username: postgres, password: %s}\n' \
        "$(head -c 24 /dev/urandom | base64 | tr -d '+/=')" >"$work/pods/secret.yaml"
    for pod in redpanda topic-init postgres producer; do
        start_pod "$pod"
    done
    run_in_pod redpanda StatefulSet/redpanda redpanda --detach --restart=always >/dev/null
    check 'the Job makes the topic' make_topic
    check '... again, where it exists' make_topic
    run_in_pod postgres StatefulSet/postgres postgres --detach --restart=always >/dev/null
    run_in_pod postgres StatefulSet/postgres spine-http --detach --restart=always >/dev/null
    run_in_pod app Deployment/producer producer --detach --restart=always >/dev/null
}

address_of() {          # POD
    docker inspect --format "{{(index .NetworkSettings.Networks \"$prefix\").IPAddress}}" "$prefix-$1-pod"
}

# The pod gets another address, while the old one belongs to nobody.
move_pod() {            # NAME ADDRESS
    docker network disconnect "$prefix" "$prefix-$1-pod"
    docker network connect --ip "$2" --alias "$1" --alias "$1-0.$1" "$prefix" "$prefix-$1-pod"
}

test_pods() {
    local postgres=$prefix-postgres page=$prefix-spine-http name times address path
    start_pods
    check 'as pods: events arrive' flows "$postgres"
    for path in /readyz / /orders /stats /metrics; do
        check "as pods: the page answers $path" eventually answers "$page" 200 "$path"
    done
    check 'as pods: the server does not run as root' is "$(docker exec "$postgres" stat -c %u /proc/1)" 999
    for name in postgres spine-http redpanda producer; do
        send_backlog "$postgres"
        times=$(restarts "$prefix-$name")
        kill_process "$prefix-$name"
        check "as pods: $name is killed, and starts again" eventually has_restarted "$prefix-$name" "$times"
        check '... events arrive' flows "$postgres"
        check '... the page is ready' eventually answers "$page" 200 /readyz
    done

    # Connections are not closed: nobody is there any more.
    for name in redpanda postgres producer; do
        address=$(address_of "$name")
        move_pod "$name" "${address%.*}.$((${address##*.} + 100))"
        check "as pods: $name gets another address without a word, and events arrive" flows "$postgres"
    done

    docker stop --time 1 "$prefix-producer" >/dev/null
    check 'as pods: every event is there once, and the orders are right' eventually is_whole "$postgres"
    docker stop --time 60 "$postgres" >/dev/null
    check 'as pods: the server shuts down in time' is "$(docker inspect --format '{{.State.ExitCode}}' "$postgres")" 0
    remove_all >/dev/null
}

# --------------------------------------------------------------------------
# compose.yaml
# --------------------------------------------------------------------------

compose() {
    docker run --rm --env HTTP_PORT="$http_port" --env PRODUCER_RATE="$rate" --env COMPOSE_PROJECT_NAME="$prefix" \
        --volume "$socket:/var/run/docker.sock" --volume "$top:$top:ro" --workdir "$top" "$mine/compose" "$@"
}

page_answers() {        # STATUS PATH
    is "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$http_port$2")" "$1"
}

free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

test_compose() {
    local postgres=$prefix-postgres-1 service times
    http_port=$(free_port 18000)
    check 'compose.yaml: everything comes up' compose up --detach --wait
    check 'compose.yaml: events arrive' flows "$postgres"
    check 'compose.yaml: the page is ready' eventually page_answers 200 /readyz
    check 'compose.yaml: the log can be looked at' compose exec -T redpanda rpk topic consume events --num 5
    for service in postgres redpanda spine-http; do
        send_backlog "$postgres"
        times=$(restarts "$prefix-$service-1")
        kill_process "$prefix-$service-1"
        check "compose.yaml: $service is killed, and starts again" eventually has_restarted "$prefix-$service-1" "$times"
        check '... events arrive' flows "$postgres"
        check '... the page is ready' eventually page_answers 200 /readyz
    done
    rate=0
    check 'compose.yaml: no more events' compose up --detach --wait
    check 'compose.yaml: every event is there once, and the orders are right' eventually is_whole "$postgres"
    check 'compose.yaml: the server warns of nothing when it starts' not warns "$postgres"
    check 'compose.yaml: everything ends' compose down --volumes
    check '... and nothing is left' is "$(docker ps --all --quiet --filter "name=$prefix-")$(docker volume ls --quiet --filter "name=${prefix}_")" ''
}

# --------------------------------------------------------------------------

# Removes what runs, and its data.
remove_all() {
    local container
    for container in $(docker ps --all --format '{{.Names}}' --filter "name=$prefix-"); do
        docker logs "$container" >"$work/$container.log" 2>&1
        docker rm --force --volumes "$container"
    done
    docker volume ls --quiet --filter "name=^$prefix" | xargs --no-run-if-empty docker volume rm
    docker network ls --quiet --filter "name=^$prefix" | xargs --no-run-if-empty docker network rm
    rm -rf "$work/pods"
}

keep_logs() {
    mkdir -p build/check-image
    cp "$work"/*.log build/check-image
    say 'the logs are in build/check-image'
}

finish() {
    trap - EXIT HUP INT TERM
    if docker info >/dev/null 2>&1; then
        { remove_all; give_images_back; } >/dev/null 2>&1 || :
    fi
    stop_engine
    [ -n "$all_well" ] || keep_logs
    rm -rf "$work"
}

if [ "$(id -u)" != 0 ]; then
    exec sudo MIRROR="$mirror" TMPDIR="${TMPDIR:-/var/tmp}" "tools/${0##*/}" "$suite"
fi
tools/deps.sh image
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" spine.control)
redpanda=$(sed -n 's/^ *image: \(.*redpanda:.*\)/\1/p' compose.yaml | sort -u)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/spine-image.XXXXXX")
trap finish EXIT
trap 'exit 130' HUP INT TERM

start_engine
remember_images
say "making the images: $suite"
make_images || { tail -n 50 "$work/build.log"; exit 1; }
say "the image has $(image_size "$image"), its base $(image_size "$mine/base")"

test_image
test_alone
test_pods
test_compose

[ "$failed" -gt 0 ] || all_well=yes
finish
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
