#!/usr/bin/env bash
# What copy-on-write costs a server while it saves, by how much is written meanwhile: a table for docs/performance.md.
#
#   benches/cow.sh [KEYS]      a million strings of 400 bytes, SET of random keys, faster from row to row
set -euo pipefail
keys=${1:-1000000}
for program in redis-server redis-cli redis-benchmark; do
  command -v "$program" >/dev/null || { echo "$program is needed: install the server with its tools"; exit 1; }
done
work=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --dir "$work" --save "" --logfile "$work/log" &
server=$!
writer=
trap 'kill $writer "$server" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
cli() { redis-cli -p "$port" "$@"; }
info() { cli info "$1" | tr -d '\r' | sed -n "s/^$2://p"; }
until cli ping >/dev/null 2>&1; do sleep 0.05; done

# The names that redis-benchmark makes of __rand_int__.
cli eval "for i = 0, ARGV[1] - 1 do redis.call('SET', string.format('key:%012d', i), string.rep('x', 400)) end" 0 "$keys" >/dev/null
echo "| writes during the save | copied | a write |"
echo "| --- | --- | --- |"
for load in "-c 1" "-c 2" "-c 8" "-c 8 -P 4" "-c 8 -P 16"; do
  # shellcheck disable=SC2086
  redis-benchmark -p "$port" $load -n 1000000000 -r "$keys" -d 400 -t set -q >/dev/null 2>&1 &
  writer=$!
  sleep 0.5
  before=$(info stats total_commands_processed)
  cli bgsave >/dev/null
  while [ "$(info persistence rdb_bgsave_in_progress)" = 1 ]; do sleep 0.02; done
  after=$(info stats total_commands_processed)
  kill "$writer"; wait "$writer" 2>/dev/null || true
  copied=$(info persistence rdb_last_cow_size)
  writes=$((after - before))
  awk -v w="$writes" -v c="$copied" 'BEGIN { printf "| %d | %.0f MB | %.1f KB |\n", w, c / 1e6, c / w / 1e3 }'
done
echo "used_memory: $(info memory used_memory), the last fork took $(info stats latest_fork_usec) µs"
