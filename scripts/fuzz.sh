#!/usr/bin/env bash
# Gives every decoder of bytes from other processes what the fuzzer makes up, one decoder after the other:
#
#     scripts/with-mpi.sh NAME scripts/fuzz.sh SECONDS [DECODER...]
#
# SECONDS is for all of them together. What they have in common with the tests is in src/fuzzing.rs, whose names these
# are. What was found interesting is kept in fuzz/corpus, what failed in fuzz/artifacts; a file of these is tried again by
#
#     OFFSHOOT_DECODER=NAME cargo +nightly fuzz run decoders FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-300}
shift || true
decoders=("$@")
if [[ ${#decoders[@]} == 0 ]]; then
    mapfile -t decoders < <(sed -nE 's/^    \("([a-z_]+)", .*\),$/\1/p' src/fuzzing.rs)
fi
each=$((seconds / ${#decoders[@]}))
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/fuzz

# The sanitizers need the newest compiler. An MPI is linked and not used.
cargo +nightly fuzz build decoders
failed=()
for decoder in "${decoders[@]}"; do
    mkdir -p "fuzz/corpus/$decoder"
    log=$(mktemp)
    OFFSHOOT_DECODER=$decoder cargo +nightly fuzz run decoders "fuzz/corpus/$decoder" -- \
        -max_total_time="$((each > 0 ? each : 1))" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        >"$log" 2>&1 || failed+=("$decoder")
    if [[ " ${failed[*]} " == *" $decoder "* ]]; then
        cat "$log"
    fi
    printf '%-20s %s tries, %s places in the code\n' "$decoder" \
        "$(sed -nE 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(sed -nE 's/.* cov: ([0-9]+) .*/\1/p' "$log" | tail -1)"
    rm -f "$log"
done
if [[ ${#failed[@]} != 0 ]]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
