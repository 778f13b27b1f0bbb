//! Open MPI 5: spawns through `prte`, which the library finds relative to itself.

use super::{Family, Setting, When};

pub(super) const FAMILY: Family = Family {
    name: "Open MPI 5",
    recognizes: |version| version.starts_with("Open MPI v5") || version.starts_with("Open MPI v6"),
    environment: &[
        Setting {
            name: "PRTE_MCA_rmaps_default_mapping_policy",
            value: ":oversubscribe",
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
            name: "OMPI_MCA_mpi_ft_enable",
            value: "1",
            when: When::Always,
            why: "together with the next: otherwise the death of one worker ends the host",
        },
        Setting {
            name: "PRTE_MCA_prte_enable_ft",
            value: "1",
            when: When::Always,
            why: "together with the one before: otherwise the death of one worker ends the host",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT",
            value: "1",
            when: When::Root,
            why: "it refuses to run as root",
        },
        Setting {
            name: "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            value: "1",
            when: When::Root,
            why: "it refuses to run as root",
        },
        Setting {
            name: "PRTE_ALLOW_RUN_AS_ROOT",
            value: "1",
            when: When::Root,
            why: "prte refuses to run as root",
        },
        Setting {
            name: "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
            value: "1",
            when: When::Root,
            why: "prte refuses to run as root",
        },
    ],
    launcher_in_path: false,
};
