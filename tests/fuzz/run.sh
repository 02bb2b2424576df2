#!/usr/bin/env bash
# Runs the fuzz targets, one on each core, each on its corpus. Ends with 1 when one finds something.
#
#   tests/fuzz/run.sh [--seconds N | --long] [--asan] [TARGET...]
#
# --seconds N   so long for each target (60)
# --long        10 million executions of each target instead: hours
# --asan        under AddressSanitizer: ten to fifty times slower, for the unsafe code that a few targets reach (src/lib.rs
#               has the list); the others fail by themselves, or not at all
#
# Installs cargo-fuzz when it is missing. Where it can not be had, it says so and ends with 0: `cargo test --lib fuzzing`
# holds the same properties for fewer inputs. What a run found new is kept in tests/fuzz/target/corpus; a failing input in
# tests/fuzz/target/artifacts. A failure that was mended belongs into tests/fuzz/corpus/TARGET, with a name that says what
# it was.
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=0.13.2
# What takes longest comes first, so that the cores end together.
SLOW="journal_open csv facts config manifest wire_stream tiff"
ALL=$(sed -n 's/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml | grep -v tilecatcher)

seconds=60
long=
sanitizer=none
target_dir=$PWD/tests/fuzz/target
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2; shift ;;
    --long) long=1 ;;
    --asan) sanitizer=address target_dir=$target_dir/asan ;;
    -*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) targets+=("$1") ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(printf '%s\n' $SLOW $ALL | awk '!seen[$0]++')

if ! cargo fuzz --version >/dev/null 2>&1 && ! cargo install --quiet --locked cargo-fuzz --version $VERSION; then
    echo "no cargo-fuzz, and it can not be installed: not fuzzed; \`cargo test --lib fuzzing\` covers the same properties" >&2
    exit 0
fi
# The sanitizer's flags are for nightly only; the stable compiler, the one that builds the project, knows them, too.
export RUSTC_BOOTSTRAP=1

# What runs for an hour is worth compiling longer: a start of a journal runs three times as often.
[ -z "$long" ] || export CARGO_PROFILE_RELEASE_OPT_LEVEL=3
# One codegen unit, cargo-fuzz's default, compiles on one core.
cargo fuzz build --fuzz-dir tests/fuzz --codegen-units 16 --target-dir "$target_dir" --sanitizer $sanitizer
programs=$target_dir/$(rustc -vV | sed -n 's/^host: //p')/release

# The whole of what a target may hold, its fuzzer and AddressSanitizer's own memory among it.
limits="-rss_limit_mb=256 -timeout=10 -max_len=16384 -print_final_stats=1 -verbosity=0"
if [ -n "$long" ]; then
    limits="$limits -runs=10000000"
else
    limits="$limits -max_total_time=$seconds"
fi
# What was freed is kept back by AddressSanitizer, up to 256 MB by default: that would count, too.
export ASAN_OPTIONS=quarantine_size_mb=16:malloc_context_size=5:${ASAN_OPTIONS:-}

# Its line is printed whole when it is done; a target that found something is named in the file of failures.
fuzz() {
    local target=$1
    local corpus=tests/fuzz/target/corpus/$target artifacts=tests/fuzz/target/artifacts/$target/ began took runs rss
    mkdir -p "$corpus" "$artifacts"
    local dictionary=tests/fuzz/dictionaries/$target.dict
    [ -e "$dictionary" ] && dictionary=-dict=$dictionary || dictionary=
    began=$(date +%s)
    # shellcheck disable=SC2086 # several words
    if ! "$programs/$target" "$corpus" "tests/fuzz/corpus/$target" \
        -artifact_prefix="$artifacts" $limits $dictionary >"$artifacts/log" 2>&1; then
        echo "$target" >>"$failures"
        tail -40 "$artifacts/log"
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$artifacts/log")
    rss=$(sed -n 's/^stat::peak_rss_mb: *//p' "$artifacts/log")
    took=$(($(date +%s) - began))
    echo "$target: ${runs:-0} executions in $took s, $((${runs:-0} / (took + 1)))/s, ${rss:-?} MB"
}
failures=$(mktemp)
trap 'rm -f "$failures"' EXIT
export -f fuzz
export failures limits programs
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'fuzz {}'
mapfile -t failed <"$failures"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}; inputs in tests/fuzz/target/artifacts" >&2
    exit 1
fi
echo "${#targets[@]} targets, nothing found"
