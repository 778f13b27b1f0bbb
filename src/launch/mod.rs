//! Everything that depends on which MPI this is, and on how a worker is started.
//!
//! Each implementation is one file of data: how it is recognized, what must be in the environment
//! before `MPI_Init`, whether it looks for its launcher in `PATH`. [`prepare`] applies it, in
//! [`init`](crate::init), while the process has one thread. `program` describes what to spawn,
//! `record` carries that description through the argument list of `MPI_Comm_spawn`.

mod intel_mpi;
mod mpich;
mod open_mpi_4;
mod open_mpi_5;
mod program;
mod record;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use program::Initializer;
pub use program::Program;
pub(crate) use record::{NEWS_VARIABLE, ROLE_VARIABLE, ROLE_WORKER, Role, guard_arguments, role};

use crate::process;

/// What an MPI implementation needs so that a process that nobody started with `mpirun` can spawn.
struct Family {
    /// Its usual name.
    name: &'static str,
    /// Whether `MPI_Get_library_version` told of it.
    recognizes: fn(&str) -> bool,
    /// What must be in the environment before `MPI_Init`, and why. What the user has set stays.
    environment: &'static [Setting],
    /// Whether it starts the first `mpiexec` in `PATH`, so that this has to be its own.
    launcher_in_path: bool,
}

/// One variable.
struct Setting {
    name: &'static str,
    value: &'static str,
    /// When it is needed.
    when: When,
    /// What goes wrong without it. For readers, and one day for `offshoot doctor`.
    #[allow(dead_code)]
    why: &'static str,
}

enum When {
    Always,
    Root,
}

/// Adding an implementation is one file and one line here.
const FAMILIES: [&Family; 4] = [&open_mpi_4::FAMILY, &open_mpi_5::FAMILY, &mpich::FAMILY, &intel_mpi::FAMILY];

/// Whether [`prepare`] has run in this process.
static PREPARED: AtomicBool = AtomicBool::new(false);

/// Whether this process is ready to initialize MPI and to be spawned from.
pub(crate) fn is_prepared() -> bool {
    PREPARED.load(Ordering::Acquire)
}

/// Prepares the environment of this process for MPI. The process must have one thread.
pub(crate) fn prepare() {
    PREPARED.store(true, Ordering::Release);
    let version = mpi::environment::library_version().unwrap_or_default();
    let Some(family) = FAMILIES.iter().find(|family| (family.recognizes)(&version)) else {
        tracing::warn!("this MPI is not one that offshoot knows: {}", version.trim());
        return;
    };
    tracing::debug!("MPI is {}", family.name);
    let root = rustix::process::geteuid().is_root();
    for setting in family.environment {
        let needed = match setting.when {
            When::Always => true,
            When::Root => root,
        };
        if needed && env::var_os(setting.name).is_none() {
            process::set_variable(setting.name, setting.value.as_ref());
        }
    }
    if family.launcher_in_path {
        put_launcher_first();
    }
}

/// Puts the folder of the loaded library's own `mpiexec` first in `PATH`, unless it is found first anyway.
fn put_launcher_first() {
    let Some(launcher) = loaded_library().and_then(|library| launcher_beside(&library)) else { return };
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join("mpiexec"))
        .find(|candidate| is_executable(candidate));
    if found.and_then(|found| found.canonicalize().ok()) == launcher.canonicalize().ok() {
        return;
    }
    let Some(folder) = launcher.parent() else { return };
    let folders = std::iter::once(folder.to_path_buf()).chain(env::split_paths(&path));
    if let Ok(joined) = env::join_paths(folders) {
        process::set_variable("PATH", &joined);
    }
}

/// `bin/mpiexec` beside the folder of the library, as all installations but Debian's have it.
fn launcher_beside(library: &Path) -> Option<PathBuf> {
    let launcher = library.parent()?.parent()?.join("bin").join("mpiexec");
    is_executable(&launcher).then_some(launcher)
}

/// The MPI library that is mapped into this process.
fn loaded_library() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..]))).find_map(|path| {
        let name = path.file_name()?.to_str()?;
        (name.starts_with("libmpi.so") || name.starts_with("libmpich.so")).then(|| path.to_path_buf())
    })
}

/// Refuses a program that no MPI could start, and that some hang on for ever.
pub(crate) fn preflight(program: &Program) -> Result<(), String> {
    let path = program.path();
    let shown = path.display();
    let metadata =
        fs::metadata(path).map_err(|error| format!("the executable `{shown}` cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("`{shown}` is not a file"));
    }
    if !is_executable(path) {
        return Err(format!("`{shown}` is not executable: chmod +x it, or name another file"));
    }
    let directory = program.directory()?;
    if !directory.is_dir() {
        return Err(format!("its working directory `{}` does not exist", directory.display()));
    }
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The environment as the user had it when [`init`](crate::init) was called in the host.
///
/// A worker's environment has more in it: what the MPI needs, and the variables by which it tells a process
/// who it is. Where a task starts programs that may use MPI themselves, call this in the host, pass it to
/// the workers (as an argument of their initializer, for example), and start the programs with it.
#[must_use]
pub fn user_environment() -> Vec<(OsString, OsString)> {
    process::original_environment()
}
