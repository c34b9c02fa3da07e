#!/usr/bin/env bash
# Two workers on one real PostgreSQL server, and what a third says when the server goes away under it.
#
#   scripts/postgres_demo.sh TRACES [TRIALS]    a study over a trace folder
#   scripts/postgres_demo.sh --toy [TRIALS]     a study over toy decodes, no traces needed
#
# Makes a throw-away cluster in a folder under /tmp, on a free port of the loopback interface, with a random password;
# removes everything at the end. Needs the server (Debian: apt install postgresql) and a driver
# (pip install 'draftgraph[postgres]'); exits with 77 when one is missing. PostgreSQL refuses to run as root: started
# as root, this script runs the server as the system user of the package.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
what=${1:?give a trace folder or --toy}
trials=${2:-40}

skip() { echo "skipped: $1" >&2; exit 77; }

bin=$(dirname "$(command -v pg_ctl || ls -1 /usr/lib/postgresql/*/bin/pg_ctl 2>/dev/null | tail -1 || true)")
[ -x "$bin/pg_ctl" ] && [ -x "$bin/initdb" ] || skip "no pg_ctl and initdb; install the PostgreSQL server"
"$PYTHON" -c "import psycopg" 2>/dev/null || "$PYTHON" -c "import psycopg2" 2>/dev/null ||
    skip "no PostgreSQL driver for Python; pip install 'draftgraph[postgres]'"

as_server=()
if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || skip "started as root, and there is no system user postgres to run the server as"
    as_server=(runuser -u postgres --)
fi

# Not $TMPDIR: the user of the server must be able to enter the folder.
folder=$(mktemp -d /tmp/draftgraph-postgres-XXXXXX)
stop() {
    "${as_server[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap stop EXIT
password=$("$PYTHON" -c "import secrets; print(secrets.token_hex(16))")
printf '%s' "$password" >"$folder/password"
[ "$(id -u)" != 0 ] || chown -R postgres "$folder"
port=$("$PYTHON" -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")

echo "server: $("$bin/postgres" --version), folder $folder, port $port"
(
    cd "$folder"
    "${as_server[@]}" "$bin/initdb" -D data -U study --pwfile=password --auth=scram-sha-256 -E UTF8 --no-sync >initdb.log
    "${as_server[@]}" "$bin/pg_ctl" -D data -w -l "$folder/server.log" \
        -o "-p $port -h 127.0.0.1 -k $folder -c fsync=off" start >/dev/null
)
url="postgresql://study:$password@127.0.0.1:$port/postgres"

worker() { # number of trials
    if [ "$what" = --toy ]; then
        "$PYTHON" -c "import sys; from tests.support.study_toys import main; main(*sys.argv[1:])" "$url" "$1"
    else
        "$PYTHON" -c "from studies.cli import main; main()" study "$what" --storage "$url" --trials "$1"
    fi
}

worker "$trials" >"$folder/one" 2>&1 &
one=$!
worker "$trials" >"$folder/two" 2>&1 &
two=$!
wait $one || { cat "$folder/one" >&2; exit 1; }
wait $two || { cat "$folder/two" >&2; exit 1; }
echo "worker one: $(tail -2 "$folder/one" | tr "\n" " ")"
echo "worker two: $(tail -2 "$folder/two" | tr "\n" " ")"
count="select count(*) from trials where state in ('COMPLETE', 'PRUNED')"
echo "finished trials in the database: $(PGPASSWORD=$password psql -At -h 127.0.0.1 -p "$port" -U study postgres -c "$count")"

worker 100000 >"$folder/three" 2>&1 &
three=$!
# It has begun when there is one trial more.
for _ in $(seq 600); do
    now=$(PGPASSWORD=$password psql -At -h 127.0.0.1 -p "$port" -U study postgres -c "$count")
    [ "$now" -gt "$trials" ] && break
    sleep 0.1
done
"${as_server[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null
wait $three && { echo "worker three did not notice that the server is gone" >&2; exit 1; }
echo "worker three, its server stopped: $(tail -4 "$folder/three" | tr '\n' ' ')"
