//! Workers that come and go, many of them, and what is left of them in the host: nothing. A few in `make test`; as many
//! as it takes to believe it in `make soak`.

mod common;

use common::Scenario;

/// Has so many workers come and go, in a host with a folder for temporary files of its own.
fn soak(scenario: &'static str, rounds: u32, limit: u64) {
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let output = Scenario::new(scenario)
        .argument(&rounds.to_string())
        .env("TMPDIR", folder.path().to_str().expect("it is plain"))
        .limit(limit)
        .run();
    println!("{output}");
}

#[test]
fn twenty_workers_retire() {
    soak("workers_that_retire_leave_nothing", 20, 60);
}

#[test]
fn thirty_workers_are_killed() {
    soak("workers_that_are_killed_leave_nothing", 30, 60);
}

#[test]
#[ignore = "takes minutes: `make soak` runs it"]
fn two_hundred_workers_retire() {
    soak("workers_that_retire_leave_nothing", 200, 900);
}

#[test]
#[ignore = "takes many minutes: `make soak` runs it"]
fn a_thousand_workers_are_killed() {
    soak("workers_that_are_killed_leave_nothing", 1000, 3000);
}
