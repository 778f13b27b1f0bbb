//! A pool under fire: `offshoot chaos`, as its users run it, and what must hold whatever dies.
//!
//! Open MPI 5 gets every host through it, Open MPI 4.1 unless a worker dies in the few milliseconds in which it and the host
//! connect; of the others docs/MPI.md, "Under fire", says what was seen. The figures must be true all the same: a task that
//! is not lost came to the right end, and ran no more once it had; and a host that ended well has left nothing behind.

mod common;

use common::Scenario;
use mpi::environment::library_version;
use serde_json::Value;

/// What a chaos of so many seconds came to.
fn chaos(seconds: u32, seed: u64, more: &[&str]) -> Value {
    let (seconds, seed) = (seconds.to_string(), seed.to_string());
    let arguments = ["chaos", "--json", "--seconds", &seconds, "--seed", &seed];
    let words = arguments.iter().chain(more);
    let scenario = words.fold(Scenario::command(), |scenario, word| scenario.argument(word));
    // What `mpiexec` needs to start as root.
    let scenario = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"]
        .into_iter()
        .filter(|_| !more.is_empty())
        .fold(scenario, |scenario, name| scenario.env(name, "1"));
    let text = scenario.any_code().limit(170).run();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in `{text}`"))
}

fn number(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("`{name}` is no number: {figures:#}"))
}

/// Whether this MPI gets a host through it: without mercy, or if starts are spared.
fn survives(mercy: Mercy) -> bool {
    let is = |name| library_version().is_ok_and(|version| version.starts_with(name));
    match mercy {
        Mercy::None => is("Open MPI v5"),
        Mercy::ForStarts => is("Open MPI v"),
    }
}

enum Mercy {
    None,
    ForStarts,
}

/// Everything that the bar of a survivable pool says, and that the host ended well.
fn assert_whole(figures: &Value) {
    assert!(figures["host_failed"].is_null(), "{figures:#}");
    assert_accounted(figures);
}

/// That every task is accounted for, and nothing left.
fn assert_accounted(figures: &Value) {
    assert_eq!(number(figures, "submitted"), number(figures, "resolved"), "{figures:#}");
    for name in ["lost", "doubled", "wrong", "no_worker", "left_behind"] {
        assert_eq!(number(figures, name), 0, "{name}: {figures:#}");
    }
}

#[test]
fn no_task_ends_wrongly_or_twice_under_fire() {
    let figures = chaos(10, 7, &[]);
    println!("{figures:#}");
    for name in ["doubled", "wrong"] {
        assert_eq!(number(&figures, name), 0, "{name}: {figures:#}");
    }
    if survives(Mercy::None) {
        assert_whole(&figures);
    }
    if figures["host_failed"].is_null() {
        assert!(number(&figures, "submitted") >= 50, "no work: {figures:#}");
        assert!(number(&figures, "kills") + number(&figures, "losses") >= 3, "no fire: {figures:#}");
        assert!(
            number(&figures, "resolved") + number(&figures, "lost") >= number(&figures, "submitted"),
            "{figures:#}"
        );
    } else {
        eprintln!("the host itself did not get through this: {}", figures["host_failed"]);
    }
}

/// The parent, its guards and its daemons are killed too, and the transport is the fastest: nothing of that is felt.
#[test]
fn an_isolated_host_gets_through_everything() {
    let figures = chaos(10, 11, &["--isolated"]);
    println!("{figures:#}");
    assert_whole(&figures);
    assert!(number(&figures, "kills") + number(&figures, "losses") >= 3, "no fire: {figures:#}");
}

/// Plainly started, and as a job of `mpiexec`. Guards are killed, too.
#[test]
fn hosts_get_through_the_fire_if_starts_are_spared() {
    if !survives(Mercy::ForStarts) {
        eprintln!("skipped: docs/MPI.md says which MPI gets a host through this");
        return;
    }
    // Without it Open MPI 4 ends the whole job: `a_job_that_ends_with_a_worker` (tests/mpi_spawn.rs).
    let launcher = if survives(Mercy::None) { "mpiexec -n 1" } else { "mpiexec --enable-recovery -n 1" };
    for (seed, more) in [(8, &["--spare", "starts"][..]), (9, &["--spare", "starts", "--through", launcher])]
    {
        let figures = chaos(10, seed, more);
        println!("{figures:#}");
        // Open MPI 5 is not finalized after a loss, which its `mpiexec` takes for a failure of the host.
        if survives(Mercy::None) && more.contains(&"--through") {
            assert_accounted(&figures);
        } else {
            assert_whole(&figures);
        }
        assert!(number(&figures, "kills") + number(&figures, "losses") >= 3, "no fire: {figures:#}");
    }
}
