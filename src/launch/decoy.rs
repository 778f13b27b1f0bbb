//! A decoy, so that hydra kills somebody else in the host's place.
//!
//! A process that was started plainly and spawns with MPICH or Intel MPI forks `mpiexec -pmi_args PORT
//! INTERFACE KEY PID`, with its own process id last. When anything goes wrong (a guard is killed, `mpiexec`
//! itself is, the host ends without `MPI_Finalize`) hydra kills the whole process group of that process:
//! the host, what runs beside it, the user's shell. The number is used for nothing else, so it may be that
//! of a process whose only purpose is to be killed.
//!
//! For that, the first `mpiexec` in `PATH` is this executable, which becomes the real one after it has put a
//! decoy's number in the place of the host's. It lies in a folder that exists during the first spawn only:
//! nothing is left of it, whatever becomes of the host, except in those tenths of a second.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::process;

/// In the environment of what MPI starts as its `mpiexec`: the real one.
const LAUNCHER_VARIABLE: &str = "OFFSHOOT_LAUNCHER";
/// First argument of a launcher that a plain process starts.
const SINGLETON_FLAG: &str = "-pmi_args";

/// Where a decoy will be, and the rest of what [`Decoy::lay`] needs.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    folder: PathBuf,
    name: &'static str,
}

/// Prepares the environment for a decoy of `launcher`: its folder comes first in `PATH`. None where no
/// folder can be made.
pub(super) fn plan(launcher: &Path, name: &'static str) -> Option<Plan> {
    let own = env::temp_dir();
    let base = [own.as_path(), Path::new("/tmp"), Path::new("/dev/shm")]
        .into_iter()
        .find(|base| base.is_dir() && rustix::fs::access(*base, rustix::fs::Access::WRITE_OK).is_ok())?;
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).ok()?;
    let folder = base.join(format!("offshoot-{:016x}", u64::from_ne_bytes(random)));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([folder.clone()].into_iter().chain(env::split_paths(&path))).ok()?;
    process::set_variable("PATH", &path);
    process::set_variable(LAUNCHER_VARIABLE, launcher.as_os_str());
    Some(Plan { folder, name })
}

/// A decoy that lies where MPI looks for its launcher, as long as this lives.
pub(crate) struct Decoy {
    folder: PathBuf,
    link: PathBuf,
}

impl Plan {
    /// Lays the decoy, for the first spawn of this process.
    pub(crate) fn lay(&self) -> std::io::Result<Decoy> {
        let decoy = Decoy { folder: self.folder.clone(), link: self.folder.join(self.name) };
        // Nobody else's: it must not be there, and nobody else may write into it.
        DirBuilder::new().mode(0o700).create(&decoy.folder)?;
        symlink(env::current_exe()?, &decoy.link)?;
        Ok(decoy)
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        // Both are ours; what cannot be removed harms nobody.
        let _ = fs::remove_file(&self.link);
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

/// `PATH` without the folder of a decoy that this process has inherited.
pub(crate) fn plain_path() -> Option<OsString> {
    let path = env::var_os("PATH")?;
    let is_ours = |folder: &PathBuf| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("offshoot-").is_some_and(|random| random.len() == 16) && !folder.exists()
    };
    let mut folders = env::split_paths(&path).peekable();
    folders.next_if(is_ours)?;
    env::join_paths(folders).ok()
}
