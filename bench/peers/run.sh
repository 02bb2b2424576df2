#!/bin/sh
# Installs what is missing (Debian, as root) and measures tilecatcher beside NATS JetStream, Redis, PostgreSQL and nginx.
#
#     bench/peers/run.sh                                      all of it, about 25 minutes
#     bench/peers/run.sh --size 5.3MB --seconds 3 --runs 1    a look; options go to the program, --help prints them
#     PEERS_INSTALL=no bench/peers/run.sh                     with what is there
#
# What was not there before is installed without starting its service, now or at boot. What can not be installed is
# skipped by name.
set -eu
cd "$(dirname "$0")/../.."

missing() {
    command -v nginx >/dev/null 2>&1 || echo nginx-light
    command -v redis-server >/dev/null 2>&1 || echo redis-server
    command -v nats-server >/dev/null 2>&1 || echo nats-server
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || echo postgresql
}

# Package scripts ask this file whether they may start a service.
policy=/usr/sbin/policy-rc.d

install_missing() {
    made_policy=no
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made_policy=yes
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update >&2 || true
    for package in "$@"; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" >&2 ||
            echo "peers: $package can not be installed" >&2
        if command -v systemctl >/dev/null 2>&1; then
            systemctl disable "${package%-light}.service" >/dev/null 2>&1 || true
        fi
    done
    if [ "$made_policy" = yes ]; then
        rm -f "$policy"
        trap - EXIT
    fi
}

packages=$(missing)
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 # One word a package.
    if [ "${PEERS_INSTALL:-yes}" = no ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "peers: not installed:" $packages "(as root on Debian, this script installs them)" >&2
    else
        install_missing $packages
    fi
fi
exec cargo bench --quiet --bench peers -- "$@"
