//! A decoy, so that hydra kills somebody else in the host's place.
//!
//! A process that was started plainly and spawns with MPICH or Intel MPI forks `mpiexec -pmi_args PORT
//! INTERFACE KEY PID`, with its own process id last. When anything goes wrong (a guard is killed, `mpiexec`
//! itself is, the host ends without `MPI_Finalize`) hydra kills the whole process group of that process:
//! the host, what runs beside it, the user's shell. The number is used for nothing else, so it may be that
//! of a process whose only purpose is to be killed.
//!
//! For that, the first `mpiexec` in `PATH` is this executable, which becomes the real one after it has put a
//! decoy's number in the place of the host's. `PATH` begins with `/proc/PID/fd/N`: a descriptor of this process
//! that stands for `/dev/null`, where nothing can be found, and during the first spawn for a folder with a
//! link to this executable. So nobody else can ever put anything there, and nothing is left of the folder,
//! except where the host is killed in those tenths of a second.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::io::DupFlags;

use crate::process;

/// In the environment of what MPI starts as its `mpiexec`: the real one.
const LAUNCHER_VARIABLE: &str = "OFFSHOOT_LAUNCHER";
/// First argument of a launcher that a plain process starts.
pub(super) const SINGLETON_FLAG: &str = "-pmi_args";

/// Where a decoy will be found, and under which name.
#[derive(Debug)]
pub(crate) struct Plan {
    place: Mutex<OwnedFd>,
    name: &'static str,
}

/// Prepares the environment for a decoy of `launcher`: the place where it will be comes first in `PATH`.
pub(super) fn plan(launcher: &Path, name: &'static str) -> Option<Plan> {
    let place = nothing().ok()?;
    let folder = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), place.as_raw_fd()));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([folder].into_iter().chain(env::split_paths(&path))).ok()?;
    process::set_variable("PATH", &path);
    process::set_variable(LAUNCHER_VARIABLE, launcher.as_os_str());
    Some(Plan { place: Mutex::new(place), name })
}

/// A place where nothing can be found.
fn nothing() -> std::io::Result<OwnedFd> {
    File::open("/dev/null").map(OwnedFd::from)
}

/// A decoy that lies where MPI looks for its launcher, as long as this lives.
pub(crate) struct Decoy<'a> {
    plan: &'a Plan,
    folder: PathBuf,
}

impl Plan {
    /// Lays the decoy, for the first spawn of this process.
    pub(crate) fn lay(&self) -> std::io::Result<Decoy<'_>> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("offshoot-{:016x}", u64::from_ne_bytes(random));
        // Wherever one may write. Nobody else's: it must not be there, and nobody else may write into it.
        let own = env::temp_dir();
        let bases = [own.as_path(), Path::new("/tmp"), Path::new("/dev/shm")];
        let make = |base: &&Path| DirBuilder::new().mode(0o700).create(base.join(&name)).is_ok();
        let base = bases.into_iter().find(make).ok_or(std::io::ErrorKind::PermissionDenied)?;
        let decoy = Decoy { plan: self, folder: base.join(name) };
        symlink(env::current_exe()?, decoy.folder.join(self.name))?;
        self.point_to(&File::open(&decoy.folder)?.into())?;
        Ok(decoy)
    }

    fn point_to(&self, target: &OwnedFd) -> std::io::Result<()> {
        let mut place = self.place.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(rustix::io::dup3(target, &mut place, DupFlags::CLOEXEC)?)
    }
}

impl Drop for Decoy<'_> {
    fn drop(&mut self) {
        // If it cannot be turned away, it points to a folder that is removed, where nothing can be found either.
        let _ = nothing().and_then(|nothing| self.plan.point_to(&nothing));
        let _ = fs::remove_file(self.folder.join(self.plan.name));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What MPI wanted to start when it started this process as its launcher.
pub(crate) struct Launch {
    launcher: PathBuf,
    arguments: Vec<OsString>,
}

impl Launch {
    /// If this process was started so.
    pub(super) fn of_this_process() -> Option<Self> {
        let arguments: Vec<_> = env::args_os().skip(1).collect();
        let is_singleton =
            arguments.len() == 5 && arguments.first().is_some_and(|flag| flag == SINGLETON_FLAG);
        let launcher = env::var_os(LAUNCHER_VARIABLE).filter(|_| is_singleton)?;
        Some(Self { launcher: launcher.into(), arguments })
    }

    /// Becomes the launcher that was wanted, with a decoy in the host's place.
    pub(crate) fn go_on(mut self) -> ! {
        if let Some(decoy) = process::fork_decoy() {
            self.arguments.pop();
            self.arguments.push(decoy.to_string().into());
        }
        process::remove_variable(LAUNCHER_VARIABLE);
        let error = process::become_program(&self.launcher, &self.arguments);
        eprintln!("offshoot: `{}` could not be started: {error}", self.launcher.display());
        std::process::exit(1)
    }
}

/// `PATH` without the place of a decoy that this process has inherited.
pub(crate) fn plain_path() -> Option<OsString> {
    let path = env::var_os("PATH")?;
    let is_place = |folder: &PathBuf| {
        folder.starts_with("/proc") && folder.components().any(|part| part.as_os_str() == "fd")
    };
    let mut folders = env::split_paths(&path).peekable();
    folders.next_if(is_place)?;
    env::join_paths(folders).ok()
}
