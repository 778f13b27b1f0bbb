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
        let launcher = family.and_then(|family| {
            let near = library.as_deref().and_then(|library| launcher_near(library, family.launcher.names));
            // Some installations keep programs and libraries far from each other.
            near.or_else(|| {
                in_path(OsStr::new(family.launcher.name())).filter(|found| !is_foreign(found, family))
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
fn launcher_near(library: &Path, names: &[&str]) -> Option<PathBuf> {
    let folders = library.parent()?.ancestors().skip(1);
    let candidates = folders.flat_map(|folder| names.iter().map(move |name| folder.join("bin").join(name)));
    candidates
        .filter(|candidate| is_executable(candidate))
        .find(|candidate| !is_open_mpi(candidate) || names.len() == 1)
}

/// Whether this is another MPI's launcher under the same name, as systems with several of them have it.
fn is_foreign(launcher: &Path, family: &Family) -> bool {
    family.launcher.names.len() > 1 && is_open_mpi(launcher)
}

/// Whether `mpiexec` is Open MPI's: a link to its one launcher, in the end.
fn is_open_mpi(launcher: &Path) -> bool {
    let target = launcher.canonicalize().unwrap_or_default();
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ["orterun", "prterun"].contains(&&*name) || name.ends_with(".openmpi")
}

/// The MPI library that is mapped into this process.
fn loaded_library() -> Option<PathBuf> {
    mapped_files(&own_maps()).find(|path| is_mpi(path)).map(PathBuf::from)
}

/// Whether more than one MPI library is mapped into this process: then nobody knows whose functions are called.
pub(crate) fn has_two_mpis() -> bool {
    count_mpis(&own_maps()) > 1
}

fn count_mpis(maps: &str) -> usize {
    let mut found: Vec<&str> = mapped_files(maps).filter(|path| is_mpi(path)).collect();
    found.sort_unstable();
    found.dedup();
    found.len()
}

fn is_mpi(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    ["libmpi.so", "libmpich.so", "libmpi_abi.so"].iter().any(|library| name.starts_with(library))
}

/// What is mapped into this process, as the system lists it.
pub(super) fn own_maps() -> String {
    fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

/// The files in such a list, once for each part that is mapped.
pub(super) fn mapped_files(maps: &str) -> impl Iterator<Item = &str> {
    maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]))
}

/// The first executable of this name in `PATH`.
pub(super) fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

pub(super) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_counts_once_however_often_it_is_mapped() {
        let line = |path: &str| format!("7f00-7f01 r-xp 00000000 08:01 42   {path}\n");
        let one = line("/usr/lib/libmpi.so.40.30.4").repeat(3) + &line("/usr/lib/libmpi_usempif08.so.40");
        assert_eq!(count_mpis(&one), 1);
        assert_eq!(count_mpis(&(one + &line("/opt/mpich/lib/libmpi.so.12.5.2"))), 2);
        assert_eq!(count_mpis(&line("/usr/lib/libc.so.6")), 0);
    }
}
