//! Open MPI 5: spawns through `prte`, the first one in `PATH`.

use std::time::Duration;

use super::family::{
    Answer, Family, Farewell, Launcher, OwnManager, Placement, Release, Scratch, Setting, Survivable, Value,
    When,
};

/// All processes of a job, and no number of them.
const NOBODY: Answer = Answer::Text(c"nobody.*");

pub(super) const FAMILY: Family = Family {
    name: "Open MPI 5",
    recognizes: |version| version.starts_with("Open MPI v5") || version.starts_with("Open MPI v6"),
    refuses: |_| None,
    environment: &[
        Setting {
            name: "OPAL_PREFIX",
            value: Value::Prefix,
            when: When::Always,
            why: "an installation that was moved, a wheel for one, looks for its files where it was built",
        },
        Setting {
            name: "PRTE_MCA_rmaps_default_mapping_policy",
            value: Value::Set(":oversubscribe"),
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
            name: "OMPI_MCA_mpi_ft_enable",
            value: Value::Set("1"),
            when: When::Always,
            why: "together with the next: otherwise the death of one worker ends the host",
        },
        Setting {
            name: "PRTE_MCA_prte_enable_ft",
            value: Value::Set("1"),
            when: When::Always,
            why: "together with the one before: otherwise the death of one worker ends the host",
        },
        Setting {
            name: "HOME",
            value: Value::Home,
            when: When::Always,
            why: "MPI_Init ends a process without one with code 14",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT",
            value: Value::Set("1"),
            when: When::Root,
            why: "it refuses to run as root",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            value: Value::Set("1"),
            when: When::Root,
            why: "it refuses to run as root",
        },
        Setting {
            name: "PRTE_ALLOW_RUN_AS_ROOT",
            value: Value::Set("1"),
            when: When::Root,
            why: "prte refuses to run as root",
        },
        Setting {
            name: "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
            value: Value::Set("1"),
            when: When::Root,
            why: "prte refuses to run as root",
        },
    ],
    // What libfabric has drivers for and Open MPI uses it for. TCP is not: it has that itself.
    unsought: &[Setting {
        name: "OMPI_MCA_btl",
        value: Value::Excluding(&["ofi"]),
        when: When::Lacking(&["infiniband", "hfi1", "ipath", "cxi", "kgni"]),
        why: "without a network for it libfabric is asked for one all the same, which takes a second in every process",
    }],
    // As with Open MPI 4.
    spawn_info: &[("map_by", "slot:OVERSUBSCRIBE")],
    secret_variable: Some("OMPI_MCA_offshoot_secret"),
    environment_key: None,
    launcher: Launcher {
        names: &["prte"],
        daemons: &["prte", "prted"],
        needs_decoy: false,
        is_told_by_pmix: true,
    },
    own_manager: |_| OwnManager::Unfit,
    placement: Placement::OwnHostOnly(
        "Open MPI 5 (5.0.8 and 5.0.11 were tried) starts every worker of a singleton on its own host, or hangs: use \
         Open MPI 4.1 or MPICH, or name this host alone",
    ),
    spawns_aside: true,
    spawn_thread: "on a thread of its own, beside running work",
    survivable: Ok(Survivable {
        component: "TCP",
        is_there: |_| true,
        environment: &[
            Setting { name: "OMPI_MCA_pml", value: Value::Set("ob1"), when: When::Always, why: TCP_ALONE },
            Setting {
                name: "OMPI_MCA_btl",
                value: Value::Set("self,tcp"),
                when: When::Always,
                why: TCP_ALONE,
            },
            Setting {
                name: "OMPI_MCA_btl_tcp_flags",
                value: Value::Set("send"),
                when: When::Always,
                why: "otherwise large payloads are written into the memory of a worker that may be dying",
            },
        ],
        host_only: &[],
        flow: None,
        of_job: None,
    }),
    containment: "the guard, with fault tolerance enabled",
    gap: |_| {
        Some(
            "a guard that is killed in the milliseconds in which its worker and this process connect may leave \
             MPI_Comm_spawn waiting for ever: then the pool fails, and this process can have no other",
        )
    },
    // It says goodbye to those whom it has never talked to, and crashes if one of them is gone.
    farewell: Farewell { finalizes_after_loss: false },
    // From a few milliseconds after a worker has begun with `MPI_Init` a guard in its place waits for ever. The host
    // takes any answer for the names of processes and would crash over one without a dot; all processes of a job,
    // and no number of them, is what it refuses.
    // It awaits one name after the other: who connects, then the number of their communicator, proposed and agreed upon
    // (a process that has just begun agrees at once), and that both have it. A number it takes as bytes only, and refuses
    // this text.
    release: Release::Answer {
        port: "OMPI_PARENT_PORT",
        answers: &[
            (":connect", NOBODY),
            (":nextcid:send:0", NOBODY),
            (":nextcid:send:1", NOBODY),
            (":activate:send:0", NOBODY),
        ],
    },
    needs_burial: false,
    hurries_daemon: false,
    // The connection of a worker that has just begun is taken in by any later call, from within which MPI asks PMIx who that
    // is, and waits for ever if the worker's job is over by then. So a spawn, which takes its time, waits until the last
    // worker is connected, and a guard stays for as long as the connection of a dead one may still be under way.
    greeting: Duration::from_millis(250),
    breaks_with_connections: false,
    linger: Duration::from_secs(1),
    spawn_pause: Duration::ZERO,
    jam_limit: None,
    segments: &["sm_segment."],
    segments_of_job: &[],
    scratch: Some(Scratch {
        process: "ompi.",
        of_process: |job| vec![format!("jf.0/{job}/0"), format!("jf.0/{job}"), "jf.0".to_owned()],
        launcher: "prte.",
        client: Some("singleton."),
        variable: "PMIX_SERVER_TMPDIR",
    }),
    needs_temporary_directory: true,
    interface_variables: &["OMPI_MCA_btl_tcp_if_include", "PRTE_MCA_prte_if_include"],
};

const TCP_ALONE: &str = "host and workers talk over TCP in any case; to look for other networks takes each process a second, \
                         and a segment of shared memory outlives whoever is killed";
