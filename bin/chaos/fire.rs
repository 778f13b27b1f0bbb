//! The host under fire: hands in tasks of all kinds, has its workers killed, and keeps the account.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fastrand::Rng;
use offshoot::{Call, Handle, Isolation, Limit, Pool, Program, Task, TaskError};
use serde_bytes::ByteBuf;

use super::ear;
use super::ledger::{Entry, Kill, Ledger, Verdict, now};
use super::report::{Figures, Host, Resources};
use super::tasks::{Way, checksum, die, fail, flip, nap, open_journal, stall, translate};
use super::victims::{self, CHAOS, WORKER};
use super::{Arguments, Spare};
use crate::processes::{Process, isolated_parents};

/// Tasks under way at once.
const UNDER_WAY_MAX: usize = 200;
/// Bytes of payload under way at once.
const BYTES_MAX: usize = 100 << 20;
/// Workers that have nothing to do leave soon, so that they come and go all the time.
const IDLE_TIMEOUT: Duration = Duration::from_millis(300);
const STOP_GRACE: Duration = Duration::from_millis(100);
/// How long a stalling task may run.
const STALL_TIMEOUT: Duration = Duration::from_millis(150);
/// Of each round the pool works so long, and then has nothing to do for so long.
const BUSY: Duration = Duration::from_millis(2000);
const PAUSE: Duration = Duration::from_millis(700);
/// Between two large payloads.
const LARGE_EVERY: Duration = Duration::from_millis(4900);
const LARGE: usize = 64 << 20;
/// On average, between two deaths from outside.
const KILL_EVERY: Duration = Duration::from_millis(250);
/// For so long a worker is taken for one that starts.
const YOUTH: Duration = Duration::from_millis(1500);
/// How long the tasks that are under way at the end may take.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How long a restart is waited for; there may be no work for it.
const RESTART_LIMIT: Duration = Duration::from_secs(5);

/// Where the host leaves its figures.
pub(crate) const FIGURES: &str = "figures.json";

/// The whole host. Its figures are in a file of the folder: anybody may write to its standard output.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let seed = arguments.seed.unwrap_or_default();
    let journal = folder.join("journal");
    File::create(&journal).context("the journal cannot be made")?;
    let token = std::env::var(CHAOS).context("nobody watches this host")?;
    let isolation = if arguments.isolated { Isolation::Isolated } else { Isolation::Auto };
    ear::listen();
    let pool = Pool::builder()
        .isolation(isolation)
        .workers(0..=arguments.workers)
        .program(Program::this_executable().env(WORKER, &token))
        .initializer(open_journal(journal.clone()))
        .idle_timeout(IDLE_TIMEOUT)
        .stop_grace(STOP_GRACE)
        .attempts_max(u32::MAX)
        .build()?;
    // Once warm, so that what is there at the end can be compared with it.
    pool.submit(nap(u64::MAX, 0)).map_err(|error| error.reason)?.wait()?;
    let before = Resources::of_this_process();
    let is_over = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(arguments.seconds.into());
    let mut work = Work::new(&pool, seed);
    work.ledger.hand_in(u64::MAX, false);
    work.ledger.resolve(u64::MAX, Verdict::Right);
    let (worked, deaths) = thread::scope(|scope| {
        let killer = scope.spawn(|| Killer::new(&pool, seed, &is_over, &token, arguments).kill_until_over());
        let worked = work.go_on_until(until);
        is_over.store(true, Ordering::Relaxed);
        (worked, killer.join())
    });
    worked?;
    let deaths = deaths.map_err(|_| anyhow::anyhow!("the killer panicked"))?;
    let ended = work.finish();
    let stats = pool.stats();
    if !ended {
        eprintln!("offshoot: tasks had not ended after {END_LIMIT:?}: {stats:?}");
    }
    let after = Resources::of_this_process();
    if ended {
        pool.shutdown();
    }
    let entries = Entry::read_all(&journal)?;
    let executions = work.ledger.audit(&entries, &deaths.kills);
    let host = Host {
        mpi: offshoot::Diagnosis::make().map(|diagnosis| diagnosis.mpi_version).unwrap_or_default(),
        seed,
        before,
        after,
        all_ended: ended,
    };
    let detections: Vec<u64> =
        deaths.kills.iter().filter_map(|kill| ear::detection(kill.process, kill.at)).collect();
    let figures = Figures::of(&host, &work.ledger, &stats, &detections, &deaths, executions);
    fs::write(folder.join(FIGURES), serde_json::to_string(&figures)?)
        .context("the figures cannot be told")?;
    fs::remove_file(&journal).context("the journal cannot be removed")
}

/// One task under way, and what is to come of it.
struct UnderWay {
    id: u64,
    bytes: usize,
    end: End,
}

enum End {
    Translated(Handle<ByteBuf>, u64),
    Named(Handle<u64>, Expected),
}

/// What a task that returns its own number is to come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Returns,
    Fails,
    ReturnsOrIsCancelled,
    IsOverdue,
    ReturnsOnce,
    /// It ends its worker first.
    ReturnsAfterDeath,
}

/// Hands in tasks and takes their results.
struct Work<'a> {
    pool: &'a Pool,
    rng: Rng,
    ledger: Ledger,
    under_way: Vec<UnderWay>,
    bytes: usize,
    next: u64,
    large_at: Instant,
}

impl<'a> Work<'a> {
    fn new(pool: &'a Pool, seed: u64) -> Self {
        Self {
            pool,
            rng: Rng::with_seed(seed),
            ledger: Ledger::default(),
            under_way: Vec::new(),
            bytes: 0,
            next: 0,
            large_at: Instant::now() + LARGE_EVERY / 4,
        }
    }

    fn go_on_until(&mut self, until: Instant) -> anyhow::Result<()> {
        let begun = Instant::now();
        while Instant::now() < until {
            let phase = begun.elapsed().as_millis() % (BUSY + PAUSE).as_millis();
            let is_busy = phase < BUSY.as_millis();
            while is_busy && self.under_way.len() < UNDER_WAY_MAX && self.bytes < BYTES_MAX {
                self.hand_in()?;
            }
            self.collect();
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Takes the results that are still to come. Whether all came.
    fn finish(&mut self) -> bool {
        let until = Instant::now() + END_LIMIT;
        while !self.under_way.is_empty() && Instant::now() < until {
            self.collect();
            thread::sleep(Duration::from_millis(1));
        }
        if !self.under_way.is_empty() {
            let ids: Vec<u64> = self.under_way.iter().map(|task| task.id).collect();
            eprintln!("no end of the tasks {ids:?}; the pool: {:?}", self.pool.stats());
        }
        self.under_way.is_empty()
    }

    fn hand_in(&mut self) -> anyhow::Result<()> {
        if Instant::now() > self.large_at {
            self.large_at = Instant::now() + LARGE_EVERY;
            return self.translate(LARGE);
        }
        let id = self.next;
        match self.rng.u32(..1000) {
            0..930 => {
                let length = self.rng.usize(..4 << 10);
                self.translate(length)
            }
            930..935 => {
                let length = self.rng.usize(64 << 10..1 << 20);
                self.translate(length)
            }
            935..960 => {
                let call = nap(id, self.rng.u64(1..60));
                self.submit(call, Expected::Returns)
            }
            960..980 => self.submit(fail(id), Expected::Fails),
            980..990 => {
                let call = nap(id, self.rng.u64(5..300));
                self.submit(call, Expected::ReturnsOrIsCancelled)
            }
            990..995 => {
                let call = nap(id, self.rng.u64(1..40)).idempotent(false);
                self.submit(call, Expected::ReturnsOnce)
            }
            995..998 => self.submit(stall(id).timeout(STALL_TIMEOUT), Expected::IsOverdue),
            _ => {
                let way = Way::ALL[self.rng.usize(..Way::ALL.len())];
                self.submit(die(id, way), Expected::ReturnsAfterDeath)
            }
        }
    }

    fn translate(&mut self, length: usize) -> anyhow::Result<()> {
        let id = self.next;
        let payload = payload(id, length);
        let handle = self.accept(translate(id, checksum(&payload), ByteBuf::from(payload)), false)?;
        let mut expected = self::payload(id, length);
        flip(&mut expected);
        self.bytes += length;
        self.under_way.push(UnderWay {
            id,
            bytes: length,
            end: End::Translated(handle, checksum(&expected)),
        });
        Ok(())
    }

    fn submit<T: Task<Output = u64>>(&mut self, call: Call<T>, expected: Expected) -> anyhow::Result<()> {
        let id = self.next;
        let handle = self.accept(call, expected == Expected::ReturnsOnce)?;
        if expected == Expected::ReturnsOrIsCancelled {
            handle.cancel();
        }
        self.under_way.push(UnderWay { id, bytes: 0, end: End::Named(handle, expected) });
        Ok(())
    }

    fn accept<T: Task>(&mut self, call: Call<T>, once: bool) -> anyhow::Result<Handle<T::Output>> {
        let handle = self.pool.submit(call).map_err(|error| error.reason)?;
        self.ledger.hand_in(self.next, once);
        self.next += 1;
        Ok(handle)
    }

    /// Judges what has come.
    fn collect(&mut self) {
        let mut at = 0;
        while let Some(task) = self.under_way.get_mut(at) {
            let verdict = match &mut task.end {
                End::Translated(handle, expected) => {
                    handle.try_result().map(|result| judge(result.map(|bytes| checksum(&bytes) == *expected)))
                }
                End::Named(handle, expected) => {
                    let id = task.id;
                    handle.try_result().map(|result| judge_named(id, result, *expected))
                }
            };
            let Some(verdict) = verdict else {
                at += 1;
                continue;
            };
            let task = self.under_way.swap_remove(at);
            self.bytes -= task.bytes;
            self.ledger.resolve(task.id, verdict);
        }
    }
}

fn payload(id: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::with_seed(id).fill(&mut bytes);
    bytes
}

fn judge(result: Result<bool, TaskError>) -> Verdict {
    match result {
        Ok(true) => Verdict::Right,
        Ok(false) => Verdict::Wrong,
        Err(TaskError::SpawnFailed { reason, .. }) => {
            eprintln!("no worker could be started: {reason}");
            Verdict::NoWorker
        }
        Err(error) => {
            eprintln!("{error}");
            Verdict::Lost
        }
    }
}

fn judge_named(id: u64, result: Result<u64, TaskError>, expected: Expected) -> Verdict {
    let is_as_expected = match (&result, expected) {
        (Ok(name), Expected::Fails | Expected::IsOverdue) if *name == id => false,
        (Ok(name), _) => *name == id,
        (Err(TaskError::Failed { causes, .. }), Expected::Fails) => causes[0] == format!("as intended: {id}"),
        (Err(TaskError::Cancelled { .. }), Expected::ReturnsOrIsCancelled) => true,
        (Err(TaskError::Overdue { limit: Limit::Timeout, .. }), Expected::IsOverdue) => true,
        (Err(TaskError::Lost { attempts: 1, .. }), Expected::ReturnsOnce) => true,
        (Err(_), _) => return judge(result.map(|_| false)),
    };
    if is_as_expected { Verdict::Right } else { Verdict::Wrong }
}

/// What a killer has done.
#[derive(Default)]
pub(super) struct Deaths {
    pub(super) kills: Vec<Kill>,
    pub(super) parents: u64,
    pub(super) daemons: u64,
    /// Nanoseconds from the death of a parent to the first ready worker of the next.
    pub(super) restarts: Vec<u64>,
}

struct Killer<'a> {
    pool: &'a Pool,
    rng: Rng,
    is_over: &'a AtomicBool,
    token: &'a str,
    spared: Vec<Spare>,
    is_isolated: bool,
    /// What was answered when a worker was last killed that had not been ready.
    answered_at_start: u64,
    deaths: Deaths,
}

impl<'a> Killer<'a> {
    fn new(
        pool: &'a Pool,
        seed: u64,
        is_over: &'a AtomicBool,
        token: &'a str,
        arguments: &Arguments,
    ) -> Self {
        Self {
            pool,
            rng: Rng::with_seed(seed ^ 0xdead),
            is_over,
            token,
            spared: arguments.spared(),
            is_isolated: arguments.isolated,
            answered_at_start: 0,
            deaths: Deaths::default(),
        }
    }

    fn kill_until_over(mut self) -> Deaths {
        let mut known: Vec<(Process, Instant)> = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            // Exponentially distributed: two at once, and none for long, are as likely as they are in life.
            let pause = KILL_EVERY.mul_f64(-self.rng.f64().max(1e-6).ln()).min(8 * KILL_EVERY);
            thread::sleep(pause);
            let workers = victims::with(WORKER, self.token);
            known.retain(|(process, _)| workers.contains(process));
            for worker in workers {
                if !known.iter().any(|(process, _)| *process == worker) {
                    known.push((worker, Instant::now()));
                }
            }
            if self.is_isolated && self.rng.u32(..6) == 0 {
                self.kill_behind_the_wall(&known);
            } else if !known.is_empty() {
                let (victim, since) = known[self.rng.usize(..known.len())];
                self.kill(victim, since.elapsed() < YOUTH);
            }
        }
        self.deaths
    }

    /// Kills the parent, with which all workers go, or a daemon of its MPI, with which they may.
    fn kill_behind_the_wall(&mut self, known: &[(Process, Instant)]) {
        let stats = self.pool.stats();
        if stats.workers_ready() == 0 || stats.tasks_answered < self.answered_at_start + 50 {
            return;
        }
        self.answered_at_start = stats.tasks_answered;
        let daemons = victims::daemons(self.token);
        if !daemons.is_empty() && self.rng.u32(..3) == 0 {
            victims::kill(daemons[self.rng.usize(..daemons.len())].id, libc::SIGKILL);
            self.deaths.daemons += 1;
            return;
        }
        let host = i32::try_from(std::process::id()).unwrap_or_default();
        let Some(parent) = isolated_parents(host).first().copied() else { return };
        let at = now();
        victims::kill(parent.id, libc::SIGKILL);
        self.deaths.parents += 1;
        let killed = known.iter().map(|(worker, _)| Kill { process: worker.id.unsigned_abs(), at });
        self.deaths.kills.extend(killed);
        let until = Instant::now() + RESTART_LIMIT;
        while Instant::now() < until {
            let now_there = self.pool.stats();
            if now_there.parents > stats.parents && now_there.workers_ready() > 0 {
                self.deaths.restarts.push(now() - at);
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill(&mut self, victim: Process, is_young: bool) {
        let stats = self.pool.stats();
        if is_young && self.spared.contains(&Spare::Starts) {
            return;
        }
        // A program none of whose workers lives is given up after a few: that is not what is tried here.
        if is_young && (stats.workers_ready() == 0 || stats.tasks_answered < self.answered_at_start + 50) {
            return;
        }
        if is_young {
            self.answered_at_start = stats.tasks_answered;
        }
        let signals =
            [libc::SIGKILL, libc::SIGKILL, libc::SIGTERM, libc::SIGABRT, libc::SIGSEGV, libc::SIGBUS];
        let signal = signals[self.rng.usize(..signals.len())];
        let is_guard = !self.spared.contains(&Spare::Guards) && self.rng.u32(..10) == 0;
        let at = now();
        match is_guard {
            true => victims::kill(victim.parent, libc::SIGKILL),
            // The first of a fault's signals may be let pass.
            false => {
                victims::kill(victim.id, signal);
                if signal == libc::SIGSEGV || signal == libc::SIGBUS {
                    thread::sleep(Duration::from_millis(5));
                    victims::kill(victim.id, signal);
                }
            }
        }
        self.deaths.kills.push(Kill { process: victim.id.unsigned_abs(), at });
    }
}
