//! What hosts do with pools on real MPI, each in a process of its own: `tests/hosts/` has the hosts,
//! which check what they see; here is how each should end, and that nothing is left of it.

mod common;

use common::Scenario;

macro_rules! scenarios {
    ($($name:ident $(.$setting:ident($value:expr))*;)*) => {
        $(#[test]
        fn $name() {
            Scenario::new(stringify!($name))$(.$setting($value))*.run();
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// The same with the MPI in a parent of its own: nobody should notice.
        mod isolated {
            use super::Scenario;

            $(#[test]
            fn $name() {
                let scenario = Scenario::new(stringify!($name))$(.$setting($value))*;
                scenario.env("OFFSHOOT_ISOLATION", "isolated").run();
            })*
        }
    };
}

scenarios! {
    streams_in_order_and_not;
    an_endless_stream;
    handles_as_they_complete;
    a_full_pool_gives_the_call_back;
    a_waiting_task_is_cancelled;
    a_running_task_is_cancelled;

    eight_threads_submit;
    a_second_thread_works_while_main_waits;
    ten_thousand_sizes_come_back_intact.limit(120);
    nobody_waits_behind_a_task_that_turns_out_long;
    large_arrays_come_back_intact;
    large_arguments_are_taken_back;

    dropped_with_work_pending;
    dropped_while_a_task_never_ends;
    two_pools_one_after_the_other;
    two_pools_at_once;
    grows_to_four_and_shrinks_to_none_twice;
    shutdown_finishes_everything;
    shutdown_now_finishes_what_runs;
    exits_with_a_live_pool.code(7);
    the_host_forks;
    a_child_has_a_pool_of_its_own;
    panics_with_a_live_pool.code(101);
    without_init;

    a_worker_dies;
    memory_runs_out;
    a_task_calls_mpi_abort;
    a_task_does_not_stop;
    a_task_that_may_run_once_is_lost_once;
    all_processes_of_a_worker_are_ended;
    a_guard_that_is_told_to_end_takes_all_along;
    deaths_are_known_at_once;
    guards_are_small_and_sleep;
    a_task_panics;
    a_task_fails_with_causes;
    an_initializer_fails;
    an_initializer_panics;
    an_initializer_leaves_its_state;

    lines_go_to_files;
    discarded_lines_are_last_words_all_the_same;
    each_line_is_of_its_task;
    a_hundred_megabytes_blow_no_memory;
    a_reader_that_stands_still_blocks_no_worker_for_ever;
    a_writer_that_outlives_its_worker_delays_no_news;

    a_task_that_another_program_lacks;
    a_worker_without_tasks;
    arguments_environment_and_directory_arrive;
    long_arguments_arrive;
    arguments_beyond_the_system_limit_are_a_failed_spawn;
}

#[test]
fn the_host_uses_mpi_too() {
    Scenario::new("the_host_uses_mpi_too").run();
}

#[test]
fn the_host_finalizes_mpi_under_a_pool() {
    Scenario::new("the_host_finalizes_mpi_under_a_pool").run();
}

#[test]
fn the_host_has_finalized_mpi() {
    Scenario::new("the_host_has_finalized_mpi").run();
}

#[test]
fn the_host_has_mpi_at_a_low_level() {
    for level in ["MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED", "MPI_THREAD_SERIALIZED"] {
        Scenario::new("the_host_has_mpi_at_a_low_level").argument(level).run();
    }
}

#[test]
fn containment_is_what_was_chosen() {
    const VARIABLE: &str = "OFFSHOOT_CONTAINMENT";
    Scenario::new("containment_is_what_was_chosen").without(VARIABLE).run();
    for chosen in ["survivable", "fast", "both"] {
        Scenario::new("containment_is_what_was_chosen").env(VARIABLE, chosen).run();
    }
}

/// What workers wrote is there when the host has ended, however early it did.
fn writes_until_its_end(isolation: &str) {
    let ending = Scenario::new("exits_when_an_answer_is_there").env("OFFSHOOT_ISOLATION", isolation);
    let said = ending.code(7).run();
    let lines = said.lines().enumerate().filter(|(number, line)| *line == format!("line {number}"));
    assert_eq!(lines.count(), 2000, "{said}");
}

#[test]
fn an_embedded_host_exits_when_an_answer_is_there() {
    writes_until_its_end("embedded");
}

#[test]
fn an_isolated_host_exits_when_an_answer_is_there() {
    writes_until_its_end("isolated");
}

/// The child ends two seconds later, when it has seen that the worker has.
#[test]
fn a_host_with_a_child_is_killed() {
    for isolation in ["embedded", "isolated"] {
        let host = Scenario::new("a_host_with_a_child_is_killed").env("OFFSHOOT_ISOLATION", isolation);
        let said = host.any_code().patience(4).run();
        assert!(said.contains("it is gone"), "{isolation}: {said}");
    }
}

/// As between machines.
const SENT: (&str, &str) = ("OFFSHOOT_LENDING", "off");

#[test]
fn large_arrays_are_sent_if_they_cannot_be_lent() {
    Scenario::new("large_arrays_come_back_intact").env(SENT.0, SENT.1).limit(120).run();
}

fn workers_die_in_mid_transfer_of(bytes: &str) -> Scenario {
    Scenario::new("workers_die_in_mid_transfer").argument(bytes).limit(150)
}

/// By payload: whole frames, what an MPI sends eagerly and what by rendezvous, frames in chunks.
#[test]
fn workers_die_in_mid_transfer_of_kilobytes() {
    workers_die_in_mid_transfer_of("1024").run();
}

#[test]
fn workers_die_in_mid_transfer_of_a_megabyte() {
    workers_die_in_mid_transfer_of("1048576").env(SENT.0, SENT.1).run();
}

#[test]
fn workers_die_in_mid_transfer_of_64_megabytes() {
    workers_die_in_mid_transfer_of("67108864").env(SENT.0, SENT.1).run();
}

/// What is lent is read while its owner dies.
#[test]
fn workers_die_that_have_lent_megabytes() {
    workers_die_in_mid_transfer_of("1048576").run();
    workers_die_in_mid_transfer_of("67108864").run();
}

#[test]
fn lines_come_to_the_hosts_own_streams() {
    let said = Scenario::new("lines_come_to_the_hosts_own_streams").run();
    assert_eq!(said, "to out\nmore to out\nthe last has no end");
}

/// The alarms of `common` go off.
#[test]
#[should_panic(expected = "did not end within its time limit")]
fn hangs() {
    Scenario::new("hangs").limit(1).run();
}

#[test]
#[should_panic(expected = "left behind")]
fn leaves_a_process_behind() {
    Scenario::new("leaves_a_process_behind").patience(1).run();
}

#[test]
fn every_scenario_is_run() {
    let listed = Scenario::new("--list").run();
    let by_hand = [
        "the_host_has_mpi_at_a_low_level",
        "the_host_uses_mpi_too",
        "the_host_finalizes_mpi_under_a_pool",
        "the_host_has_finalized_mpi",
        "containment_is_what_was_chosen",
        "workers_die_in_mid_transfer",
        "lines_come_to_the_hosts_own_streams",
        "exits_when_an_answer_is_there",
        "a_host_with_a_child_is_killed",
        "ends",
        "hangs",
        "leaves_a_process_behind",
    ];
    let mut here = [NAMES, &by_hand].concat();
    // Those that `mpi_spawn.rs`, `mpi_isolated.rs`, `mpi_hosts.rs` and `mpi_soak.rs` run, in one surrounding or another.
    let others = listed
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(module, _)| !["spawn", "isolated", "two_mpis", "elsewhere", "soak"].contains(module));
    let mut there: Vec<_> = others.map(|(_, name)| name).collect();
    here.sort_unstable();
    there.sort_unstable();
    assert_eq!(here, there);
}
