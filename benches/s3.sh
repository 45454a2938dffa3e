#!/usr/bin/env bash
# A large backup into a bucket of a real S3 server: peak memory, and the wall time beside that of a plain upload of the
# same bytes to the same server by curl: by one PutObject, and in parts of the same size.
#
#   benches/s3.sh [MEBIBYTES] [ROUNDS]      3072, 1 round
#
# RDBKEEPER names the binary; otherwise the release build is made. Needs redis-server, redis-cli, GNU time, curl,
# and SeaweedFS (tests/servers/fetch.sh brings it). Memory: MEBIBYTES in the server of Redis; disk: about three
# times as much.
set -euo pipefail
cd "$(dirname "$0")/.."

mebibytes=${1:-3072}
rounds=${2:-1}
servers=${RDBKEEPER_TEST_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/rdbkeeper-test-servers}
weed=$servers/seaweedfs/bin/weed
for tool in redis-server redis-cli awk curl "$weed"; do
  command -v "$tool" >/dev/null || { echo "$tool is missing"; exit 1; }
done
[ -x /usr/bin/time ] || { echo "GNU time is missing (package time)"; exit 1; }
if [ -z "${RDBKEEPER:-}" ]; then
  cargo build --locked --release --quiet
  RDBKEEPER=${CARGO_TARGET_DIR:-$PWD/target}/release/rdbkeeper
fi
export LC_ALL=C

work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

port=$((20000 + RANDOM % 2000))
base=$((12000 + RANDOM % 9000))
redis-server --port "$port" --bind 127.0.0.1 --dir "$work" --save '' --repl-diskless-sync-delay 0 --logfile "$work/redis.log" &
pids+=($!)
# It lets everybody in: what curl does needs no signature then.
"$weed" mini -dir="$work" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -bucket=bench \
  -s3.autoCreateBucket=false -webdav=false -admin.ui=false -s3.port.iceberg=0 -s3.port.lance=0 -volume.max=500 \
  -s3.port=$base -s3.port.grpc=$((base + 1)) -master.port=$((base + 2)) -volume.port=$((base + 3)) -filer.port=$((base + 4)) \
  -admin.port=$((base + 5)) >"$work/weed.log" 2>&1 </dev/null &
pids+=($!)
url=http://127.0.0.1:$base
ask() { curl -sS --fail-with-body "$@"; }
until redis-cli -p "$port" ping >/dev/null 2>&1 && ask -I "$url/bench" >/dev/null 2>&1; do
  kill -0 "${pids[@]}" 2>/dev/null || { cat "$work/redis.log" "$work/weed.log"; exit 1; }
  sleep 0.1
done

# Values that nothing can compress.
for ((blob = 1; blob <= mebibytes; blob++)); do
  head -c 1048576 /dev/urandom | redis-cli -p "$port" -x set "blob:$blob" >/dev/null
done

cat >"$work/rdbkeeper.toml" <<TOML
[daemon]
state_dir = "$work/state"
spool_dir = "$work/spool"
[storage.offsite]
kind = "s3"
bucket = "bench"
endpoint = "$url"
region = "us-east-1"
access_key_id = "anybody"
secret_access_key = "anything"
[[database]]
name = "web"
url = "redis://127.0.0.1:$port"
storage = ["offsite"]
TOML
export RDBKEEPER_CONFIG="$work/rdbkeeper.toml"

measure() { # label, command line
  /usr/bin/time -o "$work/time" -f '%e %U %S %M' "${@:2}" >/dev/null 2>"$work/err" || { cat "$work/err"; exit 1; }
  awk -v label="$1" '{ printf "%-44s %7.1f s  processor %6.1f s  peak %5d MiB\n", label, $1, $2 + $3, $4 / 1024 }' "$work/time"
}

# The same bytes by one PutObject.
single() {
  curl -sS --fail-with-body -o /dev/null -H "Expect:" -T "$work/plain.rdb" "$url/bench/single"
  ask -X DELETE "$url/bench/single" >/dev/null
}

# The same bytes, part after part, four at a time as rdbkeeper has them on their way.
plain() {
  local id part
  id=$(ask -X POST "$url/bench/plain?uploads=" | tr -d '\n' | sed 's/.*<UploadId>\(.*\)<\/UploadId>.*/\1/')
  seq 1 $((($(stat -c %s "$work/plain.rdb") + 5242879) / 5242880)) | xargs -P 4 -I{} sh -c '
    dd if="$1" bs=5M skip=$((${2} - 1)) count=1 status=none |
      curl -sS --fail-with-body -o /dev/null -H "Expect:" -X PUT --data-binary @- "$3/bench/plain?partNumber=$2&uploadId=$4"' \
    sh "$work/plain.rdb" {} "$url" "$id"
  ask -X DELETE "$url/bench/plain?uploadId=$id" >/dev/null
}

clocked() { # label, function
  local begun
  begun=$(date +%s.%N)
  "$2"
  awk -v label="$1" -v a="$begun" -v b="$(date +%s.%N)" 'BEGIN { printf "%-44s %7.1f s\n", label, b - a }'
}

echo "$mebibytes MiB of random values, $rounds round(s); $("$RDBKEEPER" --version)"
redis-cli -p "$port" --rdb "$work/plain.rdb" >/dev/null 2>&1
for ((round = 1; round <= rounds; round++)); do
  clocked "the file by curl, by one PutObject" single
  clocked "the file by curl, in parts of 5 MiB" plain
  for method in bgsave replication scan; do
    measure "backup now --method $method" "$RDBKEEPER" backup now --method "$method"
    measure "backup verify" "$RDBKEEPER" backup verify
    measure "restore --to-file" "$RDBKEEPER" restore web --to-file "$work/back.rdb"
    rm -f "$work/back.rdb"
    for id in $("$RDBKEEPER" --json backup list | grep -o '"id": *"[^"]*"' | cut -d'"' -f4); do
      "$RDBKEEPER" backup delete "$id" --yes >/dev/null
    done
  done
done
