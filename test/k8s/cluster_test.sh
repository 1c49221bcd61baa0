#!/usr/bin/env bash
# Tests tools/cluster.sh with stand-ins for docker, k3d, kubectl and tilt, which
# record their calls and remember what was created. Each test prints "ok - ..." or
# "not ok - ...".
set -eu -o pipefail

cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

mkdir "$dir/bin" "$dir/none"
cat >"$dir/bin/docker" <<'TEXT'
#!/bin/sh
dir=$(dirname "$0")/..
echo "${0##*/} $*" >>"$dir/calls"
case "${0##*/} $*" in
    "k3d cluster list "*) test -e "$dir/cluster" ;;
    "k3d cluster create "*) touch "$dir/cluster"; test ! -e "$dir/taken" ;;
    "k3d cluster delete "*) rm "$dir/cluster" ;;
    *" wait node "*) test ! -e "$dir/dead" ;;
    *" get job/topic-init "*) cat "$dir/job" ;;
    "docker image inspect "*) cat "$dir/image" ;;
    *" get secret "*) test -e "$dir/secret" ;;
    *" create secret "*) cat >"$dir/secret" ;;
    *" get statefulset/postgres "*) if [ -e "$dir/content" ]; then cat "$dir/content"; fi ;;
    *" annotate "*) echo "$*" | sed 's/.*image-content=//' >"$dir/content" ;;
    *" rollout status statefulset/postgres "*) test ! -e "$dir/broken" ;;
    *" config current-context") echo another ;;
esac
TEXT
chmod +x "$dir/bin/docker"
for tool in k3d kubectl tilt; do ln -s docker "$dir/bin/$tool"; done
for tool in bash dirname; do ln -s "$(command -v "$tool")" "$dir/none"; done

# run COMMAND...: runs tools/cluster.sh. Its output is in $dir/said, and its calls of
# other tools are in $dir/calls.
run() {
    rm -f "$dir/calls"
    touch "$dir/calls"
    PATH=$dir/bin:$PATH tools/cluster.sh "$@" >"$dir/said" 2>&1
}

# check WHAT COMMAND...
check() {
    local what=$1
    shift
    if "$@"; then
        echo "ok - $what"
    else
        echo "not ok - $what"
        sed 's/^/#   /' "$dir/said" "$dir/calls"
        failed=1
    fi
}

called() {
    grep -q -- "$1" "$dir/calls"
}

says() {
    grep -q -- "$1" "$dir/said"
}

not() {
    ! "$@"
}

missing() {
    ! PATH=$dir/none tools/cluster.sh tilt phase-1-ingest >"$dir/said" 2>&1 && [ "$(grep -c 'is missing: https://' "$dir/said")" = 4 ]
}

# Every call of kubectl names our cluster, except "config", which only reads.
only_ours() {
    ! grep '^kubectl ' "$dir/calls" | grep -vE '^kubectl (--context k3d-data-platform --namespace platform |config current-context$)'
}

touch "$dir/calls"
echo one >"$dir/image"
echo 'SuccessCriteriaMet Complete' >"$dir/job"
check 'missing tools are named, with a place to get them' missing
check 'secrets fails without a cluster' not run secrets
check 'the error names make cluster' says 'make cluster'

touch "$dir/taken"
check 'up fails when the cluster cannot be created' not run up phase-1-ingest
check 'the error names the port' says 'use port 8000'
check 'nothing of the cluster is left' test ! -e "$dir/cluster"
rm "$dir/taken"

check 'up succeeds' run up phase-1-ingest
check 'the cluster is created' called '^k3d cluster create'
check 'the image is built and loaded' called '^k3d image import .*spine-postgres:dev'
check 'a password of 32 characters is made' test "$(tr -d '[:alnum:]+/' <"$dir/secret" | wc -c) $(wc -c <"$dir/secret")" = '0 32'
check 'the overlay is applied' called ' apply -k k8s/overlays/phase-1-ingest$'
check 'nothing is restarted' not called ' rollout restart'
check 'the address of the page is printed' says http://127.0.0.1:8000/
check 'no other cluster is touched' only_ours

secret=$(cat "$dir/secret")
check 'up succeeds again' run up phase-1-ingest
check 'the cluster is kept' not called '^k3d cluster create'
check "the cluster's context is there" called '^k3d kubeconfig merge data-platform '
check 'the password is kept' test "$(cat "$dir/secret")" = "$secret"
check 'nothing is restarted for the same image' not called ' rollout restart'

echo two >"$dir/image"
check 'up succeeds with another image' run up phase-1-ingest
check 'the pods of another image are restarted' called ' rollout restart statefulset/postgres deployment/producer$'

touch "$dir/dead"
check 'up fails when the cluster does not answer' not run up phase-1-ingest
check 'the error says how to get a new one' says 'make cluster-delete'
check 'nothing is done to it' not called '^docker build'
rm "$dir/dead"

echo 'FailureTarget Failed' >"$dir/job"
check 'up fails when the topic is not made' not run up phase-1-ingest
check "the job's output is shown" called ' logs job/topic-init '
echo Complete >"$dir/job"

touch "$dir/broken"
check 'up fails when the cluster does not become ready' not run up phase-1-ingest
check 'the error says so' says 'did not become ready'

check 'tilt succeeds' run tilt phase-1-ingest
check 'tilt runs on our cluster' called '^tilt up --context k3d-data-platform --file k8s/Tiltfile -- --phase=phase-1-ingest$'
check 'an unknown phase is refused' not run tilt phase-9
check 'the error names the phases that exist' says phase-1-ingest
[ "$failed" = 0 ]
