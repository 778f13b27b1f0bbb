//! What can be said of an executable without starting it: is it there, may it be run, is it of this
//! machine's kind, does it speak this process's MPI. Some MPIs hang for ever on one that is not.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use goblin::elf::Elf;
use goblin::elf::header::{self, Header};

use super::elf;
use super::installation::is_executable;
use super::program::Program;
use crate::finding::Finding;

const CHECK: &str = "executable";

/// This process's own.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// How a script begins.
const SCRIPT: &[u8] = b"#!";

/// Refuses a program that cannot be started, or not as a worker of this process.
pub(crate) fn check_program(program: &Program) -> Result<(), Finding> {
    check_executable(program.path())?;
    let refuse = |found: String, remedy: &str| Err(Finding::failure("working directory", found, remedy));
    match program.directory() {
        Ok(directory) if directory.is_dir() => Ok(()),
        Ok(directory) => {
            let shown = directory.display();
            refuse(format!("`{shown}` does not exist"), &format!("mkdir -p '{shown}', or name another"))
        }
        Err(error) => refuse(error, "change to a directory that exists, or set `Program::current_dir`"),
    }
}

/// Refuses a file that cannot be a worker of this process.
pub(super) fn check_executable(path: &Path) -> Result<(), Finding> {
    let shown = path.display();
    let refuse = |found: String, remedy: String| Err(Finding::failure(CHECK, found, remedy));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            let remedy = if path.to_string_lossy().ends_with(" (deleted)") {
                "it was replaced while this process ran: start the process again".to_owned()
            } else {
                format!("look with `ls -l '{shown}'`; a relative path starts at the host's directory")
            };
            return refuse(format!("`{shown}` cannot be read: {error}"), remedy);
        }
    };
    if !metadata.is_file() {
        return refuse(format!("`{shown}` is not a file"), "name the executable itself".to_owned());
    }
    if !is_executable(path) {
        return refuse(format!("`{shown}` is not executable"), format!("chmod +x '{shown}'"));
    }
    match beginning(path) {
        Some(start) if start.starts_with(SCRIPT) => check_script(path, &start),
        Some(start) if start.starts_with(header::ELFMAG) => check_elf(path, &start),
        // Perhaps the kernel knows what to do with it; if not, its guard says so at once.
        Some(_) | None => Ok(()),
    }
}

fn beginning(path: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    fs::File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    Some(start)
}

/// A script needs the interpreter of its first line.
fn check_script(path: &Path, start: &[u8]) -> Result<(), Finding> {
    let line = start[SCRIPT.len()..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let interpreter = line.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let interpreter = Path::new(std::ffi::OsStr::from_bytes(interpreter));
    if is_executable(interpreter) {
        return Ok(());
    }
    let found = format!(
        "`{}` is a script for `{}`, which is not there",
        path.display(),
        interpreter.display().to_string().escape_debug()
    );
    Err(Finding::failure(CHECK, found, "correct its first line, or install the interpreter"))
}

fn check_elf(path: &Path, start: &[u8]) -> Result<(), Finding> {
    let shown = path.display();
    let own = beginning(Path::new(OWN_EXECUTABLE)).and_then(|start| Elf::parse_header(&start).ok());
    let (Some(own), Ok(theirs)) = (own, Elf::parse_header(start)) else {
        return Err(Finding::failure(CHECK, format!("`{shown}` is a damaged program"), "build it again"));
    };
    let kind = |header: &Header| (header.e_machine, header.e_ident[header::EI_CLASS]);
    if kind(&own) != kind(&theirs) {
        let (own, theirs) = (kind_name(&own), kind_name(&theirs));
        let found = format!("`{shown}` is a program for {theirs}, and this machine runs {own}");
        return Err(Finding::failure(CHECK, found, "build it for this machine"));
    }
    // Once, as long as it is the same.
    let stamp = Stamp::of(path);
    if stamp.as_ref().is_some_and(|stamp| fine().contains(stamp)) {
        return Ok(());
    }
    // One that is stripped of all that this looks at may still run.
    let Ok(needs) = elf::needs(path, &theirs) else { return Ok(()) };
    if let Some(loader) = needs.interpreter
        && !Path::new(&loader).exists()
    {
        let found = format!("`{shown}` needs the loader `{loader}`, which is not there");
        return Err(Finding::failure(CHECK, found, "build it for this system's C library"));
    }
    check_mpi(path, &needs.libraries)?;
    let mut fine = fine();
    fine.extend(stamp);
    let surplus = fine.len().saturating_sub(STAMPS_MAX);
    fine.drain(..surplus);
    Ok(())
}

/// An executable as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let (inode, length) = (metadata.ino(), metadata.len());
        Some(Self { path: path.to_owned(), inode, length, modified: metadata.modified().ok() })
    }
}

/// The executables that nothing was said against, the latest last.
fn fine() -> MutexGuard<'static, Vec<Stamp>> {
    static FINE: Mutex<Vec<Stamp>> = Mutex::new(Vec::new());
    FINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of them are remembered.
const STAMPS_MAX: usize = 64;

fn kind_name(header: &Header) -> String {
    let bits = if header.e_ident[header::EI_CLASS] == header::ELFCLASS64 { 64 } else { 32 };
    format!("{} ({bits} bits)", header::machine_to_str(header.e_machine).trim_start_matches("EM_"))
}

/// Both binary interfaces of MPI, and the libraries that have them. A library of the MPI 5 standard's
/// interface goes with either.
const INTERFACES: [(&str, &[&str]); 2] = [
    ("Open MPI", &["libmpi.so.40", "libmpi.so.20"]),
    ("MPICH or Intel MPI", &["libmpi.so.12", "libmpich.so.12"]),
];

/// A worker with another MPI than its host never finds it.
fn check_mpi(path: &Path, libraries: &[String]) -> Result<(), Finding> {
    static OWN: OnceLock<Option<(&'static str, String)>> = OnceLock::new();
    let own = OWN.get_or_init(|| {
        let path = Path::new(OWN_EXECUTABLE);
        let header = Elf::parse_header(&beginning(path)?).ok()?;
        let needs = elf::needs(path, &header).ok()?;
        let (name, library) = interface(&needs.libraries)?;
        Some((name, library.to_owned()))
    });
    match (own, interface(libraries)) {
        (Some((own, own_library)), Some((theirs, their_library))) if *own != theirs => Err(Finding::failure(
            CHECK,
            format!(
                "`{}` is linked with {theirs} (`{their_library}`), and this process with {own} (`{own_library}`)",
                path.display()
            ),
            "build both with one MPI: with one `MPICC`, and a target directory for each",
        )),
        _ => Ok(()),
    }
}

fn interface(libraries: &[impl AsRef<str>]) -> Option<(&'static str, &str)> {
    libraries.iter().map(AsRef::as_ref).find_map(|library| {
        let (name, _) = INTERFACES.iter().find(|(_, sonames)| sonames.contains(&library))?;
        Some((*name, library))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What is said of a file with this content, executable if `mode` says so.
    fn verdict(content: &[u8], mode: u32) -> String {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let path = folder.path().join("worker");
        fs::write(&path, content).expect("the folder can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
        check_executable(&path).map_or_else(|finding| finding.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn what_can_be_run_is_fine() {
        for path in ["/bin/sh", "/proc/self/exe"] {
            assert_eq!(check_executable(Path::new(path)), Ok(()));
        }
        assert_eq!(verdict(b"#!/bin/sh\nexit 3\n", 0o755), "fine");
        assert_eq!(verdict(b"#! /usr/bin/env python3\n", 0o755), "fine");
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_a_remedy() {
        let missing = check_executable(Path::new("/nowhere/worker")).expect_err("it is missing");
        assert!(missing.to_string().contains("No such file") && missing.remedy.is_some(), "{missing}");
        let folder = check_executable(Path::new("/")).expect_err("it is a folder");
        assert!(folder.found.contains("not a file"), "{folder}");
        assert!(verdict(b"#!/bin/sh\n", 0o644).contains("chmod +x"));
        assert!(verdict(b"#!/no/such/shell -e\n", 0o755).contains("`/no/such/shell`, which is not there"));
        assert!(verdict(b"\x7fELF", 0o755).contains("damaged"));
    }

    #[test]
    fn a_program_for_another_machine_is_refused() {
        let mut program = fs::read("/bin/sh").expect("there is a shell");
        let other = if cfg!(target_arch = "aarch64") { header::EM_X86_64 } else { header::EM_AARCH64 };
        program[18..20].copy_from_slice(&other.to_le_bytes());
        let said = verdict(&program, 0o755);
        assert!(said.contains("is a program for") && said.contains("build it for this machine"), "{said}");
    }

    #[test]
    fn the_two_interfaces_are_told_apart() {
        assert_eq!(interface(&["libc.so.6", "libmpi.so.40"]), Some(("Open MPI", "libmpi.so.40")));
        assert_eq!(interface(&["libmpi.so.12"]), Some(("MPICH or Intel MPI", "libmpi.so.12")));
        assert_eq!(interface(&["libmpi_abi.so.1"]), None);
    }
}
