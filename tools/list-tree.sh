#!/usr/bin/env bash
# Lists the files of the tree, each ended by a NUL: the files that git tracks or
# would track. Outside a git repository, all files except those that were built.
set -eu -o pipefail
cd "$(dirname "$0")/.."
top=$(pwd -P)

if git -c safe.directory="$top" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git -c safe.directory="$top" ls-files -z --cached --others --exclude-standard
else
    find . \( -path ./.git -o -path ./build -o -path ./.demo -o -path ./tmp_check \) -prune \
        -o \( -type f -o -type l \) ! -name '*.o' ! -name '*.so' -printf '%P\0'
fi |
    while IFS= read -r -d '' file; do   # git also lists files that were just deleted
        if [ -e "$file" ]; then printf '%s\0' "$file"; fi
    done
