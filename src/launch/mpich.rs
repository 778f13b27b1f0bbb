//! MPICH: a singleton starts `mpiexec -pmi_args …`, the first one in `PATH`, and waits for it without a
//! time-out. Another MPI's `mpiexec` in that place is a hang.

use super::Family;

pub(super) const FAMILY: Family = Family {
    name: "MPICH",
    recognizes: |version| version.starts_with("MPICH Version"),
    environment: &[],
    launcher_in_path: true,
};
