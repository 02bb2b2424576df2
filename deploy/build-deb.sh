#!/usr/bin/env bash
# Builds the Debian package: deploy/build-deb.sh [--version VERSION] [--profile release|dev] [--output DIR]
#
# The path of the package is the only line on stdout. Needs Rust, a C compiler, dpkg-dev, and cargo-deb, which it installs into
# target/tools when it is missing. What the program knows of itself (man pages, completions, configuration) it is asked for,
# so none of it can be older than the program. `--profile dev` is for tests of the package, not for anybody's machine.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DEB=3.8.0
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)-1
profile=release
output=target/debian

while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
    "--version "?*) version=$2 ;;
    "--profile release" | "--profile dev") profile=$2 ;;
    "--output "?*) output=$2 ;;
    *)
        echo "usage: deploy/build-deb.sh [--version VERSION] [--profile release|dev] [--output DIR]" >&2
        exit 2
        ;;
    esac
    shift 2
done

target=${CARGO_TARGET_DIR:-target}
tools=$target/tools
if [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "$CARGO_DEB" ]; then
    # It runs for seconds: the optimiser would take longer.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        cargo install --quiet --locked --root "$tools" cargo-deb --version $CARGO_DEB >&2
fi

cargo build --locked --profile "$profile" --bin tilecatcher >&2
program=$target/$([ "$profile" = dev ] && echo debug || echo release)/tilecatcher

# Everything that the package holds besides the program, in one place that Cargo.toml names.
files=target/deb-files
rm -rf "$files"
mkdir -p "$files/bin" "$files/man" "$files/completions" "$files/examples"
# A panic names its file and line without symbols, too.
strip --strip-unneeded -o "$files/bin/tilecatcher" "$program"
"$program" man "$files/man"
gzip -9n "$files"/man/*.1
for shell in bash zsh fish; do
    "$program" completions "$shell" >"$files/completions/$shell"
done
# Nobody's variables are the package's defaults.
env -i "$program" config --template --data /var/lib/tilecatcher >"$files/config.toml"
gzip -9nc deploy/README.md >"$files/README.deploy.md.gz"
gzip -9nc CHANGELOG.md >"$files/changelog.gz"
cp deploy/tilecatcher.service.d/socket.conf "$files/examples/"
# Profiles, and rules for Prometheus and Grafana where there are any.
find deploy -mindepth 1 -maxdepth 1 -type d ! -name debian ! -name '*.d' -exec cp -r {} "$files/examples/" \;

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH=$epoch
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
cat >"$files/changelog.Debian" <<CHANGELOG
tilecatcher ($version) unstable; urgency=medium

  * Built from the source of this version; changelog.gz says what changed.

 -- $maintainer  $(date -uRd "@$epoch")
CHANGELOG
gzip -9n "$files/changelog.Debian"

mkdir -p "$output"
"$tools/bin/cargo-deb" --no-build --quiet --no-strip --deb-version "$version" --output "$output" >&2
echo "$output/tilecatcher_${version}_$(dpkg --print-architecture).deb"
