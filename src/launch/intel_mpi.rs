//! Intel MPI: MPICH's relative, with a switch for spawning.

use super::{Family, Setting, When};

pub(super) const FAMILY: Family = Family {
    name: "Intel MPI",
    recognizes: |version| version.starts_with("Intel(R) MPI"),
    environment: &[Setting {
        name: "I_MPI_SPAWN",
        value: "on",
        when: When::Always,
        why: "MPI_Comm_spawn is off without it",
    }],
    launcher_in_path: true,
};
