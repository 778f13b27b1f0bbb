//! The whole public API against in-memory workers, which really serialize.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as Waking, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::reply::{Promise, Slot};
use super::{Builder, Pool, as_completed};
use crate::Program;
use crate::error::{BuildError, Limit, RejectReason, TaskError};
use crate::ids::{ProgramId, TaskId};
use crate::slots::{Slots, Source};
use crate::task::{Call, Context, Definition, Registry, Task};

crate::tasks! {
    in "pool tests";

    pub(super) fn double(x: i64) -> i64 { Ok(2 * x) }

    fn refuse(reason: String) -> () {
        Err(anyhow::anyhow!("the disk is full").context(reason))
    }

    fn explode(message: String) -> () { panic!("{message}") }

    fn count(context: &mut Context) -> u64 {
        let counter = context.state::<u64>();
        *counter += 1;
        Ok(*counter)
    }

    fn start_counting_at(context: &mut Context, start: u64) -> () {
        anyhow::ensure!(start < 1000, "{start} is too high to count from");
        *context.state::<u64>() = start;
        Ok(())
    }

    /// Holds its worker until it is told to stop, and says whether that was by a cancel.
    pub(super) fn hold(context: &mut Context, released: Gate) -> bool {
        released.reach();
        loop {
            if context.cancelled() {
                return Ok(true);
            }
            if released.is_open() {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Counts that it has begun, and waits before its gate, if it has one, whatever is said meanwhile.
    fn pass(number: usize, gate: Option<Gate>) -> usize {
        BEGUN[number].fetch_add(1, Ordering::SeqCst);
        while gate.is_some_and(|gate| !gate.is_open()) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(number)
    }

    fn whoami(context: &mut Context) -> (u64, String, u32) {
        Ok((context.worker().number(), context.host().to_owned(), context.attempt()))
    }

    fn echo(bytes: Vec<u8>) -> Vec<u8> { Ok(bytes) }

    /// Milliseconds, whatever is said meanwhile.
    fn sleep(time: u64) -> () {
        thread::sleep(Duration::from_millis(time));
        Ok(())
    }

}

/// A gate that a test opens for its tasks. The workers are threads of this process, so its number is enough.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(super) struct Gate(usize);

static GATES: [AtomicBool; 32] = [const { AtomicBool::new(false) }; 32];
/// Which of them a task stands before.
static REACHED: [AtomicBool; 32] = [const { AtomicBool::new(false) }; 32];
/// How often each call of `pass` has begun.
static BEGUN: [AtomicUsize; 51] = [const { AtomicUsize::new(0) }; 51];
static GATE_NEXT: AtomicUsize = AtomicUsize::new(0);

impl Gate {
    pub(super) fn new() -> Self {
        Self(GATE_NEXT.fetch_add(1, Ordering::SeqCst))
    }

    pub(super) fn is_open(self) -> bool {
        GATES[self.0].load(Ordering::SeqCst)
    }

    /// A task stands before it.
    pub(super) fn reach(self) {
        REACHED[self.0].store(true, Ordering::SeqCst);
    }

    pub(super) fn is_reached(self) -> bool {
        REACHED[self.0].load(Ordering::SeqCst)
    }

    pub(super) fn open(self) {
        GATES[self.0].store(true, Ordering::SeqCst);
    }
}

pub(super) fn loopback(workers: u32) -> Builder {
    Pool::builder().workers(0..=workers).loopback()
}

pub(super) fn pool(workers: u32) -> Pool {
    loopback(workers).build().expect("in-memory workers need nothing")
}

pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < by, "{what} did not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The result of what might wait for ever.
pub(super) fn in_time<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = crossbeam_channel::bounded(1);
    thread::spawn(move || done.send(run()));
    result.recv_timeout(Duration::from_secs(20)).expect("it ends, and in time")
}

#[test]
fn a_task_comes_back_with_its_result() {
    let pool = pool(1);
    let handle = pool.submit(double(21)).expect("the pool is open");
    assert_eq!(handle.wait().expect("it returns"), 42);
}

#[test]
fn an_error_comes_back_with_its_causes_and_its_place() {
    let pool = pool(1);
    let error =
        pool.submit(refuse("no result".to_owned())).expect("the pool is open").wait().expect_err("it fails");
    let TaskError::Failed { origin, causes } = &error else { panic!("{error:?}") };
    assert_eq!(causes, &["no result", "the disk is full"]);
    assert_eq!(origin.name, refuse::NAME);
    assert_eq!(origin.place.expect("it ran somewhere").host, "loopback");
    assert_eq!(error.worker().map(|worker| worker.number()), Some(0));
}

#[test]
fn a_panic_comes_back_with_message_and_place_and_the_worker_goes_on() {
    let pool = pool(1);
    let error =
        pool.submit(explode("boom".to_owned())).expect("the pool is open").wait().expect_err("it panics");
    let TaskError::Panicked { message, location, .. } = &error else { panic!("{error:?}") };
    assert_eq!(message, "boom");
    assert!(location.as_ref().expect("it is known").contains("tests.rs:"), "{location:?}");
    assert_eq!(pool.submit(double(1)).expect("the pool is open").wait().expect("it returns"), 2);
    assert_eq!(pool.stats().spawns, 1);
}

#[test]
fn state_stays_with_the_worker_from_the_initializer_on() {
    let pool = loopback(1).initializer(start_counting_at(10)).build().expect("it can be built");
    let counts: Vec<u64> =
        (0..3).map(|_| pool.submit(count()).expect("open").wait().expect("it counts")).collect();
    assert_eq!(counts, [11, 12, 13]);
}

#[test]
fn an_initializer_that_fails_ends_every_task_with_its_error() {
    let pool = loopback(2).initializer(start_counting_at(5000)).build().expect("it can be built");
    let error = pool.submit(count()).expect("the pool is open").wait().expect_err("no worker is fit");
    let TaskError::SpawnFailed { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("5000 is too high to count from"), "{reason}");
    assert!(pool.stats().spawns <= 6, "a failing initializer is not tried for ever: {:?}", pool.stats());
}

#[test]
fn a_task_that_the_worker_does_not_know_says_so() {
    let registry = Registry::empty().with::<double>();
    let pool = Pool::builder().workers(0..=1).loopback_with(registry).build().expect("it can be built");
    let error = pool.submit(count()).expect("the pool is open").wait().expect_err("it is unknown");
    let TaskError::Unknown { hint, .. } = &error else { panic!("{error:?}") };
    assert!(hint.contains(double::NAME), "{hint}");
    assert_eq!(pool.submit(double(4)).expect("the pool is open").wait().expect("this one is known"), 8);
}

#[test]
fn a_worker_without_tasks_is_refused_with_a_hint() {
    let pool =
        Pool::builder().workers(0..=1).loopback_with(Registry::empty()).build().expect("it can be built");
    let error = pool.submit(double(1)).expect("the pool is open").wait().expect_err("there is no worker");
    assert!(error.to_string().contains("has no tasks"), "{error}");
}

#[test]
fn another_signature_is_told_apart() {
    struct Other;
    impl Task for Other {
        const NAME: &'static str = double::NAME;
        const SIGNATURE: &'static str = "(f32) -> f32";
        type Args = (f32,);
        type Output = f32;
        fn run(_: &mut Context, (x,): (f32,)) -> anyhow::Result<f32> {
            Ok(x)
        }
    }
    let error =
        pool(1).submit(Call::<Other>::new((1.0,))).expect("open").wait().expect_err("the types differ");
    assert!(error.to_string().contains("(f32) -> f32"), "{error}");
    assert!(error.to_string().contains(double::SIGNATURE), "{error}");
}

#[test]
fn a_full_pool_gives_the_call_back() {
    let pool = loopback(1).queue_max(1).build().expect("it can be built");
    let gate = Gate::new();
    let held = pool.try_submit(hold(gate)).expect("there is room for one");
    let error = pool.try_submit(double(7)).expect_err("there is no room for two");
    assert_eq!(error.reason, RejectReason::Full { limit: 1 });
    assert_eq!(error.call.into_args(), (7,));
    gate.open();
    assert!(!held.wait().expect("it returns"));
    until("room", || pool.try_submit(double(7)).is_ok());
}

#[test]
fn a_submit_to_a_full_pool_waits_for_room() {
    let pool = loopback(1).queue_max(1).build().expect("it can be built");
    let gate = Gate::new();
    let held = pool.submit(hold(gate)).expect("there is room for one");
    let waiting = thread::spawn({
        let pool = pool.clone();
        move || pool.submit(double(3)).expect("room comes").wait().expect("it returns")
    });
    gate.open();
    assert!(!held.wait().expect("it returns"));
    assert_eq!(waiting.join().expect("it does not panic"), 6);
}

#[test]
fn a_long_task_that_asks_lets_the_answers_before_it_go() {
    let pool = pool(1);
    let (open, closed) = (Gate::new(), Gate::new());
    open.open();
    // Its kind is short, until it is not: both go to the worker in one window.
    for _ in 0..3 {
        assert!(!pool.submit(hold(open)).expect("the pool is open").wait().expect("it returns"));
    }
    let mut results = pool.map([open, closed].map(hold));
    assert!(!results.next().expect("two are to come").expect("it does not wait for the second"));
    closed.open();
    assert!(!results.next().expect("one is to come").expect("it returns"));
}

#[test]
fn a_waiting_task_can_be_cancelled() {
    let pool = pool(1);
    let gate = Gate::new();
    let held = pool.submit(hold(gate)).expect("the pool is open");
    let waiting = pool.submit(double(1)).expect("the pool is open");
    waiting.cancel();
    assert!(matches!(waiting.wait(), Err(TaskError::Cancelled { .. })));
    gate.open();
    assert!(!held.wait().expect("it returns"));
}

#[test]
fn a_running_task_can_ask_whether_it_is_wanted() {
    let pool = pool(1);
    let held = pool.submit(hold(Gate::new())).expect("the pool is open");
    until("the task runs", || pool.stats().tasks_held == 1);
    held.cancel();
    assert!(held.wait().expect("it returns"));
}

#[test]
fn a_task_that_is_over_its_time_is_told() {
    let pool = pool(1);
    let over = Duration::from_millis(20);
    let held = pool.submit(hold(Gate::new()).timeout(over)).expect("the pool is open");
    // It returns in its grace, and what it returns counts.
    assert!(held.wait().expect("it returns"));
    let held = pool.submit(hold(Gate::new()).deadline(Instant::now() + over)).expect("the pool is open");
    let waiting = pool.submit(double(1).deadline(Instant::now())).expect("the pool is open");
    let error = waiting.wait().expect_err("its time was over before it began");
    assert!(matches!(error, TaskError::Overdue { limit: Limit::Deadline, .. }), "{error}");
    assert!(held.wait().expect("it returns"));
    assert_eq!(pool.stats().kills, 0);
}

#[test]
fn a_task_that_does_not_stop_ends_with_its_worker() {
    let builder = Pool::builder().workers(1..=1).stop_grace(Duration::from_millis(20));
    let pool = builder.task_timeout(Duration::from_millis(20)).loopback().build().expect("it can be built");
    let stuck = pool.map([1, 2].map(|_| sleep(300))).unordered().collect::<Vec<_>>();
    for result in stuck {
        let error = result.expect_err("it is not waited for");
        assert!(matches!(error, TaskError::Overdue { limit: Limit::Timeout, .. }), "{error}");
    }
    let stats = pool.stats();
    assert_eq!((stats.kills, stats.losses), (2, 0));
}

#[test]
fn a_handle_can_be_waited_on_for_a_while_and_then_again() {
    let pool = pool(1);
    let gate = Gate::new();
    let mut held = pool.submit(hold(gate)).expect("the pool is open");
    assert!(!held.is_finished());
    assert!(held.try_result().is_none());
    assert!(matches!(held.wait_timeout(Duration::from_millis(5)), Err(TaskError::TimedOut { .. })));
    gate.open();
    assert!(!held.wait_timeout(Duration::from_secs(20)).expect("it returns"));
    assert!(matches!(held.wait(), Err(TaskError::Taken { .. })));
}

#[test]
fn handles_are_futures_of_any_runtime() {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let pool = pool(1);
    let gate = Gate::new();
    let handle = pool.submit(hold(gate)).expect("the pool is open");
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Waking::from_waker(&waker);
    let mut future = pin!(handle);
    assert!(future.as_mut().poll(&mut context).is_pending());
    gate.open();
    until("the waker is woken", || flag.0.load(Ordering::SeqCst));
    assert!(matches!(future.poll(&mut context), Poll::Ready(Ok(false))));
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("it went off");
        }
    }
    let pool = pool(1);
    let gate = Gate::new();
    let waker = Waker::from(Arc::new(Bomb));
    let mut bombed = pin!(pool.submit(hold(gate)).expect("the pool is open"));
    assert!(bombed.as_mut().poll(&mut Waking::from_waker(&waker)).is_pending());
    let other = pool.submit(double(1)).expect("the pool is open");
    gate.open();
    assert_eq!(other.wait().expect("it returns"), 2);
    assert!(bombed.is_finished());
    assert_eq!(pool.submit(double(2)).expect("the pool is open").wait().expect("it returns"), 4);
}

fn definition_of<T: Task>(_call: &Call<T>) -> &'static Definition {
    T::DEFINITION
}

#[test]
fn a_waker_may_use_what_it_is_dropped_by() {
    struct Looks(Arc<Slot>);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.is_settled();
        }
    }
    in_time(|| {
        let (_promise, slot) = Promise::to_slot(TaskId(1), definition_of(&double(1)));
        let waker = || Waker::from(Arc::new(Looks(Arc::clone(&slot))));
        assert!(slot.poll_take(&mut Waking::from_waker(&waker())).is_pending());
        assert!(slot.poll_take(&mut Waking::from_waker(&waker())).is_pending());
        slot.notify(waker());
        slot.notify(Waker::noop().clone());
    });
}

#[test]
fn handles_can_be_taken_as_they_complete() {
    let pool = pool(2);
    let gate = Gate::new();
    let last = pool.submit(hold(gate)).expect("the pool is open");
    let last_task = last.task();
    let first = pool.submit(hold(Gate(gate.0))).expect("the pool is open");
    first.cancel();
    let mut completed = as_completed([last, first]);
    assert_ne!(completed.next().expect("two are to come").task(), last_task);
    gate.open();
    assert_eq!(completed.next().expect("one is to come").task(), last_task);
    assert!(completed.next().is_none());
}

#[test]
fn a_shutdown_lets_everything_finish() {
    let pool = pool(2);
    let handles: Vec<_> = (0..100).map(|x| pool.submit(double(x)).expect("the pool is open")).collect();
    pool.shutdown();
    assert_eq!(pool.stats().workers(), 0);
    let sum: i64 = handles.into_iter().map(|handle| handle.wait().expect("it was let finish")).sum();
    assert_eq!(sum, 9900);
    let error = pool.submit(double(8)).expect_err("the pool is closed");
    assert!(matches!(error.reason, RejectReason::Closed { .. }));
    assert_eq!(error.call.args(), &(8,));
}

#[test]
fn a_dropped_pool_cancels_what_waits_and_asks_what_runs_to_stop() {
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(hold(gate)).expect("the pool is open");
    until("the task runs", || gate.is_reached());
    let waiting = pool.submit(double(1)).expect("the pool is open");
    drop(pool);
    assert!(running.wait().expect("it returns"));
    let error = waiting.wait().expect_err("it never ran");
    assert!(matches!(error, TaskError::Cancelled { .. } | TaskError::ShutDown { .. }), "{error:?}");
}

#[test]
fn many_threads_submit_to_one_pool() {
    let pool = pool(3);
    let sums = (0..8_i64).map(|thread| {
        let pool = pool.clone();
        thread::spawn(move || -> i64 {
            let handles: Vec<_> =
                (0..500).map(|x| pool.submit(double(1000 * thread + x)).expect("open")).collect();
            handles.into_iter().map(|handle| handle.wait().expect("it returns")).sum()
        })
    });
    let sums: Vec<_> = sums.collect();
    for (thread, sum) in (0..).zip(sums) {
        assert_eq!(sum.join().expect("it does not panic"), 1_000_000 * thread + 249_500);
    }
}

#[test]
fn a_pool_grows_for_long_tasks_and_shrinks_without() {
    let pool = loopback(3).idle_timeout(Duration::from_millis(50)).build().expect("it can be built");
    let gate = Gate::new();
    let handles: Vec<_> = (0..3).map(|_| pool.submit(hold(gate)).expect("the pool is open")).collect();
    until("three workers", || pool.stats().workers_busy == 3);
    gate.open();
    for handle in handles {
        assert!(!handle.wait().expect("it returns"));
    }
    until("no workers", || pool.stats().workers() == 0);
}

#[test]
fn a_minimum_is_there_from_the_start() {
    let pool = Pool::builder().workers(2..=3).loopback().build().expect("it can be built");
    until("two workers", || pool.stats().workers_idle == 2);
}

#[test]
fn a_task_knows_who_runs_it() {
    let pool = pool(1);
    assert_eq!(
        pool.submit(whoami()).expect("open").wait().expect("it returns"),
        (0, "loopback".to_owned(), 1)
    );
}

#[test]
fn large_and_empty_payloads_come_back_intact() {
    let pool = pool(2);
    let sizes = [0, 1, 4095, 300_000, 20_000_000];
    for (bytes, back) in sizes.iter().zip(pool.map(sizes.iter().map(|&size| echo(vec![7; size])))) {
        assert!(back.expect("it returns").iter().eq(vec![7; *bytes].iter()));
    }
}

#[test]
fn programs_are_numbered_and_checked() {
    let pool = pool(2);
    let other = pool.add_program(Program::this_executable()).expect("it makes sense");
    assert_eq!(pool.submit_to(other, double(2)).expect("the pool is open").wait().expect("it returns"), 4);
    let stranger = ProgramId(9);
    let error = pool.submit_to(stranger, double(2)).expect_err("there is no such program");
    assert_eq!(error.reason, RejectReason::Program { program: stranger });
    let error = pool.add_program(Program::this_executable().env("A=B", "c")).expect_err("no such variable");
    assert!(matches!(error, BuildError::Program { .. }), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = Pool::builder().workers(3..=2);
    for builder in [
        Pool::builder().workers(0..=0),
        reversed,
        Pool::builder().attempts_max(0),
        Pool::builder().queue_max(0),
    ] {
        assert!(matches!(builder.loopback().build(), Err(BuildError::Setting(_))));
    }
}

#[test]
fn without_an_upper_limit_there_are_as_many_workers_as_slots() {
    for (builder, min) in [
        (Pool::builder(), 0),
        (Pool::builder().workers(0..), 0),
        (Pool::builder().workers(999_999..), 999_999),
    ] {
        let config = builder.config(&Slots::of_cores()).expect("it makes sense");
        assert_eq!((config.workers_min, config.workers_max), (min, Slots::of_cores().total().max(min)));
    }
    let pool = pool(3);
    assert_eq!((pool.workers_max(), pool.workers_max_source()), (3, &Source::User));
    let pool = Pool::builder().loopback().build().expect("it is in memory");
    assert_eq!((pool.workers_max(), pool.workers_max_source()), (pool.slots().total(), &Source::Cores));
}

#[test]
fn more_workers_than_slots_are_refused_where_others_count_on_them() {
    let of = |source| {
        let mut slots = Slots::of_cores();
        slots.hosts[0].slots = 2;
        Slots { source, ..slots }
    };
    let builder = Pool::builder();
    assert_eq!(builder.check_slots(&of(Source::Cores), 8), Ok(()), "this machine is the user's own");
    assert_eq!(builder.check_slots(&of(Source::Slurm), 2), Ok(()));
    for source in [Source::Slurm, Source::HostFile("hosts".into())] {
        let refused = builder.check_slots(&of(source.clone()), 3).expect_err("there are two slots");
        let said = refused.to_string();
        assert!(said.contains("2 slot(s)") && said.contains("oversubscribe"), "{said}");
        assert!(said.contains(&source.to_string()), "{said}");
        assert_eq!(builder.clone().oversubscribe(true).check_slots(&of(source), 3), Ok(()));
    }
}

#[test]
fn an_error_of_a_submit_passes_through_anyhow() {
    fn submit(pool: &Pool) -> anyhow::Result<i64> {
        Ok(pool.submit(double(1))?.wait()?)
    }
    let pool = pool(1);
    assert_eq!(submit(&pool).expect("the pool is open"), 2);
    pool.shutdown();
    assert!(submit(&pool).expect_err("the pool is closed").to_string().contains("shut down"));
}

#[test]
fn those_behind_a_task_that_turns_out_long_run_elsewhere_and_once() {
    in_time(|| {
        let pool = Pool::builder().workers(2..=2).loopback().build().expect("it can be built");
        // What one of its kind takes is known from these.
        for _ in 0..100 {
            pool.submit(pass(50, None)).expect("the pool is open").wait().expect("it passes");
        }
        let gate = Gate::new();
        let calls = (0..50).map(move |number| pass(number, (number == 5).then_some(gate)));
        let all = thread::spawn(move || pool.map(calls).collect::<Result<Vec<_>, _>>());
        let begun = |number: usize| BEGUN[number].load(Ordering::SeqCst);
        until("the begin of all", || (0..50).all(|number| begun(number) > 0));
        gate.open();
        let all = all.join().expect("it does not panic").expect("all pass");
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert!((0..50).all(|number| begun(number) == 1), "one has begun twice");
    });
}
