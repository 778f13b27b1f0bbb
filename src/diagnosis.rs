//! What `offshoot doctor` shows and bug reports need: which MPI this is, what was done for it, what was found.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::containment::Containment;
use crate::finding::{Finding, Status};
use crate::isolation::Isolation;
use crate::launch::{self, Outcome, Prepared, ProcessManager};
use crate::pool;
use crate::slots::{Slots, SlotsError};
use crate::transport::mpi;

/// What is known of this process's MPI and of the machine, without starting anything.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// This library's version.
    pub offshoot: &'static str,
    /// The MPI implementation, by its usual name, if it is one that offshoot knows.
    pub mpi: Option<&'static str>,
    /// What the MPI library says of itself (`MPI_Get_library_version`), its first line.
    pub mpi_version: String,
    /// The MPI library that this process has loaded.
    pub library: Option<PathBuf>,
    /// Who starts what `MPI_Comm_spawn` asks for: `own`, a thread of this process, or `launcher`, the MPI's program.
    pub process_manager: String,
    /// The program through which that library spawns, if it is needed.
    pub launcher: Option<PathBuf>,
    /// The thread level that MPI gave, once a pool has initialized it.
    pub thread_level: Option<&'static str>,
    /// `MPI_UNIVERSE_SIZE`, once a pool has spawned a worker, and if MPI sets it. Shown, never trusted.
    pub universe_size: Option<i32>,
    /// Whether one thread may spawn while another sends and receives, and what that costs.
    pub spawn_thread: Option<&'static str>,
    /// Which mode a pool of this process gets that leaves it open, and why.
    pub isolation: Isolation,
    /// Why it does.
    pub isolation_reason: &'static str,
    /// What a worker's death may do to this process in the middle of a transfer.
    pub containment: Containment,
    /// What stands between this process and a worker's death at any other time.
    pub contained_by: Option<&'static str>,
    /// The hosts and how many workers fit on each, if that can be told.
    pub slots: Option<Slots>,
    /// Environment variables that this MPI needs, and what became of each.
    pub environment: Vec<Variable>,
    /// What was looked at on this machine.
    pub findings: Vec<Finding>,
}

/// An environment variable that an MPI needs.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is now; `None` if it was removed.
    pub value: Option<String>,
    /// Who says so.
    pub origin: Origin,
    /// What goes wrong otherwise.
    pub why: &'static str,
}

/// Who has decided about an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// [`init`](crate::init) has set it.
    Set,
    /// [`init`](crate::init) has left it as the user had set it.
    User,
    /// [`init`](crate::init) has removed it.
    Removed,
}

impl Diagnosis {
    /// Looks at everything that can be looked at without starting anything. [`None`] if
    /// [`init`](crate::init) was not called.
    #[must_use]
    pub fn make() -> Option<Self> {
        Self::of_slots(Slots::find())
    }

    /// As [`Diagnosis::make`], with this host file.
    #[must_use]
    pub fn make_with(host_file: &Path) -> Option<Self> {
        Self::of_slots(Slots::find_in(host_file))
    }

    fn of_slots(slots: Result<Slots, SlotsError>) -> Option<Self> {
        let prepared = launch::prepared()?;
        let facts = mpi::facts();
        let has_other_hosts = slots.as_ref().is_ok_and(Slots::has_other_hosts);
        let manager = facts.map_or_else(|| launch::process_manager(has_other_hosts), |facts| facts.manager);
        let mut findings = launch::findings(prepared, manager);
        findings.push(match &slots {
            Ok(slots) => Finding::ok("slots", format!("{} in all, {}", slots.total(), slots.source)),
            Err(error) => {
                Finding::failure("slots", error.to_string(), "correct it, or name another host file")
            }
        });
        let family = prepared.family;
        let decision = match pool::decide(Isolation::Auto) {
            Ok(decision) => decision,
            Err(error) => {
                findings.push(Finding::failure("isolation", error.to_string(), "correct it, or unset it"));
                pool::decide_alone()
            }
        };
        Some(Self {
            isolation: decision.isolation,
            isolation_reason: decision.reason,
            offshoot: env!("CARGO_PKG_VERSION"),
            mpi: family.map(|family| family.name),
            mpi_version: prepared.version.lines().next().unwrap_or_default().to_owned(),
            library: prepared.installation.library.clone(),
            process_manager: manager.to_string(),
            launcher: prepared.installation.launcher.clone(),
            thread_level: facts.map(|facts| facts.thread_level),
            universe_size: facts.and_then(|facts| facts.universe_size),
            spawn_thread: family.map(|family| family.spawn_thread),
            containment: facts.map_or(prepared.transport.containment, |facts| facts.containment),
            contained_by: family.map(|family| match manager {
                ProcessManager::Own => OWN_CONTAINMENT,
                ProcessManager::Launcher => family.containment,
            }),
            environment: environment(prepared),
            slots: slots.ok(),
            findings,
        })
    }

    /// Whether nothing was found that keeps this process from spawning.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.findings.iter().all(|finding| finding.status < Status::Failure)
    }
}

/// What stands between the host and a worker's death where the process manager is offshoot's own.
const OWN_CONTAINMENT: &str = "the guard, and a process manager of offshoot's own: nobody but the pool hears of the death of \
                               a worker, or of a guard";

fn environment(prepared: &Prepared) -> Vec<Variable> {
    let shown = prepared.variables.iter().map(|variable| {
        let (value, origin) = match &variable.outcome {
            Outcome::Set(value) => (Some(value.clone()), Origin::Set),
            Outcome::Left(value) => (Some(value.clone()), Origin::User),
            Outcome::Removed => (None, Origin::Removed),
        };
        Variable { name: variable.name, value, origin, why: variable.why }
    });
    shown.collect()
}
