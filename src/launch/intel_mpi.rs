//! Intel MPI: MPICH's relative, with a switch for spawning, and a `MPI_Finalize` of its own.

use super::family::{Family, Farewell, Launcher, Placement, Release, Setting, Survivable, Value, When};
use super::mpich::{HYDRA, MOMENTARY, PORTIONS};
use super::transport::uses_library;

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
    spawn_info: &[],
    secret_variable: None,
    environment_key: None,
    launcher: Launcher { names: &["mpiexec", "mpiexec.hydra"], daemons: HYDRA, needs_decoy: true },
    placement: Placement::OwnHostOnly(
        "several hosts are untried with Intel MPI: use Open MPI 4.1 or MPICH, or name this host alone",
    ),
    spawn_thread: "untried",
    survivable: Ok(Survivable {
        component: "libfabric",
        is_there: |installation| uses_library(installation, "libfabric.so", b"provider_path"),
        environment: &[
            Setting { name: "I_MPI_FABRICS", value: Value::Set("ofi"), when: When::Always, why: TCP },
            Setting { name: "FI_PROVIDER", value: Value::Set("tcp"), when: When::Always, why: TCP },
        ],
        host_only: MOMENTARY,
        flow: Some(PORTIONS),
    }),
    containment: "the guard, which finalizes in a dead worker's place, and a decoy for the host; the death of a guard \
                  ends all workers",
    // It waits for ever for the worker that was not disconnected.
    farewell: Farewell { finalizes_after_loss: false },
    release: Release::StandIn,
    segments: &["Intel_MPI_"],
    needs_temporary_directory: false,
    interface_variables: &["I_MPI_HYDRA_IFACE", "FI_TCP_IFACE"],
};

const TCP: &str =
    "over another transport, a host whose worker dies in the middle of a transfer is aborted or hangs";
