#!/usr/bin/env bash
# The whole tool on real servers, start to end: `make demo` runs it.
#
#   RDBKEEPER=target/release/rdbkeeper tests/demo/demo.sh
#
# It starts servers of its own on free ports of 127.0.0.1, in a folder of its own, and ends them. No other server is
# touched. It stops with an error at the first thing that is not as it should be.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rdbkeeper=$(realpath "${RDBKEEPER:-$here/../../target/release/rdbkeeper}")
sessions=${DEMO_SESSIONS:-100000}
began=$SECONDS
pids=()

end_servers() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap 'code=$?; trap - EXIT; end_servers; [ "$code" = 0 ] || printf "\nThe demo FAILED.\n" >&2; exit "$code"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step=0
bold='' plain='' faint=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' faint=$'\e[2m' plain=$'\e[0m'; fi
heading() { step=$((step + 1)); printf '\n%s== %d. %s%s\n' "$bold" "$step" "$1" "$plain"; }
say() { printf '%s\n' "$@"; }
fail() { printf '\nerror: %s\n' "$*" >&2; exit 1; }

# Shows a command as it would be typed, runs it, and wants the exit code $1.
run_for() {
  local wanted=$1 code=0 word typed=''
  shift
  for word in "${1##*/}" "${@:2}"; do
    case $word in *[!A-Za-z0-9_./:=@%+,-]*) word="'$word'" ;; esac
    typed+=" $word"
  done
  printf '\n%s$%s%s\n' "$bold" "$typed" "$plain"
  "$@" 2>&1 || code=$?
  [ "$code" = "$wanted" ] || fail "exit code $code, expected $wanted"
  [ "$code" = 0 ] || printf '%s(exit code %s)%s\n' "$faint" "$code" "$plain"
}
run() { run_for 0 "$@"; }
show_file() { printf '\n%s$ cat %s%s\n' "$bold" "$1" "$plain"; cat "$1"; }

# --- what is needed -------------------------------------------------------------------------------------------------

[ -x "$rdbkeeper" ] || fail "there is no $rdbkeeper: \`make demo\` builds it"

install_server() {
  say "There is no redis-server on this machine, and the demo backs up a real one: installing the packages" \
    "redis-server and redis-tools with apt-get. (Debian may start a server of its own with it, on port 6379;" \
    "the demo leaves that one alone.)"
  command -v apt-get >/dev/null || fail "there is no apt-get here: install Redis or Valkey by hand, then run this again"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "that needs root: install redis-server and redis-tools by hand"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  # RUNLEVEL: no service is wanted, only the programs.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq redis-server redis-tools >/dev/null
}

either() { command -v "redis-$1" || command -v "valkey-$1" || true; }
if [ -z "$(either server)" ] || [ -z "$(either cli)" ]; then install_server; fi
server=$(either server) cli=$(either cli) check_rdb=$(either check-rdb)

work=$(mktemp -d "${TMPDIR:-/tmp}/rdbkeeper-demo.XXXXXX")
mkdir "$work/bin"
ln -s "$rdbkeeper" "$work/bin/rdbkeeper"
export PATH="$work/bin:$PATH"
# No configuration but the demo's own, which lies in the folder where the commands run.
unset RDBKEEPER_CONFIG
cd "$work"

# --- servers ----------------------------------------------------------------------------------------------------------

# Starts a server in the folder $1 on a free port and sets $port. Ready means that our process answers, not another's.
start_server() {
  local folder=$1 pid try
  mkdir -p "$folder"
  for try in {1..20}; do
    port=$((20000 + RANDOM % 12000))
    write_server_conf "$folder"
    "$server" "$folder/redis.conf" >/dev/null 2>&1 &
    pid=$!
    for _ in {1..200}; do
      kill -0 "$pid" 2>/dev/null || break
      if "$cli" -p "$port" info server 2>/dev/null | grep -q "^process_id:$pid\b"; then
        pids+=("$pid")
        say "$folder: $("$server" --version | cut -d' ' -f1-3), process $pid, 127.0.0.1:$port"
        return
      fi
      sleep 0.05
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  fail "no server started after $try tries: see $work/$folder/redis.log"
}

write_server_conf() {
  cat >"$1/redis.conf" <<CONF
bind 127.0.0.1
port $port
dir $work/$1
logfile $work/$1/redis.log
save ""
# A server waits 5 seconds before it sends a replica its data set, so that several can share one dump.
# Here nobody else comes: do not wait.
repl-diskless-sync-delay 0
CONF
}

say "rdbkeeper, start to end. Everything happens in $work"
run rdbkeeper --version

heading "A server with the data of a web site"
start_server site
site=$port
show_file site/redis.conf
LC_ALL=C awk -v sessions="$sessions" -v now="$(date +%s)" -f "$here/data.awk" >site.commands
printf '\n%s$ redis-cli -p %s --pipe < site.commands%s\n' "$bold" "$site" "$plain"
"$cli" -p "$site" --pipe <site.commands
rm site.commands
say "Database 1: $sessions sessions, a page cache, a login throttle. Database 3: Celery, its queue, jobs and results."
run "$cli" -p "$site" info keyspace

heading "The configuration: two databases, one storage"
cat >rdbkeeper.toml <<TOML
[daemon]
state_dir = "state"
spool_dir = "spool"

[storage.disk]
kind = "local"
path = "backups"

[defaults]
require_backup = "1d"
# What \`rdbkeeper run\` does by itself: a backup every six hours, and the newest three stay.
schedule = "0 */6 * * *"
keep     = { last = 3 }

[[database]]
name = "sessions"
url  = "redis://127.0.0.1:$site/1"

[[database.sessions]]
store   = "pyramid"
match   = '^websauna_session[0-9a-f]{64}\$'
timeout = "365d"
max_age = "365d"

[[database]]
name = "celery"
url  = "redis://127.0.0.1:$site/3"

[[database.sessions]]
store   = "celery"
timeout = "1d"
TOML
show_file rdbkeeper.toml

heading "Would it work? Ask before it matters"
run rdbkeeper check

heading "Back up, by each of the three methods"
say "Both databases are on one server: they share one dump, and each gets an archive of its own."
for method in bgsave replication scan; do run rdbkeeper backup now --method "$method"; done

heading "What is there"
run rdbkeeper backup list
run rdbkeeper backup show sessions
run rdbkeeper backup show celery

heading "Read all of it back: digests, compression, structure, checksum"
run rdbkeeper backup verify --all

heading "One flipped bit in a copy"
folder=$(find backups/sessions -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
run cp -r "$folder" flipped
data=flipped/dump.rdb.zst
offset=$(($(stat -c %s "$data") / 2))
byte=$(od -An -tu1 -j "$offset" -N 1 "$data")
# shellcheck disable=SC2059 # the format is the byte
printf "$(printf '\\x%02x' $((byte ^ 1)))" | dd of="$data" bs=1 seek="$offset" conv=notrunc status=none
say "" "Byte $offset of $data was $((byte)), now it is $((byte ^ 1))."
run_for 3 rdbkeeper backup verify ./flipped

heading "Restore into an empty second server"
start_server second
second=$port
say "" "A damaged backup touches nothing:"
run_for 3 rdbkeeper restore ./flipped --to "redis://127.0.0.1:$second"
if "$cli" -p "$second" info keyspace | grep '^db'; then fail "the damaged backup was written"; fi
say "" "A whole one, first as a dry run:"
for database in sessions celery; do
  run rdbkeeper restore "$database" --to "redis://127.0.0.1:$second" --dry-run
done
for database in sessions celery; do run rdbkeeper restore "$database" --to "redis://127.0.0.1:$second"; done
say "" "A second time it finds the keys there, and writes nothing:"
run_for 5 rdbkeeper restore celery --to "redis://127.0.0.1:$second"

heading "Is it the same? Every key, value and expiry of both servers, without rdbkeeper"
digest_of() { "$cli" -p "$1" -n "$2" --eval "$here/digest.lua"; }
compare() {
  local db first other
  for db in 1 3; do
    first=$(digest_of "$site" "$db") other=$(digest_of "$second" "$db")
    say "database $db here:  $first" "database $db there: $other"
    case $first in *" keys, "*) ;; *) fail "no digest of database $db" ;; esac
    [ "$first" = "$other" ] || fail "database $db differs"
  done
  say "They are the same."
}
compare
say "" "And the backups that the other two methods made, in place of what is there now:"
for method in bgsave replication; do
  for database in sessions celery; do
    manifest=$(grep -l "\"method\": *\"$method\"" backups/"$database"/*/manifest.json)
    id=$(basename "$(dirname "$manifest")")
    run rdbkeeper restore "$id" --to "redis://127.0.0.1:$second" --flush --yes
  done
  compare
done

heading "A part of a backup, as a file that redis-server loads by itself"
mkdir third
run rdbkeeper restore celery --to-file third/dump.rdb --match celery --match 'unacked*'
if [ -n "$check_rdb" ]; then run "$check_rdb" third/dump.rdb; fi
say ""
start_server third
run "$cli" -p "$port" info keyspace
run "$cli" -p "$port" -n 3 llen celery
[ "$("$cli" -p "$port" -n 3 llen celery)" = "$("$cli" -p "$site" -n 3 llen celery)" ] || fail "the queue differs"

heading "Old sessions: which keys never expire?"
without_ttl() { "$cli" -p "$site" info keyspace | tr -d '\r' | awk -F'[:,=]' '/^db[13]:/ { n += $3 - $5 } END { print n }'; }
before=$(without_ttl)
say "$before keys of this site have no TTL. Which are they, and what would the rules do?"
run rdbkeeper sessions report

heading "Expire them, by the rules of the configuration: first as a dry run"
queued=$("$cli" -p "$site" -n 3 llen celery)
run rdbkeeper sessions expire --dry-run
run rdbkeeper sessions expire
without=$(without_ttl)
say "" "Before, $before keys were without TTL, now $without. The same report again:"
run rdbkeeper sessions report
say "" "What is neither a session nor a result is as it was, and has no TTL (-1):"
run "$cli" -p "$site" -n 1 ttl websauna_session_test
run "$cli" -p "$site" -n 1 ttl throttle_login
run "$cli" -p "$site" -n 3 llen celery
for key in websauna_session_test throttle_login; do
  [ "$("$cli" -p "$site" -n 1 ttl "$key")" = -1 ] || fail "$key was touched"
done
[ "$("$cli" -p "$site" -n 3 llen celery)" = "$queued" ] || fail "the queue was touched"
# Beside sessions and results two keys of database 1 and four of database 3 have no TTL.
[ "$without" -le 6 ] || fail "$without keys are still without TTL"

heading "Look inside: what is in a backup, and what has the sweep changed?"
old=$(find backups/sessions -mindepth 1 -maxdepth 1 -type d -name '2*' | sort | tail -n 1)
run rdbkeeper backup now sessions
run rdbkeeper backup keys celery --type list --type set
run rdbkeeper backup export celery --format jsonl --match 'unacked*' -o unacked.jsonl
printf '\n%s$ head -c 160 unacked.jsonl%s\n' "$bold" "$plain"
head -c 160 unacked.jsonl
printf '…\n\n%s$ rdbkeeper backup diff %s sessions > changes; tail -n 2 changes%s\n' "$bold" "${old##*/}" "$plain"
rdbkeeper backup diff "${old##*/}" sessions >changes
tail -n 2 changes
grep -q '^0 added, [1-9].* removed, [1-9].* changed' changes || fail "the sweep's changes are not told"

heading "By itself: the daemon, in a hurry"
say "Six hours are too long for a demo: the same configuration, with a backup every five seconds."
sed 's,^schedule = .*,schedule = "*/5 * * * * *",' rdbkeeper.toml >hurry.toml
kept() { rdbkeeper backup list --json | grep -c '"id"'; }
printf '\n%s$ rdbkeeper --config hurry.toml run &%s\n' "$bold" "$plain"
rdbkeeper --config hurry.toml run >daemon.log 2>&1 &
daemon=$!
pids+=("$daemon")
made=0
for _ in {1..600}; do
  kill -0 "$daemon" 2>/dev/null || { cat daemon.log; fail "the daemon ended"; }
  made=$(grep -c 'backed up' daemon.log || true)
  [ "$made" -lt 4 ] || break
  sleep 0.1
done
[ "$made" -ge 4 ] || { cat daemon.log; fail "no backups came"; }
run rdbkeeper --config hurry.toml status
say "" "systemd would stop it like this:"
printf '\n%s$ kill -TERM %s%s\n' "$bold" "$daemon" "$plain"
kill -TERM "$daemon"
code=0
wait "$daemon" || code=$?
show_file daemon.log
[ "$code" = 0 ] || fail "the daemon ended with exit code $code"
[ "$(kept)" = 6 ] || fail "$(kept) backups are there, and \`keep\` says three of each"
run rdbkeeper backup list

heading "What stays, and why"
pinned=$(find backups/sessions -mindepth 1 -maxdepth 1 -type d -name '2*' | sort | head -n 1)
run rdbkeeper backup pin "${pinned##*/}"
run rdbkeeper backup prune --dry-run

# --- off-site -----------------------------------------------------------------------------------------------------------

# Starts an S3 server on free ports, with the bucket `offsite`, and sets $s3.
start_s3() {
  local base pid try
  for try in {1..20}; do
    base=$((12000 + RANDOM % 7000))
    "$weed" mini -dir="$work/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -bucket=offsite \
      -s3.autoCreateBucket=false -webdav=false -admin.ui=false -s3.port.iceberg=0 -s3.port.lance=0 -volume.max=500 \
      -s3.port=$base -s3.port.grpc=$((base + 1)) -master.port=$((base + 2)) -volume.port=$((base + 3)) \
      -filer.port=$((base + 4)) -admin.port=$((base + 5)) >s3.log 2>&1 </dev/null &
    pid=$!
    s3=http://127.0.0.1:$base
    for _ in {1..300}; do
      kill -0 "$pid" 2>/dev/null || break
      # Only a bucket that is there is answered with its keys.
      if rdbkeeper --config offsite.toml check --storage bucket >/dev/null 2>&1; then
        pids+=("$pid")
        say "s3: SeaweedFS, process $pid, $s3"
        return
      fi
      write_offsite_toml
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  fail "no S3 server started after $try tries: see $work/s3.log"
}

write_offsite_toml() {
  cat >offsite.toml <<TOML
[daemon]
state_dir = "state"
spool_dir = "spool"

[storage.mirror]
kind = "local"
path = "mirror"

[storage.bucket]
kind = "s3"
bucket = "offsite"
endpoint = "$s3"
region = "us-east-1"
access_key_id = "demo"
secret_access_key = "demo"

[defaults]
storage    = ["mirror", "bucket"]
recipients = ["$recipient"]

[[database]]
name = "sessions"
url  = "redis://127.0.0.1:$site/1"

[[database]]
name = "celery"
url  = "redis://127.0.0.1:$site/3"
TOML
}

heading "Off-site: a folder and a bucket at once, encrypted for a key that is not on this host"
servers=${RDBKEEPER_TEST_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/rdbkeeper-test-servers}
"$here/../servers/fetch.sh" --offsite "$servers"
weed=$servers/seaweedfs/bin/weed keygen=$servers/age/bin/age-keygen
if [ -x "$weed" ] && [ -x "$keygen" ]; then
  printf '\n%s$ age-keygen -o key.txt%s\n' "$bold" "$plain"
  "$keygen" -o key.txt
  recipient=$("$keygen" -y key.txt)
  start_s3
  show_file offsite.toml
  export RDBKEEPER_CONFIG=offsite.toml
  run rdbkeeper backup now
  run rdbkeeper backup list
  say "" "Without the key, what is stored can be compared with its digests, and no more:"
  run rdbkeeper backup verify --all
  say "" "The folder is lost. The bucket has everything, for whoever has the key:"
  run rm -r mirror
  run_for 1 rdbkeeper restore sessions --to "redis://127.0.0.1:$second" --flush --yes
  for database in sessions celery; do
    run rdbkeeper restore "$database" --to "redis://127.0.0.1:$second" --identity key.txt --flush --yes
  done
  compare
  say "" "And back into the folder, as it was:"
  run rdbkeeper backup copy --all --to mirror
  run rdbkeeper backup verify --all --storage mirror --identity key.txt
  unset RDBKEEPER_CONFIG
else
  say "Left out: there is no S3 server, or no age-keygen, and neither could be brought here."
fi

heading "Done, in $((SECONDS - began)) seconds"
end_servers
pids=()
say "Its servers are ended. The files are in $work:" "" \
  "  rdbkeeper.toml    the configuration" \
  "  backups/          six archives: backups/DATABASE/ID/{dump.rdb.zst,manifest.json}" \
  "  flipped/          the damaged copy" \
  "  third/dump.rdb    the queue alone" \
  "  mirror/           the encrypted archives, where the last part could run" "" \
  "To look around:   cd $work && bin/rdbkeeper backup list" \
  "To remove it:     rm -r $work"
