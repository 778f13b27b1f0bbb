//! Everything that depends on which MPI this is, and on how a worker is started.
//!
//! Each implementation is one file of data, a [`Family`]: how it is recognized, what must be in the
//! environment before `MPI_Init`, through which program it spawns. `prepare` applies it, in
//! [`init`](crate::init), while the process has one thread. `installation` finds what belongs to the
//! library that is loaded; `preflight` looks at the machine, `executable` at what is to be spawned (with `elf`), and
//! each says what to do about what it finds. `manager` is a process manager of our own, in the place of an MPI's. `hosts`
//! finds out how many workers fit where, `reach` the way there. `scratch` and `segments` remove what MPIs would leave
//! behind. `parameters` reads what an Open MPI is configured to do. `program` describes what to spawn, `record` carries
//! that description through the argument list of `MPI_Comm_spawn`. `isolated` is what a parent is told, `client` what of
//! all this a program without MPI has.

mod daemons;
mod decoy;
mod elf;
mod executable;
mod family;
mod hosts;
mod installation;
mod intel_mpi;
mod isolated;
mod lending;
mod manager;
mod mpich;
mod open_mpi_4;
mod open_mpi_5;
mod parameters;
mod preflight;
mod prepare;
mod program;
mod reach;
mod record;
mod roles;
mod scratch;
mod segments;
mod transport;

pub(crate) use daemons::{Launchers, end_daemons, end_useless_launcher, launcher_ends_process};
pub(crate) use decoy::{Decoy, plain_path};
pub(crate) use executable::check_program;
pub(crate) use family::Answer;
pub(crate) use hosts::own_name;
pub(crate) use installation::has_two_mpis;
pub(crate) use isolated::{parent_environment, remove_daemons_folders, remove_launchers_folders};
pub(crate) use manager::{
    ASKS_FOR_PORT, AWAITED, IS_AWAITED, Manager, NOT_AWAITED, Office, PortNames, ProcessManager, Wanted,
    serve,
};
pub(crate) use preflight::{Job, check_machine, findings};
pub(crate) use prepare::{
    Outcome, Prepared, answers_of_nobody, awaited_port, breaks_with_connections, finalizes_after_loss,
    greeting, hurries_daemon, jam_limit, linger, needs_burial, prepare, prepared, process_manager,
    secret_info, spawn_info, spawn_pause, spawns_aside, take_secret,
};
pub(crate) use program::Initializer;
pub use program::Program;
pub(crate) use reach::{Hints, Site, ask, outlives_hosts, own_host_info, sites};
#[cfg(any(test, fuzzing))]
pub(crate) use record::record_property;
pub(crate) use record::{
    BELL_VARIABLE, BOARD_VARIABLE, NEWS_VARIABLE, PEER_VARIABLE, Role, guard_arguments, peer, role,
};
pub use roles::user_environment;
pub(crate) use roles::{ROLE_VARIABLE, ROLE_WORKER};
pub(crate) use scratch::{clear_up_after, has_own_folders, remove_own_folders};
pub(crate) use segments::{unlink_segments, unlink_segments_of};
pub(crate) use transport::{check_containment, flow};
