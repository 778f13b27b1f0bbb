//! What an MPI implementation is to us: one value of [`Family`] for each, data before code.
//!
//! Adding an implementation is one file with one such value, and one line in [`FAMILIES`]. Nothing here
//! looks at this machine; `installation`, `preflight` and `prepare` do, by what stands here.

use std::ffi::CStr;
use std::time::Duration;

use super::installation::Installation;
use super::manager::ProcessManager;
use super::{intel_mpi, mpich, open_mpi_4, open_mpi_5};
use crate::wire::flow::Flow;

/// The implementations that are known, each tried in this order.
pub(super) const FAMILIES: [&Family; 4] =
    [&open_mpi_4::FAMILY, &open_mpi_5::FAMILY, &mpich::FAMILY, &intel_mpi::FAMILY];

/// What an MPI implementation needs so that a process that nobody started with `mpirun` can spawn.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its usual name.
    pub(crate) name: &'static str,
    /// Whether `MPI_Get_library_version` told of it.
    pub(super) recognizes: fn(&str) -> bool,
    /// Why this version of it cannot be used at all, if so.
    pub(super) refuses: fn(&str) -> Option<Refusal>,
    /// What must be in the environment before `MPI_Init`, and why. What the user has set stays.
    pub(super) environment: &'static [Setting],
    /// The same where it chooses the transport itself: what it need not look for, and takes its time over.
    pub(super) unsought: &'static [Setting],
    /// What each `MPI_Comm_spawn` is told, as keys and values of its info.
    pub(super) spawn_info: &'static [(&'static str, &'static str)],
    /// An environment variable that its launcher hands on to what is spawned, wherever that is: not every
    /// variable of the host is, on another host or in a job of `mpiexec`.
    pub(super) secret_variable: Option<&'static str>,
    /// An info key of `MPI_Comm_spawn` whose value is put into the environment of what is spawned, wherever that
    /// is, and stands in no argument list on the way.
    pub(super) environment_key: Option<&'static str>,
    /// The program through which it spawns.
    pub(super) launcher: Launcher,
    /// Whether a version of it also takes a process manager of ours in the place of that program.
    pub(super) own_manager: fn(&str) -> OwnManager,
    /// How it is told where workers go.
    pub(super) placement: Placement,
    /// Whether one thread may spawn while another sends and receives, and goes on with it.
    pub(super) spawns_aside: bool,
    /// How spawns are made, and what they do to running work.
    pub(crate) spawn_thread: &'static str,
    /// What lets the host live through a worker's death in the middle of a transfer; or why nothing does.
    pub(super) survivable: Result<Survivable, &'static str>,
    /// What stands between the host and a worker's death.
    pub(crate) containment: &'static str,
    /// Which deaths on this machine the host may not get through all the same, with this process manager.
    pub(super) gap: fn(ProcessManager) -> Option<&'static str>,
    /// How to part from workers, and from MPI.
    pub(crate) farewell: Farewell,
    /// How a spawn returns whose worker has died on the way.
    pub(super) release: Release,
    /// Whether its daemon must not know a guard's end before it knows the worker's; and waits, after the guard's
    /// end, for that of the guard's standard error.
    pub(super) needs_burial: bool,
    /// Whether what a process says to its daemon at its end is to be sent at once, piece by piece (`transport/mpi/nagle.rs`).
    pub(super) hurries_daemon: bool,
    /// How long nothing is spawned after a spawn whose worker has not said anything.
    pub(super) greeting: Duration,
    /// Whether it may end its process when a connection to another breaks: then a guard keeps its worker's open.
    pub(super) breaks_with_connections: bool,
    /// How long a guard stays when its worker has died and the host knows it.
    pub(super) linger: Duration,
    /// How long after a worker's death nothing is spawned.
    pub(super) spawn_pause: Duration,
    /// How long a worker is left to start that the death of another one, in this time before or since, may have
    /// caught in `MPI_Init` for ever.
    pub(super) jam_limit: Option<Duration>,
    /// How the names of its segments of shared memory begin.
    pub(super) segments: &'static [&'static str],
    /// And of those whose names end with a hash of the name of their job.
    pub(super) segments_of_job: &'static [&'static str],
    /// What it leaves in the temporary directory, where that is to be removed.
    pub(super) scratch: Option<Scratch>,
    /// Whether it must be able to write into the temporary directory.
    pub(super) needs_temporary_directory: bool,
    /// Environment variables that name network interfaces, several separated by commas.
    pub(super) interface_variables: &'static [&'static str],
}

/// How folders in the temporary directory are named that an implementation leaves there.
#[derive(Debug)]
pub(super) struct Scratch {
    /// How the name begins of what processes make that were started plainly.
    pub(super) process: &'static str,
    /// What they make in there, the innermost first, by what their job is called; and nothing if that is no name of a job.
    pub(super) of_process: fn(&str) -> Vec<String>,
    /// How the name of its launcher's folder begins; it ends with the launcher's process.
    pub(super) launcher: &'static str,
    /// How the name begins, in there, that ends with the process for which the launcher is. Where there is none, that process
    /// is told as all others are.
    pub(super) client: Option<&'static str>,
    /// The environment variable that names the launcher's folder to those who are connected to it.
    pub(super) variable: &'static str,
}

/// A transport that survives, and how to use it.
#[derive(Debug)]
pub(super) struct Survivable {
    /// What it needs of an installation, by name.
    pub(super) component: &'static str,
    /// Whether an installation has that.
    pub(super) is_there: fn(&Installation) -> bool,
    /// What must be in the environment before `MPI_Init`, in host and worker.
    pub(super) environment: &'static [Setting],
    /// What the host alone must have in its environment, and neither guard nor worker may have.
    pub(super) host_only: &'static [Setting],
    /// In what portions frames have to travel.
    pub(super) flow: Option<Flow>,
    /// What a job must have been started with, so that its launcher does not end all of it with a worker.
    pub(super) of_job: Option<OfJob>,
}

/// An option of a launcher, which every process of the job can see.
#[derive(Debug)]
pub(super) struct OfJob {
    pub(super) option: &'static str,
    /// This variable has this value then.
    pub(super) variable: &'static str,
    pub(super) value: &'static str,
}

/// Why a version cannot be used, and what to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) remedy: &'static str,
}

/// One environment variable.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// When it is needed.
    pub(super) when: When,
    /// What goes wrong without it.
    pub(super) why: &'static str,
}

/// What becomes of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// It is set, unless the user has set it.
    Set(&'static str),
    /// It is set to the folder that the installation lies in, unless the user has set it.
    Prefix,
    /// It is set to the user's home directory, unless the user has set it.
    Home,
    /// A list of components of Open MPI excludes these too, unless the user has set it.
    Excluding(&'static [&'static str]),
    /// It is taken out, whoever has set it.
    Removed,
}

/// When a variable is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// This process belongs to root.
    Root,
    /// This process was started by Slurm, in an allocation or a step.
    Slurm,
    /// This machine has no device whose name begins so.
    Lacking(&'static [&'static str]),
}

/// The program through which an implementation spawns.
#[derive(Debug)]
pub(super) struct Launcher {
    /// Its file name: the library starts the first of it in `PATH`, so that this has to be its own. Others
    /// are names that it has where several MPIs are installed.
    pub(super) names: &'static [&'static str],
    /// File names of the processes that it starts on this machine, itself included.
    pub(super) daemons: &'static [&'static str],
    /// Whether it kills the host's process group when something goes wrong, so that it needs a decoy.
    pub(super) needs_decoy: bool,
    /// Whether its end is an event of PMIx, which ends every process that does not take it.
    pub(super) is_told_by_pmix: bool,
}

/// Whether an MPI gets along with the process manager that offshoot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnManager {
    /// It speaks another language.
    Unfit,
    /// It speaks that language, and nobody has tried.
    Untried,
    Tried,
}

impl Launcher {
    /// The name that the library looks for.
    pub(super) fn name(&self) -> &'static str {
        self.names[0]
    }
}

/// How an implementation is told on which hosts workers may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Info keys of `MPI_Comm_spawn` name the host, all of them on each spawn.
    Keys {
        keys: &'static [&'static str],
        /// Whether the first spawn of a process has to be on its own host, if any is to be.
        own_host_first: bool,
        agent: Agent,
        /// Whether it can spawn on other hosts when one is gone that had workers.
        outlives_hosts: bool,
    },
    /// Other hosts are not used: why, and what to do.
    OwnHostOnly(&'static str),
}

/// The remote shell of an implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Environment variable that names it; several may stand there, with colons between them.
    pub(super) variable: &'static str,
    /// It is used only where this variable has one of these values, or none.
    pub(super) only_with: Option<(&'static str, &'static [&'static str])>,
    /// What is used where the variable is not set.
    pub(super) default: &'static str,
}

/// How this process parts from workers, and from MPI, without waiting for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    /// Whether `MPI_Finalize` returns after a worker was given up without a disconnect.
    pub(crate) finalizes_after_loss: bool,
}

/// What makes `MPI_Comm_spawn` return when its worker has died before it had initialized MPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The guard initializes MPI in the worker's place.
    StandIn,
    /// The host itself answers in the worker's place. They meet by publishing names, one after the other: the worker's
    /// are what stands in the environment variable `port`, and the first part of each of `answers`.
    Answer { port: &'static str, answers: &'static [(&'static str, Answer)] },
}

/// What a worker could have published under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Through `MPI_Publish_name`.
    Text(&'static CStr),
    /// Through `PMIx_Publish`.
    Bytes(&'static [u8]),
}

impl Family {
    /// The implementation whose library this process has.
    pub(super) fn of_this_process() -> Option<&'static Self> {
        Self::of(&mpi::environment::library_version().ok()?)
    }

    /// The implementation that describes itself so.
    pub(super) fn of(version: &str) -> Option<&'static Self> {
        FAMILIES.into_iter().find(|family| (family.recognizes)(version))
    }
}
