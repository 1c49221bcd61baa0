#!/usr/bin/env bash
# The local cluster, "data-platform" of k3d, and what runs in it.
#
#   tools/cluster.sh create        creates the cluster, if it does not exist
#   tools/cluster.sh delete        deletes it, with all its data
#   tools/cluster.sh secrets       makes passwords, once
#   tools/cluster.sh up PHASE      builds the image, applies the overlay, waits
#   tools/cluster.sh tilt PHASE    the same, and then tilt watches the sources
#
# The script talks to no other cluster, whatever kubectl's current context is.
set -eu -o pipefail

cd "$(dirname "$0")/.."
cluster=data-platform
context=k3d-$cluster
image=spine-postgres:dev
patience=600            # seconds: the first start pulls images

say() {
    printf '==> %s\n' "$*"
}

die() {
    echo "cluster: $*" >&2
    exit 1
}

# need TOOL...: names all missing tools at once.
need() {
    local tool missing=
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 && continue
        missing=yes
        case $tool in
            docker) echo "cluster: docker is missing: https://docs.docker.com/engine/install/" ;;
            k3d) echo "cluster: k3d is missing: https://k3d.io/stable/#installation" ;;
            kubectl) echo "cluster: kubectl is missing: https://kubernetes.io/docs/tasks/tools/" ;;
            tilt) echo "cluster: tilt is missing: https://docs.tilt.dev/install.html" ;;
        esac >&2
    done
    [ -z "$missing" ] || exit 1
    docker info >/dev/null 2>&1 || die "docker's engine does not answer: is it running, and may you use it?"
}

kube() {
    kubectl --context "$context" --namespace platform "$@"
}

exists() {
    k3d cluster list "$cluster" >/dev/null 2>&1
}

# A cluster that could not be created whole is of no use, and has no data yet.
make_cluster() {
    k3d cluster create --config k8s/k3d.yaml && return
    k3d cluster delete "$cluster" || :
    die "the cluster was not created; does something else (make demo, docker compose) use port 8000 of this machine?"
}

# A cluster may be stopped, or half-made by somebody else's k3d, or its context is not in
# kubectl's configuration any more.
create() {
    if exists; then
        k3d cluster start "$cluster"    # which says nothing when it runs
        k3d kubeconfig merge "$cluster" --kubeconfig-merge-default --kubeconfig-switch-context=false >/dev/null
    else
        make_cluster
    fi
    kube wait node --all --for=condition=Ready --timeout=120s ||
        die "the cluster does not answer; \"make cluster-delete\" removes it, with its data, and \"make cluster\" makes a new one"
}

# An existing password stays, because the database has it.
secrets() {
    kube apply -f k8s/base/phase-0/namespace.yaml
    if kube get secret postgres-credentials >/dev/null 2>&1; then
        say "the Secret postgres-credentials already exists"
        return
    fi
    head -c 24 /dev/urandom | base64 | tr -d '\n' |
        kube create secret generic postgres-credentials \
            --from-literal=username=postgres --from-file=password=/dev/stdin
}

# What a container of the image would be. The image's id is of no use: it changes with each
# commit, which is in a label.
image_content() {
    docker image inspect --format '{{.RootFS.Layers}} {{.Config.User}} {{.Config.Env}} {{.Config.Entrypoint}} {{.Config.Cmd}}' \
        "$image" | sha256sum | cut -d ' ' -f 1
}

# The image keeps its name, so nothing in the overlay tells Kubernetes that the image
# is a new one. The first time there is nothing to restart.
restart_if_image_changed() {
    local content before
    content=$(image_content)
    before=$(kube get statefulset/postgres --output 'jsonpath={.metadata.annotations.image-content}')
    [ "$content" != "$before" ] || return 0
    [ -z "$before" ] || kube rollout restart statefulset/postgres deployment/producer
    kube annotate --overwrite statefulset/postgres image-content="$content"
}

# Waits for the Job's end. "kubectl wait" waits for one condition only, and a Job that has
# failed never becomes complete.
topic_is_made() {
    local deadline=$((SECONDS + patience)) ended
    while [ "$SECONDS" -lt "$deadline" ]; do
        ended=$(kube get job/topic-init --output 'jsonpath={.status.conditions[?(@.status=="True")].type}') || return 1
        case " $ended " in
            *' Complete '*) return 0 ;;
            *' Failed '*) break ;;
        esac
        sleep 1
    done
    kube logs job/topic-init --tail=20 >&2 || :
    return 1
}

all_ready() {
    kube rollout status statefulset/redpanda --timeout="${patience}s" &&
        topic_is_made &&
        kube rollout status statefulset/postgres --timeout="${patience}s" &&
        kube rollout status deployment/producer --timeout="${patience}s"
}

wait_until_ready() {
    say "waiting until everything is ready"
    if ! all_ready; then
        kube get pods >&2
        kube get events --sort-by=.lastTimestamp 2>/dev/null | tail -n 20 >&2
        die "the cluster did not become ready; \"kubectl -n platform describe pod\" says more"
    fi
}

show_peeks() {
    cat <<-'TEXT'

		The live page:  http://127.0.0.1:8000/
		Its API:        http://127.0.0.1:8000/orders  /stats  /metrics  /readyz

		To look further:
		    kubectl -n platform exec -it statefulset/redpanda -- rpk topic consume events --num 5
		    kubectl -n platform exec -it statefulset/postgres -- psql -c "SELECT count(*) FROM events"
		    kubectl -n platform exec -it statefulset/postgres -- psql -c "SELECT * FROM spine_status"
		    kubectl -n platform logs -f statefulset/postgres
		    kubectl -n platform logs -f statefulset/postgres -c spine-http
		    kubectl -n platform logs -f deployment/producer
		    kubectl -n platform delete pod postgres-0                      # it resumes
		    kubectl -n platform scale deployment/producer --replicas=0     # no more events
	TEXT
    [ "$(kubectl config current-context 2>/dev/null)" = "$context" ] ||
        printf '\n(first: kubectl config use-context %s)\n' "$context"
}

check_phase() {
    if [ -z "$phase" ] || [ ! -d "k8s/overlays/$phase" ]; then
        die "there is no PHASE=$phase; choose from: $(cd k8s/overlays && echo *)"
    fi
}

up() {
    need docker k3d kubectl
    create
    CONTAINER_TOOL=docker IMAGE=$image tools/image.sh
    k3d image import --cluster "$cluster" "$image"
    secrets
    # The template of a Job cannot be changed, and running the Job again does no harm.
    kube delete job/topic-init --ignore-not-found
    kube apply -k "k8s/overlays/$phase"
    restart_if_image_changed
    wait_until_ready
    show_peeks
}

tilt_up() {
    need docker k3d kubectl tilt
    create
    secrets
    say "Tilt: http://127.0.0.1:10350/, the live page: http://127.0.0.1:8000/"
    exec tilt up --context "$context" --file k8s/Tiltfile -- --phase="$phase"
}

phase=${2:-}
case ${1:-} in
    create) need docker k3d kubectl; create ;;
    delete) need docker k3d; k3d cluster delete "$cluster" ;;
    secrets) need docker k3d kubectl; exists || die 'there is no cluster; "make cluster" creates it'; secrets ;;
    up) check_phase; up ;;
    tilt) check_phase; tilt_up ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" >&2; exit 2 ;;
esac
