//! `--mpi PATH`: the same command with another installation of MPI, if this executable can use it.
//!
//! An executable is bound to the binary interface that it was built with: one for Open MPI with another Open
//! MPI, one for MPICH with another MPICH or Intel MPI.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use offshoot::Diagnosis;

/// Carries the folder to the process that this one becomes.
const WANTED_VARIABLE: &str = "OFFSHOOT_DOCTOR_MPI";

/// Why the library that this process has loaded is not the one that `--mpi` asked for, if so.
pub(super) fn complaint(diagnosis: &Diagnosis) -> Option<String> {
    let wanted = PathBuf::from(env::var_os(WANTED_VARIABLE)?).canonicalize().ok()?;
    let library = diagnosis.library.as_deref()?.canonicalize().ok()?;
    (!library.starts_with(&wanted)).then(|| {
        format!(
            "this executable loads `{}` whatever it is told: build another one with `MPICC={} cargo build --release`",
            library.display(),
            wanted.join("bin/mpicc").display()
        )
    })
}

/// Becomes the doctor of the MPI in `folder`, or says why that cannot be.
pub(super) fn look(folder: &Path) -> String {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let shown = folder.display();
    if !folder.is_dir() {
        return format!("`{shown}` is no folder: name the one that has the `bin` and `lib` of an MPI");
    }
    let Some(own) = Diagnosis::make().and_then(|diagnosis| diagnosis.library).as_deref().and_then(soname)
    else {
        return "this executable has loaded no MPI library, which is a bug".to_owned();
    };
    let libraries: Vec<PathBuf> = ["lib", "lib64"].iter().map(|name| folder.join(name)).collect();
    let Some(library) = libraries.iter().find(|library| library.join(&own).exists()) else {
        let wrapper = folder.join("bin/mpicc");
        return if wrapper.exists() {
            format!(
                "this executable was built for `{own}`, and `{shown}` has none: build another one with \
                 `MPICC={} cargo build --release`, in a target directory of its own",
                wrapper.display()
            )
        } else {
            format!("`{shown}` holds no MPI: neither `lib/{own}` nor `bin/mpicc` is there")
        };
    };
    let before = |first: PathBuf, name: &str| {
        let rest = env::var_os(name).unwrap_or_default();
        let all =
            [first].into_iter().chain(env::split_paths(&rest)).filter(|path| !path.as_os_str().is_empty());
        env::join_paths(all).unwrap_or_default()
    };
    let arguments = env::args_os().skip(1).collect::<Vec<_>>();
    let error = Command::new("/proc/self/exe")
        .args(without_mpi(arguments))
        .env_clear()
        // What was set for the MPI that this process began with is not for the other.
        .envs(offshoot::user_environment())
        .env("LD_LIBRARY_PATH", before(library.clone(), "LD_LIBRARY_PATH"))
        .env("PATH", before(folder.join("bin"), "PATH"))
        .env(WANTED_VARIABLE, &folder)
        .env_remove("I_MPI_ROOT")
        .env_remove("OPAL_PREFIX")
        .env_remove("PRTE_PREFIX")
        .exec();
    format!("this executable could not be started again: {error}")
}

/// The name under which the loader looks for a library: `libmpi.so.40` of `libmpi.so.40.30.4`.
fn soname(library: &Path) -> Option<String> {
    let name = library.file_name()?.to_str()?;
    let (stem, version) = name.split_once(".so")?;
    let major = version.trim_start_matches('.').split('.').next().filter(|major| !major.is_empty());
    Some(major.map_or_else(|| format!("{stem}.so"), |major| format!("{stem}.so.{major}")))
}

/// The arguments without `--mpi PATH`.
fn without_mpi(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut rest = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--mpi" {
            arguments.next();
        } else if !argument.to_string_lossy().starts_with("--mpi=") {
            rest.push(argument);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_asks_for_the_major_version() {
        let of = |name: &str| soname(Path::new(name));
        assert_eq!(of("/usr/lib/libmpi.so.40.30.4").as_deref(), Some("libmpi.so.40"));
        assert_eq!(of("/opt/lib/libmpi.so.12").as_deref(), Some("libmpi.so.12"));
        assert_eq!(of("/opt/lib/libmpi_abi.so").as_deref(), Some("libmpi_abi.so"));
        assert_eq!(of("/opt/lib/libmpi.a"), None);
    }

    #[test]
    fn the_second_time_the_folder_is_not_named() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(without_mpi(words("doctor --mpi /opt/x --json")), words("doctor --json"));
        assert_eq!(without_mpi(words("doctor --json --mpi=/opt/x")), words("doctor --json"));
    }
}
