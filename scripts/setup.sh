#!/usr/bin/env bash
# Installs whatever is missing to build, run and test offshoot with one MPI, and nothing else:
#
#     scripts/setup.sh [--build-only | --fuzz | --for-peers] [MPI]
#
# MPI is one of the names in mpi-names.sh; `system` (the default) is the MPI that is already there, found through MPICC
# or as `mpicc` in PATH, or else Debian's Open MPI. MPIs from PyPI go into the ignored folder .mpi/. Does nothing, in
# well under a second, when everything is there. --build-only leaves out what only the tests need; --fuzz installs instead
# of that what only the fuzzer needs, --for-peers what offshoot is compared with and pip does not have.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$scripts/mpi-names.sh"

main() {
    local purpose=tests name
    case ${1:-} in
        --build-only) purpose=build ;;
        --fuzz) purpose=fuzz ;;
        --for-peers) purpose=peers ;;
    esac
    if [[ $purpose != tests ]]; then
        shift
    fi
    name=$(mpi_canonical "${1:-system}")

    mkdir -p "$PROJECT_ROOT/.mpi"
    exec 9>"$PROJECT_ROOT/.mpi/.lock"
    flock 9 # Two set-ups at once would install into one folder.

    need_rust
    need_c_compiler
    need_libclang
    case $name in
        system) need_system_mpi ;;
        openmpi-4.1) need_debian_open_mpi ;;
        abi-*)
            need_wheel mpich-5.0 # Has the header, whatever it runs with.
            need_wheel "${name#abi-}"
            ;;
        *) need_wheel "$name" ;;
    esac
    check_mpi "$name"
    forget_build_with_another_mpi "$name"
    case $purpose in
        build) ;;
        tests)
            need_nextest
            need_iproute2
            ;;
        fuzz) need_fuzzer ;;
        peers) need_peers ;;
    esac
}

need_rust() {
    command -v cargo >/dev/null || fail "Rust is missing: install it with rustup or your distribution, 1.88 or newer."
}

need_c_compiler() {
    command -v cc >/dev/null || install_packages "a C compiler" gcc libc6-dev
}

# mpi-sys makes its bindings with bindgen, which loads libclang and needs its headers.
need_libclang() {
    find_libclang || install_packages "libclang (for bindgen)" libclang-dev
}

find_libclang() {
    local folder library
    for folder in ${LIBCLANG_PATH:-} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib; do
        for library in "$folder"/libclang.so "$folder"/libclang.so.* "$folder"/libclang-[0-9]*.so*; do
            [[ ! -e $library ]] || return 0
        done
    done
    command -v llvm-config >/dev/null && [[ -e $(llvm-config --libdir)/libclang.so ]]
}

need_system_mpi() {
    if [[ -n ${MPICC:-} ]]; then
        command -v "$MPICC" >/dev/null || fail "MPICC is '$MPICC', which is no command: correct or unset it."
    else
        command -v mpicc >/dev/null || install_packages "an MPI" libopenmpi-dev openmpi-bin
    fi
}

need_debian_open_mpi() {
    local bin tool
    bin=$(mpi_folder openmpi-4.1)/bin
    if ! command -v mpicc.openmpi >/dev/null || ! command -v orted >/dev/null; then
        install_packages "Open MPI" libopenmpi-dev openmpi-bin
    fi
    [[ ! -x $bin/mpiexec ]] || return 0
    mkdir -p "$bin"
    for tool in mpicc mpirun mpiexec; do
        printf '#!/bin/sh\nexec %s.openmpi "$@"\n' "$tool" >"$bin/$tool"
        chmod +x "$bin/$tool"
    done
}

need_wheel() {
    local name=$1 folder package log
    folder=$(mpi_folder "$name")
    package=$(mpi_package "$name")
    # The folder's own path is part of the mark, since a virtual environment cannot be moved.
    [[ $(cat "$folder/.installed" 2>/dev/null) != "$package in $folder" ]] || return 0

    log=$PROJECT_ROOT/.mpi/$name.log
    say "installing $package into .mpi/$name"
    rm -rf "$folder"
    if ! python3 -m venv "$folder" >"$log" 2>&1; then
        install_packages "Python's venv" python3-venv python3-pip
        rm -rf "$folder"
        python3 -m venv "$folder" >"$log" 2>&1 || fail "python3 -m venv failed, see .mpi/$name.log."
    fi
    "$folder/bin/python3" -m pip install --quiet --disable-pip-version-check "$package" >>"$log" 2>&1 ||
        fail "pip could not install $package, see .mpi/$name.log."
    # Python was only the courier: its launchers must not come before the user's own in PATH.
    rm -f "$folder"/bin/python* "$folder"/bin/pip* "$folder"/bin/[aA]ctivate*
    echo "$package in $folder" >"$folder/.installed"
}

# Compiles and runs five lines of C: the wrapper works, the library loads, and it is the one that its name says.
check_mpi() {
    local name=$1 folder mark wrapper program answer
    mark=$PROJECT_ROOT/.mpi/.checked-$name
    wrapper=$("$scripts/with-mpi.sh" "$name" bash -c 'echo "$MPICC"; "$MPICC" -show') ||
        fail "the compiler wrapper of $name does not answer to -show; set MPICC to one that does."
    # Nothing is compiled again as long as wrapper and library are the ones that were checked.
    if [[ -e $mark && $(head -n -1 "$mark") == "$wrapper" ]]; then
        return 0
    fi

    folder=$(mktemp -d)
    program=$folder/version
    cat >"$program.c" <<'C'
#include <mpi.h>
#include <stdio.h>
int main(void) {
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    return puts(text) < 0;
}
C
    "$scripts/with-mpi.sh" "$name" bash -c '"$MPICC" "$0.c" -o "$0"' "$program" 2>"$folder/log" ||
        fail "the compiler wrapper of $name cannot compile a program: $(tail -n 1 "$folder/log")"
    answer=$("$scripts/with-mpi.sh" "$name" timeout -k 1 20 "$program" 2>&1 </dev/null | head -n 1) || true
    rm -rf "$folder"
    grep -qE "$(mpi_signature "$name")" <<<"$answer" ||
        fail "$name is not what it should be: its library says '${answer:-nothing}'. Install the right one, or choose another with MPI=."
    case $answer in
        "MPICH Version:"*[[:space:]]4.0.*) say "warning: $answer cannot spawn from a plain process; choose another with MPI=." ;;
    esac
    printf '%s\n%s\n' "$wrapper" "$answer" >"$mark"
    say "$name is $answer"
}

# The build script of mpi-sys does not notice another MPI, so what it made for the old one is removed.
forget_build_with_another_mpi() {
    local name=$1 target mark checked
    target=$("$scripts/with-mpi.sh" "$name" printenv CARGO_TARGET_DIR)
    mark=$target/.built-with
    checked=$(<"$PROJECT_ROOT/.mpi/.checked-$name")
    if [[ $name == abi-* ]]; then
        checked=$(head -n -1 <<<"$checked") # Without the last line, the library's answer: one build for all of them.
    fi
    if [[ -e $mark && $(<"$mark") != "$checked" ]]; then
        say "another MPI than before: $target is made anew"
        rm -rf "$target"
    fi
    mkdir -p "$target"
    echo "$checked" >"$mark"
}

need_nextest() {
    command -v cargo-nextest >/dev/null && return 0
    say "installing cargo-nextest, which takes some minutes"
    cargo install --quiet --locked cargo-nextest ||
        fail "cargo-nextest could not be installed: install it by hand, then try again."
}

# The fuzzer works with sanitizers, which only a nightly compiler has.
need_fuzzer() {
    command -v rustup >/dev/null || fail "rustup is missing, which the fuzzer's compiler is chosen with: install it."
    if ! rustup toolchain list | grep -q '^nightly'; then
        say "installing the nightly toolchain of Rust"
        rustup toolchain install nightly --profile minimal >/dev/null ||
            fail "the nightly toolchain could not be installed: run 'rustup toolchain install nightly' by hand."
    fi
    command -v c++ >/dev/null || install_packages "a C++ compiler (for libFuzzer)" g++
    command -v cargo-fuzz >/dev/null && return 0
    say "installing cargo-fuzz"
    cargo install --quiet --locked cargo-fuzz ||
        fail "cargo-fuzz could not be installed: install it by hand, then try again."
}

# The test with two hosts makes them of network namespaces, as root; elsewhere it is skipped, and says so.
need_iproute2() {
    if [[ $(id -u) == 0 ]] && ! PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null; then
        install_packages "iproute2 (for the test with two hosts)" iproute2
    fi
}

need_peers() {
    command -v parallel >/dev/null || install_packages "GNU parallel (to compare with)" parallel
    python3 -c 'import ensurepip' 2>/dev/null || install_packages "Python's venv" python3-venv python3-pip
}

# install_packages WHAT PACKAGE...: with apt-get, as root or through sudo, or says what is to be done by hand.
install_packages() {
    local what=$1 as_root=()
    shift
    command -v apt-get >/dev/null || fail "$what is missing: install what Debian calls '$*' with your package manager."
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null || fail "$what is missing: as root, run 'apt-get install $*'."
        as_root=(sudo)
    fi
    say "installing $what: $*"
    "${as_root[@]}" apt-get update -qq >/dev/null || say "apt-get update failed; trying with the old lists"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        fail "$what is missing and could not be installed: run 'apt-get install $*' by hand."
}

say() {
    echo "setup: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

main "$@"
