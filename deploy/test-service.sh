#!/usr/bin/env bash
# The package under a systemd that runs: a Debian is booted in a container, and the service lives in it with all that its unit
# takes from it.
#
# deploy/test-service.sh [--profile release|dev] (default: dev). Needs root, debootstrap, systemd-container, python3, and a Debian
# mirror, which is asked once. The container has a network of its own, without a way out. Says each thing that it has seen;
# exit code 1 at the first that is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=dev
[ "${1:-}" = --profile ] && profile=$2
root=$(mktemp -d)
container=
hook=
leader=
# shellcheck source=deploy/test-system.sh
. deploy/test-system.sh

finish() {
    local status=$?
    [ "$status" = 0 ] || [ -z "$leader" ] || inside journalctl -u tilecatcher --no-pager -n 30 >&2 || true
    [ -z "$hook" ] || kill "$hook" 2>/dev/null || true
    [ -z "$container" ] || { kill "$container" 2>/dev/null && wait "$container" 2>/dev/null; } || true
    rm -rf "$root"
}
trap finish EXIT

inside() {
    nsenter -t "$leader" -m -u -i -n -p -C \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
}

# await SECONDS COMMAND...: until it succeeds.
await() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "not in time: $*"
        sleep 0.2
    done
}

property() { inside systemctl show tilecatcher -p "$1" --value; }
is_active() { [ "$(property ActiveState)" = active ]; }
journal_has() { inside journalctl -u tilecatcher --no-pager -o cat | grep -q "$1"; }
send() { inside tilecatcher send "/tmp/sim/$1" --capture 127.0.0.1:5002 --http http://127.0.0.1:5001 "${@:2}"; }
simulate() { inside tilecatcher simulate /tmp/sim --acq "$1" --steps "$2" --size 640x540 >/dev/null 2>&1; }

# Sends an acquisition while something happens to the daemon; every tile must arrive.
send_meanwhile() {
    local folder=$1
    shift
    send "$folder" --rate 40/s >"$root/send.log" 2>&1 &
    local sender=$!
    await 60 journal_has "acquisition started acquisition=${folder%%_*}"
    "$@"
    wait "$sender" || fail "send: $(cat "$root/send.log")"
    saw "$(tail -n 1 "$root/send.log")"
}

echo "== packages and a system that boots"
build_packages "$root" "$profile"
unpack_system "$root"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
systemd-nspawn -q -D "$root" --boot --register=no --keep-unit --private-network --console=pipe --machine="tc-$$" \
    >"$root.boot.log" 2>&1 </dev/null &
container=$!
await 60 pgrep -P "$container" -f systemd
leader=$(pgrep -P "$container" -f systemd | head -n 1)
await 60 test -e "$root/run/systemd/private" -o -e "/proc/$leader/root/run/systemd/private"
await 60 sh -c "nsenter -t $leader -m -p -n systemctl is-system-running | grep -Eq 'running|degraded'"
rm -f "$root.boot.log"

echo "== install: it runs"
inside dpkg -i /root/first.deb >/dev/null
await 30 is_active
saw "active, as $(inside ps -o user= -p "$(property MainPID)")"
simulate 7 4x4
send 7_8x8 >/dev/null 2>&1 || fail "send"
await 20 sh -c "nsenter -t $leader -m -p -n systemctl show tilecatcher -p StatusText | grep '64 tiles accepted'"
saw "$(property StatusText)"

echo "== reload"
pid=$(property MainPID)
inside systemctl reload tilecatcher
await 20 journal_has SIGHUP
[ "$(property MainPID)" = "$pid" ] || fail "a reload restarted the daemon"
saw "the same process after systemctl reload"
inside journalctl -u tilecatcher --no-pager -o json | grep SIGHUP | grep -q '"PRIORITY":"6"' || fail "no priority"
inside journalctl -u tilecatcher --no-pager -o cat -p warning | grep -q TEMCA || fail "no warning"
saw "lines have their priorities in the journal"

echo "== upgrade, while a sender sends"
simulate 8 8x8
send_meanwhile 8_16x16 inside dpkg --force-confold -i /root/next.deb
[ "$(property MainPID)" != "$pid" ] || fail "the upgrade did not restart the daemon"

echo "== killed"
inside systemctl kill -s KILL tilecatcher
await 30 sh -c "nsenter -t $leader -m -p -n systemctl show tilecatcher -p NRestarts --value | grep -qx 1"
await 30 is_active
saw "started again after kill -9"

echo "== notifications, out of the sandbox"
nsenter -t "$leader" -n python3 - "$root/told" <<'PYTHON' &
import http.server, sys

class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.send_response(204)
        self.end_headers()
        print(self.headers["Tilecatcher-Signature"], body, file=open(sys.argv[1], "a"), flush=True)

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", 8099), Hook).serve_forever()
PYTHON
hook=$!
install -m 640 /dev/null "$root/etc/tilecatcher/secret"
echo 'the secret' >"$root/etc/tilecatcher/secret"
inside chgrp tilecatcher /etc/tilecatcher/secret
sed -i -e 's|^#webhook_url = .*|webhook_url = "http://localhost:8099/"|' \
    -e 's|^#webhook_secret_file = .*|webhook_secret_file = "/etc/tilecatcher/secret"|' "$root/etc/tilecatcher/config.toml"
inside systemctl restart tilecatcher
send 7_8x8 >/dev/null 2>&1 || fail "send"
await 30 grep -q 'sha256=.*acquisition 7 ended complete' "$root/told"
saw "the webhook was told of the end of acquisition 7, signed"

echo "== a configuration that can not be"
cp "$root/etc/tilecatcher/config.toml" "$root/good.toml"
echo 'nonsense = 1' >>"$root/etc/tilecatcher/config.toml"
inside systemctl restart tilecatcher 2>/dev/null && fail "it started"
[ "$(property ExecMainStatus) $(property NRestarts) $(property ActiveState)" = "2 0 failed" ] || fail "exit code 2 is tried again"
journal_has 'unknown key' || fail "the journal does not name the key"
cp "$root/good.toml" "$root/etc/tilecatcher/config.toml"
inside systemctl reset-failed tilecatcher
saw "failed at once with exit code 2, the key is named in the journal"

echo "== systemd holds the ports"
inside install -D -m 644 /usr/share/doc/tilecatcher/examples/socket.conf /etc/systemd/system/tilecatcher.service.d/socket.conf
inside systemctl daemon-reload
inside systemctl enable --quiet --now tilecatcher.socket tilecatcher.service
simulate 9 8x8
send_meanwhile 9_16x16 inside systemctl restart tilecatcher

echo "== remove, purge"
inside dpkg -r tilecatcher >/dev/null
inside systemctl is-active --quiet tilecatcher.service tilecatcher.socket && fail "something still runs"
inside dpkg -P tilecatcher >"$root/purge.log" 2>&1
grep -q '/var/lib/tilecatcher is not empty and is kept' "$root/purge.log" || fail "nothing says that data are kept"
left=$(find "$root/etc/systemd" -name 'tilecatcher.s*' ! -name tilecatcher.service.d)
[ -z "$left" ] || fail "left: $left"
[ -d "$root/var/lib/tilecatcher/journal" ] || fail "the data are gone"
saw "stopped, unlinked, the data are kept"
