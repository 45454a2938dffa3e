#!/usr/bin/env bash
# Whole commands on a real server, beside redis-cli: wall time, processor time and peak memory of the
# client side, each as many times as asked, in turn. Figures of one run can be compared with each
# other, never with those of another machine.
#
#   benches/journeys.sh [SESSIONS] [ROUNDS]      1000000 sessions (about 430 MB of RDB file), 3 rounds
#
# RDBKEEPER names the binary; otherwise the release build is made. Needs redis-server, redis-cli, GNU time.
set -euo pipefail
cd "$(dirname "$0")/.."

sessions=${1:-1000000}
rounds=${2:-3}
for tool in redis-server redis-cli awk; do
  command -v "$tool" >/dev/null || { echo "$tool is missing"; exit 1; }
done
[ -x /usr/bin/time ] || { echo "GNU time is missing (package time)"; exit 1; }
if [ -z "${RDBKEEPER:-}" ]; then
  cargo build --locked --release --quiet
  RDBKEEPER=$PWD/${CARGO_TARGET_DIR:-target}/release/rdbkeeper
fi

work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

serve() { # port, folder
  mkdir -p "$2"
  redis-server --port "$1" --bind 127.0.0.1 --dir "$2" --save '' --repl-diskless-sync-delay 0 --logfile "$2/log" &
  pids+=($!)
  until redis-cli -p "$1" ping >/dev/null 2>&1; do
    kill -0 "${pids[-1]}" 2>/dev/null || { cat "$2/log"; exit 1; }
  done
}

port=$((20000 + RANDOM % 20000))
serve "$port" "$work/source"
serve $((port + 1)) "$work/target"
export LC_ALL=C
awk -v sessions="$sessions" -v now="$(date +%s)" -f tests/demo/data.awk | redis-cli -p "$port" --pipe >/dev/null

cat >"$work/rdbkeeper.toml" <<TOML
[daemon]
state_dir = "$work/state"
spool_dir = "$work/spool"
[storage.disk]
kind = "local"
path = "$work/archive"
[[database]]
name = "web"
url = "redis://127.0.0.1:$port"
TOML
export RDBKEEPER

measure() { # label, command line
  /usr/bin/time -o "$work/time" -f '%e %U %S %M' bash -c "$2" >/dev/null 2>"$work/err" || { cat "$work/err"; exit 1; }
  read -r wall user system peak <"$work/time"
  printf '%-34s %7.2f s wall %7.2f s user %6.2f s system %6.1f MiB peak\n' "$1" "$wall" "$user" "$system" \
    "$(awk -v k="$peak" 'BEGIN { print k / 1024 }')"
}

printf '%s sessions, %s keys\n' "$sessions" "$(redis-cli -p "$port" info keyspace | awk -F'[=,]' '/^db/ { n += $2 } END { print n }')"
for round in $(seq "$rounds"); do
  printf -- '-- round %s\n' "$round"
  measure 'redis-cli --rdb' "exec redis-cli -p $port --rdb $work/peer.rdb"
  for method in bgsave replication scan; do
    measure "backup now --method $method" "exec $RDBKEEPER -q --config $work/rdbkeeper.toml backup now --method $method"
  done
  measure 'backup verify' "exec $RDBKEEPER -q --config $work/rdbkeeper.toml backup verify"
  redis-cli -p $((port + 1)) flushall >/dev/null
  measure 'restore' "exec $RDBKEEPER -q --config $work/rdbkeeper.toml restore web --to redis://127.0.0.1:$((port + 1))"
  measure 'restore --to-file' "exec $RDBKEEPER -q --config $work/rdbkeeper.toml restore web --to-file $work/out.rdb --yes"
done
stat -c "%s bytes %n" "$work/peer.rdb" "$work"/archive/web/*/dump.rdb.zst | sed "s|$work/||" | tail -n 4
