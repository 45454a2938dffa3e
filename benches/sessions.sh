#!/usr/bin/env bash
# Looking at sessions, on a real server, beside a bare SCAN of the same keys; and what another client feels meanwhile.
# Figures of one run can be compared with each other, never with those of another machine.
#
#   benches/sessions.sh [SESSIONS] [ROUNDS]      1000000 sessions, 3 rounds
#
# RDBKEEPER names the binary; otherwise the release build is made. Needs redis-server, redis-cli, redis-benchmark,
# python3, GNU time.
set -euo pipefail
cd "$(dirname "$0")/.."

sessions=${1:-1000000}
rounds=${2:-3}
for tool in redis-server redis-cli redis-benchmark python3 awk; do
  command -v "$tool" >/dev/null || { echo "$tool is missing"; exit 1; }
done
[ -x /usr/bin/time ] || { echo "GNU time is missing (package time)"; exit 1; }
if [ -z "${RDBKEEPER:-}" ]; then
  cargo build --locked --release --quiet
  RDBKEEPER=$PWD/${CARGO_TARGET_DIR:-target}/release/rdbkeeper
fi

work=$(mktemp -d)
pid=
cleanup() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

port=$((20000 + RANDOM % 20000))
redis-server --port "$port" --bind 127.0.0.1 --dir "$work" --save '' --logfile "$work/log" &
pid=$!
until redis-cli -p "$port" ping >/dev/null 2>&1; do
  kill -0 "$pid" 2>/dev/null || { cat "$work/log"; exit 1; }
done
export LC_ALL=C
awk -v sessions="$sessions" -v now="$(date +%s)" -f tests/demo/data.awk | redis-cli -p "$port" --pipe >/dev/null

configure() { # rate, more keys of the rule
  cat >"$work/rdbkeeper.toml" <<TOML
[daemon]
state_dir = "$work/state"
spool_dir = "$work/spool"
[storage.disk]
kind = "local"
path = "$work/archive"
[[database]]
name = "web"
url = "redis://127.0.0.1:$port/1"
max_keys_per_second = $1
[[database.sessions]]
store = "pyramid"
match = '^websauna_session[0-9a-f]{64}\$'
timeout = "365d"
$2
TOML
}

measure() { # label, command line
  /usr/bin/time -o "$work/time" -f '%e %U %S %M' bash -c "$2" >/dev/null 2>"$work/err" || { cat "$work/err"; exit 1; }
  read -r wall user system peak <"$work/time"
  printf '%-44s %7.2f s wall %7.2f s user %6.2f s system %6.1f MiB peak\n' "$1" "$wall" "$user" "$system" \
    "$(awk -v k="$peak" 'BEGIN { print k / 1024 }')"
}

latency() { # label
  redis-benchmark -p "$port" --dbnum 1 -c 1 -n 60000 -t get --csv --precision 3 2>/dev/null |
    awk -F'","' -v label="$1" 'NR == 2 { gsub(/"/, ""); printf "%-44s p50 %s ms  p99 %s ms  max %s ms\n", label, $5, $7, $8 }'
}

keeper="exec $RDBKEEPER -q --config $work/rdbkeeper.toml"
printf '%s sessions, %s keys in database 1\n' "$sessions" "$(redis-cli -p "$port" -n 1 dbsize)"
for round in $(seq "$rounds"); do
  printf -- '-- round %s\n' "$round"
  measure 'SCAN alone, COUNT 100' "exec python3 benches/bare_scan.py $port 1 100"
  configure 0 ''
  measure 'sessions report' "$keeper sessions report"
  measure 'sessions expire --dry-run' "$keeper sessions expire --dry-run"
  configure 0 'max_age = "365d"'
  measure 'sessions expire --dry-run, all values read' "$keeper sessions expire --dry-run"
done

printf -- '-- what a client of GET feels\n'
for round in $(seq "$rounds"); do
  latency 'nothing else runs'
  for rate in 20000 50000; do
    configure "$rate" 'max_age = "365d"'
    $RDBKEEPER -q --config "$work/rdbkeeper.toml" sessions expire --dry-run >/dev/null &
    sweep=$!
    latency "during a sweep of $rate keys a second"
    kill "$sweep" 2>/dev/null || true
    wait "$sweep" 2>/dev/null || true
  done
done

printf -- '-- and the work itself\n'
configure 0 'max_age = "365d"'
measure 'sessions expire' "$keeper sessions expire"
measure 'sessions expire, again' "$keeper sessions expire"
