#!/usr/bin/env bash
# The image's health check, for whichever of its programs a container runs. The server has
# to take connections: while the entrypoint runs its scripts, it does not listen on TCP.
# spine-http has to find the database, and no failed pipeline there. (With another port
# than its default, give the container a check of its own.)
set -eu

if [ "$(cat /proc/1/comm)" != spine-http ]; then
    exec pg_isready --quiet --host=127.0.0.1
fi
exec 3<>/dev/tcp/127.0.0.1/8000
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
head -n 1 <&3 | grep -q ' 200 '
