#!/bin/sh
# Installs the Debian packages that are missing, and only those. Installed packages
# are never upgraded, and no PostgreSQL server is created, started or stopped.
#
#   tools/deps.sh GOAL          install what the goal needs: build, demo, check, or one of
#                               code, k8s and format (parts of check), image, kafka, assert,
#                               bench
#   tools/deps.sh --pg-config   print the pg_config that is used
#
# PG_CONFIG, if set, chooses the PostgreSQL.
set -eu

debian_root=/usr/lib/postgresql     # where Debian keeps its PostgreSQL versions
cluster_conf_dir=/etc/postgresql-common/createcluster.d
cluster_conf=$cluster_conf_dir/spine-no-cluster.conf
service_policy=/usr/sbin/policy-rc.d

die() {
    echo "deps: $*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# The version number in the name of the package that a package depends on: "clang" -> 14.
number_in_depends() {
    has apt-cache || return 0
    LC_ALL=C apt-cache depends "$1" 2>/dev/null |
        sed -n "s/^ *Depends: $1-\([0-9][0-9]*\)\$/\1/p" | head -n 1
}

# The PostgreSQL version to use: empty when it is not known yet, and "own" for a
# PostgreSQL that is not Debian's. A version with server and headers is best, then
# one with a server, then one with headers. Among equals the newest is taken.
pg_version() {
    # A bare "pg_config" that is not installed says nothing.
    if [ -n "${PG_CONFIG:-}" ] && [ "$PG_CONFIG" != pg_config ]; then
        bindir=${PG_CONFIG%/*}
        ! has "$PG_CONFIG" || bindir=$("$PG_CONFIG" --bindir)
        version=${bindir#"$debian_root"/}
        version=${version%/bin}
        case $version in
            *[!0-9]* | '') echo own ;;
            *) echo "$version" ;;
        esac
        return
    fi
    best=0
    for dir in "$debian_root"/*/; do
        version=$(basename "$dir")
        case $version in *[!0-9]*) continue ;; esac
        score=0
        [ ! -x "$dir/bin/postgres" ] || score=$((score + 2000))
        [ ! -e "$dir/lib/pgxs/src/makefiles/pgxs.mk" ] || score=$((score + 1000))
        [ "$score" -gt 0 ] || continue
        score=$((score + version))
        [ "$score" -le "$best" ] || best=$score
    done
    if [ "$best" -gt 0 ]; then
        echo $((best % 1000))
    else
        number_in_depends postgresql
    fi
}

# The package of the sanitizers' runtime, which has clang's version in its name. Before
# version 14 the runtime was a part of another package.
clang_runtime() {
    version=
    if has clang; then
        version=$(clang -dumpversion)
        version=${version%%.*}
    else
        version=$(number_in_depends clang)
    fi
    case $version in
        '') echo "libclang-rt-dev" ;;
        ? | 1[0-3]) echo "libclang-common-$version-dev" ;;
        *) echo "libclang-rt-$version-dev" ;;
    esac
}

# What tools/check-k8s.sh needs. Go is only needed to build kustomize.
k8s_packages() {
    echo python3-venv shellcheck ca-certificates
    has go || "${0%/*}/kustomize.sh" --installed || echo golang-go
}

# What tools/check-image.sh needs. Since Debian 13 docker itself is in a package of its own.
image_packages() {
    echo debootstrap curl procps python3-yaml
    has dockerd || docker info >/dev/null 2>&1 || echo docker.io iptables
    has docker || ! apt-cache show docker-cli >/dev/null 2>&1 || echo docker-cli
}

# The package names for a goal, one a line. Where a version is not known yet, the names
# are those of the packages that stand for the distribution's version.
packages() {
    case $1 in
        build | demo | check | code) ;;
        k8s) k8s_packages; return ;;
        format) echo python3-venv ca-certificates; return ;;
        image) image_packages; return ;;
        kafka) echo default-jre-headless maven openssl; return ;;
        assert) echo dpkg-dev bison flex libicu-dev; return ;;
        bench) echo default-jre-headless maven openssl wrk kcat python3-venv ;;
        *) die "unknown goal \"$1\" (build, demo, check, code, k8s, format, image, kafka, assert or bench)" ;;
    esac
    # gcc alone does not install the C library's headers: it only recommends them.
    echo gcc libc6-dev make librdkafka-dev libjson-c-dev
    echo libmicrohttpd-dev libpq-dev zlib1g-dev     # for spine-http
    has pkg-config || echo pkg-config
    case $pg in
        own) ;;
        '') echo postgresql postgresql-server-dev-all ;;
        *) echo "postgresql-server-dev-$pg" ;;
    esac
    [ "$1" != build ] || return 0
    case $pg in
        own | '') ;;
        *) echo "postgresql-$pg" ;;
    esac
    case $1 in demo | bench) return 0 ;; esac
    echo libipc-run-perl libcmocka-dev valgrind clang kcat chromium chromium-driver
    clang_runtime
    [ "$1" != check ] || k8s_packages
}

missing() {
    installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
        sed -n 's/ installed$//p')
    for package in "$@"; do
        echo "$installed" | grep -qxF "$package" || echo "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# While a server package is being installed, the package must neither create its "main"
# cluster nor start the clusters of other versions.
keep_servers_still() {
    made_dir=
    made_policy=
    trap let_servers_go EXIT
    trap 'exit 1' HUP INT TERM
    if [ ! -d "$cluster_conf_dir" ]; then
        made_dir=yes
        as_root mkdir -p "$cluster_conf_dir"
    fi
    echo "create_main_cluster = false" | as_root tee "$cluster_conf" >/dev/null
    if [ ! -e "$service_policy" ]; then
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$service_policy" >/dev/null
        as_root chmod 755 "$service_policy"
    fi
}

let_servers_go() {
    as_root rm -f "$cluster_conf"
    [ -z "$made_dir" ] || as_root rmdir "$cluster_conf_dir" 2>/dev/null || :
    [ -z "$made_policy" ] || as_root rm -f "$service_policy"
}

apt() {
    # NEEDRESTART_SUSPEND keeps a helper from restarting the machine's services. The
    # lock's timeout waits for another apt-get to end.
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
        -o DPkg::Lock::Timeout=300 "$@"
}

[ $# = 1 ] || die "usage: tools/deps.sh GOAL|--pg-config"
pg=$(pg_version)

if [ "$1" = --pg-config ]; then
    if [ -n "${PG_CONFIG:-}" ] && [ "$PG_CONFIG" != pg_config ]; then
        echo "$PG_CONFIG"
    else
        [ -n "$pg" ] || die "no PostgreSQL found; \"make deps\" installs one"
        echo "$debian_root/$pg/bin/pg_config"
    fi
    exit 0
fi

# Package names have no blanks, so word splitting makes the list.
# shellcheck disable=SC2046
set -- "$1" $(packages "$1")
goal=$1
shift

if ! has dpkg-query || ! has apt-get; then
    echo "deps: this is not Debian; please install these packages yourself:" "$@" >&2
    exit 0
fi

# shellcheck disable=SC2046
set -- $(missing "$@")

# tools/promtool.sh takes a program out of this package without installing it.
case $goal in check | code | k8s) has promtool || apt-cache show prometheus >/dev/null 2>&1 || apt update ;; esac
[ $# -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] && ! has sudo; then
    die "these packages are missing, and without root or sudo they cannot be installed:
    $*
Have them installed (apt-get install --no-install-recommends ...), then try again."
fi

echo "==> installing what is missing: $*"
apt update || echo "deps: apt-get update failed; trying with the old lists" >&2

# Only now is it certain that apt knows the distribution's versions.
pg=$(pg_version)
[ -n "$pg" ] || die "apt-get knows no package postgresql"
# shellcheck disable=SC2046
set -- $(packages "$goal")
# shellcheck disable=SC2046
set -- $(missing "$@")

# The headers bring the client package and pg_config as well. Only the server package
# touches services.
case " $* " in
    *" postgresql-$pg "*) keep_servers_still ;;
esac
apt install -y --no-install-recommends --no-upgrade "$@" ||
    die "apt-get could not install: $*"
