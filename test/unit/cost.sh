#!/usr/bin/env bash
# What an event costs in format_json and in reduce. Counts instructions with callgrind and
# compares them with those of json-c alone on the same events, so that the numbers are the
# same on a fast machine and on a slow one.
#
#   test/unit/cost.sh build/unit/cost
#
# The limits are about a tenth above what was measured when they were written, for other
# compilers and libraries. If you make the code cheaper, lower them.
set -eu -o pipefail

program=$1
events=1000

# Instructions within measured().
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=measured \
        "$program" "$@" 2>&1 | awk '/Collected/ { print $NF }'
}

failed=0

# NAME COST LIMIT: both as shares of json-c's cost
compare() {
    awk -v name="$1" -v cost="$2" -v limit="$3" -v json="$json" 'BEGIN {
        printf "%-28s %6.0f instructions, %.3f of json-c alone, at most %.3f\n", name, cost, cost / json, limit
        exit cost / json > limit }' || failed=1
}

# NUMBER PROGRAM'S-ARGUMENTS: the cost of one of so many. Call it in an assignment, so
# that a program that fails ends the script.
cost_of() {
    local n=$1 total
    shift
    total=$(count "$@")
    awk -v total="$total" -v n="$n" 'BEGIN { print total / n }'
}

json=$(cost_of $events json-nested)
cost=$(cost_of $events nested)
compare "a nested event" "$cost" 0.155
cost=$(cost_of $events paths-nested)
compare "a nested event, 7 paths" "$cost" 0.29
json=$(cost_of $events json)
cost=$(cost_of $events flat)
compare "a flat event" "$cost" 0.216
for rows in 1000 50000; do
    cost=$(cost_of $rows reduce $rows)
    compare "a row in reduce, of $rows" "$cost" 0.022
done
exit $failed
