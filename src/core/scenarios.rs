//! Scenarios as text: what happens, and what the scheduler asks for then.
//!
//! Each line is `time event | action, action`; times are absolute, anything left of `|` may be `tick`.
//! `until` plays the driver: it ticks at every deadline up to its time and collects the actions.
//! `next` checks when the scheduler wants to be told the time, and `-` is no event at all.

use std::time::Duration;

use super::{Action, Config, Event, Resolution, Scheduler, ShutdownMode, Terms, Time};
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

/// Runs a scenario on a scheduler with this configuration and so many programs.
fn play(config: Config, programs: u32, script: &str) {
    let mut scheduler = Scheduler::new(config, programs);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (left, expected) = line.split_once('|').unwrap_or((line, ""));
        let words: Vec<&str> = left.split_whitespace().collect();
        let (at, rest) = words.split_first().expect("a line starts with a time");
        let at = Time::ZERO + duration(at);
        let actions = match rest {
            ["next", when] => {
                let next = if *when == "never" { None } else { Some(Time::ZERO + duration(when)) };
                assert_eq!(scheduler.next_deadline(), next, "at `{line}`");
                continue;
            }
            ["until"] => until(&mut scheduler, at),
            words => {
                scheduler.handle(at, event(words));
                drain(&mut scheduler)
            }
        };
        assert_eq!(actions.join(", "), expected.trim(), "at `{line}`");
        scheduler.assert_consistent();
    }
}

fn until(scheduler: &mut Scheduler, at: Time) -> Vec<String> {
    let mut actions = Vec::new();
    while let Some(deadline) = scheduler.next_deadline().filter(|&deadline| deadline <= at) {
        scheduler.handle(deadline, Event::Tick);
        actions.extend(drain(scheduler));
    }
    actions
}

fn drain(scheduler: &mut Scheduler) -> Vec<String> {
    std::iter::from_fn(|| scheduler.poll()).map(shown).collect()
}

fn event(words: &[&str]) -> Event {
    let worker = |word: &str| WorkerId(number(word, 'w'));
    let task = |word: &str| TaskId(number(word, 't').into());
    match *words {
        ["submit", t, ref rest @ ..] => submit(task(t), rest),
        ["cancel", t] => Event::Cancel { task: task(t) },
        ["spawned", w] => Event::Spawned { worker: worker(w) },
        ["failed", w] => Event::SpawnFailed { worker: worker(w), lasting: false },
        ["failed", w, "for", "good"] => Event::SpawnFailed { worker: worker(w), lasting: true },
        ["ready", w] => Event::Ready { worker: worker(w) },
        ["answers", w, t, ran] => Event::Answered { worker: worker(w), task: task(t), ran: duration(ran) },
        ["recalled", w] => Event::Recalled { worker: worker(w), begun: None },
        ["recalled", w, "after", t] => Event::Recalled { worker: worker(w), begun: Some(task(t)) },
        ["lost", w] => Event::Lost { worker: worker(w) },
        ["gone", w] => Event::Gone { worker: worker(w) },
        ["tick"] => Event::Tick,
        ["end", "drain"] => Event::Shutdown { mode: ShutdownMode::Drain },
        ["end", "cancel"] => Event::Shutdown { mode: ShutdownMode::Cancel },
        _ => panic!("not an event: {words:?}"),
    }
}

/// `[pN [kN]] [by TIME] [within TIME] [once]`
fn submit(task: TaskId, mut words: &[&str]) -> Event {
    let (mut program, mut kind, mut terms) = (ProgramId(0), KindId(0), Terms::default());
    loop {
        words = match *words {
            [] => return Event::Submit { task, program, kind, terms },
            ["by", at, ref rest @ ..] => {
                terms.deadline = Some(Time::ZERO + duration(at));
                rest
            }
            ["within", time, ref rest @ ..] => {
                terms.timeout = Some(duration(time));
                rest
            }
            ["once", ref rest @ ..] => {
                terms.once = true;
                rest
            }
            [word, ref rest @ ..] if word.starts_with('k') => {
                kind = KindId(number(word, 'k'));
                rest
            }
            [word, ref rest @ ..] => {
                program = ProgramId(number(word, 'p'));
                rest
            }
        };
    }
}

fn shown(action: Action) -> String {
    match action {
        Action::Spawn { worker, program: ProgramId(0) } => format!("spawn w{}", worker.0),
        Action::Spawn { worker, program } => format!("spawn w{} p{}", worker.0, program.0),
        Action::Send { worker, task, attempt: 1 } => format!("send w{} t{}", worker.0, task.0),
        Action::Send { worker, task, attempt } => format!("send w{} t{} #{attempt}", worker.0, task.0),
        Action::Recant { worker, task } => format!("recant w{} t{}", worker.0, task.0),
        Action::Recall { worker } => format!("recall w{}", worker.0),
        Action::Resume { worker } => format!("resume w{}", worker.0),
        Action::Retire { worker } => format!("retire w{}", worker.0),
        Action::Abandon { worker } => format!("abandon w{}", worker.0),
        Action::Kill { worker } => format!("kill w{}", worker.0),
        Action::Resolve { task, resolution } => format!("t{} {}", task.0, ending(resolution)),
        Action::Close => "close".to_owned(),
    }
}

fn ending(resolution: Resolution) -> String {
    match resolution {
        Resolution::Answered => "answered".to_owned(),
        Resolution::Cancelled => "cancelled".to_owned(),
        Resolution::Overdue { answered: false } => "overdue".to_owned(),
        Resolution::Overdue { answered: true } => "answered late".to_owned(),
        Resolution::Lost { attempts } => format!("lost {attempts}"),
        Resolution::SpawnFailed => "spawn-failed".to_owned(),
        Resolution::ShutDown => "shut-down".to_owned(),
    }
}

fn number(word: &str, prefix: char) -> u32 {
    word.strip_prefix(prefix)
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("not an id: {word}"))
}

fn duration(word: &str) -> Duration {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or_else(|| panic!("no unit: {word}"));
    let value: u64 = word[..end].parse().unwrap_or_else(|_| panic!("not a time: {word}"));
    match &word[end..] {
        "ns" => Duration::from_nanos(value),
        "us" => Duration::from_micros(value),
        "ms" => Duration::from_millis(value),
        "s" => Duration::from_secs(value),
        unit => panic!("not a unit: {unit}"),
    }
}

fn workers(workers_min: u32, workers_max: u32) -> Config {
    Config { workers_min, workers_max, ..Config::default() }
}

#[test]
fn one_task_grows_one_worker_which_leaves_when_idle() {
    play(
        workers(0, 8),
        1,
        "
        0ms    tick             |
        1ms    submit t0        | spawn w0
        1ms    next never
        50ms   spawned w0       |
        50ms   next 30050ms
        90ms   ready w0         | send w0 t0
        95ms   answers w0 t0 4ms | t0 answered
        95ms   next 10095ms
        10095ms until           | retire w0
        10096ms gone w0         |
        10096ms next never
    ",
    );
}

#[test]
fn the_minimum_is_there_from_the_start_and_stays() {
    play(
        workers(2, 8),
        1,
        "
        0ms    tick      | spawn w0, spawn w1
        90ms   ready w0  |
        95ms   ready w1  |
        95ms   next never
        60s    submit t0 | send w1 t0
        61s    lost w1   | abandon w1, send w0 t0 #2
        62s    until     | spawn w2
    ",
    );
}

#[test]
fn eight_long_tasks_get_eight_workers_within_a_fraction_of_a_second() {
    play(
        workers(0, 8),
        1,
        "
        0ms    submit t0 | spawn w0
        0ms    submit t1 |
        0ms    submit t2 |
        0ms    submit t3 |
        0ms    submit t4 |
        0ms    submit t5 |
        0ms    submit t6 |
        0ms    submit t7 |
        100ms  ready w0  | send w0 t0
        200ms  until     | spawn w1, spawn w2, spawn w3, spawn w4, spawn w5, spawn w6
        201ms  ready w1  | send w1 t1
        215ms  until     | spawn w7
        216ms  ready w7  | send w7 t2
    ",
    );
}

#[test]
fn a_thousand_short_tasks_do_not_grow_a_second_worker() {
    let mut scheduler = Scheduler::new(workers(0, 8), 1);
    let mut now = Time::ZERO;
    let mut waiting = std::collections::VecDeque::new();
    for task in (0..1000).map(TaskId) {
        scheduler.handle(now, submit(task, &[]));
    }
    assert_eq!(drain(&mut scheduler).len(), 1, "one spawn");
    now = now + Duration::from_millis(100);
    scheduler.handle(now, Event::Ready { worker: WorkerId(0) });
    loop {
        while let Some(action) = scheduler.poll() {
            if let Action::Send { task, .. } = action {
                waiting.push_back(task);
            }
        }
        let Some(task) = waiting.pop_front() else { break };
        now = now + Duration::from_micros(30);
        let ran = Duration::from_nanos(400);
        scheduler.handle(now, Event::Answered { worker: WorkerId(0), task, ran });
    }
    let stats = scheduler.stats();
    assert_eq!((stats.answered, stats.spawns), (1000, 1));
}

#[test]
fn short_tasks_fill_a_window_and_long_ones_are_alone() {
    play(
        Config { window_budget: Duration::from_micros(10), ..workers(1, 1) },
        1,
        "
        0ms    tick               | spawn w0
        90ms   ready w0           |
        91ms   submit t0 p0 k0    | send w0 t0
        91ms   submit t1 p0 k0    |
        91ms   submit t2 p0 k0    |
        91ms   submit t3 p0 k1    |
        91ms   submit t4 p0 k0    |
        92ms   answers w0 t0 4us  | t0 answered, send w0 t1, send w0 t2
        93ms   answers w0 t1 4us  | t1 answered
        94ms   answers w0 t2 4us  | t2 answered, send w0 t3
        99ms   answers w0 t3 5ms  | t3 answered, send w0 t4
    ",
    );
}

#[test]
fn the_first_task_of_a_lost_window_pays_and_all_go_back_in_order() {
    play(
        Config { attempts_max: 2, ..workers(1, 1) },
        1,
        "
        0ms    tick               | spawn w0
        90ms   ready w0           |
        91ms   submit t0          | send w0 t0
        92ms   answers w0 t0 1us  | t0 answered
        93ms   submit t1          | send w0 t1
        93ms   submit t2          | send w0 t2
        93ms   submit t3          | send w0 t3
        93ms   cancel t3          | recant w0 t3, t3 cancelled
        94ms   lost w0            | abandon w0, spawn w1
        180ms  ready w1           | send w1 t1 #2
        181ms  lost w1            | abandon w1, t1 lost 2
        281ms  until              | spawn w2
        300ms  ready w2           | send w2 t2
        301ms  lost w1            |
    ",
    );
}

/// The worker has answered t1 and then died of t2, and its answer died with it.
#[test]
fn what_was_in_a_lost_window_is_tried_alone_and_then_pays_for_itself() {
    play(
        Config { attempts_max: 2, ..workers(0, 1) },
        1,
        "
        0ms    submit t0          | spawn w0
        90ms   ready w0           | send w0 t0
        92ms   answers w0 t0 1us  | t0 answered
        93ms   submit t1          | send w0 t1
        93ms   submit t2          | send w0 t2
        93ms   submit t3          | send w0 t3
        94ms   lost w0            | abandon w0, spawn w1
        180ms  ready w1           | send w1 t1 #2
        181ms  submit t4          |
        182ms  answers w1 t1 1us  | t1 answered, send w1 t2
        183ms  lost w1            | abandon w1, spawn w2
        280ms  ready w2           | send w2 t2 #2
        281ms  lost w2            | abandon w2, t2 lost 2
        400ms  until              | spawn w3
        410ms  ready w3           | send w3 t3
        411ms  answers w3 t3 1us  | t3 answered, send w3 t4
    ",
    );
}

#[test]
fn a_cancelled_task_resolves_at_once_or_when_answered() {
    play(
        workers(0, 1),
        1,
        "
        0ms    submit t0          | spawn w0
        0ms    submit t1          |
        0ms    cancel t1          | t1 cancelled
        90ms   ready w0           | send w0 t0
        91ms   cancel t0          | recant w0 t0
        92ms   cancel t0          |
        93ms   answers w0 t0 3ms  | t0 answered
        94ms   cancel t0          |
        94ms   cancel t7          |
    ",
    );
}

#[test]
fn a_wrong_answer_costs_the_worker_its_place() {
    play(
        workers(0, 1),
        1,
        "
        0ms    submit t0          | spawn w0
        90ms   ready w0           | send w0 t0
        91ms   answers w0 t9 1ms  | abandon w0
        92ms   answers w0 t0 1ms  |
        191ms  until              | spawn w1
        200ms  answers w1 t0 1ms  | abandon w1
    ",
    );
}

#[test]
fn failing_starts_back_off_and_end_in_resolution() {
    play(
        workers(0, 4),
        1,
        "
        0ms    submit t0  | spawn w0
        0ms    submit t1  |
        10ms   failed w0  |
        10ms   next 110ms
        110ms  until      | spawn w1
        120ms  lost w1    | abandon w1
        320ms  until      | spawn w2
        330ms  failed w2  | t0 spawn-failed, t1 spawn-failed
        330ms  next never
        400ms  submit t2  |
        730ms  until      | spawn w3
        740ms  failed w3  | t2 spawn-failed
    ",
    );
}

#[test]
fn a_start_that_takes_too_long_is_given_up() {
    play(
        workers(0, 1),
        1,
        "
        0ms    submit t0   | spawn w0
        0ms    next never
        40s    spawned w0  |
        70s    until       | abandon w0, t0 spawn-failed
        71s    ready w0    |
        71s    failed w0   |
        72s    submit t1   | spawn w1
        73s    ready w1    | send w1 t1
    ",
    );
}

#[test]
fn a_start_that_would_fail_again_is_not_tried_again() {
    play(
        workers(0, 2),
        1,
        "
        0ms    submit t0           | spawn w0
        0ms    submit t1           |
        10ms   failed w0 for good  | t0 spawn-failed, t1 spawn-failed
        10ms   next never
        500ms  submit t2           | spawn w1
        600ms  ready w1            | send w1 t2
    ",
    );
}

#[test]
fn a_poison_task_takes_only_itself_down() {
    play(
        Config { workers_max: 1, ..Config::default() },
        1,
        "
        0ms    submit t0          | spawn w0
        0ms    submit t1          |
        90ms   ready w0           | send w0 t0
        91ms   lost w0            | abandon w0
        191ms  until              | spawn w1
        200ms  ready w1           | send w1 t0 #2
        201ms  lost w1            | abandon w1
        401ms  until              | spawn w2
        450ms  ready w2           | send w2 t0 #3
        451ms  lost w2            | abandon w2, t0 lost 3
        851ms  until              | spawn w3
        900ms  failed w3          |
        1700ms until              | spawn w4
        1800ms ready w4           | send w4 t1
        1801ms answers w4 t1 1ms  | t1 answered
    ",
    );
}

#[test]
fn workers_that_die_idle_are_a_failing_program() {
    play(
        workers(1, 1),
        1,
        "
        0ms    tick       | spawn w0
        10ms   ready w0   |
        11ms   lost w0    | abandon w0
        111ms  until      | spawn w1
        120ms  ready w1   |
        121ms  lost w1    | abandon w1
        321ms  until      | spawn w2
        330ms  ready w2   |
        331ms  lost w2    | abandon w2
        331ms  next never
    ",
    );
}

#[test]
fn an_idle_worker_gives_way_to_another_program() {
    play(
        workers(1, 1),
        2,
        "
        0ms    tick               | spawn w0
        90ms   ready w0           |
        91ms   submit t0 p1       | retire w0
        92ms   gone w0            | spawn w1 p1
        180ms  ready w1           | send w1 t0
        181ms  answers w1 t0 1us  | t0 answered
        181ms  next 10181ms
        11s    until              | retire w1
        11s    gone w1            | spawn w2
    ",
    );
}

#[test]
fn a_busy_worker_gives_way_after_its_tenure() {
    play(
        workers(0, 1),
        2,
        "
        0ms    submit t0             | spawn w0
        0ms    submit t1             |
        0ms    submit t2 p1          |
        100ms  ready w0              | send w0 t0
        100ms  next 1100ms
        1100ms until                 |
        1200ms answers w0 t0 1100ms  | t0 answered, retire w0
        1201ms gone w0               | spawn w1 p1
        1300ms ready w1              | send w1 t2
        1301ms answers w1 t2 1ms     | t2 answered, retire w1
        1302ms gone w1               | spawn w2
        1400ms ready w2              | send w2 t1
    ",
    );
}

#[test]
fn a_worker_that_does_not_leave_is_given_up() {
    play(
        workers(0, 1),
        1,
        "
        0ms    submit t0          | spawn w0
        90ms   ready w0           | send w0 t0
        91ms   answers w0 t0 1ms  | t0 answered
        10091ms until             | retire w0
        15091ms until             | abandon w0
        16s    gone w0            |
    ",
    );
}

#[test]
fn a_drain_finishes_what_waits_and_then_closes() {
    play(
        workers(1, 2),
        1,
        "
        0ms    tick               | spawn w0
        1ms    submit t0          |
        2ms    submit t1          |
        3ms    end drain          |
        4ms    submit t2          | t2 shut-down
        90ms   ready w0           | send w0 t0
        91ms   answers w0 t0 1us  | t0 answered, send w0 t1
        92ms   answers w0 t1 1us  | t1 answered, retire w0
        93ms   gone w0            | close
        94ms   tick               |
        94ms   next never
    ",
    );
}

#[test]
fn a_cancelling_end_recants_and_waits_for_answers() {
    play(
        workers(2, 2),
        1,
        "
        0ms    tick               | spawn w0, spawn w1
        90ms   ready w0           |
        91ms   submit t0          | send w0 t0
        91ms   submit t1          |
        92ms   end drain          |
        93ms   end cancel         | t1 cancelled, recant w0 t0
        94ms   end drain          |
        95ms   ready w1           | retire w1
        96ms   lost w0            | abandon w0, t0 cancelled
        97ms   gone w1            | close
    ",
    );
}

#[test]
fn a_pool_that_never_did_anything_closes_at_once() {
    play(
        workers(0, 2),
        1,
        "
        0ms    end drain | close
        1ms    tick      |
    ",
    );
}

#[test]
fn a_task_that_does_not_stop_ends_with_its_worker() {
    play(
        Config { stop_grace: Duration::from_millis(50), ..workers(0, 1) },
        1,
        "
        0ms    submit t0           | spawn w0
        10ms   ready w0            | send w0 t0
        20ms   cancel t0           | recant w0 t0
        21ms   cancel t0           |
        21ms   next 70ms
        30ms   submit t1           |
        70ms   tick                | kill w0, t0 cancelled, spawn w1
        71ms   answers w0 t0 1ms   |
        72ms   lost w0             |
        80ms   ready w1            | send w1 t1
        ",
    );
}

#[test]
fn a_task_that_stops_in_its_grace_gives_what_it_returns() {
    play(
        Config { stop_grace: Duration::from_millis(50), ..workers(0, 1) },
        1,
        "
        0ms    submit t0 within 5ms | spawn w0
        100ms  ready w0             | send w0 t0
        100ms  next 105ms
        105ms  tick                 | recant w0 t0
        110ms  answers w0 t0 10ms   | t0 answered late
        ",
    );
}

#[test]
fn a_deadline_holds_for_the_waiting_too() {
    play(
        Config { stop_grace: Duration::from_millis(50), ..workers(0, 1) },
        1,
        "
        0ms    submit t0 by 200ms  | spawn w0
        0ms    submit t1 by 30ms   |
        10ms   ready w0            | send w0 t0
        30ms   tick                | t1 overdue
        200ms  tick                | recant w0 t0
        250ms  tick                | kill w0, t0 overdue
        ",
    );
}

/// t1 and t2 wait behind t0 in one window: neither is charged for its end, and both run.
#[test]
fn those_behind_a_task_that_is_stopped_are_not_harmed() {
    play(
        Config { stop_grace: Duration::from_millis(50), attempts_max: 1, ..workers(0, 1) },
        1,
        "
        0ms    submit t9           | spawn w0
        10ms   ready w0            | send w0 t9
        10ms   answers w0 t9 1us   | t9 answered
        11ms   submit t0           | send w0 t0
        11ms   submit t1           | send w0 t1
        11ms   submit t2           | send w0 t2
        12ms   cancel t2           | recant w0 t2, t2 cancelled
        13ms   cancel t0           | recant w0 t0
        13ms   next 63ms
        63ms   tick                | kill w0, t0 cancelled, spawn w1
        70ms   ready w1            | send w1 t1
        ",
    );
}

/// t1, t2 and t3 wait behind t0, which does not end. What their worker says of t1, which has ended meanwhile, is no
/// news, and if t2 runs nevertheless when its turn has come, it has its grace.
#[test]
fn who_waits_behind_another_task_ends_as_soon_as_it_is_to_stop() {
    play(
        Config { stop_grace: Duration::from_millis(50), ..workers(0, 1) },
        1,
        "
        0ms    submit t9           | spawn w0
        10ms   ready w0            | send w0 t9
        10ms   answers w0 t9 1us   | t9 answered
        11ms   submit t0           | send w0 t0
        11ms   submit t1           | send w0 t1
        11ms   submit t2           | send w0 t2
        11ms   submit t3           | send w0 t3
        12ms   cancel t1           | recant w0 t1, t1 cancelled
        12ms   cancel t1           |
        13ms   cancel t2           | recant w0 t2, t2 cancelled
        30ms   answers w0 t0 19ms  | t0 answered
        31ms   answers w0 t1 0us   |
        31ms   next 81ms
        32ms   cancel t2           |
        81ms   tick                | kill w0, spawn w1
        90ms   ready w1            | send w1 t3
        ",
    );
}

#[test]
fn what_may_run_once_is_lost_with_its_worker_and_shares_no_window() {
    play(
        workers(0, 1),
        1,
        "
        0ms    submit t9           | spawn w0
        10ms   ready w0            | send w0 t9
        10ms   answers w0 t9 1us   | t9 answered
        11ms   submit t0 once      | send w0 t0
        11ms   submit t1           |
        12ms   lost w0             | abandon w0, t0 lost 1, spawn w1
        ",
    );
}

#[test]
fn what_waits_behind_a_task_that_turns_out_long_goes_to_who_is_free() {
    play(
        workers(2, 2),
        1,
        "
        0ms    tick                  | spawn w0, spawn w1
        90ms   ready w0              |
        90ms   ready w1              |
        91ms   submit t0             | send w1 t0
        92ms   answers w1 t0 1us     | t0 answered
        93ms   submit t1             | send w1 t1
        93ms   submit t2             | send w0 t2
        93ms   submit t3             | send w1 t3
        93ms   submit t4             | send w0 t4
        93ms   submit t5             | send w1 t5
        93ms   submit t6             | send w0 t6
        94ms   answers w1 t1 1us     | t1 answered
        94ms   answers w1 t3 1us     | t3 answered
        94ms   answers w1 t5 1us     | t5 answered
        94ms   next 95ms
        95ms   until                 | recall w0
        95ms   next never
        96ms   recalled w0 after t2  | resume w0, send w1 t4, send w1 t6
        97ms   answers w1 t4 1us     | t4 answered
        97ms   answers w1 t6 1us     | t6 answered
        97ms   submit t7             | send w1 t7
        5s     answers w0 t2 5s      | t2 answered
    ",
    );
}

/// What it had begun by then is heard of later, or was heard of before; or it had begun nothing yet.
#[test]
fn what_comes_back_is_what_has_not_begun() {
    play(
        workers(2, 2),
        1,
        "
        0ms    tick                  | spawn w0, spawn w1
        90ms   ready w0              |
        91ms   submit t0             | send w0 t0
        92ms   answers w0 t0 1us     | t0 answered
        93ms   submit t1             | send w0 t1
        93ms   submit t2             | send w0 t2
        93ms   submit t3             | send w0 t3
        93ms   submit t4             | send w0 t4
        94ms   ready w1              |
        95ms   until                 | recall w0
        96ms   recalled w0 after t2  | resume w0, send w1 t3, send w1 t4
        97ms   answers w1 t3 1us     | t3 answered
        97ms   answers w1 t4 1us     | t4 answered
        98ms   answers w0 t1 1us     | t1 answered
        98ms   submit t5             | send w1 t5
        98ms   submit t6             | send w0 t6
        98ms   answers w1 t5 1us     | t5 answered
        100ms  until                 | recall w0
        100ms  answers w0 t2 1us     | t2 answered
        100ms  answers w0 t6 1us     | t6 answered
        100ms  submit t7             | send w0 t7
        101ms  recalled w0 after t6  | resume w0, send w0 t7
        102ms  recalled w0 after t7  | abandon w0, send w1 t7 #2, spawn w2
    ",
    );
}

#[test]
fn what_waits_is_asked_back_for_a_worker_that_could_be_started() {
    play(
        workers(0, 2),
        1,
        "
        0ms    submit t0             | spawn w0
        90ms   ready w0              | send w0 t0
        92ms   answers w0 t0 1us     | t0 answered
        93ms   submit t1             | send w0 t1
        93ms   submit t2             | send w0 t2
        95ms   until                 | recall w0
        95ms   recalled w0 after t1  | resume w0
        300ms  until                 | spawn w1
        400ms  ready w1              | send w1 t2
    ",
    );
}
