# What a page of the documentation finds around it when the tests run it: see docs.rs.
# $PLACE is the folder that stands for the machine's root, $PORT the server's port, $SERVER its program.
# shellcheck shell=bash

set -euo pipefail
line='the beginning'
code=0
trap 'code=$?; [ "$code" = 0 ] || echo "FAILED at $line (exit code $code)" >&2' EXIT

# Where a server's process has ended it may still be a zombie, when whoever started it does not look.
server_runs() {
  local state
  state=$(ps -o stat= -p "$1") || return 1
  case $state in Z* | '') return 1 ;; esac
}

server_log() { tail -n 20 "$PLACE/var/lib/redis/redis.log" >&2 || true; }

# The server of the machine, as its service manager would stop and start it.
systemctl() {
  local pid deadline=$((SECONDS + 60))
  case "$*" in
    "stop redis-server")
      if [ -n "${BEFORE_STOP:-}" ]; then eval "$BEFORE_STOP"; fi
      pid=$(cat "$PLACE/redis.pid")
      kill -TERM "$pid"
      while server_runs "$pid"; do
        [ $SECONDS -lt $deadline ] || { echo "the server does not stop" >&2; server_log; return 1; }
        sleep 0.02
      done
      rm "$PLACE/redis.pid"
      ;;
    "start redis-server")
      "$SERVER" "$PLACE/etc/redis/redis.conf" </dev/null >/dev/null 2>&1 &
      pid=$!
      echo "$pid" >"$PLACE/redis.pid"
      until server_is_ready "$pid"; do
        server_runs "$pid" || { echo "the server does not start" >&2; server_log; return 1; }
        [ $SECONDS -lt $deadline ] || { echo "the server does not get ready" >&2; server_log; return 1; }
        sleep 0.02
      done
      ;;
    *) echo "systemctl $*: not known here" >&2; return 1 ;;
  esac
}

# It is this process that answers, and it has loaded its data.
server_is_ready() {
  local facts
  facts=$(redis-cli info everything 2>/dev/null) || return 1
  grep -q "^process_id:$1"$'\r' <<<"$facts" && grep -q $'^loading:0\r' <<<"$facts"
}

sudo() { "$@"; }

# To the server's user, where there is one and we may.
chown() {
  if [ "$1" = redis:redis ] && ! { [ "$(id -u)" = 0 ] && id redis >/dev/null 2>&1; }; then
    set -- "$(id -u):$(id -g)" "${@:2}"
  fi
  command chown "$@"
}
