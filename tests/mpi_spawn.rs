//! Spawns under difficulties, a test for each row of the table in `docs/MPI.md`: programs that are no
//! workers, and surroundings that no MPI likes. `tests/hosts/spawn.rs` has the hosts, which check what they
//! see; here is in what surroundings each is started, how it should end, and that nothing is left of it.

mod common;

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};

use common::Scenario;
use rustix::process::Signal;

macro_rules! rows {
    ($($name:ident $(.$setting:ident($($value:expr),*))*;)*) => {$(
        #[test]
        fn $name() {
            Scenario::new(stringify!($name))$(.$setting($($value),*))*.run();
        }
    )*};
}

rows! {
    missing_executable;
    not_executable;
    bin_true;
    sleep_1000;
    exit_3_before_mpi_init;
    sigsegv_before_mpi_init;
    a_shell_script;
    an_mpi_program_that_is_no_worker_of_ours;
    a_worker_of_another_protocol_version;
    a_worker_of_another_mpi;
    workers_max_above_the_slots;
    a_guard_is_killed;
    guards_are_killed_again_and_again;
    no_launcher_runs;
    the_host_spawns_too;
    the_launcher_dies.env(MANAGER, "hydra");
    the_launcher_hangs.env(MANAGER, "hydra");
}

/// Who starts workers, with MPICH.
const MANAGER: &str = "OFFSHOOT_PROCESS_MANAGER";

/// What the process manager of the MPI itself is for, where there is one of offshoot's own.
#[test]
fn with_the_launcher_too() {
    for name in ["works", "a_guard_is_killed", "bin_true", "exit_3_before_mpi_init"] {
        Scenario::new(name).env(MANAGER, "hydra").run();
    }
}

/// Whatever ends the host, two seconds later nobody is there.
#[test]
fn the_host_is_killed() {
    for signal in [Signal::TERM, Signal::KILL, Signal::INT, Signal::ABORT] {
        let number = signal.as_raw().to_string();
        Scenario::new("waits_for_its_end").argument(&number).any_code().patience(2).run();
    }
}

/// The library lies alone in a folder, and there is no launcher, neither near it nor in `PATH`.
#[test]
fn no_launcher_anywhere() {
    let is_mpich = mpi::environment::library_version().is_ok_and(|version| version.starts_with("MPICH"));
    let libraries = env::var_os("LD_LIBRARY_PATH").filter(|_| is_mpich).unwrap_or_default();
    let name = "libmpi.so.12";
    let Some(folder) = env::split_paths(&libraries).find(|folder| folder.join(name).is_file()) else {
        eprintln!("skipped: this MPI needs its launcher, or is the system's");
        return;
    };
    // On a disk that is not full of memory's pages: the library is large.
    let lonely =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room for temporary files");
    fs::copy(folder.join(name), lonely.path().join(name)).expect("there is room for the library");
    // What it needs beside it.
    symlink(folder.join("mpich"), lonely.path().join("mpich")).expect("the folder can be written");
    let path = format!("{}:{}", lonely.path().display(), libraries.to_string_lossy());
    let said = Scenario::new("works").env("LD_LIBRARY_PATH", &path).env("PATH", "").run();
    assert_eq!(said, "");
    let launcher = Scenario::command().argument("doctor").argument("--look-only");
    let said = launcher.env("LD_LIBRARY_PATH", path).env("PATH", "").run();
    assert!(said.contains("launcher       not found"), "{said}");
}

#[test]
fn abort_in_mpi_init() {
    for microseconds in ["0", "2000", "10000", "30000", "100000"] {
        Scenario::new("abort_in_mpi_init").argument(microseconds).run();
    }
}

#[test]
fn starts_die_at_any_moment() {
    let version = mpi::environment::library_version().unwrap_or_default();
    let number = version.split_whitespace().nth(2).unwrap_or_default();
    let is_mpich_5 = version.starts_with("MPICH") && number.starts_with("5.");
    if !is_mpich_5 && !version.starts_with("Open MPI v5") {
        return eprintln!("skipped: nobody can answer for all of them");
    }
    Scenario::new("starts_die_at_any_moment")
        .argument("0")
        .argument("40000")
        .argument("1250")
        .limit(170)
        .run();
}

#[test]
fn wrong_mpiexec_first_in_path() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let path = env::var("PATH").expect("there is a PATH");
    // Whatever an MPI calls its launcher: these never return, as another MPI's might.
    for name in ["mpiexec", "mpirun", "orted", "prte", "hydra_pmi_proxy"] {
        let wrong = folder.path().join(name);
        fs::write(&wrong, "#!/bin/sh\nexec sleep 1000\n").expect("the folder can be written");
        fs::set_permissions(&wrong, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    }
    Scenario::new("works").env("PATH", format!("{}:{path}", folder.path().display())).run();
}

#[test]
fn path_empty() {
    Scenario::new("works").env("PATH", "").run();
    Scenario::new("works").without("PATH").run();
}

#[test]
fn home_unset() {
    Scenario::new("works").without("HOME").run();
}

#[test]
fn tmpdir_long_or_not_writable() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let long = folder.path().join("long".repeat(50)).join("longer".repeat(40));
    fs::create_dir_all(&long).expect("the folder can be written");
    Scenario::new("works").env("TMPDIR", long.to_str().expect("it is plain")).run();
    // Root can write anywhere; but not into a file.
    let file = folder.path().join("file");
    File::create(&file).expect("the folder can be written");
    Scenario::new("works_without_temporary_directory")
        .env("TMPDIR", file.to_str().expect("it is plain"))
        .run();
}

#[test]
fn started_as_root() {
    if rustix::process::geteuid().is_root() {
        let names = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];
        let others = ["PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"];
        let plain = Scenario::new("works");
        names.into_iter().chain(others).fold(plain, Scenario::without).run();
    } else {
        eprintln!("skipped: only root can try what happens to root");
    }
}

#[test]
fn started_inside_mpiexec_n_1() {
    Scenario::new("works").launched(&["mpiexec", "-n", "1"]).run();
}

/// Open MPI 4's launcher ends a job with the first worker that dies, unless it was told not to.
#[test]
fn a_job_that_ends_with_a_worker() {
    // Open MPI 5's launcher takes an end without `MPI_Finalize`, which a loss leads to, for a failure.
    let asked = |scenario: Scenario, launcher: &[&str]| {
        let said = scenario.launched(launcher).any_code().run();
        assert!(said.contains("as it was promised"), "{said}");
    };
    asked(Scenario::new("survives_in_a_job").env("EXPECTED", "maybe"), &["mpiexec", "-n", "1"]);
    if mpi::environment::library_version().is_ok_and(|version| version.starts_with("Open MPI v4")) {
        let recovering = ["mpiexec", "--enable-recovery", "-n", "1"];
        asked(Scenario::new("survives_in_a_job").env("EXPECTED", "yes"), &recovering);
    }
}

/// A pool in a rank of several is isolated unless it is told otherwise.
const EMBEDDED: (&str, &str) = ("OFFSHOOT_ISOLATION", "embedded");

#[test]
fn started_as_rank_1_of_mpiexec_n_2() {
    let scenario = Scenario::new("as_rank_1").env(EMBEDDED.0, EMBEDDED.1);
    scenario.launched(&["mpiexec", "-n", "2"]).run();
}

#[test]
fn a_job_that_never_initializes_mpi_is_named() {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let output = Scenario::new("as_rank_1_of_a_job_that_never_starts")
        .env(EMBEDDED.0, EMBEDDED.1)
        .argument(folder.path().to_str().expect("it is plain"))
        .launched(&["mpiexec", "-n", "2"])
        // How a job counts that has not called MPI_Finalize is its launcher's business.
        .any_code()
        .run();
    assert!(output.contains("it was said"), "{output}");
}

#[test]
fn stdin_closed() {
    Scenario::new("works").launched(&["/bin/sh", "-c", "exec \"$@\" <&-", "sh"]).run();
}

#[test]
fn stdout_closed() {
    Scenario::new("works").launched(&["/bin/sh", "-c", "exec \"$@\" >&-", "sh"]).run();
    Scenario::new("works").launched(&["/bin/sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]).run();
}
