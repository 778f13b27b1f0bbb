//! The laws: what must hold whatever users, workers and machines do.
//!
//! Each is a function of its own; scripts/mutants.txt names for each a change of the scheduler that only
//! it notices first. Laws about timing and order are not applied to sloppy worlds, in which several
//! events happen before any action is seen; the laws of safety are.

use std::fmt::Arguments;
use std::sync::OnceLock;
use std::time::Duration;

use super::super::{Action, Resolution, Stats, Time};
use super::shadow::{Recall, Shadow, Task, TaskPlace, Worker, WorkerPlace};
use crate::ids::{ProgramId, TaskId, WorkerId};

/// Deadlines in a row at which nothing may be done: each of three programs may come to the ends of a
/// pause, a tenure and a patience only to find that there is no room for it, and each of eight windows may be looked at
/// only to find that it goes on.
const FRUITLESS_MAX: u32 = 9 + 8;

/// Whether a law is enforced: all are, unless `OFFSHOOT_LAW` names the only one.
///
/// So scripts/mutants.sh can show of each law that it notices something by itself.
pub(super) fn is_enforced(law: &str) -> bool {
    static ONLY: OnceLock<Option<String>> = OnceLock::new();
    let only = ONLY.get_or_init(|| std::env::var("OFFSHOOT_LAW").ok());
    only.as_ref().is_none_or(|only| only == law)
}

/// Panics if a law does not hold.
fn law(name: &str, holds: bool, what: Arguments<'_>) {
    assert!(holds || !is_enforced(name), "oracle {name}: {what}");
}

/// Every law about an action, at the moment before it is performed.
pub(super) fn before_action(shadow: &Shadow, action: &Action) {
    law("close_is_last", !shadow.is_closed, format_args!("{action:?} after the end"));
    match *action {
        Action::Spawn { worker, program } => {
            spawns_are_numbered(shadow, worker);
            workers_stay_within_max(shadow);
            no_spawn_storm(shadow, program);
            if !shadow.is_sloppy {
                back_off_is_observed(shadow, program);
                spawns_are_for_demand(shadow, program);
            }
        }
        Action::Send { worker, task, attempt } => {
            only_living_workers_are_named(shadow, worker);
            a_task_is_held_once(shadow, task);
            attempts_are_counted(shadow, task, attempt);
            long_tasks_are_alone(shadow, worker, task);
            if !shadow.is_sloppy {
                first_come_first_served(shadow, task);
                idle_workers_come_first(shadow, worker);
            }
        }
        Action::Recant { worker, task } => recants_once_what_is_to_stop(shadow, worker, task),
        Action::Recall { worker } => {
            only_living_workers_are_named(shadow, worker);
            if !shadow.is_sloppy {
                recalls_are_for_free_hands(shadow, worker);
            }
        }
        Action::Resume { worker } => only_the_stopped_go_on(shadow, worker),
        Action::Retire { worker } => {
            only_living_workers_are_named(shadow, worker);
            only_the_idle_retire(shadow, worker);
            if !shadow.is_sloppy {
                nobody_retires_for_nothing(shadow, worker);
                least_recently_used_leave_first(shadow, worker);
            }
        }
        Action::Abandon { worker } => only_the_lost_are_abandoned(shadow, worker),
        Action::Kill { worker } => only_the_unstoppable_are_killed(shadow, worker),
        Action::Resolve { task, resolution } => {
            tasks_resolve_once(shadow, task);
            resolutions_are_true(shadow, task, resolution);
        }
        Action::Close => close_is_when_all_is_over(shadow),
    }
}

/// Every law about the state after all actions have been performed.
pub(super) fn when_settled(shadow: &Shadow, stats: &Stats, deadline: Option<Time>) {
    workers_stay_within_max(shadow);
    news_are_passed_on(shadow);
    the_lost_are_abandoned(shadow);
    the_unstoppable_are_killed(shadow);
    who_is_to_stop_waits_for_nobody(shadow);
    no_idle_beside_waiting(shadow);
    nobody_is_free_beside_a_stalled_window(shadow);
    the_stopped_go_on(shadow);
    nobody_starves(shadow);
    deadlines_lie_ahead(shadow, deadline);
    stats_tell_the_truth(shadow, stats);
    if !shadow.is_sloppy {
        first_worker_comes_at_once(shadow);
        growth_comes_in_time(shadow);
        deadlines_come_in_time(shadow, deadline);
        the_minimum_is_kept(shadow);
        the_idle_leave_in_time(shadow);
        hopeless_tasks_are_failed(shadow);
        others_give_way(shadow);
    }
}

fn spawns_are_numbered(shadow: &Shadow, worker: WorkerId) {
    law("spawns_are_numbered", worker.0 as usize == shadow.workers.len(), format_args!("{worker} again"));
}

fn workers_stay_within_max(shadow: &Shadow) {
    let living = shadow.living.len();
    law(
        "workers_stay_within_max",
        living <= shadow.config.workers_max as usize,
        format_args!("{living} workers"),
    );
}

/// In one instant a program starts no more workers than there may be: after a failure there is a pause.
fn no_spawn_storm(shadow: &Shadow, ProgramId(program): ProgramId) {
    let (at, starts) = shadow.programs[program as usize].starts_now;
    let holds = at != shadow.now || starts < shadow.config.workers_max;
    law("no_spawn_storm", holds, format_args!("{starts} starts at {at:?}, and one more"));
}

fn back_off_is_observed(shadow: &Shadow, program: ProgramId) {
    let may_start = shadow.may_start(program.0 as usize);
    law("back_off_is_observed", may_start, format_args!("{program} starts again at {:?}", shadow.now));
}

/// For the first worker, for work that would take longer than a spawn, or for the minimum.
fn spawns_are_for_demand(shadow: &Shadow, program: ProgramId) {
    let index = program.0 as usize;
    let (ready, starting) = (shadow.ready(index), shadow.starting(index));
    let waiting = shadow.programs[index].queue.len();
    let (task, spawn) = shadow.lengths(index);
    let is_first = waiting > 0 && ready + starting == 0;
    let is_growth = waiting as f64 * task > spawn * f64::from(ready + starting) * 0.99 - 2.0;
    let is_refill = index == 0 && !shadow.is_ending && ready + starting < shadow.config.workers_min;
    let holds = is_first || is_refill || is_growth && waiting > starting as usize;
    law(
        "spawns_are_for_demand",
        holds,
        format_args!("{waiting} tasks of {task} ns wait for {ready}+{starting} workers"),
    );
}

fn only_living_workers_are_named(shadow: &Shadow, worker: WorkerId) {
    let is_living = shadow.workers[worker.0 as usize].place != WorkerPlace::Closed;
    law("only_living_workers_are_named", is_living, format_args!("{worker} is closed"));
}

fn a_task_is_held_once(shadow: &Shadow, task: TaskId) {
    let place = shadow.tasks[task.0 as usize].place;
    law("a_task_is_held_once", place == TaskPlace::Waiting, format_args!("{task} is sent while {place:?}"));
}

fn attempts_are_counted(shadow: &Shadow, task: TaskId, attempt: u32) {
    let losses = shadow.tasks[task.0 as usize].losses;
    let holds = attempt == losses + 1 && attempt <= shadow.config.attempts_max;
    law("attempts_are_counted", holds, format_args!("attempt {attempt} of {task} after {losses} losses"));
}

/// A window holds more than one task only if all are known to be short, together within the budget.
fn long_tasks_are_alone(shadow: &Shadow, id: WorkerId, task: TaskId) {
    let config = &shadow.config;
    let worker = &shadow.workers[id.0 as usize];
    law("long_tasks_are_alone", worker.takes_tasks(), format_args!("{id} takes no tasks"));
    if worker.held.is_empty() || shadow.is_sloppy {
        return;
    }
    let state = &shadow.tasks[task.0 as usize];
    let cost = shadow.kinds[state.kind].filter(|_| !state.is_loner());
    let costs = worker.held.iter().map(|&(_, cost)| cost).chain([cost]);
    let load: Option<f64> = costs.map(|cost| cost.map(|cost| cost.max(250.0))).sum();
    let budget = config.window_budget.as_nanos() as f64;
    let is_short = load.is_some_and(|load| load <= budget * 1.01 + 10.0);
    let is_running_well = shadow.now.since(worker.turn_since) <= config.window_budget;
    let holds = is_short && is_running_well && worker.held.len() < config.window_max as usize;
    law(
        "long_tasks_are_alone",
        holds,
        format_args!("{load:?} ns, {} tasks in the window of {id}", worker.held.len() + 1),
    );
}

fn first_come_first_served(shadow: &Shadow, task: TaskId) {
    let state = &shadow.tasks[task.0 as usize];
    let first = shadow.programs[state.program].queue.front();
    let holds = first == Some(&(task.0 as usize)) && !state.is_cancelled;
    law("first_come_first_served", holds, format_args!("{task} before {first:?}"));
}

/// Idle before busy, and among the idle the most recently used.
fn idle_workers_come_first(shadow: &Shadow, id: WorkerId) {
    let taker = &shadow.workers[id.0 as usize];
    let is_better = |other: &Worker| {
        other.program == taker.program
            && other.is_idle()
            && (!taker.is_idle() || other.turn_since > taker.turn_since)
    };
    law("idle_workers_come_first", !shadow.living().any(is_better), format_args!("not {id}"));
}

fn recants_once_what_is_to_stop(shadow: &Shadow, worker: WorkerId, task: TaskId) {
    let state = &shadow.tasks[task.0 as usize];
    let is_held = state.place == TaskPlace::Held(worker.0 as usize);
    // A sloppy driver may have seen the answer, or that it was taken back, while the action was on its way.
    let is_gone = matches!(state.place, TaskPlace::Answered | TaskPlace::Waiting);
    let is_held = is_held || shadow.is_sloppy && is_gone;
    let is_to_stop =
        shadow.is_sloppy || shadow.is_to_stop(&shadow.workers[worker.0 as usize], task.0 as usize);
    let holds = is_held && is_to_stop && !state.is_recanted;
    law("recants_once_what_is_to_stop", holds, format_args!("{task} in {worker}: {state:?}"));
}

/// After the grace, and not a moment before.
fn only_the_unstoppable_are_killed(shadow: &Shadow, id: WorkerId) {
    let worker = &shadow.workers[id.0 as usize];
    let is_due = shadow.kill_at(worker).is_some_and(|at| at <= shadow.now);
    let holds = worker.place == WorkerPlace::Ready && is_due && !worker.is_lost || shadow.is_sloppy;
    law("only_the_unstoppable_are_killed", holds, format_args!("{id} is killed at {:?}", shadow.now));
}

/// What waits in a window is asked for once, when the first task of it runs for too long, and somebody could run it.
fn recalls_are_for_free_hands(shadow: &Shadow, id: WorkerId) {
    let worker = &shadow.workers[id.0 as usize];
    let has_stalled = worker.turn_since + shadow.patience() <= shadow.now;
    let holds = worker.is_crowded() && has_stalled && shadow.has_hands_free(worker.program);
    law("recalls_are_for_free_hands", holds, format_args!("{id} is asked at {:?}: {worker:?}", shadow.now));
}

fn only_the_stopped_go_on(shadow: &Shadow, id: WorkerId) {
    let worker = &shadow.workers[id.0 as usize];
    law("only_the_stopped_go_on", worker.recall == Recall::Stopped, format_args!("{id}: {worker:?}"));
}

fn only_the_idle_retire(shadow: &Shadow, id: WorkerId) {
    let worker = &shadow.workers[id.0 as usize];
    let holds = worker.place == WorkerPlace::Ready && worker.held.is_empty();
    law(
        "only_the_idle_retire",
        holds,
        format_args!("{id} is {:?} and holds {}", worker.place, worker.held.len()),
    );
}

fn nobody_retires_for_nothing(shadow: &Shadow, id: WorkerId) {
    let worker = &shadow.workers[id.0 as usize];
    let has_timed_out = worker.turn_since + shadow.config.idle_timeout <= shadow.now;
    let is_needed = worker.program == 0 && shadow.ready(0) <= shadow.config.workers_min;
    let is_others_turn = shadow.room() == 0
        && (0..shadow.programs.len())
            .any(|other| other != worker.program && !shadow.programs[other].queue.is_empty());
    let holds = shadow.is_ending || worker.is_draining || has_timed_out && !is_needed || is_others_turn;
    law("nobody_retires_for_nothing", holds, format_args!("{id} is retired at {:?}", shadow.now));
}

fn least_recently_used_leave_first(shadow: &Shadow, id: WorkerId) {
    let leaver = &shadow.workers[id.0 as usize];
    let is_older = |other: &Worker| {
        other.program == leaver.program && other.is_idle() && other.turn_since < leaver.turn_since
    };
    let holds = leaver.is_draining || !shadow.living().any(is_older);
    law("least_recently_used_leave_first", holds, format_args!("not {id}"));
}

fn only_the_lost_are_abandoned(shadow: &Shadow, id: WorkerId) {
    let worker = &shadow.workers[id.0 as usize];
    let is_race = shadow.is_sloppy && (worker.place != WorkerPlace::Closed || worker.is_fresh_corpse);
    law("only_the_lost_are_abandoned", worker.is_lost || is_race, format_args!("{id} is {:?}", worker.place));
}

fn tasks_resolve_once(shadow: &Shadow, task: TaskId) {
    let place = shadow.tasks[task.0 as usize].place;
    let is_live = !matches!(place, TaskPlace::Unknown | TaskPlace::Resolved);
    law("tasks_resolve_once", is_live, format_args!("{task} is {place:?}"));
}

fn resolutions_are_true(shadow: &Shadow, id: TaskId, resolution: Resolution) {
    let task = &shadow.tasks[id.0 as usize];
    let is_waiting = task.place == TaskPlace::Waiting || waits_behind_another(shadow, id);
    let holds = match resolution {
        Resolution::Answered => task.place == TaskPlace::Answered && !task.is_overdue,
        Resolution::Cancelled => is_waiting && task.is_cancelled && !task.is_overdue,
        Resolution::Overdue { answered: true } => task.place == TaskPlace::Answered && task.is_overdue,
        Resolution::Overdue { answered: false } => is_waiting && (task.is_overdue || is_late(shadow, task)),
        Resolution::Lost { attempts } => {
            task.place == TaskPlace::Waiting
                && attempts == task.losses
                && attempts == task.attempts_max(&shadow.config)
        }
        Resolution::SpawnFailed => {
            task.place == TaskPlace::Waiting && (shadow.is_sloppy || is_hopeless(shadow, task.program))
        }
        Resolution::ShutDown => task.place == TaskPlace::Refused,
    };
    law("resolutions_are_true", holds, format_args!("{id} {resolution:?}: {task:?}"));
}

/// Whether a worker holds it, was told to stop it, and did not run it yet.
fn waits_behind_another(shadow: &Shadow, id: TaskId) -> bool {
    let task = &shadow.tasks[id.0 as usize];
    let is_behind = match task.place {
        TaskPlace::Held(worker) => {
            let first = shadow.workers[worker].held.front();
            // A sloppy driver may have seen answers while the action was on its way.
            shadow.is_sloppy || first.is_some_and(|&(first, _)| first != id.0 as usize)
        }
        TaskPlace::Answered => shadow.is_sloppy,
        TaskPlace::Unknown | TaskPlace::Waiting | TaskPlace::Refused | TaskPlace::Resolved => false,
    };
    is_behind && task.is_recanted
}

fn is_late(shadow: &Shadow, task: &Task) -> bool {
    task.terms.deadline.is_some_and(|deadline| deadline <= shadow.now)
}

fn is_hopeless(shadow: &Shadow, program: usize) -> bool {
    let has_workers = shadow.ready(program) + shadow.starting(program) > 0;
    shadow.programs[program].failures >= shadow.config.spawn_failures_max && !has_workers
}

fn close_is_when_all_is_over(shadow: &Shadow) {
    let is_over = |place: TaskPlace| matches!(place, TaskPlace::Unknown | TaskPlace::Resolved);
    let holds =
        shadow.is_ending && shadow.living.is_empty() && shadow.tasks.iter().all(|task| is_over(task.place));
    law("close_is_when_all_is_over", holds, format_args!("{} workers left", shadow.living.len()));
}

/// Answers, refusals, cancels and last losses have had their consequence.
fn news_are_passed_on(shadow: &Shadow) {
    for (index, task) in shadow.tasks.iter().enumerate() {
        let holds = match task.place {
            TaskPlace::Unknown | TaskPlace::Resolved => true,
            TaskPlace::Answered | TaskPlace::Refused => false,
            TaskPlace::Waiting => {
                !task.is_cancelled
                    && !task.is_overdue
                    && task.losses < task.attempts_max(&shadow.config)
                    && !is_late(shadow, task)
            }
            TaskPlace::Held(worker) => task.is_recanted || !shadow.is_to_stop(&shadow.workers[worker], index),
        };
        law("news_are_passed_on", holds, format_args!("task {index}: {task:?}"));
    }
}

/// A task that is to stop waits for no other one to end.
fn who_is_to_stop_waits_for_nobody(shadow: &Shadow) {
    for worker in shadow.living() {
        for &(held, _) in worker.held.iter().skip(1) {
            let task = &shadow.tasks[held];
            let holds = task.place == TaskPlace::Resolved || !task.is_recanted;
            law("who_is_to_stop_waits_for_nobody", holds, format_args!("task {held}: {task:?}"));
        }
    }
}

fn the_unstoppable_are_killed(shadow: &Shadow) {
    for worker in shadow.living().filter(|worker| worker.place == WorkerPlace::Ready) {
        let holds = shadow.kill_at(worker).is_none_or(|at| at > shadow.now);
        law("the_unstoppable_are_killed", holds, format_args!("its time was over: {worker:?}"));
    }
}

fn the_lost_are_abandoned(shadow: &Shadow) {
    for &index in &shadow.living {
        let worker = &shadow.workers[index];
        law("the_lost_are_abandoned", !worker.is_lost, format_args!("worker {index} is {:?}", worker.place));
    }
}

fn no_idle_beside_waiting(shadow: &Shadow) {
    for worker in shadow.living() {
        let holds = !worker.is_idle() || shadow.programs[worker.program].queue.is_empty();
        law("no_idle_beside_waiting", holds, format_args!("an idle worker of program {}", worker.program));
    }
}

/// No task waits for long behind another one while somebody could run it.
fn nobody_is_free_beside_a_stalled_window(shadow: &Shadow) {
    for worker in shadow.living().filter(|worker| !worker.is_lost && worker.is_crowded()) {
        let has_stalled = worker.turn_since + shadow.patience() * 2 < shadow.now;
        let holds = !has_stalled || !shadow.has_hands_free(worker.program);
        law("nobody_is_free_beside_a_stalled_window", holds, format_args!("{worker:?}"));
    }
}

fn the_stopped_go_on(shadow: &Shadow) {
    for worker in shadow.living().filter(|worker| worker.place == WorkerPlace::Ready) {
        law("the_stopped_go_on", worker.recall != Recall::Stopped, format_args!("{worker:?}"));
    }
}

fn nobody_starves(shadow: &Shadow) {
    for (index, program) in shadow.programs.iter().enumerate() {
        let starving = program.starving_since.map(|since| shadow.now.since(since));
        let holds = starving.is_none_or(|starving| starving <= shadow.starving_max);
        law("nobody_starves", holds, format_args!("program {index} has no worker for {starving:?}"));
    }
}

fn deadlines_lie_ahead(shadow: &Shadow, deadline: Option<Time>) {
    let holds = deadline.is_none_or(|deadline| deadline > shadow.now);
    law("deadlines_lie_ahead", holds, format_args!("{deadline:?} at {:?}", shadow.now));
}

/// Every world ends after a bounded number of steps.
pub(super) fn the_world_ends(what: &str) -> ! {
    law("the_world_ends", false, format_args!("{what}"));
    panic!("a law that is not enforced was broken before: {what}")
}

/// A deadline at which there is nothing to do is a waste, and many in a row are a busy loop.
pub(super) fn time_is_not_wasted(fruitless: u32) {
    law("time_is_not_wasted", fruitless <= FRUITLESS_MAX, format_args!("{fruitless} deadlines for nothing"));
}

fn stats_tell_the_truth(shadow: &Shadow, stats: &Stats) {
    let count = |is: &dyn Fn(&Worker) -> bool| shadow.living().filter(|worker| is(worker)).count() as u32;
    let waiting: usize = shadow.programs.iter().map(|program| program.queue.len()).sum();
    let held: usize = shadow.living().map(|worker| worker.held.len()).sum();
    let seen = Stats {
        tasks_waiting: waiting as u64,
        tasks_held: held as u64,
        workers_starting: count(&|worker| worker.place == WorkerPlace::Starting),
        workers_idle: count(&Worker::is_idle),
        workers_busy: count(&|worker| worker.takes_tasks() && !worker.is_idle()),
        workers_draining: count(&|worker| worker.is_draining),
        workers_retiring: count(&|worker| worker.place == WorkerPlace::Retiring),
        spawns: shadow.workers.len() as u64,
        ..*stats
    };
    law("stats_tell_the_truth", seen == *stats, format_args!("{stats:?} but {seen:?}"));
}

fn first_worker_comes_at_once(shadow: &Shadow) {
    for index in 0..shadow.programs.len() {
        let is_missing = shadow.is_starving(index) && shadow.may_start(index) && shadow.room() > 0;
        law("first_worker_comes_at_once", !is_missing, format_args!("program {index} could have one"));
    }
}

fn growth_comes_in_time(shadow: &Shadow) {
    for (index, program) in shadow.programs.iter().enumerate() {
        let waiting = program.queue.len();
        let (ready, starting) = (shadow.ready(index), shadow.starting(index));
        let is_possible = shadow.room() > 0 && shadow.may_start(index) && waiting > starting as usize;
        let (task, spawn) = shadow.lengths(index);
        let is_due =
            waiting as f64 * task > spawn * f64::from(ready + starting) * 1.01 + 2.0 * waiting as f64;
        let what = format_args!(
            "{waiting} tasks of {task} ns wait for {ready}+{starting} workers of program {index}"
        );
        law("growth_comes_in_time", !(is_possible && is_due), what);
    }
}

/// Whatever will be due if only time passes is not slept through.
fn deadlines_come_in_time(shadow: &Shadow, deadline: Option<Time>) {
    let config = &shadow.config;
    let leave_at = |worker: &Worker| {
        let is_needed = worker.program == 0 && shadow.ready(0) <= config.workers_min;
        (worker.is_idle() && !is_needed).then(|| worker.turn_since + config.idle_timeout)
    };
    let worker_at = |worker: &Worker| match worker.place {
        WorkerPlace::Starting => worker.is_spawned.then(|| worker.turn_since + config.spawn_timeout),
        WorkerPlace::Retiring => Some(worker.since + config.retire_timeout),
        WorkerPlace::Ready => leave_at(worker),
        WorkerPlace::Closed => None,
    };
    let workers = shadow.living().filter_map(worker_at);
    let tasks =
        shadow.living().flat_map(|worker| shadow.kill_at(worker).into_iter().chain(stop_at(shadow, worker)));
    let waiting = shadow.programs.iter().flat_map(|program| &program.queue);
    let waiting = waiting.filter_map(|&task| shadow.tasks[task].terms.deadline);
    let crowded = shadow.living().filter(|one| one.is_crowded() && shadow.has_hands_free(one.program));
    let recalls = crowded.map(|worker| worker.turn_since + shadow.patience() * 2);
    let workers = workers.chain(tasks).chain(waiting).chain(recalls);
    let programs = (0..shadow.programs.len()).filter_map(|index| growth_at(shadow, index));
    let due = workers.chain(programs).min();
    let holds = due.is_none_or(|due| deadline.is_some_and(|deadline| deadline <= due));
    law("deadlines_come_in_time", holds, format_args!("wakes at {deadline:?}, but {due:?} is due"));
}

/// When the first task of a worker that has not been told to stop is to be.
fn stop_at(shadow: &Shadow, worker: &Worker) -> Option<Time> {
    let running = worker.held.front().map(|&(first, _)| &shadow.tasks[first]);
    let runs_out = running.and_then(|task| task.terms.timeout).map(|timeout| worker.turn_since + timeout);
    let running = runs_out.filter(|_| running.is_some_and(|task| !task.is_recanted));
    let held = worker.held.iter().map(|&(held, _)| &shadow.tasks[held]);
    held.filter(|task| !task.is_recanted).filter_map(|task| task.terms.deadline).chain(running).min()
}

/// When a program may start a worker, the first or one more, if that is not now.
fn growth_at(shadow: &Shadow, index: usize) -> Option<Time> {
    let program = &shadow.programs[index];
    let (ready, starting) = (shadow.ready(index), shadow.starting(index));
    let waiting = program.queue.len();
    if shadow.room() == 0 || waiting <= starting as usize || program.strikes > 0 && starting > 0 {
        return None;
    }
    if ready + starting == 0 {
        return Some(program.not_before).filter(|&at| at > shadow.now);
    }
    let busy = |worker: &&Worker| worker.program == index && worker.takes_tasks() && !worker.is_idle();
    let oldest = shadow.living().filter(busy).map(|worker| worker.turn_since).min()?;
    let age = program.spawn_mean * f64::from(ready + starting) / waiting as f64;
    let age = Duration::from_nanos((age * 1.01) as u64 + 10).max(shadow.config.growth_patience);
    Some((oldest + age).max(program.not_before)).filter(|&at| at > shadow.now)
}

fn the_minimum_is_kept(shadow: &Shadow) {
    let is_served = |index: usize| shadow.programs[index].queue.is_empty() || shadow.ready(index) > 0;
    let is_possible = !shadow.is_ending
        && shadow.room() > 0
        && shadow.may_start(0)
        && shadow.programs[0].failures < shadow.config.spawn_failures_max
        && (0..shadow.programs.len()).all(is_served);
    let workers = shadow.ready(0) + shadow.starting(0);
    let holds = !is_possible || workers >= shadow.config.workers_min;
    law("the_minimum_is_kept", holds, format_args!("only {workers} workers"));
}

fn the_idle_leave_in_time(shadow: &Shadow) {
    for worker in shadow.living().filter(|worker| worker.is_idle()) {
        let is_needed = worker.program == 0 && shadow.ready(0) <= shadow.config.workers_min;
        let has_timed_out = worker.turn_since + shadow.config.idle_timeout <= shadow.now;
        let holds = if shadow.is_ending { false } else { is_needed || !has_timed_out };
        law("the_idle_leave_in_time", holds, format_args!("one is idle since {:?}", worker.turn_since));
    }
}

fn hopeless_tasks_are_failed(shadow: &Shadow) {
    for (index, program) in shadow.programs.iter().enumerate() {
        let holds = !program.has_just_failed || !is_hopeless(shadow, index) || program.queue.is_empty();
        law("hopeless_tasks_are_failed", holds, format_args!("{} starts have failed", program.failures));
    }
}

/// While a program has no worker and there is no room, as many others leave as can be asked to.
fn others_give_way(shadow: &Shadow) {
    let has_given_way = |index| shadow.living().any(|worker| worker.program == index && worker.is_draining);
    let starving = (0..shadow.programs.len())
        .filter(|&index| shadow.is_starving(index) && shadow.may_start(index) && !has_given_way(index));
    let is_leaving = |worker: &&Worker| worker.place == WorkerPlace::Retiring || worker.is_draining;
    let leaving = shadow.living().filter(is_leaving).count();
    if shadow.room() > 0 || starving.count() <= leaving {
        return;
    }
    let mut ready = shadow.living().filter(|worker| worker.takes_tasks()).peekable();
    let is_some = ready.peek().is_some();
    let all_served = ready.all(|worker| worker.since + shadow.config.tenure <= shadow.now);
    law("others_give_way", !(is_some && all_served), format_args!("only {leaving} workers leave"));
}

/// A busy worker gives way after its tenure, and only to a program that has none.
pub(super) fn gives_way_for_a_reason(shadow: &Shadow, index: usize) {
    if shadow.is_sloppy {
        return;
    }
    let has_served = shadow.workers[index].since + shadow.config.tenure <= shadow.now;
    let is_somebody_starving = (0..shadow.programs.len()).any(|index| shadow.is_starving(index));
    let holds = has_served && is_somebody_starving && shadow.room() == 0;
    law("gives_way_for_a_reason", holds, format_args!("worker {index} drains at {:?}", shadow.now));
}
