#!/bin/sh
# Writes what the program says of itself, its manual page and its completions, into a folder; and what a package wants
# compressed, compressed.
#
#   packaging/assets.sh PROGRAM FOLDER
set -eu

program=$1
folder=$2
mkdir -p "$folder"
"$program" man >"$folder/rdbkeeper.1"
for shell in bash zsh fish; do
  "$program" completions "$shell" >"$folder/rdbkeeper.$shell"
done
gzip -9n <"$folder/rdbkeeper.1" >"$folder/rdbkeeper.1.gz"
gzip -9n <"$(dirname "$0")/../CHANGELOG.md" >"$folder/changelog.gz"
