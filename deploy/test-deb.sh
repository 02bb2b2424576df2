#!/usr/bin/env bash
# Lives through a package's life in a Debian of its own: install, run as its user, send, upgrade, remove, purge.
#
# deploy/test-deb.sh [--profile release|dev] (default: dev). Needs root, debootstrap and a Debian mirror, which is asked once: the
# bare system is kept in target/. Nothing of the machine is touched but target/ and a directory in TMPDIR. systemd does not run
# in there (deploy/test-service.sh has it), so what it would do is done by hand: the command of ExecStart= as the user of the
# unit, and a restart behind an upgrade. Says each thing that it has seen; exit code 1 at the first that is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=dev
[ "${1:-}" = --profile ] && profile=$2
root=$(mktemp -d)
pid=
# shellcheck source=deploy/test-system.sh
. deploy/test-system.sh

finish() {
    local status=$?
    [ "$status" = 0 ] || [ ! -e "$root/daemon.log" ] || tail -n 20 "$root/daemon.log" >&2
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf "$root"
}
trap finish EXIT

inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }

# Everything in the system but what packages and their logs keep of themselves.
listing() { (cd "$root" && find . -xdev ! -path './var/lib/dpkg/*' ! -path './var/log/*.log' ! -path './proc/*' ! -path './tmp/*' | sort); }

start_daemon() {
    local command
    # The unit's own words; the binary is what is installed.
    command=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/tilecatcher.service")
    : >"$root/ready"
    # shellcheck disable=SC2086 # a command and its arguments
    chroot --userspec=tilecatcher:tilecatcher "$root" $command >"$root/ready" 2>>"$root/daemon.log" &
    pid=$!
    for _ in $(seq 300); do
        [ ! -s "$root/ready" ] || break
        kill -0 "$pid" 2>/dev/null || fail "the daemon ended"
        sleep 0.1
    done
    capture=$(grep -o 'capture=[^ ]*' "$root/ready" | cut -d= -f2) || fail "the daemon is not ready"
    http=http://$(grep -o 'http=[^ ]*' "$root/ready" | cut -d= -f2)
}

stop_daemon() {
    kill -TERM "$pid"
    wait "$pid" || fail "the daemon stopped with exit code $?"
    pid=
}

send() { inside tilecatcher send /tmp/sim/7_8x8 --capture "$capture" --http "$http" >"$root/send.log" 2>&1; }

echo "== packages and a system"
build_packages "$root" "$profile"
unpack_system "$root"
mount -t proc proc "$root/proc"
listing >"$root/tmp/before"

echo "== install"
inside dpkg -i /root/first.deb
entry=$(inside getent passwd tilecatcher) || fail "there is no user"
saw "user $entry"
mode=$(inside stat -c '%U:%G %a' /var/lib/tilecatcher)
[ "$mode" = "tilecatcher:tilecatcher 750" ] || fail "data directory: $mode"
saw "data directory $mode"
[ "$(systemctl --root="$root" is-enabled tilecatcher.service)" = enabled ] || fail "the service is not enabled"
[ "$(systemctl --root="$root" is-enabled tilecatcher.socket || true)" = disabled ] || fail "the socket is not disabled"
saw "the service is enabled, the socket is not"
inside dpkg --verify tilecatcher || fail "files differ from the package"
inside bash -n /usr/share/bash-completion/completions/tilecatcher
inside tilecatcher config --config /etc/tilecatcher/config.toml >/dev/null
saw "files are the package's; completions and configuration are read"

echo "== run and send"
# What an operator does: edit the file. Ports of the system, for others may use the usual ones.
sed -i -e 's/^#address = "127.0.0.1:500[12]"/address = "127.0.0.1:0"/' -e 's/^#segment_size = .*/segment_size = "16MiB"/' \
    "$root/etc/tilecatcher/config.toml"
cp "$root/etc/tilecatcher/config.toml" "$root/tmp/edited.toml"
inside tilecatcher simulate /tmp/sim --acq 7 --steps 4x4 --size 640x540 >/dev/null 2>&1
start_daemon
owner=$(inside stat -c %U "/proc/$pid")
[ "$owner" = tilecatcher ] || fail "the daemon runs as $owner"
send || fail "send: $(cat "$root/send.log")"
saw "the daemon runs as $owner; sent: $(tail -n 1 "$root/send.log")"

echo "== upgrade, the daemon running"
inside dpkg --force-confold -i /root/next.deb </dev/null
kill -0 "$pid" || fail "the upgrade ended the daemon"
cmp "$root/etc/tilecatcher/config.toml" "$root/tmp/edited.toml" || fail "the configuration was not kept"
[ -e "$root/etc/tilecatcher/config.toml.dpkg-dist" ] || fail "the new default configuration is not beside it"
stop_daemon
start_daemon
send || fail "send after the upgrade: $(cat "$root/send.log")"
saw "configuration kept, new one beside it; the daemon stopped with 0 and the next one misses nothing"
inside tilecatcher verify --data /var/lib/tilecatcher >/dev/null || fail "verify"
inside tilecatcher export 7 /tmp/out --data /var/lib/tilecatcher >/dev/null 2>&1 || fail "export"
tiles=0
while IFS= read -r tile; do
    cmp "$tile" "$root/tmp/out/7_8x8/${tile#"$root/tmp/sim/7_8x8/"}" || fail "a tile differs"
    tiles=$((tiles + 1))
done < <(find "$root/tmp/sim/7_8x8" -name '*.tif')
[ "$tiles" -ge 64 ] || fail "only $tiles tiles"
saw "$tiles tiles are byte for byte what was sent before the upgrade"
stop_daemon

echo "== remove"
inside dpkg -r tilecatcher
[ ! -e "$root/usr/bin/tilecatcher" ] || fail "the program is still there"
[ -e "$root/etc/tilecatcher/config.toml" ] || fail "the configuration is gone"
data() { find "$root/var/lib/tilecatcher" -type f -printf '%P %s\n' | sort | sha256sum; }
kept=$(data)
[ -d "$root/var/lib/tilecatcher/journal" ] || fail "the data are gone"
saw "the program is gone; data and configuration are kept"

echo "== purge"
inside dpkg -P tilecatcher 2>&1 | tee "$root/tmp/purge.log"
grep -q '/var/lib/tilecatcher is not empty and is kept' "$root/tmp/purge.log" || fail "nothing says that data are kept"
[ "$(data)" = "$kept" ] || fail "a purge changed the data"
rm -rf "$root/ready" "$root/daemon.log" "$root/send.log"
left=$(comm -13 "$root/tmp/before" <(listing) | grep -v '^./var/lib/tilecatcher/' || true)
saw "left, besides the data: ${left//$'\n'/ }"
for path in $left; do
    case $path in
    ./etc/passwd- | ./etc/group- | ./etc/shadow- | ./etc/gshadow- | ./etc/.pwd.lock | ./var/lib/tilecatcher | ./var/lib/systemd/*) ;;
    *) fail "$path is left" ;;
    esac
done

echo "== install again: the data are found, and with nothing in it the directory goes"
inside dpkg -i /root/next.deb >/dev/null
# The defaults, with the usual ports: only read.
inside tilecatcher verify --data /var/lib/tilecatcher >/dev/null || fail "verify after a purge"
rm -rf "$root"/var/lib/tilecatcher/*
inside dpkg -P tilecatcher >/dev/null
[ ! -e "$root/var/lib/tilecatcher" ] || fail "an empty data directory is left"
saw "verified; an empty directory is not left behind"
