#!/usr/bin/env bash
# A real Apache Kafka for the tests: one node, on loopback, in one directory.
#
#   tools/kafka.sh get         download Kafka to build/kafka, and install what that needs
#   tools/kafka.sh start DIR   set Kafka up in DIR, or start the one that is there,
#                              and wait until it answers
#   tools/kafka.sh stop DIR    stop Kafka and remove DIR
#
# DIR has env (the addresses and the secret, for a shell), pid, log, data and the
# certificates. Kafka advertises the address KAFKA_PROXIED, but nobody listens there: a
# test may put a proxy there that leads to KAFKA_BEHIND_PROXY. If DIR/data is missing, a
# cluster with a new id is started on the same ports. KAFKA_JAVA_OPTIONS, if set, are
# given to java.
set -eu -o pipefail

cd "$(dirname "$0")/.."
top=$(pwd -P)
jars=$top/build/kafka
patience=300            # seconds to wait for an answer

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf 'kafka: %s\n' "$*" >&2
    exit 1
}

get() {
    tools/deps.sh kafka
    # The directory gets its name only when it is complete.
    if [ -d "$jars" ] && ! [ test/kafka/pom.xml -nt "$jars" ]; then
        return 0
    fi
    say "downloading Kafka"
    rm -rf "$jars" "$jars.new"
    mvn -q -B -f test/kafka/pom.xml -Dmaven.repo.local="$top/build/m2" \
        dependency:copy-dependencies -DoutputDirectory="$jars.new"
    mv "$jars.new" "$jars"
    touch "$jars"
}

# --------------------------------------------------------------------------
# Setting it up
# --------------------------------------------------------------------------

# Ports that nobody uses, one a line. They start at a random port, and are below those
# that the kernel gives to clients.
free_ports() {
    local found=0 port=$((20000 + RANDOM % 10000))
    while [ "$found" -lt "$1" ]; do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            found=$((found + 1))
        fi
        port=$((port + 1))
    done
}

key_options=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

make_ca() {             # NAME
    openssl req -x509 "${key_options[@]}" -keyout "$1.key" -out "$1.pem" -subj "/CN=$1" -days 30
}

# A server's key and certificate, in one file, as Kafka needs them.
make_certificate() {    # NAME DAYS
    openssl req "${key_options[@]}" -keyout "$1.key" -out "$1.csr" -subj /CN=localhost
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days "$2" -out "$1.crt" \
        -extfile <(echo "subjectAltName = DNS:localhost, IP:127.0.0.1")
    cat "$1.key" "$1.crt" >"$1.pem"
}

# other_ca has signed nothing. "expired" was valid until yesterday.
make_certificates() (
    cd "$dir"
    {
        make_ca ca
        make_ca other_ca
        make_certificate server 30
        make_certificate expired -1
    } >openssl.log 2>&1 || { cat openssl.log >&2; exit 1; }
)

make_configuration() {
    local plaintext ssl sasl_ssl expired behind proxy controller
    {
        read -r plaintext; read -r ssl; read -r sasl_ssl; read -r expired
        read -r behind; read -r proxy; read -r controller
    } < <(free_ports 7)
    password=$(openssl rand -hex 16)

    cat >"$dir/server.properties" <<-CONF
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$controller
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=PLAINTEXT
		listeners=PLAINTEXT://127.0.0.1:$plaintext,SSL://127.0.0.1:$ssl,SASL_SSL://127.0.0.1:$sasl_ssl,EXPIRED://127.0.0.1:$expired,PROXIED://127.0.0.1:$behind,CONTROLLER://127.0.0.1:$controller
		advertised.listeners=PLAINTEXT://127.0.0.1:$plaintext,SSL://127.0.0.1:$ssl,SASL_SSL://127.0.0.1:$sasl_ssl,EXPIRED://127.0.0.1:$expired,PROXIED://127.0.0.1:$proxy
		listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,EXPIRED:SSL,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
		log.dirs=$dir/data

		ssl.keystore.type=PEM
		ssl.keystore.location=$dir/server.pem
		listener.name.expired.ssl.keystore.type=PEM
		listener.name.expired.ssl.keystore.location=$dir/expired.pem
		sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN
		listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
		listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_spine="$password";

		auto.create.topics.enable=false
		num.partitions=3
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=1
		# a topic that asks for compaction is compacted at once
		log.cleaner.backoff.ms=100
		log.cleaner.dedupe.buffer.size=4194304
		# a killed broker is back as soon as it has started again
		broker.session.timeout.ms=2000
		broker.heartbeat.interval.ms=500
	CONF
    cat >"$dir/env" <<-ENV
		KAFKA_PLAINTEXT=127.0.0.1:$plaintext
		KAFKA_SSL=127.0.0.1:$ssl
		KAFKA_SASL_SSL=127.0.0.1:$sasl_ssl
		KAFKA_EXPIRED=127.0.0.1:$expired
		KAFKA_PROXIED=127.0.0.1:$proxy
		KAFKA_BEHIND_PROXY=127.0.0.1:$behind
		KAFKA_USER=spine
		KAFKA_PASSWORD=$password
	ENV
    chmod 600 "$dir/server.properties" "$dir/env"
}

# --------------------------------------------------------------------------
# Running it
# --------------------------------------------------------------------------

# A small heap and little compiling: Kafka is started often, and never works hard. The
# other options keep a Kafka that is killed from leaving files in /tmp.
run_java() {
    # shellcheck disable=SC2086
    exec java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true \
        -XX:-UsePerfData -Djava.io.tmpdir="$dir" \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
        ${KAFKA_JAVA_OPTIONS:-} -cp "$jars/*" "$@"
}

format() (
    # shellcheck disable=SC1091
    . "$dir/env"
    run_java kafka.tools.StorageTool format --config "$dir/server.properties" \
        --cluster-id "$(openssl rand 16 | base64 | tr '+/' 'AB' | cut -c 1-22)" \
        --add-scram "SCRAM-SHA-256=[name=$KAFKA_USER,password=$KAFKA_PASSWORD]"
)

# Is the Kafka of an earlier call running? Its process is java by then, because a call
# ends only when Kafka answers.
is_running() {
    local pid
    pid=$(cat "$dir/pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$dir/server.properties"
}

# Has a process ended, and closed everything it had open? A process that nobody waits
# for stays as a zombie, and its other threads may end later than the first.
has_ended() {           # PID
    [ ! -e "/proc/$1" ] || [ "$(cat "/proc/$1/task/"*/stat 2>/dev/null | sed 's/.*) //; s/ .*//')" = Z ]
}

# Waits until the process has ended. A killed process is gone only a little later.
wait_ended() {          # PID SECONDS
    local deadline=$((SECONDS + $2))
    until has_ended "$1"; do
        [ "$SECONDS" -le "$deadline" ] || return 1
        sleep 0.1
    done
}

# False: Kafka has ended, or does not answer.
launch() {
    local pid
    # The process id is enough to watch the child: at first the child is still a shell,
    # so is_running would not find it. And the log must not be that of an earlier Kafka.
    : >"$dir/log"
    (run_java kafka.Kafka "$dir/server.properties") </dev/null >>"$dir/log" 2>&1 &
    pid=$!
    echo "$pid" >"$dir/pid"
    disown
    until grep -q 'Kafka Server started' "$dir/log"; do
        ! has_ended "$pid" && [ "$SECONDS" -le "$patience" ] || return 1
        sleep 0.1
    done
}

start() {
    local is_new=
    mkdir -p "$dir"
    if is_running; then
        say "Kafka is already running"
        return
    fi
    if [ ! -e "$dir/server.properties" ]; then
        is_new=yes
        make_certificates
        make_configuration
    fi
    while :; do
        [ -d "$dir/data" ] || format >"$dir/log" 2>&1 || { cat "$dir/log" >&2; die "could not format the storage"; }
        ! launch || return 0
        # Somebody else may have taken a port meanwhile. Then choose other ports.
        if [ -z "$is_new" ] || ! grep -q 'Address already in use' "$dir/log"; then
            tail -n 20 "$dir/log" >&2
            die "Kafka does not start; above is the end of $dir/log"
        fi
        make_configuration
        rm -rf "$dir/data"
    done
}

stop() {
    local pid
    if is_running; then
        pid=$(cat "$dir/pid")
        kill "$pid"
        wait_ended "$pid" 30 || { kill -KILL "$pid"; wait_ended "$pid" "$patience"; }
    fi
    rm -rf "$dir"
}

case ${1:-}.$# in
    get.1) get; exit ;;
    start.2 | stop.2) ;;
    *) echo "usage: tools/kafka.sh get | start DIR | stop DIR" >&2; exit 2 ;;
esac
umask 077
case $2 in
    /*) dir=$2 ;;
    *) dir=$top/$2 ;;
esac
"$1"
