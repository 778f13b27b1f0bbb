//! Intel MPI: MPICH's relative, with a switch for spawning, and a `MPI_Finalize` of its own.

use std::time::Duration;

use super::family::{Family, Farewell, Launcher, OwnManager, Placement, Release, Setting, Value, When};
use super::mpich::{HYDRA, HYDRAS_GAP};

pub(super) const FAMILY: Family = Family {
    name: "Intel MPI",
    recognizes: |version| version.starts_with("Intel(R) MPI"),
    refuses: |_| None,
    environment: &[
        Setting {
            name: "I_MPI_SPAWN",
            value: Value::Set("on"),
            when: When::Always,
            why: "MPI_Comm_spawn is off without it",
        },
        Setting {
            name: "I_MPI_ROOT",
            value: Value::Prefix,
            when: When::Always,
            why: "the library looks there for its tuning files and network libraries",
        },
    ],
    unsought: &[],
    spawn_info: &[],
    secret_variable: None,
    environment_key: None,
    launcher: Launcher {
        names: &["mpiexec", "mpiexec.hydra"],
        daemons: HYDRA,
        needs_decoy: true,
        is_told_by_pmix: false,
    },
    own_manager: |_| OwnManager::Untried,
    placement: Placement::OwnHostOnly(
        "several hosts are untried with Intel MPI: use Open MPI 4.1 or MPICH, or name this host alone",
    ),
    spawns_aside: false,
    spawn_thread: "on the MPI thread: running work stands still meanwhile",
    // What MPICH does with libfabric over TCP and messages of 4 to 16 KiB was tried, and survives most deaths but not
    // all: docs/MPI.md.
    survivable: Err("no transport of Intel MPI is known that survives it always"),
    containment: "the guard, which finalizes in a dead worker's place, and a decoy for the host; the death of a guard \
                  ends all workers",
    gap: |_| Some(HYDRAS_GAP),
    // It waits for ever for the worker that was not disconnected.
    farewell: Farewell { finalizes_after_loss: false },
    release: Release::StandIn,
    needs_burial: false,
    hurries_daemon: false,
    greeting: Duration::ZERO,
    breaks_with_connections: true,
    linger: Duration::from_millis(100),
    spawn_pause: Duration::ZERO,
    jam_limit: None,
    segments: &["Intel_MPI_"],
    segments_of_job: &[],
    scratch: None,
    needs_temporary_directory: false,
    interface_variables: &["I_MPI_HYDRA_IFACE", "FI_TCP_IFACE"],
};
