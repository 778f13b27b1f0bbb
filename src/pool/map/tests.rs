//! Streams against in-memory workers.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_bytes::ByteBuf;

use crate::error::{RejectReason, TaskError};
use crate::ids::ProgramId;
use crate::pool::Pool;
use crate::pool::tests::{Gate, double, hold, in_time, loopback, pool, until};
use crate::task::Call;

crate::tasks! {
    in "stream tests";

    /// Returns what it gets, if need be when it is let.
    fn pass(context: &mut Context, released: Option<Gate>, x: usize) -> usize {
        while released.is_some_and(|gate| !gate.is_open()) && !context.cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(x)
    }

    /// Returns so many bytes, if need be when it is let.
    fn swell(context: &mut Context, released: Option<Gate>, bytes: usize) -> ByteBuf {
        pass::run(context, (released, bytes)).map(|bytes| ByteBuf::from(vec![1; bytes]))
    }

    fn swallow(_bomb: Bomb) -> () { Ok(()) }
}

/// What becomes of arguments when they are encoded.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Bomb {
    Safe,
    Fails,
    Panics,
}

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Safe => serializer.serialize_unit_variant("Bomb", 0, "Safe"),
            Self::Fails => Err(serde::ser::Error::custom("it is wet")),
            Self::Panics => panic!("it went off"),
        }
    }
}

/// A source that counts what is taken of it, and ends the test rather than the memory.
struct Source {
    taken: Arc<AtomicUsize>,
}

impl Source {
    const MOST: usize = 20_000;

    fn new() -> Self {
        Self { taken: Arc::default() }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    fn calls<C, F: Fn(usize) -> C>(&self, call: F) -> impl Iterator<Item = C> + use<C, F> {
        let taken = Arc::clone(&self.taken);
        (0..).map(move |x| {
            taken.fetch_add(1, Ordering::SeqCst);
            assert!(x < Self::MOST, "it is taken from without end");
            call(x)
        })
    }
}

/// All of them from the start, so that none is held up by another.
fn pool_of(workers: u32) -> Pool {
    Pool::builder().workers(workers..=workers).loopback().build().expect("in-memory workers need nothing")
}

fn inside(pool: &Pool) -> usize {
    pool.inner.shared.gate.inside()
}

#[test]
fn a_map_keeps_the_order_of_its_calls() {
    let doubled: Vec<i64> =
        pool(4).map((0..20_000).map(double)).map(|result| result.expect("it returns")).collect();
    assert!(doubled.iter().copied().eq((0..20_000).map(|x| 2 * x)));
}

#[test]
fn an_unordered_map_yields_each_result_once() {
    let pool = pool(4);
    let results: Vec<i64> =
        pool.map((0..20_000).map(double)).unordered().map(|r| r.expect("it returns")).collect();
    assert_eq!(results.len(), 20_000);
    assert_eq!(results.into_iter().collect::<BTreeSet<_>>().len(), 20_000);
}

#[test]
fn an_endless_iterator_is_fed_lazily() {
    let taken = AtomicUsize::new(0);
    let calls = (0..).map(|x| {
        taken.fetch_add(1, Ordering::Relaxed);
        double(x)
    });
    let pool = pool(2);
    let sum: i64 = pool.map(calls).ahead(10).take(100).map(|result| result.expect("it returns")).sum();
    assert_eq!(sum, 9900);
    assert!(taken.load(Ordering::Relaxed) <= 110, "{taken:?}");
}

#[test]
fn a_map_through_a_full_pool_goes_on() {
    let pool = loopback(2).queue_max(3).build().expect("it can be built");
    let doubled: Vec<i64> =
        pool.map((0..500).map(double)).map(|result| result.expect("it returns")).collect();
    assert_eq!(doubled.len(), 500);
}

#[test]
fn a_map_of_a_closed_pool_gives_an_error_for_each_call() {
    let pool = pool(1);
    pool.shutdown();
    let results: Vec<_> = pool.map((0..3).map(double)).collect();
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|result| matches!(result, Err(TaskError::Rejected { .. }))), "{results:?}");
}

#[test]
fn a_dropped_stream_cancels_what_has_not_begun() {
    let pool = pool(1);
    let gate = Gate::new();
    let held = pool.submit(hold(gate)).expect("the pool is open");
    let mut stream = pool.map((0..).map(double)).ahead(50);
    held.cancel();
    assert_eq!(stream.next().expect("it is endless").expect("it returns"), 0);
    drop(stream);
    until("nothing waits", || pool.stats().tasks_waiting == 0 && pool.stats().tasks_held == 0);
}

#[test]
fn an_endless_map_of_a_closed_pool_gives_its_errors_one_by_one() {
    let pool = pool(1);
    pool.shutdown();
    let source = Source::new();
    let mut ordered = pool.map(source.calls(|x| pass(None, x)));
    for given in 1..=100 {
        let result = ordered.next().expect("it is endless");
        assert!(matches!(result, Err(TaskError::Rejected { .. })), "{result:?}");
        assert_eq!(source.taken(), given);
    }
    let mut unordered = ordered.unordered();
    assert!(unordered.next().expect("it is endless").is_err());
    assert_eq!(source.taken(), 101);
}

#[test]
fn an_endless_map_to_no_program_gives_its_errors_one_by_one() {
    let (pool, source) = (pool(1), Source::new());
    let stranger = ProgramId(9);
    let mut stream = pool.map_to(stranger, source.calls(|x| pass(None, x))).unordered();
    let Some(Err(TaskError::Rejected { reason, .. })) = stream.next() else { panic!("it is not accepted") };
    assert_eq!(reason, RejectReason::Program { program: stranger });
    assert_eq!(source.taken(), 1);
}

#[test]
fn a_pool_that_is_closed_in_mid_stream_ends_with_errors() {
    let (pool, source) = (pool(1), Source::new());
    let mut stream = pool.map(source.calls(|x| pass(None, x))).ahead(10);
    for x in 0..5 {
        assert_eq!(stream.next().expect("it is endless").expect("it returns"), x);
    }
    pool.shutdown();
    let later = stream.nth(20).expect("it is endless");
    assert!(matches!(later, Err(TaskError::Rejected { .. })), "{later:?}");
    assert!(source.taken() <= 36, "{}", source.taken());
}

#[test]
fn errors_are_in_their_places() {
    let pool = pool(2);
    let results: Vec<_> = pool.map([Bomb::Safe, Bomb::Fails, Bomb::Safe].map(swallow)).collect();
    let [Ok(()), Err(TaskError::Rejected { reason, .. }), Ok(())] = &results[..] else {
        panic!("{results:?}")
    };
    assert!(reason.to_string().contains("it is wet"), "{reason}");
}

#[test]
fn behind_a_slow_first_task_a_stream_stops_at_its_limit() {
    let (pool, source, gate) = (pool_of(2), Source::new(), Gate::new());
    let mut stream = pool.map(source.calls(|x| pass((x == 0).then_some(gate), x))).ahead(10);
    thread::scope(|scope| {
        let first = scope.spawn(|| stream.next());
        until("the limit", || source.taken() >= 10);
        // Time enough to run all the others, and their successors, if they were taken.
        for x in 0..500 {
            assert_eq!(pool.submit(double(x)).expect("it is open").wait().expect("it returns"), 2 * x);
        }
        assert_eq!(source.taken(), 10);
        gate.open();
        assert_eq!(first.join().expect("it does not panic").expect("it is endless").expect("it returns"), 0);
    });
    for x in 1..30 {
        assert_eq!(stream.next().expect("it is endless").expect("it returns"), x);
    }
}

#[test]
fn large_results_behind_a_slow_first_task_bound_a_stream() {
    let (pool, source, gate) = (pool_of(2), Source::new(), Gate::new());
    let mut stream = pool.map(source.calls(|x| swell((x == 0).then_some(gate), 1 << 20)));
    thread::scope(|scope| {
        let first = scope.spawn(|| stream.next().expect("it is endless").expect("it returns").len());
        until("all but the first", || pool.stats().tasks_answered >= 63);
        for x in 0..500 {
            assert_eq!(pool.submit(double(x)).expect("it is open").wait().expect("it returns"), 2 * x);
        }
        assert_eq!(inside(&pool), 1, "{} were taken", source.taken());
        gate.open();
        assert_eq!(first.join().expect("it does not panic"), 1 << 20);
    });
    assert!(source.taken() <= 64, "{} were taken", source.taken());
}

#[test]
fn an_unordered_stream_forgets_what_it_has_given() {
    let (pool, source, gate) = (pool_of(2), Source::new(), Gate::new());
    let stream = pool.map(source.calls(|x| pass((x == 0).then_some(gate), x)));
    let mut stream = stream.unordered().ahead(10);
    for _ in 0..5000 {
        assert_ne!(stream.next().expect("it is endless").expect("it returns"), 0);
        assert!(stream.feed.held.calls <= 10 && stream.feed.under_way.len() <= 10, "{stream:?}");
    }
    assert!(stream.feed.under_way.capacity() <= 192, "{}", stream.feed.under_way.capacity());
    gate.open();
    assert!(stream.any(|result| result.expect("it returns") == 0));
}

#[test]
fn an_unordered_stream_says_which_call_a_result_is_of() {
    let (pool, gate) = (pool_of(2), Gate::new());
    let calls = (0..100).map(|x| pass((x == 0).then_some(gate), 7 * x));
    let mut results = pool.map(calls).unordered().indexed();
    let mut indices = BTreeSet::new();
    for _ in 1..100 {
        let (index, result) = results.next().expect("a hundred are to come");
        assert_eq!(result.expect("it returns"), 7 * index);
        indices.insert(index);
    }
    gate.open();
    assert_eq!(results.next().expect("one is left").0, 0);
    assert!(results.next().is_none());
    assert!(indices.into_iter().eq(1..100));
}

#[test]
fn a_stream_that_becomes_unordered_half_way_loses_nothing() {
    let (pool, gate) = (pool_of(2), Gate::new());
    let mut ordered = pool.map((0..50).map(|x| pass((x == 0).then_some(gate), x))).ahead(20);
    thread::scope(|scope| {
        scope.spawn(|| {
            until("the others", || pool.stats().tasks_answered >= 15);
            gate.open();
        });
        assert_eq!(ordered.next().expect("fifty are to come").expect("it returns"), 0);
    });
    let indices: Vec<usize> = ordered.unordered().indexed().map(|(index, _)| index).collect();
    assert_eq!(indices.len(), 49);
    assert!(BTreeSet::from_iter(indices).into_iter().eq(1..50));
}

#[test]
fn results_that_are_there_come_before_further_calls() {
    let (pool, source) = (pool(1), Source::new());
    let mut stream = pool.map(source.calls(|x| pass(None, x))).ahead(3);
    assert_eq!(stream.next().expect("it is endless").expect("it returns"), 0);
    assert_eq!(source.taken(), 3);
    // The one worker has answered the stream's calls when it answers this.
    assert_eq!(pool.submit(double(1)).expect("it is open").wait().expect("it returns"), 2);
    for x in [1, 2] {
        assert_eq!(stream.next().expect("it is endless").expect("it returns"), x);
        assert_eq!(source.taken(), 3);
    }
}

#[test]
fn a_source_that_panics_leaves_pool_and_stream_whole() {
    let pool = loopback(1).queue_max(8).build().expect("it can be built");
    let mut left = 4;
    let calls = std::iter::from_fn(|| {
        left -= 1;
        assert_ne!(left, 0, "the source is broken");
        (left > 0).then(|| double(left))
    });
    let mut stream = pool.map(calls);
    catch_unwind(AssertUnwindSafe(|| stream.nth(3))).expect_err("the source panics");
    until("nobody is inside", || inside(&pool) == 0);
    let handles: Vec<_> = (0..8).map(|x| pool.try_submit(pass(None, x)).expect("all is free")).collect();
    handles.into_iter().for_each(|handle| assert!(handle.wait().is_ok()));
    assert!(stream.all(|result| result.is_ok()));
}

#[test]
fn arguments_that_panic_leave_pool_and_stream_whole() {
    let pool = loopback(1).queue_max(8).build().expect("it can be built");
    let mut stream = pool.map([Bomb::Safe, Bomb::Panics, Bomb::Safe].map(swallow));
    catch_unwind(AssertUnwindSafe(|| stream.nth(2))).expect_err("the second goes off");
    until("nobody is inside", || inside(&pool) == 0);
    assert!(stream.by_ref().count() <= 2);
    until("nobody is inside", || inside(&pool) == 0);
}

#[test]
fn a_source_may_use_the_pool_and_wait_for_it() {
    let results = in_time(|| {
        let pool = loopback(2).queue_max(4).build().expect("it can be built");
        let ask = |x| pool.submit(double(x)).expect("it is open").wait().expect("it returns");
        pool.map((0..50).map(|x| double(ask(x)))).map(|r| r.expect("it returns")).collect::<Vec<_>>()
    });
    assert!(results.into_iter().eq((0..50).map(|x| 4 * x)));
}

#[test]
fn a_stream_waits_for_room_in_a_pool_that_others_fill() {
    let pool = loopback(1).queue_max(1).build().expect("it can be built");
    let gate = Gate::new();
    let held = pool.submit(hold(gate)).expect("there is room for one");
    thread::scope(|scope| {
        let results =
            scope.spawn(|| pool.map((0..5).map(double)).map(|r| r.expect("it returns")).sum::<i64>());
        gate.open();
        assert_eq!(results.join().expect("it does not panic"), 20);
    });
    assert!(!held.wait().expect("it returns"));
}

#[test]
fn a_source_that_stays_open_does_not_hold_up_results() {
    let (sender, receiver) = crossbeam_channel::unbounded::<Call<double>>();
    let sender = thread::spawn(move || {
        let mut sent = 0;
        while sender.send(double(sent)).is_ok() {
            sent += 1;
            thread::sleep(Duration::from_millis(1));
        }
        sent
    });
    let pool = pool(1);
    let mut stream = pool.map(receiver);
    for x in 0..20 {
        assert_eq!(stream.next().expect("it is open").expect("it returns"), 2 * x);
    }
    drop(stream);
    let sent = sender.join().expect("it does not panic");
    assert!(sent < 2000, "{sent} calls were sent before the twentieth result came");
}
