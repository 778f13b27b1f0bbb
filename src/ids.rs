//! Identities: one newtype for each thing that has a number, so that no two can be confused.
//!
//! An MPI rank is not among them: a rank belongs to a communicator and stays inside `transport`.

use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $visibility:vis $name:ident($inner:ty) = $word:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        $visibility struct $name(pub(crate) $inner);

        impl $name {
            /// The bare number, for logs and tables.
            #[must_use]
            #[allow(dead_code, reason = "not every id is shown as a bare number")]
            $visibility fn number(self) -> u64 {
                u64::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// One submitted task; unique within its pool and never reused.
    pub TaskId(u64) = "task";
    /// One worker, from the decision to spawn it to its end; unique within its pool and never reused.
    pub WorkerId(u32) = "worker";
    /// One worker executable of a pool, with its arguments and environment. The first is the default.
    pub ProgramId(u32) = "program";
    /// One registered function, numbered in the order in which this process first used it.
    pub(crate) KindId(u32) = "kind";
}
