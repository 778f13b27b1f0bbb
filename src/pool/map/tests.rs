//! Streams against in-memory workers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::TaskError;
use crate::pool::tests::{Gate, double, hold, loopback, pool, until};

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
