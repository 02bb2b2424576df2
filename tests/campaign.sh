#!/usr/bin/env bash
# Every campaign that stands behind a promise in deploy/README.md, one after another; a table of results at the end.
# Without --long in the sizes of CI (about ten minutes), with it for hours: more of each, fuzzing, Miri, and power cuts of a
# virtual machine. Exit code 1 when one of them failed. Never stops at the first failure: all are worth knowing.
set -uo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
"") ;;
--long) export TILECATCHER_LONG=1 ;;
*)
    echo "usage: tests/campaign.sh [--long]" >&2
    exit 2
    ;;
esac

logs=target/campaign
mkdir -p "$logs"
results=()
failed=0

# campaign NAME COMMAND...
campaign() {
    local name=$1 began=$SECONDS result=passed
    shift
    echo "== $name: $*"
    if ! "$@" >"$logs/$name.txt" 2>&1; then
        result="FAILED, see $logs/$name.txt"
        failed=1
    fi
    results+=("$(printf '%-16s %6d s  %s' "$name" $((SECONDS - began)) "$result")")
    echo "${results[-1]}"
    # What the campaigns say of themselves: seeds, counts, extremes.
    grep -aE 'Seen|seed|acknowledged|cycles|cuts|each|found|of the rate|executions|seen (after|firing)' "$logs/$name.txt" | tail -n 20
}

campaign crash cargo test --locked --test crash -- --nocapture
campaign planted-bugs cargo test --locked --features planted-bugs --test crash planted -- --nocapture
campaign kills cargo test --locked --test daemon kill -- --nocapture
campaign io-errors cargo test --locked --test daemon io_errors -- --nocapture
campaign rot cargo test --locked --test daemon rot:: -- --nocapture
campaign mirror cargo test --locked --test daemon mirror:: -- --nocapture
campaign backup cargo test --locked --test daemon backup:: -- --nocapture
campaign hot-restart cargo test --locked --test daemon hot_restart -- --nocapture
campaign drain cargo test --locked --test daemon drain:: -- --nocapture
campaign overload cargo test --locked --test daemon overload -- --nocapture
campaign access cargo test --locked --test daemon access:: -- --nocapture
campaign tls cargo test --locked --test daemon tls:: -- --nocapture
campaign alerts tests/monitoring/faults.py
campaign readers cargo test --locked --lib fuzzing -- --nocapture
if [ -n "${TILECATCHER_LONG:-}" ]; then
    campaign fuzz tests/fuzz/run.sh --long
    campaign fuzz-asan tests/fuzz/run.sh --asan
    campaign miri tests/miri.sh
    # Ask a Debian mirror; need root, debootstrap and systemd-container.
    campaign package deploy/test-deb.sh --profile release
    campaign service deploy/test-service.sh --profile release
    campaign power-cuts tests/power-cut/run.sh --cuts 3
fi

printf '\n%s\n' "${results[@]}"
exit "$failed"
