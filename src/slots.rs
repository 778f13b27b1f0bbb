//! Where workers may be started: hosts, how many on each, and who said so. `launch/hosts.rs` finds out.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The hosts that workers may be started on, and how many on each.
///
/// They are found in this order: the allocation of Slurm, a host file
/// ([`Builder::hostfile`](crate::Builder::hostfile), or the one that `OFFSHOOT_HOSTFILE` names), the cores
/// of this machine. A host file inside an allocation chooses among the allocation's hosts. What the MPI
/// says of itself (the universe size) does not count.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let slots = offshoot::Slots::find()?;
/// println!("{} workers fit, says {}", slots.total(), slots.source);
/// # assert!(slots.total() > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Slots {
    /// The hosts, in the order in which workers fill them.
    pub hosts: Vec<HostSlots>,
    /// Who says so.
    pub source: Source,
}

/// One host, and how many workers fit on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostSlots {
    /// Its name, as the source has it.
    pub name: String,
    /// How many workers fit: one a core, as a rule.
    pub slots: u32,
    /// Whether it is the host of this process.
    pub is_own: bool,
}

/// Where a number of workers comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// The program itself, or its user: `workers(..=n)`, `--workers`.
    User,
    /// The allocation of Slurm, by `SLURM_JOB_NODELIST` and `SLURM_JOB_CPUS_PER_NODE`.
    Slurm,
    /// This host file.
    HostFile(PathBuf),
    /// The cores that this process may use.
    Cores,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("the setting `workers`"),
            Self::Slurm => f.write_str("the allocation of Slurm"),
            Self::HostFile(path) => write!(f, "the host file `{}`", path.display()),
            Self::Cores => f.write_str("the cores of this machine"),
        }
    }
}

impl Slots {
    /// How many workers fit on all hosts together.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.hosts.iter().fold(0, |sum, host| sum.saturating_add(host.slots))
    }

    /// Whether there is another host than that of this process.
    #[must_use]
    pub fn has_other_hosts(&self) -> bool {
        self.hosts.iter().any(|host| !host.is_own)
    }
}

/// What is wrong with hosts and slots.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SlotsError {
    /// The host file cannot be read, or names no host.
    #[error("the host file `{}` {reason}; it has one host a line: `node1 slots=4`, or `node1:4`", path.display())]
    HostFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A line of the host file makes no sense.
    #[error("{}:{line}: {reason}; one host a line: `node1 slots=4`, or `node1:4`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable of Slurm makes no sense.
    #[error("{variable} is `{value}`: {reason}; outside of an allocation, `unset SLURM_JOB_NODELIST`")]
    Slurm {
        /// Its name.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More workers are asked for than fit.
    #[error(
        "up to {workers} workers are asked for, and {source_of_slots} has {slots} slot(s): ask for fewer, or say \
         `oversubscribe(true)` (`--oversubscribe`) to have several workers share a core"
    )]
    TooMany {
        /// The most workers that were asked for.
        workers: u32,
        /// How many fit.
        slots: u32,
        /// Who says so.
        source_of_slots: Source,
    },
    /// This MPI cannot start workers on other hosts.
    #[error("{source_of_slots} has other hosts than this one, and {reason}")]
    OwnHostOnly {
        /// Who names other hosts.
        source_of_slots: Source,
        /// Why they cannot be used, and what to do.
        reason: String,
    },
}

impl SlotsError {
    pub(crate) fn line(path: &Path, line: usize, reason: impl Into<String>) -> Self {
        Self::Line { path: path.to_owned(), line, reason: reason.into() }
    }
}
