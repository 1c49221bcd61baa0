#!/usr/bin/env bash
# Builds the container image of Dockerfile.postgres with docker, podman or
# buildah: the first of them that is installed.
#
#   IMAGE=name:tag      the image's name (spine-postgres:dev)
#   BASE_IMAGE=...      a base other than the official PostgreSQL image
#   CONTAINER_TOOL=...  the tool to use
set -eu -o pipefail

cd "$(dirname "$0")/.."
image=${IMAGE:-spine-postgres:dev}

# docker is of no use without its engine.
works() {
    case $1 in
        docker) docker info >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

tool=${CONTAINER_TOOL:-}
if [ -z "$tool" ]; then
    for candidate in docker podman buildah; do
        if works "$candidate"; then
            tool=$candidate
            break
        fi
    done
fi
if [ -z "$tool" ]; then
    cat >&2 <<-'TEXT'
		image: docker (with a running engine), podman or buildah is needed.
		On Debian: apt-get install buildah, or podman; Docker: https://docs.docker.com/engine/install/debian/
	TEXT
    exit 1
fi

arguments=(
    --file Dockerfile.postgres --tag "$image"
    --build-arg VERSION="$(sed -n "s/^default_version = '\(.*\)'/\1/p" spine.control)"
    --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || :)"
)
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg BASE_IMAGE="$BASE_IMAGE")
# These two default to the OCI format, which has no place for a health check.
case $tool in podman | buildah) arguments+=(--format docker) ;; esac

echo "==> building $image with $tool"
"$tool" build "${arguments[@]}" .
