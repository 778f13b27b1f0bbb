//! The driver against a transport whose workers do what a test says: among it what no worker should.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::engine::{self, Request};
use super::watchdog::Watchdog;
use super::*;
use crate::error::TaskError;
use crate::ids::WorkerId;
use crate::pool::{Handle, Pool};
use crate::task::Registry;
use crate::transport::{Call, Doorbell, Pulse, Rings};
use crate::wire::codec::CODEC_ID;
use crate::wire::frame::Parcel;
use crate::wire::message::{Hello, ToWorker};
use crate::wire::payload::Payload;

crate::tasks! {
    in "driver tests";

    fn double(x: i64) -> i64 { Ok(2 * x) }
}

/// What a scripted worker does with a message.
type Habit = fn(&ToWorker) -> Vec<Reaction>;

enum Reaction {
    Say(FromWorker),
    /// Bytes that are no frame.
    Babble,
    Die,
}

/// A transport whose workers all have one habit.
struct Scripted {
    habit: Habit,
    reports: VecDeque<Report>,
    notes: Rc<RefCell<Notes>>,
}

#[derive(Default)]
struct Notes {
    spawned: u32,
    abandoned: Vec<WorkerId>,
    disconnected: Vec<WorkerId>,
}

impl Transport for Scripted {
    fn spawn(&mut self, worker: WorkerId, _program: &Program) {
        self.notes.borrow_mut().spawned += 1;
        let known = Registry::empty().with::<double>().known();
        let hello =
            Hello { codec: CODEC_ID.to_owned(), host: "scripted".to_owned(), pid: 1, probe: None, known };
        self.reports.push_back(Report::Spawned { worker });
        self.reports
            .push_back(Report::Frame { worker, bytes: FromWorker::Hello(hello).encode().into_bytes() });
    }

    fn send(&mut self, worker: WorkerId, frame: Parcel) {
        let message = ToWorker::decode(frame.into_bytes()).expect("the driver encodes well");
        for reaction in (self.habit)(&message) {
            self.reports.push_back(match reaction {
                Reaction::Say(message) => Report::Frame { worker, bytes: message.encode().into_bytes() },
                Reaction::Babble => Report::Frame { worker, bytes: Bytes::from_static(b"what?") },
                Reaction::Die => Report::Lost { worker, reason: "killed by SIGKILL".to_owned() },
            });
        }
    }

    fn recall(&mut self, _worker: WorkerId) {}

    fn disconnect(&mut self, worker: WorkerId) {
        self.notes.borrow_mut().disconnected.push(worker);
    }

    fn abandon(&mut self, worker: WorkerId) {
        self.notes.borrow_mut().abandoned.push(worker);
    }

    fn poll(&mut self, reports: &mut Vec<Report>) -> bool {
        let any = !self.reports.is_empty();
        reports.extend(self.reports.drain(..));
        any
    }

    fn cancel_spawns(&mut self) -> Vec<WorkerId> {
        Vec::new()
    }

    fn is_pending(&self) -> bool {
        false
    }

    fn has_arrived(&mut self) -> bool {
        !self.reports.is_empty()
    }

    fn rings(&self) -> Rings {
        Rings::Always
    }
}

/// A well-behaved worker.
fn good(message: &ToWorker) -> Vec<Reaction> {
    match message {
        ToWorker::Welcome(_) => vec![Reaction::Say(FromWorker::Ready { lend: false })],
        ToWorker::Tasks(tasks) => {
            vec![Reaction::Say(FromWorker::Answers(tasks.iter().map(doubled).collect()))]
        }
        ToWorker::Recant(_) | ToWorker::Resume | ToWorker::Fetched => vec![],
        ToWorker::Retire => vec![Reaction::Say(FromWorker::Bye)],
    }
}

fn doubled(message: &crate::wire::message::TaskMessage) -> AnswerMessage {
    let arguments = message.arguments.clone().into_bytes();
    let (x,): (i64,) = crate::wire::codec::decode_value(&arguments).expect("the arguments are whole");
    let result = crate::wire::codec::encode_value(&(2 * x)).expect("it encodes");
    AnswerMessage { task: message.task, ran: Duration::from_micros(1), outcome: Outcome::Done(result.into()) }
}

/// A good worker, but for what it does with tasks.
fn good_but(message: &ToWorker, with_tasks: impl FnOnce() -> Vec<Reaction>) -> Vec<Reaction> {
    match message {
        ToWorker::Tasks(_) => with_tasks(),
        ToWorker::Welcome(_)
        | ToWorker::Recant(_)
        | ToWorker::Resume
        | ToWorker::Fetched
        | ToWorker::Retire => good(message),
    }
}

/// A pool whose driver is turned by the test itself.
struct Bench {
    pool: Pool,
    driver: Option<Driver<Scripted>>,
    notes: Rc<RefCell<Notes>>,
}

impl Bench {
    fn new(habit: Habit) -> Self {
        Self::with_bell(habit, Arc::default())
    }

    fn with_bell(habit: Habit, doorbell: Arc<Doorbell>) -> Self {
        let config = Config { workers_max: 1, spawn_backoff: Duration::from_millis(1), ..Config::default() };
        let (commands, inbox) = unbounded();
        let shared = Arc::new(Shared::new(commands, doorbell, 100));
        let notes = Rc::<RefCell<Notes>>::default();
        let transport = Scripted { habit, reports: VecDeque::new(), notes: Rc::clone(&notes) };
        let driver = Driver::new(config, Program::this_executable(), transport, inbox, Arc::clone(&shared));
        Self { pool: Pool::new(shared, 1), driver: Some(driver), notes }
    }

    fn turn_until(&mut self, mut holds: impl FnMut() -> bool) {
        let by = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < by, "it did not come about");
            self.driver.as_mut().expect("the driver is there").turn();
        }
    }

    fn run(&mut self, x: i64) -> Result<i64, TaskError> {
        let handle = self.pool.submit(double(x)).expect("the pool is open");
        self.turn_until(|| handle.is_finished());
        handle.wait()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Without its driver the pool would wait for it.
        drop(self.driver.take());
    }
}

#[test]
fn a_good_worker_answers() {
    assert_eq!(Bench::new(good).run(4).expect("it returns"), 8);
}

/// Answers all tasks with the same number, which lies where no memory is asked for.
fn at_once(message: &ToWorker) -> Vec<Reaction> {
    let ToWorker::Tasks(tasks) = message else { return good(message) };
    let answer = |message: &crate::wire::message::TaskMessage| AnswerMessage {
        task: message.task,
        ran: Duration::from_micros(1),
        outcome: Outcome::Done(Bytes::from_static(&[0; 8]).into()),
    };
    vec![Reaction::Say(FromWorker::Answers(tasks.iter().map(answer).collect()))]
}

#[test]
fn more_tasks_at_once_ask_for_no_more_memory_but_their_frames() {
    let mut bench = Bench::new(at_once);
    let mut of_many = |count| {
        let handles: Vec<_> =
            (0..count).map(|x| bench.pool.submit(double(x)).expect("the pool is open")).collect();
        let are_over = || handles.iter().all(Handle::is_finished);
        allocation_counter::measure(|| bench.turn_until(are_over)).count_total
    };
    // Until everything has the size that it needs.
    for _ in 0..10 {
        of_many(100);
    }
    let (few, many) = (of_many(10), of_many(100));
    assert!(many < few + 20, "{few} times for 10 tasks, {many} for 100");
}

#[test]
fn a_task_that_kills_its_worker_ends_as_lost_after_three_attempts() {
    let mut bench = Bench::new(|message| good_but(message, || vec![Reaction::Die]));
    let error = bench.run(1).expect_err("it has no result");
    let TaskError::Lost { origin, attempts: 3, reason } = &error else { panic!("{error:?}") };
    assert_eq!(reason, "killed by SIGKILL");
    assert_eq!(origin.place.expect("it was on a worker").host, "scripted");
    assert_eq!(bench.notes.borrow().spawned, 3);
    assert_eq!(bench.notes.borrow().abandoned.len(), 3);
    assert!(bench.notes.borrow().disconnected.is_empty(), "a lost worker is never disconnected");
}

#[test]
fn bytes_that_are_no_message_make_the_worker_lost() {
    let mut bench = Bench::new(|message| good_but(message, || vec![Reaction::Babble]));
    let error = bench.run(1).expect_err("it has no result");
    assert!(error.to_string().contains("too short"), "{error}");
}

thread_local! {
    /// What the worker has lent, and how often it was told that this was fetched.
    static LENT: RefCell<(Vec<Payload>, u32)> = const { RefCell::new((Vec::new(), 0)) };
}

/// A good worker that lends its results, and takes them back at once if it is a bad one.
fn lending(message: &ToWorker, is_good: bool) -> Vec<Reaction> {
    let lend = |message| {
        let answer = doubled(message);
        let result = Payload::array_of(&answer.payload().expect("it returns").clone().into_bytes());
        let lent = result.lent();
        LENT.with_borrow_mut(|(kept, _)| kept.extend(is_good.then_some(result)));
        AnswerMessage { outcome: Outcome::Done(lent), ..answer }
    };
    match message {
        ToWorker::Tasks(tasks) => {
            vec![Reaction::Say(FromWorker::Answers(tasks.iter().map(lend).collect()))]
        }
        ToWorker::Fetched => {
            LENT.with_borrow_mut(|(kept, fetched)| {
                kept.clear();
                *fetched += 1;
            });
            vec![]
        }
        ToWorker::Welcome(_) | ToWorker::Recant(_) | ToWorker::Resume | ToWorker::Retire => good(message),
    }
}

#[test]
fn what_a_worker_lends_is_fetched_once() {
    let mut bench = Bench::new(|message| lending(message, true));
    for x in 0..3 {
        assert_eq!(bench.run(x).expect("it returns"), 2 * x);
    }
    bench.turn_until(|| LENT.with_borrow(|(_, fetched)| *fetched) == 3);
    assert_eq!(bench.pool.stats().results_lent, 3);
}

#[test]
fn a_worker_that_takes_back_what_it_has_lent_is_lost() {
    let mut bench = Bench::new(|message| lending(message, false));
    let error = bench.run(1).expect_err("it has no result");
    let TaskError::Lost { attempts: 3, reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("memory could not be read"), "{reason}");
    assert_eq!(LENT.with_borrow(|(_, fetched)| *fetched), 0);
}

#[test]
fn an_answer_to_a_task_that_was_not_given_makes_the_worker_lost() {
    let mut bench = Bench::new(|message| {
        good_but(message, || {
            let answer = AnswerMessage { task: TaskId(77), ran: Duration::ZERO, outcome: Outcome::Skipped };
            vec![Reaction::Say(FromWorker::Answers(vec![answer]))]
        })
    });
    assert!(matches!(bench.run(1), Err(TaskError::Lost { attempts: 3, .. })));
}

#[test]
fn a_message_out_of_turn_makes_the_worker_lost() {
    let mut bench =
        Bench::new(|message| good_but(message, || vec![Reaction::Say(FromWorker::Ready { lend: false })]));
    let error = bench.run(1).expect_err("it has no result");
    assert!(error.to_string().contains("`Ready`"), "{error}");
}

#[test]
fn a_goodbye_that_nobody_asked_for_makes_the_worker_lost() {
    let mut bench = Bench::new(|message| good_but(message, || vec![Reaction::Say(FromWorker::Bye)]));
    assert!(matches!(bench.run(1), Err(TaskError::Lost { attempts: 3, .. })));
    assert!(bench.notes.borrow().disconnected.is_empty(), "the other side would not come to it");
}

#[test]
fn what_a_worker_says_after_its_end_counts_for_nothing() {
    let mut bench = Bench::new(|message| {
        good_but(message, || {
            vec![
                Reaction::Die,
                Reaction::Say(FromWorker::Bye),
                Reaction::Say(FromWorker::Ready { lend: false }),
            ]
        })
    });
    assert!(matches!(bench.run(1), Err(TaskError::Lost { attempts: 3, .. })));
    assert_eq!(bench.notes.borrow().abandoned.len(), 3);
    assert!(bench.notes.borrow().disconnected.is_empty());
}

#[test]
fn a_second_answer_does_not_replace_the_first() {
    let mut bench = Bench::new(|message| match message {
        ToWorker::Tasks(tasks) => {
            let second = crate::wire::codec::encode_value(&666_i64).expect("it encodes");
            let again = AnswerMessage { outcome: Outcome::Done(second.into()), ..doubled(&tasks[0]) };
            vec![Reaction::Say(FromWorker::Answers(vec![doubled(&tasks[0]), again]))]
        }
        ToWorker::Welcome(_)
        | ToWorker::Recant(_)
        | ToWorker::Resume
        | ToWorker::Fetched
        | ToWorker::Retire => good(message),
    });
    assert_eq!(bench.run(1).expect("the first answer is right"), 2);
}

#[test]
fn a_refused_worker_that_dies_is_forgotten() {
    let mut bench = Bench::new(|message| match message {
        ToWorker::Welcome(_) => {
            let failure = crate::wire::message::Failure::Returned { causes: vec!["no licence".to_owned()] };
            vec![Reaction::Say(FromWorker::Unfit(failure)), Reaction::Die]
        }
        ToWorker::Tasks(_) | ToWorker::Recant(_) | ToWorker::Resume | ToWorker::Fetched => good(message),
        ToWorker::Retire => vec![],
    });
    assert!(bench.run(1).is_err());
    let notes = Rc::clone(&bench.notes);
    bench.turn_until(|| notes.borrow().abandoned.len() == 3);
}

#[test]
fn two_tasks_of_one_name_are_told_apart() {
    struct Other;
    impl crate::Task for Other {
        const NAME: &'static str = <double as crate::Task>::NAME;
        const SIGNATURE: &'static str = "(f32) -> f32";
        type Args = (f32,);
        type Output = f32;
        fn run(_: &mut crate::Context, (x,): (f32,)) -> anyhow::Result<f32> {
            Ok(x)
        }
    }
    let registry = Registry::empty().with::<double>();
    let pool = Pool::builder().workers(0..=1).loopback_with(registry).build().expect("it can be built");
    assert_eq!(pool.submit(double(1)).expect("the pool is open").wait().expect("it is known"), 2);
    let other = pool.submit(crate::Call::<Other>::new((1.0,))).expect("the pool is open").wait();
    assert!(matches!(other, Err(TaskError::Unknown { .. })), "{other:?}");
}

#[test]
fn no_report_is_slept_through() {
    // A worker's report may come between the driver's last look and its sleep. Short spins of changing
    // length move it through that gap.
    let pool = Pool::builder().workers(1..=1).loopback().build().expect("it can be built");
    for round in 0..20_000_u32 {
        let mut handle = pool.submit(double(1)).expect("the pool is open");
        (0..round % 400).for_each(|_| std::hint::spin_loop());
        let answer = handle.wait_timeout(Duration::from_secs(20));
        assert_eq!(answer.expect("it is not slept through"), 2, "round {round}");
    }
}

#[test]
fn a_worker_that_babbles_before_it_is_ready_is_a_failed_start() {
    let mut bench = Bench::new(|_| vec![Reaction::Babble]);
    let error = bench.run(1).expect_err("there is no worker");
    assert!(matches!(error, TaskError::SpawnFailed { .. }), "{error:?}");
    assert_eq!(bench.notes.borrow().spawned, 1, "another one would babble too");
}

#[test]
fn a_refused_worker_leaves_in_order() {
    let mut bench = Bench::new(|message| match message {
        ToWorker::Welcome(_) => {
            let failure = crate::wire::message::Failure::Returned { causes: vec!["no licence".to_owned()] };
            vec![Reaction::Say(FromWorker::Unfit(failure))]
        }
        ToWorker::Tasks(_)
        | ToWorker::Recant(_)
        | ToWorker::Resume
        | ToWorker::Fetched
        | ToWorker::Retire => good(message),
    });
    let error = bench.run(1).expect_err("there is no worker");
    assert!(error.to_string().contains("no licence"), "{error}");
    let notes = Rc::clone(&bench.notes);
    bench.turn_until(|| notes.borrow().disconnected.len() == 3);
    assert!(notes.borrow().abandoned.is_empty());
}

#[test]
fn a_driver_that_is_dropped_settles_everything() {
    let mut bench = Bench::new(|message| good_but(message, Vec::new));
    let held = bench.pool.submit(double(1)).expect("the pool is open");
    let stats = bench.pool.clone();
    bench.turn_until(|| stats.stats().tasks_held == 1);
    let unseen = bench.pool.submit(double(2)).expect("the pool is open");
    drop(bench.driver.take());
    assert!(matches!(held.wait(), Err(TaskError::PoolFailed { .. })));
    assert!(matches!(unseen.wait(), Err(TaskError::PoolFailed { .. })));
    assert!(bench.pool.submit(double(3)).is_err());
}

#[test]
fn a_driver_that_panics_settles_everything_with_the_reason() {
    let (bench, requests) = (Bench::new(|_| panic!("the transport has a bug")), no_requests());
    let mut bench = bench;
    let pool = bench.pool.clone();
    let first = pool.submit(double(1)).expect("the pool is open");
    let second = pool.submit(double(2)).expect("the pool is open");
    let driver: Box<dyn Turnable> = Box::new(bench.driver.take().expect("it is there"));
    let ending = engine::run(&Doorbell::default(), &Pulse::default(), &requests.1, &(), vec![driver]);
    assert_eq!(ending, Ending::Unclean);
    for handle in [first, second] {
        let error = handle.wait().expect_err("the pool failed");
        assert!(error.to_string().contains("the transport has a bug"), "{error}");
    }
    let rejected = pool.submit(double(3)).expect_err("the pool is closed");
    assert!(rejected.to_string().contains("the transport has a bug"), "{rejected}");
    // Nobody waits for an end that has come.
    pool.shutdown();
}

#[test]
fn one_driver_that_panics_leaves_the_others_alone() {
    let doorbell = Arc::<Doorbell>::default();
    let mut broken = Bench::with_bell(|_| panic!("a bug"), Arc::clone(&doorbell));
    let mut well = Bench::with_bell(good, Arc::clone(&doorbell));
    let failing = broken.pool.submit(double(1)).expect("the pool is open");
    let fine = well.pool.submit(double(1)).expect("the pool is open");
    let shutdown = well.pool.clone();
    let drivers: Vec<Box<dyn Turnable>> = vec![
        Box::new(broken.driver.take().expect("it is there")),
        Box::new(well.driver.take().expect("it is there")),
    ];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            assert!(failing.wait().is_err());
            assert_eq!(fine.wait().expect("it returns"), 2);
            shutdown.shutdown();
        });
        engine::run(&doorbell, &Pulse::default(), &no_requests().1, &(), drivers);
    });
}

#[test]
fn an_engine_that_is_told_to_finish_ends_its_pools() {
    let mut bench = Bench::new(good);
    let handle = bench.pool.submit(double(1)).expect("the pool is open");
    let (requests, inbox) = unbounded();
    requests.send(Request::Finish { grace: Duration::from_secs(20) }).expect("the engine listens");
    let driver: Box<dyn Turnable> = Box::new(bench.driver.take().expect("it is there"));
    assert_eq!(
        engine::run(&Doorbell::default(), &Pulse::default(), &inbox, &(), vec![driver]),
        Ending::Clean
    );
    assert!(handle.wait().is_err());
}

/// A transport whose spawns return when they are let go, which may be never.
struct Stuck {
    watchdog: Arc<Watchdog>,
    let_go: Receiver<()>,
    asked: bool,
}

impl Transport for Stuck {
    fn spawn(&mut self, _worker: WorkerId, _program: &Program) {
        self.asked = true;
    }

    fn send(&mut self, _worker: WorkerId, _frame: Parcel) {}

    fn recall(&mut self, _worker: WorkerId) {}

    fn disconnect(&mut self, _worker: WorkerId) {}

    fn abandon(&mut self, _worker: WorkerId) {}

    fn poll(&mut self, _reports: &mut Vec<Report>) -> bool {
        if self.asked {
            let limit = Duration::from_millis(500);
            let _ = self.watchdog.pulse().during(Call::Spawn, limit, || self.let_go.recv());
        }
        false
    }

    fn cancel_spawns(&mut self) -> Vec<WorkerId> {
        Vec::new()
    }

    fn is_pending(&self) -> bool {
        self.asked
    }

    fn has_arrived(&mut self) -> bool {
        false
    }

    fn rings(&self) -> Rings {
        Rings::Never
    }
}

#[test]
fn a_thread_that_is_caught_in_mpi_is_given_up_and_everything_resolves() {
    let watchdog = Watchdog::start().expect("a thread can be started");
    let doorbell = Arc::<Doorbell>::default();
    let (commands, inbox) = unbounded();
    let shared = Arc::new(Shared::new(commands, Arc::clone(&doorbell), 2));
    let pool = Pool::new(Arc::clone(&shared), 1);
    let (let_go, held) = unbounded();
    let engine = std::thread::spawn({
        let watchdog = Arc::clone(&watchdog);
        move || {
            let transport = Stuck { watchdog: Arc::clone(&watchdog), let_go: held, asked: false };
            let driver = Driver::new(Config::default(), Program::this_executable(), transport, inbox, shared);
            watchdog.admit(&driver.books());
            engine::run(&doorbell, watchdog.pulse(), &no_requests().1, &(), vec![Box::new(driver)])
        }
    });
    let first = pool.submit(double(1)).expect("the pool is open");
    let second = pool.submit(double(2)).expect("the pool is open");
    // The pool is full: this one waits at the gate, and is told as well.
    let third = pool.submit(double(3)).expect_err("the pool fails meanwhile");
    for said in [
        first.wait().expect_err("it has no worker").to_string(),
        second.wait().expect_err("it has no worker").to_string(),
        third.to_string(),
    ] {
        assert!(said.contains("MPI_Comm_spawn was given up"), "{said}");
    }
    assert!(matches!(watchdog.verdict(), Err(crate::BuildError::Stuck(_))));
    pool.shutdown();
    // Should the call return all the same, the thread finds that it is not needed any more.
    drop(let_go);
    assert_eq!(engine.join().expect("it does not panic"), Ending::Clean);
}

/// Nobody asks for anything: the engine ends with its last driver.
fn no_requests() -> (Option<Sender<Request<()>>>, Receiver<Request<()>>) {
    (None, unbounded().1)
}
