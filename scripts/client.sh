#!/usr/bin/env bash
# Builds a host without MPI as on a machine that has none, and runs it with the parent and the workers of another program:
#
#     scripts/with-mpi.sh mpich-5 scripts/client.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

main() {
    cargo build --quiet --example scenario_worker
    local worker=$PWD/${CARGO_TARGET_DIR#"$PWD/"}/debug/examples/scenario_worker
    [[ $CARGO_TARGET_DIR != /* ]] || worker=$CARGO_TARGET_DIR/debug/examples/scenario_worker
    local targets host
    targets=$(dirname "$worker")/../../../client
    empty=$(mktemp -d)
    trap 'rm -rf "$empty"' EXIT
    without_mpi "$empty"

    env -u MPICC -u LD_LIBRARY_PATH PATH="$empty" CARGO_TARGET_DIR="$targets" RUSTFLAGS="-D warnings" \
        cargo build --quiet --no-default-features --features client --lib --bins --example client_host --example quickstart
    host=$targets/debug/examples/client_host
    if readelf -d "$host" | grep -E 'NEEDED.*(mpi|pmi|orte|open-pal)'; then
        echo "client: the host is linked with an MPI" >&2
        exit 1
    fi
    timeout -k 1 60 "$host" "$worker"
    # A client that is taken for a worker says what it is.
    if OFFSHOOT_ROLE=worker timeout -k 1 10 "$host" 2>"$empty/said" || ! grep -q 'built without MPI' "$empty/said"; then
        echo "client: a host that is taken for a worker does not say what it is" >&2
        exit 1
    fi
    echo "client: built without MPI, and works"
}

# A folder with everything that is in PATH, but for compiler wrappers and launchers of an MPI.
without_mpi() {
    local folder file
    while read -r -d : folder; do
        for file in "$folder"/*; do
            case ${file##*/} in
                mpi* | orte* | orted | prte* | hydra* | pmi* | ompi* | oshmem* | shmem*) ;;
                *) [[ -e $1/${file##*/} || ! -x $file ]] || ln -s "$file" "$1/${file##*/}" ;;
            esac
        done
    done <<<"$PATH:"
}

main
