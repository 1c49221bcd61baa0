#!/bin/sh
# The form of the files: C files follow .clang-format, and all files .editorconfig.
#
#   tools/format.sh           formats the C files
#   tools/format.sh --check   names the lines that break the rules
#
# The tools stay in build/tools for the next run. Other versions of clang-format format
# differently; this one changes the least.
set -eu
cd "$(dirname "$0")/.."

venv=build/tools/format
tools/venv.sh "$venv" clang-format==20.1.8 EditorConfig==0.17.1

c_files() {
    tools/list-tree.sh | grep -zE '\.[ch]$'
}

case ${1:-} in
    '') c_files | xargs -0 "$venv/bin/python" tools/format.py "$venv/bin/clang-format" ;;
    --check)
        bad=0
        c_files | xargs -0 "$venv/bin/python" tools/format.py --check "$venv/bin/clang-format" || bad=1
        tools/list-tree.sh | xargs -0 "$venv/bin/python" tools/white_space.py || bad=1
        exit "$bad"
        ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" >&2; exit 2 ;;
esac
