//! Where the MPI of a pool lives: in the host's own process, or in one beside it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where the MPI of a pool lives.
///
/// Set with [`Builder::isolation`](crate::Builder::isolation), or, for pools that leave it open, by the environment
/// variable `OFFSHOOT_ISOLATION` (`auto`, `embedded`, `isolated`). What a pool has, and why, say
/// [`Stats::isolation`](crate::Stats::isolation) and [`Stats::isolation_reason`](crate::Stats::isolation_reason).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Isolation {
    /// Embedded where that is safe, isolated where it is not: in a process that has loaded two MPIs, that is a rank of a
    /// job of several, whose MPI was initialized below `MPI_THREAD_MULTIPLE` or finalized, or that was forked from one with an
    /// MPI. The default.
    #[default]
    Auto,
    /// In this process: one thread of it makes the MPI calls.
    Embedded,
    /// In a process of its own, the *isolated parent*. This one makes no MPI call. When the parent dies another is started,
    /// which costs each task that ran an attempt.
    Isolated,
}

/// The environment variable that chooses for pools that leave it open.
pub(crate) const VARIABLE: &str = "OFFSHOOT_ISOLATION";

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Embedded => "embedded",
            Self::Isolated => "isolated",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Auto, Self::Embedded, Self::Isolated];
        all.into_iter()
            .find(|one| one.name() == name)
            .ok_or_else(|| format!("`{name}` is none of `auto`, `embedded` and `isolated`"))
    }
}
