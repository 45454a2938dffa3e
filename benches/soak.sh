#!/usr/bin/env bash
# The daemon at work for an hour, a backup and a sweep of sessions every minute, on a real server whose data changes all
# the while: do memory, threads and open files stay where they were?
#
#   benches/soak.sh [MINUTES] [CSV]      60 minutes, soak.csv
#
# RDBKEEPER names the binary; otherwise the release build is made. Needs redis-server and redis-cli. Every 30 seconds a
# line goes into the CSV; at the end the first quarter of the run is laid beside the last. Ctrl-C ends it early, with what
# was started, and shows the figures so far.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-60}
csv=${2:-soak.csv}
every=30
for tool in redis-server redis-cli awk sort; do
  command -v "$tool" >/dev/null || { echo "$tool is missing"; exit 1; }
done
if [ -z "${RDBKEEPER:-}" ]; then
  cargo build --locked --release --quiet
  RDBKEEPER=${CARGO_TARGET_DIR:-target}/release/rdbkeeper
fi
export LC_ALL=C

work=$(mktemp -d)
server=
writer=
daemon=
ended=
cleanup() {
  local pid
  for pid in $daemon $writer $server; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap cleanup EXIT
trap 'ended="by hand, "' INT TERM

port=$((20000 + RANDOM % 20000))
redis-server --port "$port" --bind 127.0.0.1 --dir "$work" --save '' --logfile "$work/redis.log" &
server=$!
until redis-cli -p "$port" ping >/dev/null 2>&1; do
  kill -0 "$server" 2>/dev/null || { cat "$work/redis.log"; exit 1; }
  sleep 0.1
done

# Two hundred thousand sessions without an end and a queue, some of them new in every second.
write_keys="
  for i = 1, tonumber(ARGV[1]) do
    redis.call('SELECT', 1)
    redis.call('SET', string.format('session:%064x', math.random(200000)), string.rep('x', math.random(400)))
    redis.call('SELECT', 3)
    redis.call('RPUSH', 'celery', math.random(1000000))
    redis.call('LTRIM', 'celery', -10000, -1)
  end"
redis-cli -p "$port" eval "math.randomseed(1) $write_keys" 0 200000 >/dev/null
(
  # It ends with the server, or by its id; Ctrl-C is for the one that watches.
  trap '' INT
  seed=1
  while redis-cli -p "$port" eval "math.randomseed($((seed += 1))) $write_keys" 0 500 >/dev/null 2>&1; do sleep 1; done
) &
writer=$!

cat >"$work/rdbkeeper.toml" <<TOML
[daemon]
state_dir = "$work/state"
spool_dir = "$work/spool"
[storage.disk]
kind = "local"
path = "$work/archive"
[defaults]
schedule = "* * * * *"
verify_schedule = "*/5 * * * *"
shrink_guard = 0
keep = { last = 5 }
[[database]]
name = "web"
url = "redis://127.0.0.1:$port/1"
sessions_schedule = "* * * * *"
[[database.sessions]]
store = "opaque"
match = '^session:'
timeout = "1h"
[[database]]
name = "queue"
url = "redis://127.0.0.1:$port/3"
method = "replication"
TOML
# In a session of its own, so that Ctrl-C is ours to tell it.
setsid "$RDBKEEPER" --config "$work/rdbkeeper.toml" --log text run 2>"$work/daemon.log" &
daemon=$!

result() { # task: how its last run for `web` ended
  local record="$work/state/runs/web.$1.json"
  if [ ! -e "$record" ]; then echo none
  elif grep -q '"error"' "$record"; then echo failed
  else echo ok; fi
}

echo "seconds,rss_kib,threads,handles,backups_web,backups_queue,backup,sessions,verify" >"$csv"
begin=$SECONDS
while [ -z "$ended" ] && [ $((SECONDS - begin)) -lt $((minutes * 60)) ]; do
  sleep "$every" &
  wait $! || true
  kill -0 "$daemon" 2>/dev/null || { echo "the daemon is gone after $((SECONDS - begin)) s:"; tail -n 20 "$work/daemon.log"; exit 1; }
  handles=$(find "/proc/$daemon/fd" -mindepth 1 2>/dev/null | wc -l)
  kept() { find "$work/archive/$1" -name manifest.json 2>/dev/null | wc -l; }
  awk -v at=$((SECONDS - begin)) -v rest="$handles,$(kept web),$(kept queue),$(result backup),$(result sessions),$(result verify)" '
    /^VmRSS:/ { rss = $2 } /^Threads:/ { threads = $2 }
    END { print at "," rss "," threads "," rest }' "/proc/$daemon/status" >>"$csv"
done

before=$SECONDS
kill "$daemon"
code=0
wait "$daemon" || code=$?
daemon=
echo "${ended}after $((before - begin)) s; the daemon ended with $code within $((SECONDS - before)) s; $csv has $(($(wc -l <"$csv") - 1)) lines"
if grep -E ' (WARN|ERROR) ' "$work/daemon.log" >"$work/complaints"; then
  echo "it complained $(wc -l <"$work/complaints") times; the last:"
  tail -n 3 "$work/complaints"
fi
awk -F, 'NR > 1 && ($7 == "failed" || $8 == "failed" || $9 == "failed") { failed++ } END { print "looks that saw a failed run: " failed + 0 }' "$csv"

# Minimum, median and maximum of a column in the lines from..to.
spread() { # column, from, to
  awk -F, -v column="$1" -v from="$2" -v to="$3" 'NR - 1 >= from && NR - 1 <= to { print $column }' "$csv" | sort -n \
    | awk '{ value[NR] = $1 } END { if (NR) printf "%10d %10d %10d", value[1], value[int((NR + 1) / 2)], value[NR] }'
}
lines=$(($(wc -l <"$csv") - 1))
quarter=$(((lines + 3) / 4))
[ "$lines" -gt 0 ] || exit 0
printf '%-14s %32s   %32s\n' '' 'first quarter: min, median, max' 'last quarter: min, median, max'
column=2
for name in rss_kib threads handles backups_web backups_queue; do
  printf '%-14s %32s   %32s\n' "$name" "$(spread "$column" 1 "$quarter")" "$(spread "$column" $((lines - quarter + 1)) "$lines")"
  column=$((column + 1))
done
