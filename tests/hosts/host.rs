//! The host programs of `tests/mpi_scenarios.rs`: one process, one scenario, named by the first argument.
//!
//! A scenario checks what it sees by itself, and returns an error if something is wrong. Its workers run
//! this executable as well; those of other programs run `worker.rs`.

mod deaths;
mod elsewhere;
mod faults;
mod forks;
mod isolated;
mod lending;
mod lifecycle;
mod load;
mod neighbours;
mod output;
mod programs;
mod results;
mod soak;
mod spawn;
mod support;
mod tasks;
mod two_mpis;

use std::env;

use anyhow::Context;

macro_rules! scenarios {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        /// By module and name.
        const SCENARIOS: &[(&str, &str, fn() -> anyhow::Result<()>)] =
            &[$($((stringify!($module), stringify!($name), $module::$name)),*),*];
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
        ten_thousand_sizes_come_back_intact,
        nobody_waits_behind_a_task_that_turns_out_long;
    lending:
        large_arrays_come_back_intact,
        large_arguments_are_taken_back;
    lifecycle:
        dropped_with_work_pending,
        dropped_while_a_task_never_ends,
        two_pools_one_after_the_other,
        two_pools_at_once,
        grows_to_four_and_shrinks_to_none_twice,
        shutdown_finishes_everything,
        shutdown_now_finishes_what_runs,
        exits_with_a_live_pool,
        exits_when_an_answer_is_there,
        panics_with_a_live_pool,
        ends,
        without_init;
    faults:
        a_worker_dies,
        memory_runs_out,
        a_task_calls_mpi_abort,
        a_task_does_not_stop,
        a_task_that_may_run_once_is_lost_once,
        all_processes_of_a_worker_are_ended,
        a_guard_that_is_told_to_end_takes_all_along,
        deaths_are_known_at_once,
        guards_are_small_and_sleep,
        a_task_panics,
        a_task_fails_with_causes,
        an_initializer_fails,
        an_initializer_panics,
        an_initializer_leaves_its_state;
    forks:
        the_host_forks,
        a_child_has_a_pool_of_its_own,
        a_host_with_a_child_is_killed;
    deaths:
        workers_die_in_mid_transfer,
        containment_is_what_was_chosen;
    output:
        lines_come_to_the_hosts_own_streams,
        lines_go_to_files,
        discarded_lines_are_last_words_all_the_same,
        each_line_is_of_its_task,
        a_hundred_megabytes_blow_no_memory,
        a_reader_that_stands_still_blocks_no_worker_for_ever,
        a_writer_that_outlives_its_worker_delays_no_news;
    programs:
        a_task_that_another_program_lacks,
        a_worker_without_tasks,
        arguments_environment_and_directory_arrive,
        long_arguments_arrive,
        arguments_beyond_the_system_limit_are_a_failed_spawn;
    neighbours:
        the_host_uses_mpi_too,
        the_host_has_mpi_at_a_low_level,
        the_host_finalizes_mpi_under_a_pool,
        the_host_has_finalized_mpi;
    isolated:
        the_parent_is_killed_in_mid_work,
        the_parent_dies_again_and_again,
        the_parent_cannot_be_started,
        the_host_stands_still,
        signals_of_a_terminal_pass_the_parent_by,
        each_pool_has_its_own_parent,
        a_pool_chooses_its_mode,
        ranks_talk_while_a_pool_works,
        the_main_thread_waits_in_a_collective,
        the_parent_has_another_mpi,
        the_parent_stands_still,
        the_parent_talks_nonsense,
        nobody_else_has_the_socket,
        threads_of_the_application,
        an_isolated_host_is_killed;
    two_mpis:
        the_host_loads_another_mpi;
    elsewhere:
        tasks_run_on_two_hosts,
        a_silent_host_is_lost,
        slots_come_from_slurm;
    spawn:
        missing_executable,
        not_executable,
        bin_true,
        sleep_1000,
        exit_3_before_mpi_init,
        sigsegv_before_mpi_init,
        abort_in_mpi_init,
        starts_die_at_any_moment,
        a_shell_script,
        an_mpi_program_that_is_no_worker_of_ours,
        a_worker_of_another_protocol_version,
        a_worker_of_another_mpi,
        workers_max_above_the_slots,
        works,
        works_without_temporary_directory,
        survives_in_a_job,
        as_rank_1,
        as_rank_1_of_a_job_that_never_starts,
        a_guard_is_killed,
        guards_are_killed_again_and_again,
        no_launcher_runs,
        the_host_spawns_too,
        waits_for_its_end,
        the_launcher_dies,
        the_launcher_hangs;
    soak:
        workers_that_retire_leave_nothing,
        workers_that_are_killed_leave_nothing;
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
        SCENARIOS.iter().for_each(|(module, name, _)| println!("{module}: {name}"));
        return Ok(());
    }
    let (_, _, run) =
        SCENARIOS.iter().find(|(_, known, _)| *known == name).context("there is no such scenario")?;
    run()
}
