#!/usr/bin/env bash
# Prints the processes that a test run left alive, and exits 1 if there are any. Kills nothing.
#
#     OFFSHOOT_TEST_RUN=some-id cargo nextest run ...; scripts/leftovers.sh some-id [SECONDS]
#
# An orted outlives a clean MPI_Finalize by up to a second or two, so it looks again for SECONDS (5) before it complains.
# Whatever a test starts (hosts, guards, workers, and the daemons of its MPI: orted, prted, mpiexec, hydra_pmi_proxy)
# inherits OFFSHOOT_TEST_RUN, however its parentage, session or process group changes; so that is the mark looked for,
# and a process of anybody else's is never named. Zombies have ended and do not count.
set -euo pipefail

mark="OFFSHOOT_TEST_RUN=${1:?usage: leftovers.sh ID [SECONDS]}"
deadline=$((SECONDS + ${2:-5}))

main() {
    local alive
    while alive=$(leftovers) && [[ -n $alive && $SECONDS -lt $deadline ]]; do
        sleep 0.2
    done
    [[ -z $alive ]] || { echo "$alive"; exit 1; }
}

leftovers() {
    local asking folder pid parent state
    asking=$(ancestors)
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [[ $asking != *" $pid "* ]] || continue
        # A process may end while it is looked at, and others' environments are not readable.
        grep -qzxF -- "$mark" "$folder/environ" 2>/dev/null || continue
        read -r state parent < <(awk '$1 == "State:" { s = $2 } $1 == "PPid:" { p = $2 } END { print s, p }' \
            "$folder/status" 2>/dev/null) || continue
        [[ -n $state && $state != Z ]] || continue
        printf 'still alive: pid %s parent %s state %s: %s\n' "$pid" "$parent" "$state" \
            "$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | cut -c 1-160)"
    done
}

# Whoever asks may carry the mark as well: neither this script nor its ancestors are leftovers.
ancestors() {
    local pid=$BASHPID
    while [[ $pid -gt 1 ]]; do
        printf ' %s ' "$pid"
        pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
    done
}

main
