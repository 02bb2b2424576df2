#!/usr/bin/env bash
# Runs the tests of what holds unsafe code, and of what reads foreign bytes through it, under Miri, which sees undefined
# behaviour: the wire's frames, the base, the model. What asks the kernel for memory (base::pool) is left out: Miri has no mmap.
#
# Needs a nightly with the components miri and rust-src. Without them it says so and ends with 0.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! rustup component list --toolchain nightly 2>/dev/null | grep -q '^miri.*(installed)' &&
    ! rustup component add --toolchain nightly miri rust-src >/dev/null 2>&1; then
    echo "no nightly with Miri, and it can not be installed: not run" >&2
    exit 0
fi
# Random tests draw from the system's generator, and look at files of the corpus.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
export PROPTEST_CASES=${PROPTEST_CASES:-8}
# The other features bring crates that none of this needs, and half of the time to build.
cargo +nightly miri test --locked --no-default-features --features daemon --lib -- base:: wire:: model:: hold_for::wire_re --skip base::pool "$@"
