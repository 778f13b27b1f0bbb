#!/usr/bin/env bash
# Tries spawns under difficulties (tests/mpi_spawn.rs) and `offshoot doctor` on every MPI of the matrix, or on those named,
# and prints what came of it as a table, the one that docs/MPI.md shows. Exits 1 if anything failed.
#
#     scripts/matrix.sh [MPI ...]
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$scripts/mpi-names.sh"
shopt -u patsub_replacement 2>/dev/null || true

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main() {
    local name wanted=("$@") names=()
    [[ $# -gt 0 ]] || wanted=(openmpi-4.1 openmpi-5.0 mpich-5.0 mpich-4.3 intel-2021)
    for name in "${wanted[@]}"; do names+=("$(mpi_canonical "$name")"); done
    cd "$PROJECT_ROOT"
    for name in "${names[@]}"; do try "$name"; done
    table "${names[@]}"
    ! grep -q FAIL "$work"/*.rows
}

# One line for each test, "PASS name" or "FAIL name", and one for the doctor with its seconds.
try() {
    local name=$1 began rest
    echo "matrix: $name" >&2
    "$scripts/setup.sh" "$name"
    version "$name" >"$work/$name.version"
    # A test that fails is a row of the table.
    "$scripts/with-mpi.sh" "$name" cargo nextest run --color never --no-fail-fast \
        -E 'binary(mpi_spawn)' >"$work/log" 2>&1 </dev/null || true
    sed -nE 's/^ +(PASS|FAIL|TIMEOUT|SIG[A-Z]+) \[.*offshoot::mpi_spawn ([a-z0-9_]+)$/\1 \2/p' "$work/log" |
        sed -E 's/^(TIMEOUT|SIG[A-Z]+)/FAIL/' | sort -u >"$work/$name.rows"
    [[ -s $work/$name.rows ]] || { cat "$work/log" >&2; echo "FAIL build" >"$work/$name.rows"; }

    "$scripts/with-mpi.sh" "$name" cargo build --quiet --bin offshoot
    began=$(date +%s%N)
    rest=PASS
    "$scripts/with-mpi.sh" "$name" bash -c 'setsid --wait timeout -k 1 10 "$CARGO_TARGET_DIR/debug/offshoot" doctor' \
        >"$work/doctor" 2>&1 </dev/null || { rest=FAIL; cat "$work/doctor" >&2; }
    printf '%s doctor %d.%d\n' "$rest" $((($(date +%s%N) - began) / 1000000000)) \
        $((($(date +%s%N) - began) / 100000000 % 10)) >>"$work/$name.rows"
}

# What the set-up found out when it checked the installation.
version() {
    tail -n 1 "$PROJECT_ROOT/.mpi/.checked-$1" | sed -E 's/, package.*//; s/[[:space:]]+/ /g; s/ for Linux.*//'
}

table() {
    local name row mark
    printf '| |'
    for name in "$@"; do printf ' %s |' "$(cat "$work/$name.version")"; done
    printf '\n| --- |'
    for name in "$@"; do printf ' --- |'; done
    printf '\n'
    cut -d ' ' -f 2 "$work"/*.rows | sort -u | grep -v '^doctor$' | while read -r row; do
        printf '| %s |' "${row//_/ }"
        for name in "$@"; do
            mark=$(sed -nE "s/^(PASS|FAIL) $row\$/\1/p" "$work/$name.rows")
            case $mark in PASS) printf ' ok |' ;; FAIL) printf ' **FAILED** |' ;; *) printf ' - |' ;; esac
        done
        printf '\n'
    done
    printf '| `offshoot doctor`, seconds |'
    for name in "$@"; do
        sed -nE 's/^PASS doctor (.*)/ \1 |/p; s/^FAIL doctor (.*)/ **FAILED** after \1 |/p' "$work/$name.rows" | tr -d '\n'
    done
    printf '\n'
}

main "$@"
