#!/usr/bin/env bash
# Runs a command on a host named h1 that has another one, h2, beside it; both are made of namespaces of this machine:
#
#     scripts/fake-hosts.sh COMMAND [ARGUMENT...]
#
# Each has its name, its processes, its shared memory and its end of a cable; they share the file system, as the hosts
# of a cluster do. A third name, h3, is a host that does not answer. The MPIs are told of the remote shell that leads
# to h2; like ssh it hands no variables on. The exit code is the command's, or 70 if a process was left on either host
# five seconds after it. Needs root, util-linux and iproute2. Nothing is written outside of the namespaces, and when
# this ends, however it does, the kernel ends everything in them.
set -euo pipefail
NAMESPACES=(--net --mount --uts --ipc --pid --fork --kill-child --propagation private)
FOLDER=/run/fake-hosts
PATIENCE=5

main() {
    if [[ ${1:-} != --inside ]]; then
        exec unshare "${NAMESPACES[@]}" "${BASH_SOURCE[0]}" --inside "$@"
    fi
    shift
    export PATH=$PATH:/usr/sbin:/sbin
    make_files
    become h1
    start_other_host
    connect
    remote_shell >"$FOLDER/remote-shell"
    chmod +x "$FOLDER/remote-shell"
    export OMPI_MCA_plm_rsh_agent=$FOLDER/remote-shell HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$FOLDER/remote-shell
    export I_MPI_HYDRA_BOOTSTRAP=ssh I_MPI_HYDRA_BOOTSTRAP_EXEC=$FOLDER/remote-shell

    local code=0
    # A host that MPICH ends takes its process group along, and must not take this script.
    setsid --wait "$@" || code=$?
    wait_for_the_end || code=70
    exit "$code"
}

# A file system in memory that only these namespaces see.
make_files() {
    mount -t tmpfs tmpfs /run
    mkdir "$FOLDER"
    printf '%s\n' '127.0.0.1 localhost' '10.99.0.1 h1' '10.99.0.2 h2' '10.99.0.3 h3' >"$FOLDER/hosts"
    mount --bind "$FOLDER/hosts" /etc/hosts
}

# What a new set of namespaces lacks.
become() {
    hostname "$1"
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys 2>/dev/null || true # Shows the network devices of this host; some kernels refuse.
    mount -t tmpfs tmpfs /dev/shm
    ip link set lo up
}

start_other_host() {
    declare -f become >"$FOLDER/become"
    unshare "${NAMESPACES[@]}" bash -c "source $FOLDER/become; become h2; touch $FOLDER/up
        while true; do sleep 3600; done" </dev/null &
    local keeper=$!
    until [[ -e $FOLDER/up ]]; do
        sleep 0.01
    done
    read -r OTHER <"/proc/$keeper/task/$keeper/children" || true # The line has no end.
    ours=" 1 $keeper $OTHER "
}

connect() {
    ip link add eth0 type veth peer name eth0 netns "$OTHER"
    ip addr add 10.99.0.1/24 dev eth0
    ip link set eth0 up
    nsenter -t "$OTHER" -n sh -c 'ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up'
    # UCX passes over a device that is not up yet.
    until [[ $(ip -br link show eth0) == *' UP '* && $(nsenter -t "$OTHER" -n ip -br link show eth0) == *' UP '* ]]; do
        sleep 0.01
    done
}

# A remote shell: [OPTION...] HOST COMMAND..., as much of ssh as MPIs use. The tests know their processes by one variable.
remote_shell() {
    cat <<SHELL
#!/usr/bin/env bash
while [[ \${1:-} == -* ]]; do
    [[ \$1 != -[oplFi] ]] || shift
    shift
done
host=\$1
shift
own=(env -i "HOME=\${HOME:-/}" "PATH=/usr/local/bin:/usr/bin:/bin" "OFFSHOOT_SCENARIO=\${OFFSHOOT_SCENARIO:-}" sh -c "\$*")
case \$host in
    h1) exec "\${own[@]}" ;;
    h2) exec nsenter -t $OTHER --net --mount --uts --ipc --pid --wd=/ "\${own[@]}" ;;
    *)
        echo "no host \$host" >&2
        exit 255
        ;;
esac
SHELL
}

# Waits until nobody is left on either host but those that this script has started.
wait_for_the_end() {
    local until=$((SECONDS + PATIENCE)) left
    while left=$(others) && [[ -n $left ]]; do
        if ((SECONDS > until)); then
            echo "fake-hosts: left behind:$left" >&2
            return 1
        fi
        sleep 0.05
    done
}

others() {
    local folder pid command
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [[ $ours != *" $pid "* && $pid != "$BASHPID" ]] || continue
        command=$(tr '\0' ' ' 2>/dev/null <"$folder/cmdline") 2>/dev/null || continue
        # Zombies have no command line. The other host's first process sleeps, and this one's children look around.
        [[ -n $command && $command != 'sleep 3600 ' && $command != *fake-hosts.sh* ]] || continue
        echo -n " $pid ($command)"
    done
}

main "$@"
