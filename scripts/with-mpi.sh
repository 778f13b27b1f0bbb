#!/usr/bin/env bash
# Runs a command in the environment of one MPI, which setup.sh must have set up:
#
#     scripts/with-mpi.sh mpich-5 cargo nextest run
set -euo pipefail
settings=$("$(dirname "${BASH_SOURCE[0]}")/mpi-env.sh" "$1")
shift
eval "$settings"
exec "$@"
