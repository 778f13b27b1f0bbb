//! Open MPI 4: spawns through `orted`, which the library finds relative to itself.

use super::{Family, Setting, When};

pub(super) const FAMILY: Family = Family {
    name: "Open MPI 4",
    recognizes: |version| version.starts_with("Open MPI v4") || version.starts_with("Open MPI v3"),
    environment: &[
        Setting {
            name: "OMPI_MCA_rmaps_base_oversubscribe",
            value: "1",
            when: When::Always,
            why: "a singleton has as many slots as there are cores, itself included: without this, not enough slots",
        },
        Setting {
            name: "OMPI_MCA_mpi_yield_when_idle",
            value: "1",
            when: When::Always,
            why: "a process that waits inside MPI spins; with more processes than cores a round trip takes milliseconds",
        },
        Setting {
            name: "OMPI_MCA_orte_enable_recovery",
            value: "1",
            when: When::Always,
            why: "otherwise the death of one worker ends the host and all other workers",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT",
            value: "1",
            when: When::Root,
            why: "orted refuses to run as root without both",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            value: "1",
            when: When::Root,
            why: "orted refuses to run as root without both",
        },
    ],
    launcher_in_path: false,
};
