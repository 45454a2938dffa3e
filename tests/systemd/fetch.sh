#!/usr/bin/env bash
# Brings what the test with a real systemd needs: a small root of this machine's own Debian release (its C library
# fits what is built here) with systemd and Redis, and cargo-deb.
#
#   tests/systemd/fetch.sh [DIR]     DIR: $RDBKEEPER_TEST_SERVERS, else ~/.cache/rdbkeeper-test-servers
#
# It becomes DIR/boot. What cannot be had is named, and the test is left out. 250 MB, about a minute, once.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-${RDBKEEPER_TEST_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/rdbkeeper-test-servers}}
root=$dir/boot
log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf '%s\n' "systemd test: $*"; }
lacks() { say "$1; the test with a real systemd is left out"; exit 0; }

[ "$(id -u)" = 0 ] || lacks "it needs root"
if ! command -v systemd-nspawn >/dev/null || ! command -v debootstrap >/dev/null; then
  # Only where systemd is at home already: nothing of it is brought onto another machine.
  command -v systemctl >/dev/null && command -v apt-get >/dev/null || lacks "no systemd-nspawn, no debootstrap"
  DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq systemd-container debootstrap >"$log" 2>&1 \
    || lacks "systemd-container and debootstrap cannot be installed: $(tail -n 1 "$log")"
fi

if [ ! -e "$root/complete" ]; then
  . /etc/os-release
  mirror=$(apt-cache policy 2>/dev/null | awk '$2 ~ /^http/ && $2 !~ /security/ {print $2; exit}')
  rm -rf "$root"
  # shellcheck disable=SC2086
  timeout 600 debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,redis-server,redis-tools \
    "${VERSION_CODENAME:-stable}" "$root" $mirror >"$log" 2>&1 || lacks "debootstrap: $(tail -n 1 "$log")"
  rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/*
  touch "$root/complete"
fi

timeout 900 "$here/../../packaging/deb.sh" tool >"$log" 2>&1 || lacks "cargo-deb cannot be built: $(tail -n 1 "$log")"
say "$root, and cargo-deb"
