#!/usr/bin/env bash
# The demo: a private server with spine, fed by the producer worker, and
# spine-http to look at it.
#
#   tools/demo.sh start   set the demo up, or make sure that the existing one runs
#   tools/demo.sh stop    stop the demo and remove everything
#
# BROKERS=host:port uses that broker; BROKERS= goes back to the embedded one.
#
# Everything is in .demo: pg (a private copy of the machine's PostgreSQL with spine in
# it), data, run (the socket), log, http.log, env. When root runs the demo, the server
# belongs to an unprivileged user. If that user cannot enter the tree, .demo is a link
# to a directory under /var/tmp. The server does not listen on the network. Only the
# socket's directory decides who can connect: it is closed to everyone except the
# server's user and root. spine-http listens on 127.0.0.1, and may only read.
set -eu -o pipefail

cd "$(dirname "$0")/.."
top=$(pwd -P)
tenants='acme, globex, initech'
rate=20                 # events a second
patience=300            # seconds to wait for the first rows
first_http_port=8000

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

# --------------------------------------------------------------------------
# Who and where
# --------------------------------------------------------------------------

# Commands after "${as_server[@]}" run as the server's user, with a clean
# environment: the caller's PGDATA or LD_PRELOAD must not reach them.
server_user=
choose_user() {
    server_user=$(id -un)
    local switch=()
    if [ -d .demo/data ]; then
        server_user=$(stat -L -c %U .demo/data)
    elif [ "$(id -u)" = 0 ]; then
        server_user=postgres
        id -u "$server_user" >/dev/null 2>&1 || server_user=nobody
    fi
    if [ "$server_user" != "$(id -un)" ]; then
        [ "$(id -u)" = 0 ] || die "this demo belongs to $server_user; only they or root can use it"
        switch=(setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" --init-groups --)
    fi
    # From /, because the tree may be closed to that user.
    as_server=("${switch[@]}" env -i -C / PATH="$PATH" HOME=/ LANG=C.UTF-8 LC_ALL=C.UTF-8)
}

# Makes .demo, or the directory it links to, and puts its real path into $demo.
make_directory() {
    if [ ! -e .demo ]; then
        rm -f .demo             # a link whose target is gone
        if "${as_server[@]}" test -x "$top"; then
            mkdir .demo
        else
            ln -s "$(mktemp -d /var/tmp/spine-demo.XXXXXX)" .demo
            chmod 755 .demo/
        fi
    fi
    demo=$(cd .demo && pwd -P)
}

# Makes the directory of the socket. When the socket's path would exceed the 107 bytes
# that it may have, the directory is elsewhere, and run is a link to it.
make_socket_directory() {
    local path=$demo/run
    if [ -L "$demo/run" ] && [ ! -d "$demo/run" ]; then
        rm -f "$demo/run"       # /tmp was cleaned
    fi
    if [ ! -e "$demo/run" ]; then
        if [ ${#path} -le 85 ]; then
            mkdir "$demo/run"
        else
            ln -s "$(mktemp -d /tmp/spine-demo.XXXXXX)" "$demo/run"
        fi
    fi
    run=$(cd "$demo/run" && pwd -P)
    chown "$server_user" "$run"
    chmod 700 "$run"
}

# The first port from $1 on that nobody uses.
free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

# --------------------------------------------------------------------------
# The server
# --------------------------------------------------------------------------

bin_directory() {
    "$(find "$demo/pg" -path '*/bin/pg_config' -print -quit)" --bindir
}

# The ids of the processes of the demo's server and of its broker.
server_processes() {
    local process
    for process in /proc/[0-9]*; do
        case $(readlink "$process/exe" || :) in
            "$demo/pg"/*/postgres | "$demo/pg"/*/spine-broker) echo "${process#/proc/}" ;;
        esac
    done 2>/dev/null
}

# A postmaster.pid alone proves nothing: after a crash its number may belong to
# another process, or to none.
is_running() {
    local pid
    pid=$(head -n 1 "$demo/data/postmaster.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "$(readlink "/proc/$pid/exe")" = "$(bin_directory)/postgres" ]
}

# The children of a killed server end by themselves after a moment.
end_orphans() {
    local pids i
    for i in {1..60}; do
        pids=$(server_processes)
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086
        [ "$i" -lt 5 ] || kill -QUIT $pids 2>/dev/null || :
        sleep 1
    done
    [ -z "$pids" ] || die "these processes of an earlier demo do not end: ${pids//$'\n'/ }"
    rm -f "$demo/data/postmaster.pid" "$demo/run"/.s.PGSQL.*
}

# Runs psql as the caller, with the environment of .demo/env.
sql() {
    (
        # shellcheck disable=SC1091
        . "$demo/env"
        exec "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -P pager=off "$@"
    )
}

# Builds in a copy of the sources: the tree stays as it is, whoever owns it.
build_spine() {
    local pg_config
    say "making a private copy of PostgreSQL"
    pg_config=$(tools/private-postgres.sh "$demo/pg")
    say "building spine"
    rm -rf "$demo/build"
    mkdir "$demo/build"
    cp -R pgxs.mk spine.control sql src "$demo/build"
    (
        unset MAKEFLAGS MFLAGS MAKELEVEL
        cd "$demo/build"
        rm -f src/*.o src/*/*.o
        make -s -j "$(nproc)" -f pgxs.mk PG_CONFIG="$pg_config" all
        make -s -f pgxs.mk PG_CONFIG="$pg_config" install
    )
    rm -rf "$demo/build"
}

make_data_directory() {
    say "creating the database server"
    mkdir "$demo/new"
    chown "$server_user" "$demo/new"
    touch "$demo/log"
    chown "$server_user" "$demo/log"
    "${as_server[@]}" "$bindir/initdb" -D "$demo/new" -U postgres -E UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=reject --no-sync >/dev/null
    "${as_server[@]}" tee -a "$demo/new/postgresql.conf" >/dev/null <<-CONF

		# what make demo asks for
		shared_preload_libraries = 'spine'
		listen_addresses = ''
		unix_socket_permissions = 0700
		max_worker_processes = 16
		cluster_name = 'spine demo'
		include 'demo.conf'
	CONF
    # Only a complete directory gets the name by which the next run finds it.
    mv "$demo/new" "$demo/data"
}

start_server() {
    local port
    end_orphans
    make_socket_directory
    port=$(free_port 54320)     # only the socket's name has it; TCP does not use it
    "${as_server[@]}" tee "$demo/data/demo.conf" >/dev/null <<-CONF
		port = $port
		unix_socket_directories = '${run//\'/\'\'}'
	CONF
    {
        echo "# Read this into your shell, with . .demo/env; then psql leads to the demo."
        printf 'export PGHOST=%q PGPORT=%q PGUSER=postgres PGDATABASE=spine\n' "$run" "$port"
        # shellcheck disable=SC2016
        command -v psql >/dev/null || printf 'export PATH=%q:"$PATH"\n' "$bindir"
        echo 'export SPINE_URL='
    } >"$demo/env"
    say "starting the server as user $server_user"
    "${as_server[@]}" "$bindir/pg_ctl" -D "$demo/data" -l "$demo/log" -w -t 60 start </dev/null >/dev/null || {
        tail -n 20 "$demo/log" >&2
        die "the server did not start; above is the end of .demo/log"
    }
}

set_brokers() {
    [ -n "${BROKERS+given}" ] || return 0
    if [ -n "$BROKERS" ]; then
        say "using the broker $BROKERS"
        sql -v brokers="$BROKERS" <<<"ALTER SYSTEM SET spine.brokers = :'brokers'; SELECT pg_reload_conf();" >/dev/null
    else
        say "using the embedded broker"
        sql <<<"ALTER SYSTEM RESET spine.brokers; SELECT pg_reload_conf();" >/dev/null
    fi
}

make_database() {
    [ "$(sql -d postgres -At -c "SELECT count(*) FROM pg_database WHERE datname = 'spine'")" = 1 ] ||
        sql -d postgres -c "CREATE DATABASE spine"
    set_brokers
    sql -c "SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS spine"
    sql -v tenants="$tenants" -v rate="$rate" >/dev/null <<-'SQL'
		ALTER SYSTEM SET spine.producer_tenants = :'tenants';
		ALTER SYSTEM SET spine.producer_rate = :rate;
		SELECT pg_reload_conf();
	SQL
}

# A second pipeline, of another kind: nested records, times as numbers, an enum, arrays, a
# path, an expression. Its records are sent once.
make_deliveries() {
    say "making the pipeline deliveries"
    sql >/dev/null <<-'SQL'
		CREATE TYPE vehicle AS ENUM ('bike', 'van', 'truck');
		CREATE TABLE deliveries (
		    id uuid PRIMARY KEY,
		    seen timestamptz,
		    courier text,
		    vehicle vehicle,
		    place double precision[],
		    stops text[],
		    fahrenheit numeric(5,1),
		    delivered boolean DEFAULT false,
		    details jsonb);
		SELECT spine_create_pipeline('deliveries', 'deliveries', 'deliveries', mode => 'upsert', version => 'seen',
		    columns => '{
		        "id": "$key",
		        "seen": {"path": "$.seen", "as": "epoch_ms"},
		        "courier": "$.courier.name",
		        "vehicle": "$.courier.vehicle",
		        "place": "$.track[0].lon_lat",
		        "stops": "stops",
		        "fahrenheit": {"sql": "(value->>''celsius'')::numeric * 9 / 5 + 32"},
		        "delivered": "delivered",
		        "details": "$value"}');
	SQL
    sql >/dev/null <<-'SQL' || say "the topic deliveries could not be written to; its pipeline waits for records"
		SELECT count(spine_send('deliveries', md5('delivery ' || i % 40)::uuid::text, jsonb_build_object(
		    'seen', round(extract(epoch FROM now()) * 1000) - (100 - i) * 1000,
		    'courier', jsonb_build_object('name', (ARRAY['Ada', 'Linus', 'Grace', 'Edgar'])[1 + i % 4],
		                                  'vehicle', (ARRAY['bike', 'van', 'truck'])[1 + i % 3]),
		    'track', jsonb_build_array(jsonb_build_object('lon_lat', jsonb_build_array(10.7 + i * 0.001, 59.9 + i * 0.002))),
		    'stops', jsonb_build_array('depot', 'stop ' || i % 7),
		    'celsius', round((i % 11 + 0.37)::numeric, 2))
		    || CASE WHEN i > 80 THEN '{"delivered": true}' ELSE '{}' END::jsonb))
		FROM generate_series(1, 100) i;
	SQL
}

# --------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------

# Makes the role as README says. It may do no more than read.
make_http_role() {
    sql >/dev/null <<-'SQL'
		SELECT 'CREATE ROLE spine_http LOGIN'
		WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'spine_http') \gexec
		GRANT SELECT ON events, current_orders, spine_order_totals, spine_order_sums,
		    spine_order_counts, spine_order_changes TO spine_http;
		GRANT EXECUTE ON FUNCTION spine_readiness(), spine_metrics_text() TO spine_http;
	SQL
}

# The ids of the demo's spine-http processes.
http_processes() {
    local process
    for process in /proc/[0-9]*; do
        case $(readlink "$process/exe" || :) in
            "$demo/pg"/*/spine-http) echo "${process#/proc/}" ;;
        esac
    done 2>/dev/null
}

# spine-http answers the requests that it has before it ends, unless that takes too long.
stop_http() {
    local pids i
    for i in {1..300}; do
        pids=$(http_processes)
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086
        case $i in
            1) kill $pids ;;
            60) kill -KILL $pids ;;
        esac 2>/dev/null || :
        sleep 0.1
    done
    die "spine-http does not end: ${pids//$'\n'/ }"
}

# Does spine-http answer?
http_is_up() {
    local answer=
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
        read -r -t 5 answer <&3
        [[ $answer == *" 200 "* ]]
    ) 2>/dev/null
}

start_http() {
    local port waited=0
    port=$(free_port "$first_http_port")
    touch "$demo/http.log"
    chown "$server_user" "$demo/http.log"
    "${as_server[@]}" setsid "$bindir/spine-http" --port="$port" --log-file="$demo/http.log" \
        --dbname="host='${run//\'/\\\'}' port=$(. "$demo/env" && echo "$PGPORT") dbname=spine user=spine_http" \
        </dev/null >/dev/null 2>&1 &
    until http_is_up "$port"; do
        if [ "$waited" -ge 600 ]; then
            stop_http
            tail -n 20 "$demo/http.log" >&2
            die "spine-http does not answer; above is the end of .demo/http.log"
        fi
        sleep 0.1
        waited=$((waited + 1))
    done
    sed -i "s|^export SPINE_URL=.*|export SPINE_URL=http://127.0.0.1:$port|" "$demo/env"
}

wait_for_rows() {
    local waited=0
    printf '==> waiting for the first rows '
    until [ "$(sql -At -c "SELECT EXISTS (SELECT FROM current_orders)" 2>&1)" = t ]; do
        if [ "$waited" -ge "$patience" ] || ! is_running; then
            echo
            tail -n 20 "$demo/log" >&2
            sql -x -c "TABLE spine_status" >&2 || :
            die "no row in current_orders after $waited s; above are the end of .demo/log and spine_status"
        fi
        printf .
        sleep 1
        waited=$((waited + 1))
    done
    echo " done"
}

show() {
    echo
    echo "current_orders, the newest five:"
    sql -c "SELECT * FROM current_orders ORDER BY updated_at DESC LIMIT 5"
    echo "deliveries, from nested records (their mapping: SELECT spine_show_pipeline('deliveries')):"
    sql -c "SELECT seen, courier, vehicle, place, stops, fahrenheit, delivered FROM deliveries ORDER BY seen DESC LIMIT 3"
    echo "spine_status:"
    sql -c "SELECT pipeline, partition, state, next_offset, high_watermark, lag, events_total FROM spine_status ORDER BY 1, 2"
    echo "The live page: $(. "$demo/env" && echo "$SPINE_URL")/"
    cat <<-'TEXT'

		To look further:
		    . .demo/env                                            lead psql to this server
		    psql -c "SELECT * FROM current_orders LIMIT 20"        the latest state of each order
		    psql -c "SELECT count(*) FROM events"                  the history
		    psql -c "SELECT * FROM spine_status"                   how far each partition is
		    psql -c "SELECT * FROM spine_peek('deliveries', 3)"    what is on a topic
		    psql -Atc "SELECT spine_infer('deliveries')"           a table and a pipeline for it, proposed
		    psql -c "SELECT spine_produce('acme', 100000)"         make events yourself ...
		    psql -c "SELECT spine_wait()"                          ... and wait until they are applied
		    curl "$SPINE_URL/orders?tenant=acme&limit=3"           what the page shows, as JSON
		    psql -c "SELECT spine_brokers()"                       where kcat or any other client can connect
		    less .demo/log .demo/http.log                          the logs of the server and of spine-http
		    make demo BROKERS=host:9092                            use a broker of your own
		    make demo-stop                                         stop everything and remove it
	TEXT
}

start() {
    umask 022
    tools/deps.sh demo
    choose_user
    make_directory
    if is_running; then
        say "the demo is already running"
        bindir=$(bin_directory)
    else
        if [ ! -e .demo/data/PG_VERSION ]; then
            rm -rf "$demo/new" "$demo/data"
            build_spine
        fi
        bindir=$(bin_directory)
        [ -d "$demo/data" ] || make_data_directory
        stop_http               # one that an earlier server left
        start_server
    fi
    # After the first time the settings are the user's, who may have changed them.
    if [ -e "$demo/ready" ]; then
        set_brokers
    else
        make_database
        make_deliveries
        make_http_role
        touch "$demo/ready"
    fi
    run=$(cd "$demo/run" && pwd -P)
    [ -n "$(http_processes)" ] || start_http
    wait_for_rows
    show
}

# --------------------------------------------------------------------------
# Stopping
# --------------------------------------------------------------------------

# Removes a directory that mktemp made for us, and nothing else.
remove_ours() {
    case $1 in
        /var/tmp/spine-demo.?????? | /tmp/spine-demo.??????) rm -rf "$1" ;;
    esac
}

stop() {
    if [ ! -e .demo ]; then
        rm -f .demo
        say "there is no demo"
        return
    fi
    choose_user
    demo=$(cd .demo && pwd -P)
    stop_http
    if is_running; then
        say "stopping the server"
        bindir=$(bin_directory)
        "${as_server[@]}" "$bindir/pg_ctl" -D "$demo/data" -m fast -w -t 30 stop >/dev/null ||
            "${as_server[@]}" "$bindir/pg_ctl" -D "$demo/data" -m immediate -w -t 30 stop >/dev/null ||
            die "the server does not stop; its log is .demo/log"
    fi
    end_orphans
    [ ! -L "$demo/run" ] || remove_ours "$(readlink "$demo/run")"
    if [ -L .demo ]; then
        remove_ours "$demo"
        rm -f .demo
    else
        rm -rf .demo
    fi
    say "the demo is gone"
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    *) echo "usage: tools/demo.sh start|stop" >&2; exit 2 ;;
esac
