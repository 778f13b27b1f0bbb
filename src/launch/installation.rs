//! The files of the MPI that is loaded into this process: its library, its folder, its launcher.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::family::Family;

/// Where the files of an MPI are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installation {
    /// The library, as it is mapped into this process.
    pub(crate) library: Option<PathBuf>,
    /// The program through which it spawns.
    pub(crate) launcher: Option<PathBuf>,
}

impl Installation {
    /// Looks for what belongs to the library that is loaded.
    pub(super) fn find(family: Option<&Family>) -> Self {
        let library = loaded_library();
        let launcher = library.as_deref().zip(family).and_then(|(library, family)| {
            launcher_near(library, family.launcher.name).or_else(|| {
                // Debian's libraries, for one, lie far from its programs.
                in_path(OsStr::new(family.launcher.name)).filter(|_| !family.launcher.in_path)
            })
        });
        Self { library, launcher }
    }

    /// The folder that holds its `lib` and `bin`.
    pub(super) fn prefix(&self) -> Option<&Path> {
        let prefix = self.library.as_deref()?.parent()?.parent()?;
        prefix.join("bin").is_dir().then_some(prefix)
    }
}

/// `bin/NAME` in the nearest folder above the library that has one: `PREFIX/lib/libmpi.so` belongs to
/// `PREFIX/bin/mpiexec`, and Debian's `/usr/lib/x86_64-linux-gnu/libmpi.so` to `/usr/bin/orted`.
fn launcher_near(library: &Path, name: &str) -> Option<PathBuf> {
    let folders = library.parent()?.ancestors().skip(1);
    folders.map(|folder| folder.join("bin").join(name)).find(|candidate| is_executable(candidate))
}

/// The MPI library that is mapped into this process.
fn loaded_library() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..]))).find_map(|path| {
        let name = path.file_name()?.to_str()?;
        let names = ["libmpi.so", "libmpich.so", "libmpi_abi.so"];
        names.iter().any(|library| name.starts_with(library)).then(|| path.to_path_buf())
    })
}

/// The first executable of this name in `PATH`.
pub(super) fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

pub(super) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
