#!/bin/sh
# The form of the C files: .clang-format.
#
#   tools/format.sh           formats the C files
#   tools/format.sh --check   names the lines that are not in form
#
# The tool stays in build/tools, for the next run. Another version of clang-format has
# other opinions; this one changes the least.
set -eu
cd "$(dirname "$0")/.."

venv=build/tools/format
tools/venv.sh "$venv" clang-format==20.1.8

c_files() {
    tools/list-tree.sh | grep -zE '\.[ch]$'
}

case ${1:-} in
    '') c_files | xargs -0 "$venv/bin/python" tools/format.py "$venv/bin/clang-format" ;;
    --check)
        c_files | xargs -0 "$venv/bin/python" tools/format.py --check "$venv/bin/clang-format"
        ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" >&2; exit 2 ;;
esac
