#!/usr/bin/env bash
# Cuts the power of a virtual machine that takes in tiles: README.md says how. Debian, root (for installing what is missing).
#
#   tests/power-cut/run.sh [--binary FILE] [--cuts N] [--seed N] [--keep SHARE] [--only durable|killed|control]
#
# Needs Rust 1.95 unless a binary is given. Keeps the guest's kernel and the Python client in target/power-cut; disks live
# in a directory of $TMPDIR and go away.
set -euo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd "$(dirname "$0")/../.."

binary=target/release/tilecatcher
cuts=3
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --binary) binary=$2 ;;
    --cuts) cuts=$2 ;;
    --seed | --keep | --only) options+=("$1" "$2") ;;
    *)
        echo "run.sh: unknown option $1" >&2
        exit 2
        ;;
    esac
    shift 2
done
if [ "$binary" = target/release/tilecatcher ]; then
    cargo build --locked --release --bin tilecatcher
fi

library() {
    find /usr/lib -name libeatmydata.so.1 -print -quit
}
if ! { command -v qemu-system-x86_64 && command -v mkfs.ext4 && [ -x /bin/busybox ] && ! ldd /bin/busybox && [ -n "$(library)" ] &&
    python3 -c 'import ensurepip'; } >/dev/null 2>&1; then
    apt-get update -q
    apt-get install -qy --no-install-recommends qemu-system-x86 e2fsprogs busybox-static libeatmydata1 python3-venv
fi

cache=$PWD/target/power-cut
mkdir -p "$cache"
if [ ! -d "$cache/kernel/boot" ]; then
    [ -n "$(apt-cache search --names-only '^linux-image-amd64$')" ] || apt-get update -q
    package=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    rm -rf "$cache/download" "$cache/kernel"
    mkdir "$cache/download"
    # As root, apt would fetch as a user who can not write here; that is no more than a warning.
    (cd "$cache/download" && apt-get download "$package")
    dpkg-deb -x "$cache"/download/*.deb "$cache/kernel"
    rm -r "$cache/download"
fi
if [ ! -x "$cache/venv/bin/python" ]; then
    python3 -m venv "$cache/venv"
fi
"$cache/venv/bin/pip" install --quiet --disable-pip-version-check ./schema/python

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Without its line tables it fits a small machine.
strip -o "$work/tilecatcher" "$binary"
"$cache/venv/bin/python" tests/power-cut/test_nbd_disk.py --quiet
# A cut takes half a minute, more when the machine is busy: without KVM every instruction is emulated.
timeout --kill-after=10 $((900 + cuts * 300)) "$cache/venv/bin/python" tests/power-cut/rig.py \
    --kernel "$(ls "$cache"/kernel/boot/vmlinuz-*)" --modules "$cache/kernel/lib/modules" --busybox /bin/busybox \
    --daemon "$work/tilecatcher" --lying-sync "$(library)" --cuts "$cuts" "${options[@]}"
