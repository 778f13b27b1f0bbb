//! What can be said of this machine before MPI is initialized, and of what would make it fail or hang.
//!
//! Each check looks at one thing, takes no noticeable time and starts nothing; what it finds comes with the
//! command to type. The pool refuses to start at the first failure, `offshoot doctor` shows them all.

use std::env;
use std::ffi::OsStr;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::executable::check_executable;
use super::family::Family;
use super::installation::in_path;
use super::lending;
use super::manager::ProcessManager;
use super::prepare::Prepared;
use crate::finding::{Finding, Status};

/// Less room than this for shared memory is too little for the segments of a few workers.
const SHARED_MEMORY_MIN: u64 = 64 << 20;

/// Looks at everything. A failure means that this process cannot spawn, through this process manager.
pub(crate) fn findings(prepared: &Prepared, manager: ProcessManager) -> Vec<Finding> {
    let mut findings = vec![library(prepared)];
    let is_own = manager == ProcessManager::Own;
    // What was chosen for this machine says nothing of others.
    let is_chosen = manager == prepared.manager.manager;
    findings.extend(prepared.manager.finding.clone().filter(|_| is_chosen));
    if let Some(family) = prepared.family {
        findings.extend((!is_own).then(|| launcher(prepared, family)));
        findings.push(temporary_directory(family));
        findings.push(loopback());
        findings.extend(interfaces(family));
    }
    findings.extend([own_executable(), user(prepared), shared_memory()]);
    findings.push(prepared.transport.finding.clone());
    findings.push(lending::finding());
    findings.extend(prepared.family.and_then(|family| gap(family, manager)));
    findings.extend(surroundings(prepared.family));
    findings
}

/// The first thing that keeps this process from spawning, if there is one.
pub(crate) fn check_machine(prepared: &Prepared, manager: ProcessManager) -> Result<(), Finding> {
    if let Some(gap) = prepared.family.and_then(|family| gap(family, manager)) {
        tracing::warn!("{gap}");
    }
    let failure = findings(prepared, manager).into_iter().find(|finding| finding.status == Status::Failure);
    failure.map_or(Ok(()), Err)
}

/// Which deaths may end more than their worker.
fn gap(family: &Family, manager: ProcessManager) -> Option<Finding> {
    let found = (family.gap)(manager)?;
    let remedy = "where that must not be, give the pool a process of its own, which is started again; docs/MPI.md, \"Under fire\", says what was seen";
    Some(Finding::warning("deaths", found, remedy))
}

fn library(prepared: &Prepared) -> Finding {
    const CHECK: &str = "MPI library";
    let version = prepared.version.lines().next().unwrap_or("an MPI that does not say what it is");
    let path =
        prepared.installation.library.as_deref().map_or("no file", |path| path.to_str().unwrap_or("?"));
    let Some(family) = prepared.family else {
        let remedy = "Open MPI 4 and 5, MPICH and Intel MPI are known: use one of them, or try";
        return Finding::warning(CHECK, format!("{version} is not one that offshoot knows"), remedy);
    };
    match (family.refuses)(&prepared.version) {
        Some(refusal) => Finding::failure(CHECK, refusal.reason, refusal.remedy),
        None => Finding::ok(CHECK, format!("{}: {version}, from {path}", family.name)),
    }
}

/// The program that starts the workers, and whether the library will find it.
fn launcher(prepared: &Prepared, family: &Family) -> Finding {
    const CHECK: &str = "launcher";
    let name = family.launcher.name();
    let library = prepared.installation.library.as_deref().unwrap_or(Path::new("the library"));
    let Some(launcher) = &prepared.installation.launcher else {
        let first = in_path(OsStr::new(name));
        let other = first.map_or(String::new(), |first| {
            format!("; the first in PATH, `{}`, is another MPI's, and would hang", first.display())
        });
        let found = format!(
            "{} needs its own `{name}`, and none lies near `{}` or in PATH{other}",
            family.name,
            library.display()
        );
        let remedy =
            format!("install it, and `export PATH=ITS_FOLDER:$PATH`, where `ITS_FOLDER/{name}` is the file");
        return Finding::failure(CHECK, found, remedy);
    };
    let is_near = library.ancestors().skip(2).any(|folder| launcher.starts_with(folder.join("bin")));
    if is_near {
        return Finding::ok(CHECK, format!("`{}`", launcher.display()));
    }
    Finding::warning(
        CHECK,
        format!("`{}` is the first in PATH, and lies far from `{}`", launcher.display(), library.display()),
        format!("if spawns hang it is another MPI's: `export PATH=ITS_FOLDER:$PATH` with the right `{name}`"),
    )
}

/// Where MPIs keep their session files.
fn temporary_directory(family: &Family) -> Finding {
    const CHECK: &str = "temporary directory";
    let named = ["TMPDIR", "TEMP", "TMP"]
        .into_iter()
        .find_map(|name| Some((name, env::var_os(name).filter(|value| !value.is_empty())?)));
    let (name, path) = named.map_or(("TMPDIR", PathBuf::from("/tmp")), |(name, path)| (name, path.into()));
    let shown = path.display();
    let wrong = if path.as_os_str().len() > PATH_MAX {
        Some(format!(
            "has {} bytes, more than the {PATH_MAX} that leave room for the files in it",
            path.as_os_str().len()
        ))
    } else if !path.is_dir() {
        Some("is not a directory".to_owned())
    } else {
        access(&path, Access::WRITE_OK | Access::EXEC_OK)
            .err()
            .map(|error| format!("cannot be written: {error}"))
    };
    match wrong {
        None => Finding::ok(CHECK, format!("`{shown}` can be written")),
        Some(wrong) => {
            let make = if family.needs_temporary_directory { Finding::failure } else { Finding::warning };
            make(
                CHECK,
                format!("`{shown}` {wrong}"),
                format!("export {name}=/tmp, or another directory of yours"),
            )
        }
    }
}

/// Paths end at 4096 bytes (Linux, `PATH_MAX`), and session files lie some folders below.
const PATH_MAX: usize = 4096 - 256;

/// Daemons, and the processes of one machine on some transports, meet on the loopback interface.
fn loopback() -> Finding {
    const CHECK: &str = "loopback interface";
    let meets = || {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.connect(socket.local_addr()?)
    };
    match meets() {
        Ok(()) => Finding::ok(CHECK, "it is up"),
        Err(error) => {
            Finding::failure(CHECK, format!("127.0.0.1 cannot be reached: {error}"), "ip link set lo up")
        }
    }
}

/// The interfaces that the user has chosen, if any.
fn interfaces(family: &Family) -> Vec<Finding> {
    const CHECK: &str = "network interface";
    let mut findings = Vec::new();
    for &variable in family.interface_variables {
        let chosen = env::var(variable).unwrap_or_default();
        // Addresses, networks and exclusions are nobody's name.
        let names =
            chosen.split(',').map(str::trim).filter(|name| name.starts_with(|c: char| c.is_alphabetic()));
        for name in names.filter(|name| !name.contains(['/', ':', '.'])) {
            let flags = std::fs::read_to_string(format!("/sys/class/net/{name}/flags"));
            let flags = flags
                .ok()
                .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
            findings.push(match flags {
                Some(flags) if flags & 1 == 1 => {
                    Finding::ok(CHECK, format!("`{name}`, from {variable}, is up"))
                }
                Some(_) => Finding::failure(
                    CHECK,
                    format!("`{name}`, from {variable}, is down"),
                    format!("ip link set {name} up, or unset {variable}"),
                ),
                None => Finding::failure(
                    CHECK,
                    format!("{variable} names `{name}`, which is no interface of this machine"),
                    format!("choose one that `ip link` lists, or unset {variable}"),
                ),
            });
        }
    }
    findings
}

/// What MPI starts is this process's own executable, as a guard.
fn own_executable() -> Finding {
    const CHECK: &str = "this executable";
    match env::current_exe() {
        Ok(path) => match check_executable(&path) {
            Ok(()) => Finding::ok(CHECK, format!("`{}`", path.display())),
            Err(finding) => Finding { check: CHECK, ..finding },
        },
        Err(error) => Finding::failure(CHECK, format!("it has no path: {error}"), "mount /proc"),
    }
}

fn user(prepared: &Prepared) -> Finding {
    const CHECK: &str = "user";
    let id = rustix::process::geteuid();
    if !id.is_root() {
        return Finding::ok(CHECK, format!("{}", id.as_raw()));
    }
    let allowed = prepared.variables.iter().any(|variable| variable.name.contains("ALLOW_RUN_AS_ROOT"));
    Finding::ok(CHECK, if allowed { "root, which this MPI was told to allow" } else { "root" })
}

fn shared_memory() -> Finding {
    const CHECK: &str = "shared memory";
    let remedy = "mount a larger one; in a container: `docker run --shm-size=1g …`";
    match statvfs("/dev/shm") {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let found = format!("/dev/shm has {} MiB free", free >> 20);
            if free < SHARED_MEMORY_MIN {
                Finding::warning(CHECK, found, remedy)
            } else {
                Finding::ok(CHECK, found)
            }
        }
        Err(error) => Finding::warning(CHECK, format!("/dev/shm cannot be used: {error}"), remedy),
    }
}

/// Who has started this process, where that changes what a spawn does.
fn surroundings(family: Option<&Family>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(Job { rank, size }) = Job::of_this_process() {
        const CHECK: &str = "job of MPI processes";
        let found = format!("this process is rank {rank} of {size}");
        findings.push(if size > 1 {
            let remedy =
                "MPI_Init returns when all of them have called it; start this process alone, or see to that";
            Finding::warning(CHECK, found, remedy)
        } else {
            Finding::ok(CHECK, found)
        });
    }
    let in_step = env::var_os("SLURM_STEP_ID").is_some() && env::var_os("HYDRA_HOST_FILE").is_none();
    if in_step && family.is_some_and(|family| family.launcher.needs_decoy) {
        findings.push(Finding::warning(
            "Slurm step",
            "this process was started by `srun`, in a step in which hydra cannot start others",
            "export HYDRA_HOST_FILE=FILE that names the allocated hosts, this one first; or start it without `srun`",
        ));
    }
    for (manager, variable) in [("PBS", "PBS_JOBID"), ("LSF", "LSB_JOBID")] {
        if let Ok(job) = env::var(variable) {
            let found = format!("job {job}, whose hosts and slots are not read");
            findings.push(Finding::warning(
                manager,
                found,
                "write them into a file: `--hostfile`, OFFSHOOT_HOSTFILE",
            ));
        }
    }
    if let Ok(job) = env::var("SLURM_JOB_ID") {
        let nodes = env::var("SLURM_JOB_NODELIST").unwrap_or_else(|_| "unknown nodes".to_owned());
        findings.push(Finding::ok("Slurm", format!("job {job} on {nodes}")));
    }
    findings
}

/// The job of MPI processes that this one was started as a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) rank: u32,
    pub(crate) size: u32,
}

impl Job {
    /// As the launcher's variables tell it; `None` for a process that was started plainly.
    pub(crate) fn of_this_process() -> Option<Self> {
        let number = |name: &str| env::var(name).ok()?.parse().ok();
        [
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK", "PMI_SIZE"),
            ("PMIX_RANK", "SLURM_NTASKS"),
        ]
        .into_iter()
        .find_map(|(rank, size)| Some(Self { rank: number(rank)?, size: number(size)? }))
    }
}
