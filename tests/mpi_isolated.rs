//! Isolated mode on real MPI: what becomes of a pool when its parent dies, that neither disturbs a host's own MPI, and what is
//! left in the end. `tests/hosts/isolated.rs` has the hosts.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::Scenario;

macro_rules! scenarios {
    ($($name:ident $(.$setting:ident($value:expr))*;)*) => {
        $(#[test]
        fn $name() {
            println!("{}", Scenario::new(stringify!($name))$(.$setting($value))*.run());
        })*
    };
}

scenarios! {
    the_parent_is_killed_in_mid_work;
    the_parent_dies_again_and_again;
    the_parent_cannot_be_started;
    the_host_stands_still;
    signals_of_a_terminal_pass_the_parent_by;
    each_pool_has_its_own_parent;
    the_main_thread_waits_in_a_collective.launched(&["mpiexec", "-n", "2"]);
}

/// Two seconds after the host was killed there is nothing of it.
#[test]
fn an_isolated_host_is_killed() {
    let told = Scenario::new("an_isolated_host_is_killed").any_code().patience(2).run();
    assert!(told.contains("the end is near"), "{told}");
}

#[test]
fn a_pool_chooses_its_mode() {
    for case in ["plain", "multiple", "funneled", "finalized"] {
        Scenario::new("a_pool_chooses_its_mode").argument(case).run();
    }
}

/// No message of theirs is lost, and none is foreign.
#[test]
fn ranks_talk_while_an_isolated_pool_works() {
    let ranks = Scenario::new("ranks_talk_while_a_pool_works").launched(&["mpiexec", "-n", "2"]);
    println!("{}", ranks.argument("isolated").limit(90).run());
}

#[test]
fn ranks_talk_while_an_embedded_pool_works() {
    let ranks = Scenario::new("ranks_talk_while_a_pool_works").launched(&["mpiexec", "-n", "2"]);
    println!("{}", ranks.argument("embedded").limit(90).run());
}

/// An executable of the other family, built before, and its environment.
fn other_mpi() -> Option<(PathBuf, &'static str, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let own = std::env::var("OFFSHOOT_MPI").ok()?;
    let (other, word) = if own.starts_with("openmpi") {
        ("mpich-5.0", "libmpi.so.12")
    } else {
        ("openmpi-4.1", "libmpi.so.40")
    };
    let targets = std::env::var("CARGO_TARGET_DIR").ok()?;
    let executable = PathBuf::from(targets).parent()?.join(other).join("debug/examples/scenario_host");
    executable.exists().then(|| (executable, word, root.join(".mpi").join(other).display().to_string()))
}

/// A host that has one MPI loaded, and a parent with another.
#[test]
fn the_parent_has_another_mpi() {
    let Some((executable, word, folder)) = other_mpi() else {
        return eprintln!(
            "skipped: the scenarios are not built for the other MPI (`make test` with it first)"
        );
    };
    // The parent finds its library by a wrapper, as the host is not to have it in its own path.
    let script = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("other-mpi");
    let text = format!(
        "#!/bin/sh\nPATH='{folder}/bin':$PATH\nLD_LIBRARY_PATH='{folder}/lib'\nexport PATH LD_LIBRARY_PATH\n\
         unset OPAL_PREFIX I_MPI_ROOT\nexec '{}' \"$@\"\n",
        executable.display()
    );
    std::fs::write(&script, text).expect("the folder can be written");
    let status = Command::new("chmod").arg("+x").arg(&script).status().expect("chmod is there");
    assert!(status.success());
    let scenario =
        Scenario::new("the_parent_has_another_mpi").argument(script.to_str().expect("it is plain"));
    scenario.argument(word).run();
}
