#!/bin/sh
# Makes a C header from the page: its text, an entity tag, and the hashes by which the
# Content-Security-Policy recognizes its script and its style sheet.
#
#   embed-page.sh page.html > page.inc
set -eu
page=$1

# The text between <tag> and </tag>, each alone on its line. It begins with the line
# break after <tag>, as the browser hashes that as well.
inside() {
    printf '\n'
    awk -v tag="$1" '$0 == "</" tag ">" { exit } found { print } $0 == "<" tag ">" { found = 1 }' "$page"
}

csp_hash() {
    inside "$1" | sha256sum | cut -d ' ' -f 1 | tr a-f A-F | basenc --base16 -d | base64
}

etag=$(sha256sum <"$page" | cut -c 1-16)
script_hash=$(csp_hash script)
style_hash=$(csp_hash style)
if [ "${#etag}" != 16 ] || [ "${#script_hash}" != 44 ] || [ "${#style_hash}" != 44 ]; then
    echo "embed-page.sh: cannot hash; it needs sha256sum, basenc and base64 (coreutils 8.31)" >&2
    exit 1
fi

echo "/* made from page.html by embed-page.sh */"
echo "#define PAGE_ETAG \"$etag\""
echo "#define PAGE_SCRIPT_HASH \"sha256-$script_hash\""
echo "#define PAGE_STYLE_HASH \"sha256-$style_hash\""
# shellcheck disable=SC1003
echo '#define PAGE_HTML \'
sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/?/\\?/g' -e 's/^/	"/' -e 's/$/\\n" \\/' "$page"
echo '	""'
