//! What a worker's death may do to the process that holds the MPI, as far as that was chosen.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the death of a worker may do to its host while bytes are on their way between them.
///
/// Everything else that a worker's death could do is contained in any case, by the guard between it and the MPI. But
/// the MPI library in the host itself may abort the host when a peer is gone in the middle of a transfer; which
/// transport it uses, and in what portions, decides.
///
/// It is chosen once for a process, by the environment variable `OFFSHOOT_CONTAINMENT` (`survivable` or `fast`), which
/// [`init`](crate::init) reads: transports are chosen by environment variables that have to be set before any
/// thread exists. [`Builder::containment`](crate::Builder::containment) asks for one of them and is refused where it is not the one
/// that was chosen; [`Stats::containment`](crate::Stats::containment) says what a pool has. What that costs, and what was tried, is in `docs/MPI.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Containment {
    /// The host lives, whenever a worker on its own machine dies. MPI is told to use a transport that was seen to
    /// survive it, which is slower than the fastest; large frames travel in portions where that is needed.
    #[default]
    Survivable,
    /// The MPI's own choice of transport. When a worker dies in the middle of a transfer, the MPI library may
    /// abort the host, or hang, so that no handle is answered: as a rule with payloads of kilobytes and more,
    /// seldom with small ones.
    Fast,
}

impl Containment {
    /// As [`VARIABLE`] names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Survivable => "survivable",
            Self::Fast => "fast",
        }
    }
}

/// The environment variable that chooses.
pub(crate) const VARIABLE: &str = "OFFSHOOT_CONTAINMENT";

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Containment {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Survivable, Self::Fast].into_iter().find(|one| one.name() == name).ok_or(())
    }
}
