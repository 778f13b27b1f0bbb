//! The host programs of `tests/mpi_scenarios.rs`: one process, one scenario, named by the first argument.
//!
//! A scenario checks what it sees by itself, and returns an error if something is wrong. Its workers run
//! this executable as well; those of other programs run `worker.rs`.

mod elsewhere;
mod faults;
mod lifecycle;
mod load;
mod neighbours;
mod programs;
mod results;
mod support;
mod tasks;

use std::env;

use anyhow::Context;

macro_rules! scenarios {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        const SCENARIOS: &[(&str, fn() -> anyhow::Result<()>)] =
            &[$($((stringify!($name), $module::$name)),*),*];
    };
}

scenarios! {
    results:
        streams_in_order_and_not,
        an_endless_stream,
        handles_as_they_complete,
        a_full_pool_gives_the_call_back,
        a_waiting_task_is_cancelled,
        a_running_task_is_cancelled;
    load:
        eight_threads_submit,
        a_second_thread_works_while_main_waits,
        ten_thousand_sizes_come_back_intact;
    lifecycle:
        dropped_with_work_pending,
        dropped_while_a_task_never_ends,
        two_pools_one_after_the_other,
        two_pools_at_once,
        grows_to_four_and_shrinks_to_none_twice,
        shutdown_finishes_everything,
        shutdown_now_finishes_what_runs,
        exits_with_a_live_pool,
        panics_with_a_live_pool,
        without_init;
    faults:
        a_worker_dies,
        a_task_panics,
        a_task_fails_with_causes,
        an_initializer_fails,
        an_initializer_panics,
        an_initializer_leaves_its_state;
    programs:
        programs_that_cannot_be_started,
        a_task_that_another_program_lacks,
        a_worker_without_tasks,
        arguments_environment_and_directory_arrive,
        long_arguments_arrive,
        arguments_beyond_the_system_limit_are_a_failed_spawn,
        programs_that_are_no_workers;
    neighbours:
        the_host_uses_mpi_too,
        the_host_has_mpi_at_a_low_level,
        the_host_has_finalized_mpi;
    elsewhere:
        tasks_run_on_two_hosts,
        slots_come_from_slurm;
    support:
        hangs,
        leaves_a_process_behind;
}

fn main() -> anyhow::Result<()> {
    let name = env::args().nth(1);
    if name.as_deref() != Some("without_init") {
        offshoot::init();
    }
    let name = name.context("name a scenario, or --list")?;
    if name == "--list" {
        SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    let (_, run) = SCENARIOS.iter().find(|(known, _)| *known == name).context("there is no such scenario")?;
    run()
}
