#!/bin/sh
# Makes the Debian package of a program that is built, by cargo-deb, which is brought into a folder of its own when it is
# not there. What is in the package stands in Cargo.toml, [package.metadata.deb].
#
#   packaging/deb.sh release FILE-OR-FOLDER     the release binary
#   packaging/deb.sh dev FILE-OR-FOLDER         the debug binary, for the tests: lightly compressed
#   packaging/deb.sh tool                       brings cargo-deb, no more
#
# With RDBKEEPER_NO_DOWNLOAD it takes the cargo-deb that is there, and exits 3 without one.
set -eu
cd "$(dirname "$0")/.."

version=3.8.0
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
tools=${RDBKEEPER_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/rdbkeeper-tools}

if ! tool=$(command -v cargo-deb); then
  tool=$tools/bin/cargo-deb
  if [ ! -x "$tool" ] && [ -n "${RDBKEEPER_NO_DOWNLOAD:-}" ]; then
    echo "there is no cargo-deb" >&2
    exit 3
  fi
  # xz comes from the machine, and the debug symbols stay out: half of it need not be built.
  [ -x "$tool" ] || (
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    CARGO_TARGET_DIR=$build $cargo install --quiet --locked --no-default-features --root "$tools" "cargo-deb@$version"
  )
fi

case $1 in
  tool) exit 0 ;;
  release) folder=$target/release options='' ;;
  dev) folder=$target/debug options='--fast' ;;
  *) echo "packaging/deb.sh: release or dev, not $1" >&2; exit 2 ;;
esac
[ -x "$folder/rdbkeeper" ] || { echo "there is no $folder/rdbkeeper yet: build it first" >&2; exit 1; }
packaging/assets.sh "$folder/rdbkeeper" "$folder/assets"
# shellcheck disable=SC2086
exec "$tool" --manifest-path Cargo.toml --offline --no-build --quiet --profile "$1" $options --output "$2"
