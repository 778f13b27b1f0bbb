//! Isolated mode, as the host has it: a transport whose workers are those of another process, the parent, which holds the
//! MPI in the host's place (`crate::parent`). Nothing here knows MPI.
//!
//! The parent may die. Then each of its workers is lost, and the next spawn starts another parent; workers that nobody
//! had heard of yet are simply started again. Between parents that serve nobody there are growing pauses, and after some of
//! them it is said that there is none. Each pool has a parent of its own: the death of one is no business of other pools,
//! and the end of a pool ends its MPI.
//!
//! `channel` is the socket between the two, `child` the parent as a process, `restarts` when the next is started.

pub(crate) mod channel;
mod child;
mod restarts;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustc_hash::FxHashMap;
use rustix::event::Timespec;

pub(crate) use channel::{Channel, ChannelError};
use child::ParentProcess;
use restarts::Restarts;

use super::bells::Bells;
use super::output::{Sink, Voice};
use super::{Doorbell, Report, Rings, Transport};
use crate::containment::Containment;
use crate::error::{BuildError, SpawnCause, SpawnFailure};
use crate::ids::WorkerId;
use crate::launch::Program;
use crate::wire::control::{Start, Watch};
use crate::wire::frame::Parcel;
use crate::wire::parent::{self as wire, FromParent, ParentFacts, ToParent, Wishes};

/// A parent has been handed so many spawns at most: one that is begun, and the next. The others can still be given up.
const HANDED_MAX: usize = 2;
/// So many messages are taken before the driver has its turn.
const MESSAGES_A_POLL: usize = 256;
/// How often it is looked whether a parent that starts has said something.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the end of a parent may take to be known when its socket is closed, in which it is nobody's.
const STATUS_PATIENCE: Duration = Duration::from_millis(50);
/// How long a parent may not take what it is sent, beyond the time of a spawn.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// How long the end of a pool waits for what its workers wrote last, and to know that they write no more.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a goodbye may wait for room in the socket.
const GOODBYE_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a parent is started as.
#[derive(Clone, Debug)]
pub(crate) struct ParentLaunch {
    pub(crate) executable: PathBuf,
    pub(crate) containment: Option<Containment>,
    /// How long its MPI may take to start.
    pub(crate) start_limit: Duration,
}

/// The host's end: the workers of one pool.
pub(crate) struct IsolatedTransport {
    launch: ParentLaunch,
    wishes: Wishes,
    doorbell: Arc<Doorbell>,
    /// The memory in which that lies, and the parent's; each parent has the same.
    bells: Arc<Bells>,
    link: Option<Link>,
    restarts: Restarts,
    /// Parents started so far.
    parents: Arc<AtomicU64>,
    /// What no parent has been told yet.
    spawns: VecDeque<(WorkerId, Start)>,
    workers: FxHashMap<WorkerId, Worker>,
    reports: Vec<Report>,
    sink: Option<Arc<Sink>>,
    voices: FxHashMap<WorkerId, Voice>,
    taken: Receiver<u64>,
    take: Sender<u64>,
}

/// A worker that a parent has been told of.
struct Worker {
    /// What it was started as, until something is heard of it: so long it can be started again, by another parent.
    start: Option<Start>,
    /// Whether the driver knows that it was spawned.
    is_reported: bool,
    /// Whether its process exists in this parent.
    is_spawned: bool,
}

/// A parent that lives, or seems to.
struct Link {
    process: ParentProcess,
    channel: Channel,
    since: Instant,
    /// How it is woken.
    bell: Doorbell,
    /// Whether it has said what its MPI is.
    is_here: bool,
    /// Since when it has not taken what it was sent.
    stalled: Option<Instant>,
    /// Its last words, where it had any.
    reason: Option<String>,
}

impl IsolatedTransport {
    /// A transport whose first parent is started at once, and what it says of itself.
    ///
    /// # Errors
    /// If there is no parent, or it has no MPI that it can use.
    pub(crate) fn start(
        launch: ParentLaunch,
        wishes: Wishes,
        sink: Option<Arc<Sink>>,
        (doorbell, bells): (Arc<Doorbell>, Arc<Bells>),
        parents: Arc<AtomicU64>,
    ) -> Result<(Self, ParentFacts), BuildError> {
        let (take, taken) = unbounded();
        let mut transport = Self {
            launch,
            wishes,
            doorbell,
            bells,
            link: None,
            restarts: Restarts::default(),
            parents,
            spawns: VecDeque::new(),
            workers: FxHashMap::default(),
            reports: Vec::new(),
            sink,
            voices: FxHashMap::default(),
            taken,
            take,
        };
        let facts = transport.await_parent()?;
        Ok((transport, facts))
    }

    /// Starts a parent, and waits until it has said what its MPI is.
    fn await_parent(&mut self) -> Result<ParentFacts, BuildError> {
        let mut link = self.launch().map_err(|error| BuildError::Parent(error.to_string()))?;
        let facts = self.await_facts(&mut link);
        match facts {
            Ok(_) => self.link = Some(link),
            // Whatever it is, and whatever it goes on to do.
            Err(_) => link.process.kill(),
        }
        facts
    }

    fn await_facts(&self, link: &mut Link) -> Result<ParentFacts, BuildError> {
        let gone = |reason: String| BuildError::Parent(reason);
        let until = Instant::now() + self.launch.start_limit;
        loop {
            match link.channel.receive() {
                Ok(Some(arrived)) => match FromParent::decode(arrived.message) {
                    Ok(FromParent::Here(facts)) => {
                        link.is_here = true;
                        return Ok(facts);
                    }
                    Ok(FromParent::Refused(refusal)) => return Err(refusal.into()),
                    Ok(other) => return Err(gone(format!("it said {other:?} before anything else"))),
                    Err(error) => return Err(gone(error.to_string())),
                },
                Ok(None) if link.process.has_ended() && !link.channel.has_arrived() => {
                    return Err(gone(link.describe_end(&ChannelError::Closed)));
                }
                Ok(None) if Instant::now() > until => {
                    return Err(gone(format!(
                        "it had not initialized MPI after {:?}; `offshoot doctor` looks for reasons, `spawn_timeout` \
                         sets how long it may take",
                        self.launch.start_limit
                    )));
                }
                Ok(None) => {
                    // What is no parent does not ring.
                    let look = until.min(Instant::now() + LOOK_EVERY);
                    self.doorbell
                        .sleep(Some(look), || link.channel.has_arrived() || link.process.has_ended());
                }
                Err(error) => return Err(gone(link.describe_end(&error))),
            }
        }
    }

    fn launch(&self) -> io::Result<Link> {
        let ParentLaunch { executable, containment, .. } = &self.launch;
        let (process, mut channel) =
            ParentProcess::start(executable, *containment, &self.doorbell).map_err(|error| {
                io::Error::new(error.kind(), format!("`{}` does not start: {error}", executable.display()))
            })?;
        self.parents.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("the isolated parent is process {}", process.pid());
        channel.push(ToParent::Bells.encode(), Some(self.bells.file()?))?;
        channel.push(ToParent::Begin(self.wishes.clone()).encode(), None)?;
        let (since, bell) = (Instant::now(), self.bells.of_host());
        let mut link = Link { process, channel, since, bell, is_here: false, stalled: None, reason: None };
        // That it has died already is found out like any other death.
        let _ = link.flush();
        Ok(link)
    }

    /// Takes in what has come from the parent.
    fn listen(&mut self) -> bool {
        let mut any = false;
        for _ in 0..MESSAGES_A_POLL {
            let Some(link) = &mut self.link else { break };
            // Asked first: what it has sent before its end is there then.
            let has_ended = link.process.has_ended();
            match link.channel.receive() {
                Ok(Some(arrived)) => {
                    any = true;
                    if let Err(reason) = self.hear(arrived.message) {
                        self.lose_parent(&reason);
                    }
                }
                Ok(None) => {
                    // Somebody else may have its end of the socket: the daemon of an MPI, or what it was starting.
                    let reason = match has_ended {
                        true => Some(link.describe_end(&ChannelError::Closed)),
                        false => link.overdue(&self.launch, &self.wishes),
                    };
                    reason.iter().for_each(|reason| self.lose_parent(reason));
                    break;
                }
                Err(error) => {
                    any = true;
                    let reason = link.describe_end(&error);
                    self.lose_parent(&reason);
                }
            }
        }
        any
    }

    fn hear(&mut self, message: Bytes) -> Result<(), String> {
        let Some(link) = &mut self.link else { return Ok(()) };
        match FromParent::decode(message).map_err(|error| error.to_string())? {
            FromParent::Here(_) => link.is_here = true,
            FromParent::Refused(refusal) => link.reason = Some(BuildError::from(refusal).to_string()),
            FromParent::Stuck { reason } => link.reason = Some(reason),
            FromParent::Spawned { worker } => {
                if let Some(known) = self.workers.get_mut(&worker) {
                    known.is_spawned = true;
                    if !std::mem::replace(&mut known.is_reported, true) {
                        self.reports.push(Report::Spawned { worker });
                    }
                }
            }
            FromParent::SpawnFailed { worker, cause, reason } => {
                if let Some(known) = self.workers.remove(&worker) {
                    let failure = SpawnFailure::new(cause, reason);
                    // What was spawned before, by a parent that has died, is lost to the driver.
                    self.reports.push(match known.is_reported {
                        true if !known.is_spawned => Report::Lost { worker, reason: failure.reason },
                        _ => Report::SpawnFailed { worker, failure },
                    });
                }
            }
            FromParent::Frame { worker, bytes } => self.take_frame(worker, bytes),
            FromParent::Recalled { worker, begun } => {
                if self.workers.contains_key(&worker) {
                    self.reports.push(Report::Recalled { worker, begun });
                }
            }
            FromParent::Lost { worker, reason } => {
                if self.workers.contains_key(&worker) {
                    self.reports.push(Report::Lost { worker, reason });
                }
            }
            FromParent::Output { worker, piece, host, output } => {
                let receipt =
                    Receipt { piece, take: self.take.clone(), doorbell: Arc::clone(&self.doorbell) };
                if let Some(voice) = self.voices.get(&worker) {
                    voice.say(host.into(), output, Some(Box::new(receipt)));
                }
            }
            FromParent::Leaving { worker } => {
                self.voices.get(&worker).into_iter().for_each(Voice::note_leaving);
            }
            FromParent::Silent { worker } => drop(self.voices.remove(&worker)),
        }
        Ok(())
    }

    fn take_frame(&mut self, worker: WorkerId, bytes: Bytes) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        if known.start.take().is_some() {
            // A parent that has started a worker is worth another.
            self.restarts.note_service();
        }
        self.reports.push(Report::Frame { worker, bytes });
    }

    /// The parent is gone, and with it its workers, but for those that nobody has heard of.
    fn lose_parent(&mut self, reason: &str) {
        let Some(link) = self.link.take() else { return };
        link.process.kill();
        let pid = link.process.pid();
        tracing::warn!("the isolated parent, process {pid}, is lost: {reason}");
        let reason = format!("its parent, process {pid}, is gone: {reason}");
        self.voices.clear();
        let mut again: Vec<_> = Vec::new();
        for (&worker, known) in &mut self.workers {
            known.is_spawned = false;
            match known.start.take() {
                Some(start) => again.push((worker, start)),
                None => self.reports.push(Report::Lost { worker, reason: reason.clone() }),
            }
        }
        // In the order in which they were asked for.
        again.sort_unstable_by_key(|(worker, _)| std::cmp::Reverse(*worker));
        again.into_iter().for_each(|spawn| self.spawns.push_front(spawn));
        self.restarts.note_death(Instant::now(), reason);
    }

    /// Starts a parent, where one is needed and may be started; and hands on what is to be spawned.
    fn tend_spawns(&mut self) -> bool {
        if self.spawns.is_empty() {
            return false;
        }
        if self.link.is_none() {
            if let Some(reason) = self.restarts.verdict() {
                self.fail_spawns(&reason);
                return true;
            }
            if !self.restarts.may_start(Instant::now()) {
                return false;
            }
            match self.launch() {
                Ok(link) => self.link = Some(link),
                Err(error) => self.restarts.note_death(Instant::now(), error.to_string()),
            }
        }
        let mut any = false;
        let is_handed = |worker: &&Worker| worker.start.is_some() && !worker.is_spawned;
        while self.workers.values().filter(is_handed).count() < HANDED_MAX
            && self.link.as_ref().is_some_and(|link| link.is_here)
        {
            let Some((worker, start)) = self.spawns.pop_front() else { break };
            any = true;
            let known = self.workers.entry(worker).or_insert(Worker {
                start: None,
                is_reported: false,
                is_spawned: false,
            });
            known.start = Some(start.clone());
            if let Some(sink) = &self.sink {
                self.voices.insert(worker, sink.voice(worker));
            }
            self.say(ToParent::Spawn { worker, start });
        }
        any
    }

    fn fail_spawns(&mut self, reason: &str) {
        for (worker, _) in std::mem::take(&mut self.spawns) {
            let was_reported = self.workers.remove(&worker).is_some_and(|known| known.is_reported);
            let reason = format!("{reason}; `offshoot doctor` looks at what it needs");
            self.reports.push(if was_reported {
                Report::Lost { worker, reason }
            } else {
                Report::SpawnFailed { worker, failure: SpawnFailure::new(SpawnCause::Parent, reason) }
            });
        }
    }

    fn say(&mut self, message: ToParent) {
        let (head, body) = message.encode();
        self.post(head, body.into());
    }

    fn post(&mut self, head: Vec<u8>, body: Parcel) {
        let Some(link) = &mut self.link else { return };
        let sent = link.channel.push_parcel(head, body, None).map_err(ChannelError::from);
        if let Err(error) = sent.and_then(|()| link.flush()) {
            // What it said before it went is still to be heard.
            link.reason.get_or_insert_with(|| error.to_string());
        }
    }

    fn tell_taken(&mut self) {
        while let Ok(piece) = self.taken.try_recv() {
            self.say(ToParent::Taken { piece });
        }
    }
}

impl Link {
    fn flush(&mut self) -> Result<(), ChannelError> {
        if self.channel.flush()? {
            self.bell.ring();
            self.stalled = None;
        }
        if self.channel.waiting() > 0 {
            self.stalled.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Why this parent is to be given up although it lives.
    fn overdue(&self, launch: &ParentLaunch, wishes: &Wishes) -> Option<String> {
        let stalled = self.stalled.map(|since| since.elapsed()).unwrap_or_default();
        if !self.is_here && self.since.elapsed() > launch.start_limit {
            Some(format!("it had not initialized MPI after {:?}", launch.start_limit))
        } else if stalled > wishes.spawn_timeout + STALL_LIMIT {
            Some(format!("it has not taken anything for {stalled:?}"))
        } else {
            None
        }
    }

    /// How it has ended, as well as that can be told.
    fn describe_end(&self, error: &ChannelError) -> String {
        let ended = self.process.describe_end(STATUS_PATIENCE).unwrap_or_else(|| error.to_string());
        self.reason.as_ref().map_or(ended.clone(), |reason| format!("{reason} ({ended})"))
    }
}

impl Transport for IsolatedTransport {
    fn spawn(&mut self, worker: WorkerId, program: &Program) {
        match program.start(Watch::default()) {
            Ok(start) => self.spawns.push_back((worker, start)),
            Err(reason) => {
                let failure = SpawnFailure::new(SpawnCause::Executable, reason);
                self.reports.push(Report::SpawnFailed { worker, failure });
            }
        }
    }

    fn send(&mut self, worker: WorkerId, frame: Parcel) {
        if self.workers.contains_key(&worker) {
            self.post(wire::frame_head(worker, frame.length()), frame);
        }
    }

    fn recall(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.say(ToParent::Recall { worker });
        }
    }

    fn disconnect(&mut self, worker: WorkerId) {
        if self.workers.remove(&worker).is_some() {
            self.say(ToParent::Disconnect { worker });
        }
    }

    fn abandon(&mut self, worker: WorkerId) {
        self.spawns.retain(|(waiting, _)| *waiting != worker);
        if self.workers.remove(&worker).is_some() {
            self.say(ToParent::Abandon { worker });
        }
    }

    fn poll(&mut self, reports: &mut Vec<Report>) -> bool {
        self.tell_taken();
        let mut any = self.listen();
        any |= self.tend_spawns();
        if let Some(link) = self.link.as_mut().filter(|link| link.channel.waiting() > 0)
            && let Err(error) = link.flush()
        {
            link.reason.get_or_insert_with(|| error.to_string());
        }
        any |= !self.reports.is_empty();
        reports.append(&mut self.reports);
        any
    }

    fn cancel_spawns(&mut self) -> Vec<WorkerId> {
        // Those that a parent has been told of are reported by it.
        self.say(ToParent::CancelSpawns);
        let workers = std::mem::take(&mut self.spawns).into_iter().map(|(worker, _)| worker);
        workers.inspect(|worker| drop(self.workers.remove(worker))).collect()
    }

    fn is_pending(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.channel.waiting() > 0)
    }

    fn has_arrived(&mut self) -> bool {
        let is_here = |link: &Link| link.channel.has_arrived() || link.process.has_ended();
        !self.taken.is_empty() || !self.reports.is_empty() || self.link.as_ref().is_some_and(is_here)
    }

    fn rings(&self) -> Rings {
        match &self.link {
            // Nobody says when the pause before the next parent is over.
            None => Rings::Never,
            // Nor that one is overdue.
            Some(link) if !link.is_here => Rings::Mostly,
            Some(_) => Rings::Always,
        }
    }
}

impl Drop for IsolatedTransport {
    /// Says goodbye, and takes in what workers wrote last. The thread has nothing else to do.
    fn drop(&mut self) {
        self.say(ToParent::Leave);
        let until = Instant::now() + LAST_WORDS_PATIENCE;
        while !self.voices.is_empty() && Instant::now() < until {
            self.tell_taken();
            self.listen();
            self.reports.clear();
            let Some(link) = &self.link else { break };
            let (channel, taken) = (&link.channel, &self.taken);
            self.doorbell.sleep(Some(until), || {
                channel.has_arrived() || !taken.is_empty() || link.process.has_ended()
            });
        }
        if let Some(link) = &mut self.link {
            // One that does not take it finds its host gone.
            let _ = link.channel.flush_within(GOODBYE_PATIENCE);
            link.bell.ring();
            let process = &link.process;
            // MPI ends with it, and its daemons.
            while !process.has_ended() && Instant::now() < until {
                self.doorbell.sleep(Some(until), || process.has_ended());
            }
        }
        child::await_cleanings();
    }
}

/// Says to the parent that a piece of output has been taken, when it is dropped.
struct Receipt {
    piece: u64,
    take: Sender<u64>,
    doorbell: Arc<Doorbell>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // A pool that has ended needs no more room.
        if self.take.send(self.piece).is_ok() {
            self.doorbell.ring();
        }
    }
}
