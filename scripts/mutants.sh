#!/usr/bin/env bash
# Shows that every law of the core's simulator notices something: each mutant of scripts/mutants.txt is a
# small change of src/core that the law it names must notice by itself (OFFSHOOT_LAW).
#
# usage: scripts/mutants.sh [name ...]      all mutants, or only those named
#
# The core is built as a crate of its own in a temporary directory (MUTANTS_TARGET keeps the build products
# between runs), so nothing here is changed and the rest of the crate need not compile.
set -euo pipefail
shopt -u patsub_replacement 2>/dev/null || true

root=$(cd "$(dirname "$0")/.." && pwd)
table=$root/scripts/mutants.txt
worlds=${MUTANTS_WORLDS:-40000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=${MUTANTS_TARGET:-$work/target} RUST_BACKTRACE=0 CARGO_TERM_COLOR=never

mkdir -p "$work/crate/src"
cp "$root/src/ids.rs" "$work/crate/src/"
# The dependencies that the core needs, as the package itself states them.
{
    printf '[package]\nname = "mutant"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n'
    grep -E '^(rustc-hash|serde) = ' "$root/Cargo.toml"
    printf '[profile.dev]\nopt-level = 1\ndebug = false\n'
} >"$work/crate/Cargo.toml"
printf '#![allow(dead_code, unused)]\nmod core;\npub mod ids;\n' >"$work/crate/src/lib.rs"
[ -f "$root/Cargo.lock" ] && cp "$root/Cargo.lock" "$work/crate/"

passed=0 failed=0

report() { # verdict name killed_by seed
    printf '%-6s %-34s %-34s %s\n' "$1" "$2" "$3" "$4"
    if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

fresh_core() {
    rm -rf "$work/crate/src/core"
    cp -r "$root/src/core" "$work/crate/src/"
}

# Replaces the one place where $2 stands in the core's file $1 by $3; fails if there is not exactly one.
mutate() {
    local path=$work/crate/src/core/$1 text before after
    [ -f "$path" ] || return 1
    text=$(<"$path")
    before=${text%%"$2"*}
    [ "$before" != "$text" ] || return 1
    after=${text#*"$2"}
    [ "${after%%"$2"*}" = "$after" ] || return 1
    printf '%s\n' "$before$3$after" >"$path"
}

build() {
    (cd "$work/crate" && cargo test --offline --lib --no-run) >"$work/build" 2>&1
}

run_law() { # law
    local filter=core::sim
    case $1 in scenario\ *) filter=${1#scenario } ;; esac
    case $1 in scenario\ *) ;; *) export OFFSHOOT_LAW=$1 ;; esac
    (cd "$work/crate" && OFFSHOOT_WORLDS=$worlds timeout 120 cargo test --offline --lib -- "$filter") \
        >"$work/run" 2>&1 || true
    unset OFFSHOOT_LAW
}

# What stopped the tests, and in which world.
killer() { # law
    case $1 in
        scenario\ *) grep -q "^test .*${1#scenario }.* FAILED" "$work/run" && echo "$1" ;;
        tables_agree) grep -qE "panicked at .*core/" "$work/run" && echo tables_agree ;;
        *) grep -qE "^oracle $1:" "$work/run" && echo "$1" ;;
    esac
}

try_mutant() { # name file from to law
    fresh_core
    if ! mutate "$2" "$3" "$4"; then
        report FAILED "$1" "text not found exactly once in $2" -
    elif ! build; then
        report FAILED "$1" "does not compile" -
        grep -m1 -A4 '^error' "$work/build" | sed 's/^/       /'
    else
        run_law "$5"
        local by seed
        by=$(killer "$5" || true)
        seed=$(sed -n 's/^world \([0-9]*\) failed.*/\1/p' "$work/run" | sort -n | head -1)
        if [ -n "$by" ]; then report ok "$1" "$by" "${seed:--}"; else
            report FAILED "$1" "survives $5" "${seed:--}"
            grep -m1 -A1 'panicked at' "$work/run" | sed 's/^/       /' || true
        fi
    fi
}

is_wanted() { # name, then the names asked for
    local name=$1 wanted
    shift
    [ $# -eq 0 ] && return 0
    for wanted in "$@"; do [ "$wanted" = "$name" ] && return 0; done
    return 1
}

printf '%-6s %-34s %-34s %s\n' '' mutant 'killed by' seed
name='' file='' from='' to='' law=''
while IFS= read -r line || [ -n "$line" ]; do
    case $line in
        'mutant: '*) name=${line#mutant: } file='' from='' to='' law='' ;;
        'file: '*) file=${line#file: } ;;
        'from: '*) from=${line#from: } ;;
        'to: '*) to=${line#to: } ;;
        'to:') to='' ;;
        'law: '*)
            law=${line#law: }
            if is_wanted "$name" "$@"; then try_mutant "$name" "$file" "$from" "$to" "$law"; fi
            ;;
        '#'* | '') ;;
        *) echo "mutants.txt: not understood: $line" >&2 && exit 2 ;;
    esac
done <"$table"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
