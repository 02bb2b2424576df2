# shellcheck shell=bash
# What tests of the package share: two versions of it, and a bare Debian to put them in. To be sourced.

SUITE=bookworm
base=target/deb-base-$SUITE.tar

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

saw() { echo "ok: $*"; }

# build_packages ROOT PROFILE: the package, and the next version of it with another default configuration, for only then dpkg has
# to decide whose to keep.
build_packages() {
    local first root=$1 profile=$2
    first=$(deploy/build-deb.sh --profile "$profile" --version 0.1.0-1 --output "$root/build")
    dpkg-deb -R "$first" "$root/build/next"
    sed -i 's/^Version: .*/Version: 0.2.0-1/' "$root/build/next/DEBIAN/control"
    echo '# A line that the next version adds.' >>"$root/build/next/etc/tilecatcher/config.toml"
    dpkg-deb --root-owner-group -b "$root/build/next" "$root/build/next.deb" >/dev/null
    mv "$first" "$root/build/first.deb"
}

# unpack_system ROOT: a bare Debian with both packages in /root. Asks a mirror once: the system is kept.
unpack_system() {
    local root=$1
    if [ ! -e "$base" ]; then
        debootstrap --variant=minbase --include=systemd,procps "$SUITE" "$root/base" >target/deb-base.log ||
            fail "debootstrap: see target/deb-base.log"
        tar -C "$root/base" -cf "$base.part" . && mv "$base.part" "$base"
        rm -rf "$root/base"
    fi
    tar -C "$root" -xf "$base"
    mv "$root/build/first.deb" "$root/build/next.deb" "$root/root/" && rm -rf "$root/build"
}
