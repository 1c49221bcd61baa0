#!/usr/bin/env bash
# Tests what runs in a cluster, without a cluster and without images. kustomize
# builds every overlay. The schemas of Kubernetes check the objects, and so does
# test/k8s, which also checks compose.yaml, the Tiltfile, the alert rules and the
# dashboard. shellcheck checks every script, and promtool the rules.
#
# The tools are in build/tools, and stay for the next run. PROMTOOL names an
# installed promtool to use instead. The last line is "N passed, N failed".
set -eu -o pipefail

cd "$(dirname "$0")/.."
tools=$PWD/build/tools
out=$PWD/build/k8s
versions=(1.36 1.37)    # of Kubernetes: the one of k8s/k3d.yaml, and the newest
passed=0
failed=0

# check WHAT COMMAND...: one test, which passes when the command succeeds.
check() {
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok - $what"
    else
        failed=$((failed + 1))
        echo "not ok - $what"
        printf '#   %s\n' "${said//$'\n'/$'\n#   '}"
    fi
}

# count_of COMMAND...: a program that prints its tests as check does. If the
# program breaks off, that is a failure, too.
count_of() {
    local log="$out/tests.log" bad
    "$@" 2>&1 | tee "$log" && bad=0 || bad=1
    passed=$((passed + $(grep -c '^ok ' "$log" || :)))
    ! grep -q '^not ok ' "$log" || bad=$(grep -c '^not ok ' "$log")
    failed=$((failed + bad))
}

build_overlay() {
    "$kustomize" build "$1" >"$out/$(basename "$1").yaml"
}

k3s_is_checked() {
    grep -q "image: .*/k3s:v${versions[0]}\\." k8s/k3d.yaml
}

# Two warnings are off: files that a script makes are missing here, and single
# quotes are intended.
lint_script() {
    shellcheck --exclude=SC1091,SC2016 "$1"
}

tree_scripts() {
    find . \( -name .git -o -path ./build -o -path ./.demo -o -path ./tmp_check \) -prune \
        -o -name '*.sh' -print
    [ ! -e .ci/run ] || echo .ci/run
}

promtool=${PROMTOOL:-$(tools/promtool.sh "$tools/promtool")}
kustomize=$(tools/kustomize.sh "$tools")
# shellcheck disable=SC2046
tools/venv.sh "$tools/python" $(grep -v '^#' test/k8s/requirements.txt)
python=$tools/python/bin/python
rm -rf "$out"
mkdir -p "$out"

for overlay in k8s/base/*/ k8s/overlays/*/; do
    check "kustomize builds $overlay" build_overlay "$overlay"
done
check "k8s/k3d.yaml has Kubernetes ${versions[0]}" k3s_is_checked

count_of "$python" test/k8s/check.py "$out" "${versions[@]}"
count_of test/k8s/cluster_test.sh
for script in $(tree_scripts) "$out"/scripts/*; do
    check "shellcheck ${script#"$PWD/"}" lint_script "$script"
done
check "promtool takes the alert rules" "$promtool" check rules k8s/monitoring/alerts.yaml
check "promtool's tests of them pass" "$promtool" test rules k8s/monitoring/alerts_test.yaml
check "promtool takes the dashboard's expressions" "$promtool" check rules "$out/dashboard.rules"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
