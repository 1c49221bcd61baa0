#!/bin/sh
# Puts kustomize into DIR and prints its path.
#
#   tools/kustomize.sh DIR
#   tools/kustomize.sh --installed     succeeds if there is no need to build it
#
# An installed kustomize of version 5 is used, on its own or in kubectl. Otherwise
# kustomize is built from its Go module, because Debian has no package of it. The
# version is the last one that Debian 12's Go can build.
set -eu
version=v5.0.3

installed() {
    case $(kustomize version 2>/dev/null) in v5.*) return ;; esac
    return 1
}

in_kubectl() {
    case $(kubectl version --client 2>/dev/null) in *"Kustomize Version: v5."*) return ;; esac
    return 1
}

# Builds in the current directory. Writes nothing outside it, and nothing that rm
# could not remove.
build() {
    command -v go >/dev/null || {
        echo "kustomize: neither kustomize 5 nor Go is installed; \"make deps\" installs Go" >&2
        exit 1
    }
    echo "==> building kustomize $version" >&2
    GOPATH=$PWD/go GOCACHE=$PWD/go/cache GOBIN=$PWD GOFLAGS=-modcacherw GOTOOLCHAIN=local CGO_ENABLED=0 \
        go install "sigs.k8s.io/kustomize/kustomize/v5@$version" >go.log 2>&1 || {
        tail -n 5 go.log >&2
        echo "kustomize: the build failed; is the Go module proxy reachable?" >&2
        exit 1
    }
    rm -rf go go.log
}

[ $# = 1 ] || { echo "usage: tools/kustomize.sh DIR|--installed" >&2; exit 2; }
if [ "$1" = --installed ]; then
    installed || in_kubectl
    exit
fi
if installed; then
    command -v kustomize
    exit
fi

mkdir -p "$1"
cd "$1"
if [ ! -x "$PWD/kustomize" ]; then
    if in_kubectl; then
        # shellcheck disable=SC2016
        printf '#!/bin/sh\n[ "$1" = build ] && shift\nexec kubectl kustomize "$@"\n' >kustomize
        chmod +x kustomize
    else
        build
    fi
fi
echo "$PWD/kustomize"
