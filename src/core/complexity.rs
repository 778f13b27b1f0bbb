//! The work per event does not depend on how many workers and tasks there are: counted, not timed.

use std::time::Duration;

use super::{Action, Config, Event, Scheduler, Terms, Time, meter};
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};

/// Steps that one event may take on average: enough for its own lines and queues, whatever their length.
const STEPS_PER_EVENT: u64 = 40;

const WORKERS: u32 = 10_000;
const TASKS: u64 = 1_000_000;

/// A scheduler that counts what it is told, and how much work that was.
struct Metered {
    scheduler: Scheduler,
    now: Time,
    events: u64,
    steps: u64,
    /// Actions that were taken with the events.
    waiting: Vec<Action>,
}

impl Metered {
    fn handle(&mut self, event: Event) {
        self.now = self.now + Duration::from_micros(1);
        let before = meter::steps();
        self.scheduler.handle(self.now, event);
        // The consequences are drawn when the first of them is asked for.
        self.waiting.extend(self.scheduler.poll());
        self.scheduler.next_deadline();
        self.steps += meter::steps() - before;
        self.events += 1;
        // Amortized: clearing the queue once is in order, doing so again and again is noticed at once.
        let bound = self.events * STEPS_PER_EVENT + 2 * TASKS;
        assert!(self.steps <= bound, "{} steps for {} events", self.steps, self.events);
    }

    fn actions(&mut self) -> Vec<Action> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().chain(std::iter::from_fn(|| self.scheduler.poll())).collect()
    }

    fn assert_bounded(&mut self, phase: &str) {
        let (events, steps) = (self.events, self.steps);
        assert!(steps <= events * STEPS_PER_EVENT, "{phase}: {steps} steps for {events} events");
        (self.events, self.steps) = (0, 0);
    }
}

fn submit(task: u64) -> Event {
    Event::Submit { task: TaskId(task), program: ProgramId(0), kind: KindId(0), terms: Terms::default() }
}

#[test]
fn work_per_event_is_bounded() {
    let config = Config {
        workers_min: WORKERS,
        workers_max: WORKERS,
        window_budget: Duration::ZERO,
        spawn_timeout: Duration::from_secs(3600),
        ..Config::default()
    };
    let scheduler = Scheduler::new(config, 2);
    let mut metered = Metered { scheduler, now: Time::ZERO, events: 0, steps: 0, waiting: Vec::new() };

    // One event starts them all, and pays for each.
    metered.handle(Event::Tick);
    metered.events = u64::from(WORKERS);
    metered.assert_bounded("start");
    for worker in (0..WORKERS).map(WorkerId) {
        metered.handle(Event::Ready { worker });
    }
    metered.assert_bounded("ready");

    for task in 0..TASKS {
        metered.handle(submit(task));
    }
    metered.assert_bounded("submit");
    let mut sent: Vec<(WorkerId, TaskId)> = Vec::new();
    let collect = |actions: Vec<Action>, sent: &mut Vec<(WorkerId, TaskId)>| {
        sent.extend(actions.into_iter().filter_map(|action| match action {
            Action::Send { worker, task, .. } => Some((worker, task)),
            Action::Spawn { .. }
            | Action::Recant { .. }
            | Action::Recall { .. }
            | Action::Resume { .. }
            | Action::Retire { .. }
            | Action::Abandon { .. }
            | Action::Kill { .. }
            | Action::Resolve { .. }
            | Action::Close => None,
        }));
    };
    collect(metered.actions(), &mut sent);
    assert_eq!(sent.len(), WORKERS as usize, "each worker holds one task of unknown length");

    // Cancelling from the middle leaves tombstones, which are cleared away now and then, or passed by
    // when their turn comes: both are paid for by the cancels.
    for task in (u64::from(WORKERS)..TASKS).filter(|task| task % 4 != 0) {
        metered.handle(Event::Cancel { task: TaskId(task) });
    }
    metered.actions();

    for (worker, task) in std::mem::take(&mut sent) {
        metered.handle(Event::Answered { worker, task, ran: Duration::from_millis(5) });
    }
    metered.assert_bounded("cancel and answer");
    collect(metered.actions(), &mut sent);
    assert_eq!(sent.len(), WORKERS as usize);

    for &(worker, _) in &sent {
        metered.handle(Event::Lost { worker });
    }
    metered.assert_bounded("lose");
    metered.actions();
    metered.scheduler.assert_consistent();
}
