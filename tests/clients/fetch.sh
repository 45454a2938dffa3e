#!/usr/bin/env bash
# Brings the web frameworks whose sessions the tests keep alive while sessions are expired.
#
#   tests/clients/fetch.sh [DIR]     DIR: $RDBKEEPER_TEST_CLIENTS, else ~/.cache/rdbkeeper-test-clients
#
# DIR/pyramid is a Python environment, DIR/express a folder with node_modules. What cannot be had on this machine is
# named and left out, and its tests are skipped.
set -uo pipefail

dir=${1:-${RDBKEEPER_TEST_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/rdbkeeper-test-clients}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf '%s\n' "test clients: $*"; }
lacks() { say "$1 is not available here ($2); its tests are left out"; rm -rf "${dir:?}/$1"; }

pyramid() {
  [ -f "$dir/pyramid/complete" ] && return
  rm -rf "$dir/pyramid"
  command -v python3 >/dev/null 2>&1 || { lacks pyramid "no python3"; return; }
  python3 -m venv "$dir/pyramid" >"$log" 2>&1 || { lacks pyramid "no python3-venv"; return; }
  local pip="$dir/pyramid/bin/pip install -q --disable-pip-version-check"
  # pkg_resources, which this Pyramid wants, went away with setuptools 60 and later.
  if $pip 'setuptools<60' wheel >"$log" 2>&1 \
     && $pip --no-build-isolation 'pyramid<2' pyramid_redis_sessions==1.0.1 redis==3.5.3 webtest >"$log" 2>&1; then
    touch "$dir/pyramid/complete"
    say pyramid
  else
    lacks pyramid "pip: $(tail -n 1 "$log")"
  fi
}

express() {
  [ -f "$dir/express/complete" ] && return
  rm -rf "$dir/express"
  mkdir -p "$dir/express"
  command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || { lacks express "no node and npm"; return; }
  if (cd "$dir/express" && npm install --silent --no-audit --no-fund express@5 express-session@1.19 connect-redis@9 redis@5) >"$log" 2>&1; then
    touch "$dir/express/complete"
    say express
  else
    lacks express "npm: $(tail -n 1 "$log")"
  fi
}

pyramid
express
say "in $dir"
exit 0
