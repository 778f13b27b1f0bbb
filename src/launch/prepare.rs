//! The environment of this process, made ready for MPI while nobody else can read it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use super::decoy::{self, Plan};
use super::family::{Answer, Family, Release, Setting, Value, When};
use super::installation::{self, Installation};
use super::manager::{self, Choice, ProcessManager};
use super::parameters;
use super::preflight::Job;
use super::transport::{self, Transport};
use crate::containment::Containment;
use crate::process;

/// What [`prepare`] found and did.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What `MPI_Get_library_version` says.
    pub(crate) version: String,
    /// Which implementation that is, if it is one that we know.
    pub(crate) family: Option<&'static Family>,
    /// Where its files are.
    pub(crate) installation: Installation,
    /// The variables that it needs, and what became of each.
    pub(crate) variables: Vec<Variable>,
    /// Which transport it is to use.
    pub(crate) transport: Transport,
    /// Who starts workers on this machine.
    pub(crate) manager: Choice,
    /// What hydra is to kill in this process's place.
    pub(crate) decoy: Option<Plan>,
}

/// What became of one variable that an MPI needs.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) why: &'static str,
}

/// What was done about a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was set to this.
    Set(String),
    /// It was left as the user had set it.
    Left(String),
    /// It was taken out.
    Removed,
}

static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// What [`prepare`] did, if it has run: only then is this process ready to spawn.
pub(crate) fn prepared() -> Option<&'static Prepared> {
    PREPARED.get()
}

/// Prepares the environment of this process for its MPI.
///
/// # Panics
/// If the process has more than one thread.
pub(crate) fn prepare() {
    if prepared().is_some() {
        return;
    }
    process::remember_environment();
    let version = mpi::environment::library_version().unwrap_or_default();
    // Open MPI counts the zero byte at the end.
    let version = version.trim_matches(|c: char| c == char::from(0) || c.is_whitespace()).to_owned();
    let family = Family::of(&version);
    let installation = Installation::find(family);
    let manager = manager::choose(family, &version);
    let mut transport = transport::choose(family, &installation);
    let mut variables = Vec::new();
    match family {
        Some(family) => {
            tracing::debug!("MPI is {}", family.name);
            variables.extend(family.environment.iter().filter_map(|setting| apply(setting, &installation)));
            match (transport.containment, &family.survivable) {
                (Containment::Survivable, Ok(means)) => {
                    variables.extend(means.settings().filter_map(|setting| apply(setting, &installation)));
                }
                _ => {
                    let unsought = family.unsought.iter();
                    variables.extend(unsought.filter_map(|setting| apply(setting, &installation)));
                }
            }
            variables.extend(put_launcher_first(&installation));
        }
        None => tracing::warn!("this MPI is not one that offshoot knows: {version}"),
    }
    transport.note_settings(family);
    if manager.manager == ProcessManager::Own {
        manager::prepare();
    }
    // In a job it is the job's launcher that spawns, and that kills nobody's group.
    let needs_decoy = family
        .filter(|family| family.launcher.needs_decoy && manager.is_open && Job::of_this_process().is_none());
    let decoy = needs_decoy
        .zip(installation.launcher.as_deref())
        .and_then(|(family, launcher)| decoy::plan(launcher, family.launcher.name()));
    variables.extend(decoy.is_some().then(|| Variable {
        name: "PATH",
        outcome: Outcome::Set(env::var("PATH").unwrap_or_default()),
        why: "hydra, where it is used, kills the host's process group when something goes wrong; its launcher is given a \
              decoy",
    }));
    process::make_secret(family.and_then(|family| family.secret_variable));
    let _ = PREPARED.set(Prepared { version, family, installation, variables, transport, manager, decoy });
}

/// Does what a setting says, where it is needed.
fn apply(setting: &Setting, installation: &Installation) -> Option<Variable> {
    let needed = match setting.when {
        When::Always => true,
        When::Root => rustix::process::geteuid().is_root(),
        When::Slurm => env::var_os("SLURM_JOB_ID").is_some(),
        When::Lacking(devices) => !has_device(devices),
    };
    let before = env::var_os(setting.name);
    let outcome = match (setting.value, before) {
        _ if !needed => return None,
        (Value::Removed, None) => return None,
        (Value::Removed, Some(_)) => {
            process::remove_variable(setting.name);
            Outcome::Removed
        }
        (Value::Set(_) | Value::Prefix | Value::Home | Value::Excluding(_), Some(theirs)) => {
            Outcome::Left(theirs.to_string_lossy().into_owned())
        }
        (Value::Set(value), None) => set(setting.name, value.as_ref()),
        (Value::Home, None) => set(setting.name, home().as_os_str()),
        (Value::Prefix, None) => set(setting.name, installation.prefix()?.as_os_str()),
        (Value::Excluding(components), None) => {
            let list = setting.name.strip_prefix("OMPI_MCA_").unwrap_or(setting.name);
            set(setting.name, parameters::exclude(list, components, installation)?.as_ref())
        }
    };
    Some(Variable { name: setting.name, outcome, why: setting.why })
}

fn has_device(beginnings: &[&str]) -> bool {
    let mut devices = fs::read_dir("/dev").into_iter().flatten().flatten();
    devices.any(|device| {
        beginnings.iter().any(|beginning| device.file_name().to_string_lossy().starts_with(beginning))
    })
}

/// As the list of users has it; a user without one is at home where everybody may write.
fn home() -> PathBuf {
    env::home_dir().filter(|home| home.is_dir()).unwrap_or_else(env::temp_dir)
}

fn set(name: &str, value: &OsStr) -> Outcome {
    process::set_variable(name, value);
    Outcome::Set(value.to_string_lossy().into_owned())
}

/// Puts the folder of the library's own launcher first in `PATH`, unless that is found first anyway.
fn put_launcher_first(installation: &Installation) -> Option<Variable> {
    let launcher = installation.launcher.as_deref()?;
    let first = installation::in_path(launcher.file_name()?);
    if first.and_then(|first| first.canonicalize().ok()) == launcher.canonicalize().ok() {
        return None;
    }
    let theirs = env::var_os("PATH").unwrap_or_default();
    // An empty entry would be the current directory.
    let theirs = env::split_paths(&theirs).filter(|folder| !folder.as_os_str().is_empty());
    let joined = env::join_paths(std::iter::once(launcher.parent()?.to_path_buf()).chain(theirs)).ok()?;
    Some(Variable {
        name: "PATH",
        outcome: set("PATH", &joined),
        why: "the library starts the first of its launcher's name in PATH, and that was another one or none",
    })
}

/// Takes the secret of the control channel that this process, a guard, has inherited out of its environment.
pub(crate) fn take_secret() -> Option<[u8; 16]> {
    process::take_secret(Family::of_this_process().and_then(|family| family.secret_variable))
}

/// Whether `MPI_Finalize` returns although a worker was given up without a disconnect.
pub(crate) fn finalizes_after_loss() -> bool {
    let family = prepared().and_then(|prepared| prepared.family);
    family.is_none_or(|family| family.farewell.finalizes_after_loss)
}

/// In a guard: the port at which `MPI_Comm_spawn` awaits the worker's answers, where the host itself can give them.
/// Where it cannot, the guard has to.
pub(crate) fn awaited_port() -> Option<String> {
    match Family::of_this_process()?.release {
        Release::StandIn => None,
        Release::Answer { port, .. } => env::var(port).ok(),
    }
}

/// Whether what this process says to its daemon at its end is to be sent at once.
pub(crate) fn hurries_daemon() -> bool {
    Family::of_this_process().is_some_and(|family| family.hurries_daemon)
}

/// Whether a guard's end must not be known before its worker's is.
pub(crate) fn needs_burial() -> bool {
    prepared().and_then(|prepared| prepared.family).is_some_and(|family| family.needs_burial)
}

/// In a guard: whether it is to keep the connections of its worker open.
pub(crate) fn breaks_with_connections() -> bool {
    Family::of_this_process().is_some_and(|family| family.breaks_with_connections)
}

/// In a guard: how long it stays when its worker has died and the host knows it.
pub(crate) fn linger() -> Duration {
    Family::of_this_process().map_or(Duration::ZERO, |family| family.linger)
}

/// How long nothing is spawned after a spawn whose worker has not said anything.
pub(crate) fn greeting() -> Duration {
    prepared().and_then(|prepared| prepared.family).map_or(Duration::ZERO, |family| family.greeting)
}

/// How long after a worker's death nothing is spawned.
pub(crate) fn spawn_pause() -> Duration {
    prepared().and_then(|prepared| prepared.family).map_or(Duration::ZERO, |family| family.spawn_pause)
}

/// How long a worker is left to start during whose start another one has died.
pub(crate) fn jam_limit() -> Option<Duration> {
    prepared()?.family?.jam_limit
}

/// Under which names, and what, is to be published so that the spawn fails that waits at a port.
pub(crate) fn answers_of_nobody(port: &str) -> Option<Vec<(String, Answer)>> {
    match prepared()?.family?.release {
        Release::StandIn => None,
        Release::Answer { answers, .. } => {
            Some(answers.iter().map(|(suffix, answer)| (format!("{port}{suffix}"), *answer)).collect())
        }
    }
}

/// Who is to start the workers of a pool, in a process whose MPI has not been initialized.
pub(crate) fn process_manager(has_other_hosts: bool) -> ProcessManager {
    let chosen = prepared().map_or(ProcessManager::Launcher, |prepared| prepared.manager.manager);
    // An MPI that the host has initialized spawns through its launcher.
    if has_other_hosts || mpi::environment::is_initialized() { ProcessManager::Launcher } else { chosen }
}

/// Whether one thread may spawn while another one sends and receives, and goes on with it.
pub(crate) fn spawns_aside() -> bool {
    prepared().and_then(|prepared| prepared.family).is_some_and(|family| family.spawns_aside)
}

/// What each `MPI_Comm_spawn` is to be told, as keys and values of its info.
pub(crate) fn spawn_info() -> &'static [(&'static str, &'static str)] {
    prepared().and_then(|prepared| prepared.family).map_or(&[], |family| family.spawn_info)
}

/// What `MPI_Comm_spawn` is to be told so that a guard has the secret of the control channel, where its
/// environment may be another than this process's.
pub(crate) fn secret_info() -> Option<(&'static str, String)> {
    prepared()?.family?.environment_key.zip(process::secret_setting())
}
