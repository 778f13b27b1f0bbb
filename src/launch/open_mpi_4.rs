//! Open MPI 4: spawns through `orted`, the first one in `PATH`.

use std::path::Path;
use std::time::Duration;

use super::family::{
    Agent, Answer, Family, Farewell, Launcher, OfJob, OwnManager, Placement, Release, Scratch, Setting,
    Survivable, Value, When,
};
use super::installation::Installation;
use crate::wire::flow::Flow;

/// One integer, as Open MPI 4 packs those that it publishes (`opal_dss_pack`): how many, of 32 bits, and that it is 1. No
/// communicator that is to be made gets a number below, and where a question is asked, it is yes.
const ONE: &[u8] = &[0, 0, 0, 1, 9, 0, 0, 0, 1];

pub(super) const FAMILY: Family = Family {
    name: "Open MPI 4",
    recognizes: |version| version.starts_with("Open MPI v4") || version.starts_with("Open MPI v3"),
    refuses: |_| None,
    environment: &[
        Setting {
            name: "OPAL_PREFIX",
            value: Value::Prefix,
            when: When::Always,
            why: "an installation that was moved, a wheel for one, looks for its files where it was built",
        },
        Setting {
            name: "OMPI_MCA_rmaps_base_oversubscribe",
            value: Value::Set("1"),
            when: When::Always,
            why: "a plain process has as many slots as there are cores, itself included: without this, not enough slots",
        },
        Setting {
            name: "OMPI_MCA_mpi_yield_when_idle",
            value: Value::Set("1"),
            when: When::Always,
            why: "a process that waits inside MPI spins; with more processes than cores a round trip takes milliseconds",
        },
        Setting {
            name: "OMPI_MCA_orte_enable_recovery",
            value: Value::Set("1"),
            when: When::Always,
            why: "otherwise the death of one worker ends the host and all other workers",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT",
            value: Value::Set("1"),
            when: When::Root,
            why: "orted refuses to run as root without both",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            value: Value::Set("1"),
            when: When::Root,
            why: "orted refuses to run as root without both",
        },
        Setting {
            name: "SLURM_STEP_ID",
            value: Value::Removed,
            when: When::Slurm,
            why: "a process of a Slurm step takes itself for one that `srun` started as a rank, and cannot spawn",
        },
    ],
    unsought: &[Setting {
        name: "OMPI_MCA_mtl",
        value: Value::Excluding(&["psm", "psm2"]),
        when: When::Lacking(&["hfi1", "ipath"]),
        why: "without Omni-Path or InfiniPath their libraries still take 100 ms each to measure the clock, in every process",
    }],
    // A worker for each core, and the host beside them, which waits most of the time: there are never slots
    // enough. The key works in a job of mpiexec too, whose launcher has an environment of its own; the variable
    // above is for what else this process may spawn.
    spawn_info: &[("map_by", "slot:OVERSUBSCRIBE")],
    // Variables that begin with `OMPI_MCA_` do get to other hosts, but in the argument list of their `orted`.
    secret_variable: None,
    environment_key: Some("env"),
    launcher: Launcher { names: &["orted"], daemons: &["orted"], needs_decoy: false, is_told_by_pmix: true },
    // The first makes a host known, the second has the worker start there and nowhere else. A first spawn on
    // another host takes the own one out of the list for good: "All nodes which are allocated for this job are
    // already filled".
    own_manager: |_| OwnManager::Unfit,
    placement: Placement::Keys {
        keys: &["add-host", "host"],
        own_host_first: true,
        agent: Agent { variable: "OMPI_MCA_plm_rsh_agent", only_with: None, default: "ssh : rsh" },
        outlives_hosts: false,
    },
    spawns_aside: true,
    spawn_thread: "on a thread of its own, beside running work",
    survivable: Ok(Survivable {
        component: "the component `mca_pml_ucx.so`",
        is_there: has_ucx,
        environment: &[
            Setting { name: "OMPI_MCA_pml", value: Value::Set("ucx"), when: When::Always, why: TCP_OF_UCX },
            Setting { name: "OMPI_MCA_pml_ucx_tls", value: Value::Set("any"), when: When::Always, why: ANY },
            Setting {
                name: "OMPI_MCA_pml_ucx_devices",
                value: Value::Set("any"),
                when: When::Always,
                why: ANY,
            },
            Setting { name: "UCX_TLS", value: Value::Set("tcp,self"), when: When::Always, why: TCP_OF_UCX },
        ],
        host_only: &[],
        flow: Some(PORTIONS),
        of_job: Some(OfJob {
            option: "--enable-recovery",
            variable: "OMPI_MCA_orte_enable_recovery",
            value: "1",
        }),
    }),
    containment: "the guard, with `orte_enable_recovery`",
    gap: |_| {
        Some(
            "a worker that dies in the milliseconds in which it initializes MPI may, rarely, leave MPI_Comm_spawn waiting \
             for ever: meanwhile this process can spawn no other, and tasks fail when no worker is left",
        )
    },
    farewell: Farewell { finalizes_after_loss: true },
    // `orted` knows a process no more whose last connection is gone, so that from a few milliseconds after it has
    // begun with `MPI_Init` nobody can stand in for it ("Server not available"). The host waits in `PMIx_Lookup`
    // for the name of the worker; what is none makes the spawn fail, and hurts nothing. Later it looks for three numbers: the
    // greatest of the communicators' numbers that either side has free, whether the other side has that free too, and
    // whether it has made it. An error there does not end the spawn, it begins anew with other names, for ever; so it gets
    // what a worker would say, and returns with a communicator of which the other side is gone.
    release: Release::Answer {
        port: "OMPI_PARENT_PORT",
        answers: &[
            (":connect", Answer::Text(c"nobody")),
            (":nextcid:send:0", Answer::Bytes(ONE)),
            (":nextcid:send:1", Answer::Bytes(ONE)),
            (":activate:send:0", Answer::Bytes(ONE)),
        ],
    },
    // If its child is gone before it has seen the worker's connection close, `orted` closes that without forgetting
    // the descriptor's number: a worker that gets it later is not heard, and waits for ever in `MPI_Init` (4.1.4 with
    // PMIx 4.2.2, `_deregister_client`; its first bytes stand unread in the socket). Each `orted` on another host
    // has the same fault, and is out of reach there.
    needs_burial: true,
    hurries_daemon: true,
    greeting: Duration::ZERO,
    breaks_with_connections: false,
    linger: Duration::ZERO,
    spawn_pause: Duration::ZERO,
    jam_limit: Some(Duration::from_secs(3)),
    segments: &[],
    segments_of_job: &[],
    scratch: Some(Scratch {
        process: "ompi.",
        of_process: folders_of_job,
        launcher: "pid.",
        client: None,
        variable: "PMIX_SERVER_TMPDIR",
    }),
    needs_temporary_directory: true,
    interface_variables: &["OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_oob_tcp_if_include"],
};

/// A job's number is that of its family, which is its launcher's, and one of its own.
fn folders_of_job(job: &str) -> Vec<String> {
    let Ok(job) = job.parse::<u32>() else { return Vec::new() };
    let (family, own) = (job >> 16, job & 0xffff);
    vec![format!("jf.{family}/{own}/0"), format!("jf.{family}/{own}"), format!("jf.{family}")]
}

/// The library survives with whole frames too. But what it had in hand when a worker died it never gives back, and that
/// is to be no more than a window.
const PORTIONS: Flow = Flow { message_max: 256 << 10, window: 2 << 20 };

const TCP_OF_UCX: &str = "the MPI's own choice, ob1, aborts a host whose worker dies in the middle of a transfer; UCX over TCP \
                          does not";
const ANY: &str = "otherwise UCX is used for a few kinds of network only, and not for TCP";

/// Whether its UCX component lies where components do: in `openmpi`, or as Debian has it.
fn has_ucx(installation: &Installation) -> bool {
    let Some(folder) = installation.library.as_deref().and_then(Path::parent) else { return false };
    // Debian's library is a link into the folder where it has its components.
    let real =
        installation.library.as_deref().and_then(|library| library.canonicalize().ok()).unwrap_or_default();
    let folders = [Some(folder), real.parent()];
    let components = folders.into_iter().flatten().flat_map(|folder| {
        ["openmpi", "openmpi3", "openmpi/lib/openmpi3"].map(|components| folder.join(components))
    });
    components.map(|folder| folder.join("mca_pml_ucx.so")).any(|component| component.is_file())
}

#[cfg(test)]
mod tests {
    use super::folders_of_job;

    #[test]
    fn the_folders_of_a_job_are_named_by_its_two_numbers() {
        assert_eq!(folders_of_job("2100101121"), ["jf.32045/1/0", "jf.32045/1", "jf.32045"]);
        assert!(folders_of_job("vm").is_empty());
    }
}
