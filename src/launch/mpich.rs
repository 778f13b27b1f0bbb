//! MPICH: a singleton starts `mpiexec -pmi_args …`, the first one in `PATH`, and waits for it without a
//! time-out. Another MPI's `mpiexec` in that place is a hang.

use std::time::Duration;

use super::family::{
    Agent, Family, Farewell, Launcher, OwnManager, Placement, Refusal, Release, Setting, Survivable, Value,
    When,
};
use super::manager::ProcessManager;
use super::transport::uses_library;
use crate::wire::flow::Flow;

pub(super) const FAMILY: Family = Family {
    name: "MPICH",
    recognizes: |version| version.starts_with("MPICH Version"),
    refuses: |version| {
        number(version).starts_with("4.0.").then_some(Refusal {
            reason: "MPICH 4.0, as Debian 12 has it, cannot spawn from a process that was started plainly: its \
                     mpiexec lacks `-pmi_args`",
            remedy: "install another MPI: `apt-get install libopenmpi-dev openmpi-bin`, or `pip install mpich`",
        })
    },
    environment: &[Setting {
        name: "SLURM_OVERLAP",
        value: Value::Set("1"),
        when: When::Slurm,
        why: "hydra starts its proxies with `srun`, which waits for the cores that the host's own step holds",
    }],
    unsought: &[],
    spawn_info: &[],
    secret_variable: None,
    environment_key: None,
    launcher: Launcher {
        names: &["mpiexec", "mpiexec.mpich", "mpiexec.hydra"],
        daemons: HYDRA,
        needs_decoy: true,
        is_told_by_pmix: false,
    },
    own_manager: |version| match number(version) {
        number if ["4.3", "5.0"].contains(&number.rsplit_once('.').map_or(number, |(series, _)| series)) => {
            OwnManager::Tried
        }
        _ => OwnManager::Untried,
    },
    placement: Placement::Keys {
        keys: &["host"],
        own_host_first: false,
        agent: Agent {
            variable: "HYDRA_LAUNCHER_EXEC",
            only_with: Some(("HYDRA_LAUNCHER", &["ssh", "rsh"])),
            default: "ssh",
        },
        outlives_hosts: true,
    },
    spawns_aside: false,
    spawn_thread: "workers start beside running work, and are met when they have; with hydra that stands still meanwhile",
    survivable: Ok(Survivable {
        component: "libfabric",
        is_there: |installation| uses_library(installation, "libfabric.so", b"provider_path"),
        environment: &[
            Setting { name: "MPIR_CVAR_CH4_NETMOD", value: Value::Set("ofi"), when: When::Always, why: TCP },
            Setting { name: "FI_PROVIDER", value: Value::Set("tcp"), when: When::Always, why: TCP },
        ],
        host_only: MOMENTARY,
        flow: Some(PORTIONS),
        of_job: None,
    }),
    containment: "the guard, which finalizes in a dead worker's place, and a decoy for the host; the death of a guard \
                  ends all workers",
    gap: |manager| match manager {
        ProcessManager::Own => None,
        ProcessManager::Launcher => Some(HYDRAS_GAP),
    },
    farewell: Farewell { finalizes_after_loss: true },
    release: Release::StandIn,
    needs_burial: false,
    hurries_daemon: false,
    greeting: Duration::ZERO,
    breaks_with_connections: true,
    linger: Duration::from_millis(100),
    spawn_pause: Duration::ZERO,
    jam_limit: None,
    segments: &["mpich_shm_"],
    segments_of_job: &["mpich_shm_"],
    scratch: None,
    needs_temporary_directory: false,
    interface_variables: &["HYDRA_IFACE", "FI_TCP_IFACE"],
};

/// The number in what a library says of itself, set apart by spaces or tabs, as many as its author liked.
fn number(version: &str) -> &str {
    version.split_whitespace().nth(2).unwrap_or_default()
}

/// The library aborts its process at every error of libfabric, thus when a peer dies in the middle of a
/// message. What fits into the buffers of a TCP connection is never in the middle.
const PORTIONS: Flow = Flow { message_max: 16 << 10, window: 48 << 10 };

/// A guard or worker must not have it: what it would give up after so many tries is its first connection.
const MOMENTARY: &[Setting] = &[Setting {
    name: "MPIR_CVAR_CH4_OFI_MAX_EAGAIN_RETRY",
    value: Value::Set("2000"),
    when: When::Always,
    why: "otherwise a message to a worker that has just died is tried for ever, in a call that never returns",
}];

const TCP: &str =
    "over UCX, its own choice, the MPI aborts a host whose worker dies in the middle of a transfer";

/// What hydra and `MPI_Comm_spawn` in one do not survive.
pub(super) const HYDRAS_GAP: &str = "the death of a guard ends all workers, and that of a worker while it and this process connect may \
                                     leave MPI_Comm_spawn waiting for ever, or end this process";

/// What hydra, the process manager of MPICH and Intel MPI, consists of.
pub(super) const HYDRA: &[&str] = &["mpiexec", "mpiexec.hydra", "hydra_pmi_proxy", "hydra_bstrap_proxy"];

#[cfg(test)]
mod tests {
    use super::FAMILY;

    #[test]
    fn the_one_that_cannot_spawn_is_refused() {
        let debian = "MPICH Version:      4.0.2\nMPICH Release date: Thu Apr  7 12:34:45 CDT 2022\n";
        assert!((FAMILY.recognizes)(debian) && (FAMILY.refuses)(debian).is_some());
        for version in ["MPICH Version:\t5.0.2\n", "MPICH Version:      4.3.2\n"] {
            assert!((FAMILY.recognizes)(version) && (FAMILY.refuses)(version).is_none(), "{version}");
        }
    }
}
