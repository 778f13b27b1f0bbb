//! The driver's end: every worker of one pool, each on an intercommunicator of its own.

use std::collections::VecDeque;
use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustc_hash::FxHashMap;

use super::birth::Birth;
use super::ffi::{Comm, Completed, Info, MpiError, Operations, Received};
use super::places::Places;
use super::{Runtime, traffic};
use crate::error::{SpawnCause, SpawnFailure};
use crate::finding::Finding;
use crate::ids::WorkerId;
use crate::launch::{self, Hints, Program, Site, Wanted};
use crate::process;
use crate::transport::bells::WorkerBell;
use crate::transport::control::{Expectation, Notice, Whereabouts};
use crate::transport::output::Sink;
use crate::transport::{Call, Report, Rings, Transport};
use crate::wire::control::{Ended, How, Ticket, Watch};
use crate::wire::flow::{Flow, Inbox, Outbox, Taken};
use crate::wire::frame::Parcel;

/// How long a guard has, once MPI has found its worker dead, to say how it died.
const GUARD_PATIENCE: Duration = Duration::from_millis(100);

/// How much longer than a worker may take a spawn may, in which a guard ends that worker and stands in for it.
const SPAWN_GRACE: Duration = Duration::from_secs(5);
/// How long a worker may take that has said goodbye.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(30);

/// What a pool wants of its workers and their guards.
pub(crate) struct Terms {
    pub(crate) spawn_timeout: Duration,
    /// How long a worker that is to be ended may take to do so by itself.
    pub(crate) kill_grace: Duration,
    /// How long another host may be silent.
    pub(crate) heartbeat_timeout: Duration,
    /// Where what they write goes, if anywhere.
    pub(crate) sink: Option<Arc<Sink>>,
}

/// The workers of one pool.
pub(crate) struct MpiTransport {
    runtime: Rc<Runtime>,
    terms: Terms,
    places: Places,
    peers: FxHashMap<WorkerId, Peer>,
    tickets: FxHashMap<Ticket, WorkerId>,
    spawns: VecDeque<(WorkerId, Program)>,
    /// The one that was ordered, where this process is its own process manager.
    coming: Option<Coming>,
    operations: Operations<Operation>,
    /// In what portions frames travel.
    flow: Option<Flow>,
    /// Workers to whom a message could not be sent when it was its turn.
    refused: Vec<WorkerId>,
    /// Whether bytes have moved since the last poll.
    has_moved: bool,
    /// What the guards say.
    notices: Receiver<(Ticket, Notice)>,
    notify: Sender<(Ticket, Notice)>,
    /// What was taken from there and is still to be looked at.
    waiting: Vec<(Ticket, Notice)>,
    /// Workers with whom an MPI call failed, and when. Their guards have a moment to say what happened.
    suspects: Vec<(WorkerId, String, Instant)>,
    /// The worker that was spawned last, and when, if it has not said anything yet.
    silent: Option<(WorkerId, Instant)>,
}

/// A worker that has been ordered, and has not been met.
struct Coming {
    worker: WorkerId,
    program: Program,
    guarded: Guarded,
    birth: Box<Birth>,
    /// What its guard has said.
    notices: Vec<(Ticket, Notice)>,
}

/// How far a start has come.
enum Start {
    /// The worker is there.
    Met,
    Ordered(Guarded, Box<Birth>),
}

/// What a request for a worker has come to.
enum Begun {
    Spawned(Comm),
    Ordered(Box<Birth>),
}

/// What there is of a worker before there is a communicator.
struct Guarded {
    ticket: Ticket,
    bell: Option<WorkerBell>,
}

struct Peer {
    comm: Comm,
    ticket: Ticket,
    /// Wakes it, where it is on this machine.
    bell: Option<WorkerBell>,
    outbox: Outbox,
    inbox: Inbox,
    /// Whether a message of this worker is being received. One at a time keeps them in order.
    receiving: bool,
    /// Whether an MPI call failed with it. It is not called again.
    is_suspect: bool,
    /// Whether its guard has told that it is dead. What it sent before is still taken in.
    is_dead: bool,
}

/// Why a start has not led to a worker.
enum Setback {
    /// The MPI has not heard the worker, which is nobody's fault: the next may fare better.
    Jam,
    Failure(SpawnFailure),
}

impl From<SpawnFailure> for Setback {
    fn from(failure: SpawnFailure) -> Self {
        Self::Failure(failure)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    SendTo(WorkerId),
    ReceiveFrom(WorkerId),
    TakeCreditFrom(WorkerId),
}

impl MpiTransport {
    pub(crate) fn new(runtime: Rc<Runtime>, terms: Terms, sites: Vec<Site>) -> Self {
        let (notify, notices) = unbounded();
        Self {
            runtime,
            terms,
            places: Places::new(sites),
            peers: FxHashMap::default(),
            tickets: FxHashMap::default(),
            spawns: VecDeque::new(),
            coming: None,
            operations: Operations::new(),
            flow: launch::flow(),
            refused: Vec::new(),
            has_moved: false,
            notices,
            notify,
            waiting: Vec::new(),
            suspects: Vec::new(),
            silent: None,
        }
    }

    /// Starts the worker that has waited longest for it. One a poll: the workers that run are served
    /// between two spawns, each of which blocks for as long as the MPI takes.
    fn spawn_next(&mut self, reports: &mut Vec<Report>) -> bool {
        if let Some(coming) = &self.coming {
            let Some(is_coming) = coming.birth.news() else { return false };
            return self.meet(is_coming, reports);
        }
        if self.spawns.is_empty() || self.runtime.control().has_death_within(launch::spawn_pause()) {
            return false;
        }
        if self.silent.is_some_and(|(_, since)| since.elapsed() < launch::greeting()) {
            return false;
        }
        let Some((worker, program)) = self.spawns.pop_front() else { return false };
        match self.start(worker, &program) {
            Ok(Start::Met) => self.conclude(worker, program, Ok(()), reports),
            Ok(Start::Ordered(guarded, birth)) => {
                self.coming = Some(Coming { worker, program, guarded, birth, notices: Vec::new() });
            }
            Err(setback) => self.conclude(worker, program, Err(setback), reports),
        }
        true
    }

    /// Meets the worker that was ordered, if it is about to connect.
    fn meet(&mut self, is_coming: bool, reports: &mut Vec<Report>) -> bool {
        let Some(Coming { worker, program, guarded, birth, notices }) = self.coming.take() else {
            return false;
        };
        let limit = self.terms.spawn_timeout + SPAWN_GRACE;
        let meet = || birth.meet(self.runtime.spawner(), is_coming);
        let met = self.runtime.pulse().during(Call::Spawn, limit, meet);
        self.waiting.extend(notices);
        let started = self.take_over(worker, guarded, met);
        self.conclude(worker, program, started, reports);
        true
    }

    /// A start has come to something, or to nothing.
    fn conclude(
        &mut self,
        worker: WorkerId,
        program: Program,
        started: Result<(), Setback>,
        reports: &mut Vec<Report>,
    ) {
        self.places.note_start(worker, started.is_ok());
        match started {
            Ok(()) => {
                self.silent = Some((worker, Instant::now()));
                reports.push(Report::Spawned { worker });
            }
            Err(Setback::Failure(failure)) => {
                self.places.release(worker);
                reports.push(Report::SpawnFailed { worker, failure });
            }
            // For as long as the pool waits for this worker.
            Err(Setback::Jam) => {
                self.places.release(worker);
                self.spawns.push_front((worker, program));
            }
        }
    }

    /// Chooses a host: what MPI is told of it, and where a guard there finds its parent.
    fn place(&mut self, worker: WorkerId) -> Result<(Hints, String), SpawnFailure> {
        let unreachable = |reason: String| SpawnFailure::new(SpawnCause::Host, reason);
        let site =
            self.places.take(worker).cloned().ok_or_else(|| unreachable("there is no host".to_owned()))?;
        for host in self.places.to_ask(worker, !launch::outlives_hosts()) {
            // It takes seconds, in which nothing else happens on this thread.
            self.runtime.pulse().beat();
            launch::ask(&host).map_err(|finding| {
                let is_another = host != site.host.name;
                let why =
                    if is_another { "; while it is gone, this MPI starts no worker anywhere" } else { "" };
                unreachable(format!("{finding}{why}"))
            })?;
            self.places.trust(&host);
        }
        let control = self.runtime.control();
        let address = match site.route {
            Some(ip) => control
                .network_address(&launch::own_name(), ip)
                .map_err(|error| unreachable(format!("nothing can listen at {ip}: {error}")))?,
            None => control.address().to_owned(),
        };
        // Once other hosts are known to the MPI, it has to be told of this one too.
        let is_plain = site.info.is_empty() && control.is_on_network();
        Ok((if is_plain { launch::own_host_info() } else { site.info }, address))
    }

    /// Spawns the guard of one worker, or orders it.
    fn start(&mut self, worker: WorkerId, program: &Program) -> Result<Start, Setback> {
        let refused = |finding: Finding| SpawnFailure::new(SpawnCause::Executable, finding.to_string());
        launch::check_program(program).map_err(refused)?;
        if let Some(loss) = self.runtime.launchers().borrow().loss() {
            let reason = format!("{loss}, and this process can spawn no more: start it again");
            return Err(SpawnFailure::new(SpawnCause::Launcher, reason).into());
        }
        let watch = Watch {
            is_output_wanted: self.terms.sink.is_some(),
            heartbeat_timeout: Some(self.terms.heartbeat_timeout),
            bell: None,
        };
        let mut start =
            program.start(watch).map_err(|reason| SpawnFailure::new(SpawnCause::Executable, reason))?;
        let (host, address) = self.place(worker)?;
        let bell = self.places.is_here(worker).then(|| self.runtime.bells()?.hang()).flatten();
        start.watch.bell = bell.as_ref().map(WorkerBell::place);
        let control = self.runtime.control();
        let ticket = control.expect(Expectation {
            start,
            deadline: Instant::now() + self.terms.spawn_timeout,
            kill_grace: self.terms.kill_grace,
            notices: self.notify.clone(),
            voice: self.terms.sink.as_ref().map(|sink| sink.voice(worker)),
        });
        let guarded = Guarded { ticket, bell };
        let spawned = Errand::of(&address, &host, ticket).and_then(|errand| {
            let ordered = self.runtime.office().map(|office| {
                Birth::order(office, &errand.as_wanted(), self.runtime.doorbell())
                    // The library can name longer addresses to itself than to others: those of its own choice of transport.
                    .inspect_err(|error| tracing::debug!("no port, so it is spawned in one call: {error}"))
            });
            if let Some(Ok(birth)) = ordered {
                return Ok(Begun::Ordered(Box::new(birth)));
            }
            let limit = self.terms.spawn_timeout + SPAWN_GRACE;
            let _decoy = self.runtime.decoy();
            let spawn = || errand.spawn(self.runtime.spawner());
            self.runtime.pulse().during(Call::Spawn, limit, spawn).map(Begun::Spawned)
        });
        let spawned = match spawned {
            Ok(Begun::Ordered(birth)) => return Ok(Start::Ordered(guarded, birth)),
            Ok(Begun::Spawned(comm)) => Ok(comm),
            Err(reason) => Err(reason),
        };
        self.take_over(worker, guarded, spawned).map(|()| Start::Met)
    }

    /// Takes a worker over to which there is a communicator now, or finds out why there is none.
    fn take_over(
        &mut self,
        worker: WorkerId,
        guarded: Guarded,
        spawned: Result<Comm, String>,
    ) -> Result<(), Setback> {
        let Guarded { ticket, bell } = guarded;
        let spawned = spawned.and_then(single);
        self.runtime.control().note_spawned(ticket, spawned.is_ok());
        match spawned {
            Ok(comm) => {
                self.runtime.note_spawn();
                self.tickets.insert(ticket, worker);
                let (outbox, inbox) = (Outbox::new(self.flow), Inbox::new(self.flow));
                let (receiving, is_suspect, is_dead) = (false, false, false);
                let peer = Peer { comm, ticket, bell, outbox, inbox, receiving, is_suspect, is_dead };
                self.peers.insert(worker, peer);
                Ok(())
            }
            Err(reason) => {
                // The worker may have died: then MPI has noticed it, or was told by the answer in its place, perhaps before
                // its guard's last word is here.
                let dead = self.await_end(ticket);
                self.runtime.control().kill(ticket);
                Err(match dead {
                    Some((Ended { how: How::Jammed, .. }, _)) => Setback::Jam,
                    Some((ended, at)) => failure(&ended, at.as_ref()).into(),
                    None => SpawnFailure::new(SpawnCause::Mpi, reason).into(),
                })
            }
        }
    }

    /// How the worker of a failed spawn ended, if its guard tells in time. What others say is for later.
    fn await_end(&mut self, ticket: Ticket) -> Option<(Ended, Option<Whereabouts>)> {
        let is_end =
            |(whose, notice): &(Ticket, Notice)| *whose == ticket && matches!(notice, Notice::Ended(..));
        if let Some(at) = self.waiting.iter().position(is_end)
            && let (_, Notice::Ended(ended, at)) = self.waiting.swap_remove(at)
        {
            return Some((ended, at));
        }
        let until = Instant::now() + GUARD_PATIENCE;
        loop {
            match self.notices.recv_deadline(until).ok()? {
                (whose, Notice::Ended(ended, at)) if whose == ticket => return Some((ended, at)),
                (whose, Notice::Ready) if whose == ticket => {}
                other => self.waiting.push(other),
            }
        }
    }

    /// Takes in what the guards say.
    fn hear_guards(&mut self, reports: &mut Vec<Report>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend(self.notices.try_iter());
        for (ticket, notice) in waiting {
            if let Some(coming) = self.coming.as_mut().filter(|coming| coming.guarded.ticket == ticket) {
                coming.notices.push((ticket, notice));
                continue;
            }
            let Some(&worker) = self.tickets.get(&ticket) else { continue };
            match notice {
                Notice::Ready => {}
                Notice::Ended(ended, at) if ended.stand_in => {
                    // The guard has initialized MPI in the worker's place, and is leaving.
                    self.places.note_start(worker, false);
                    self.close(worker);
                    reports.push(Report::SpawnFailed { worker, failure: failure(&ended, at.as_ref()) });
                }
                Notice::Ended(ended, at) if ended.how == How::NoWorker => {
                    self.abandon(worker);
                    reports.push(Report::SpawnFailed { worker, failure: failure(&ended, at.as_ref()) });
                }
                Notice::Ended(ended, at) => {
                    if matches!(ended.how, How::GuardGone | How::Silent { .. }) {
                        self.places.suspect(worker);
                    }
                    reports.push(Report::Lost { worker, reason: describe(&ended, at.as_ref()) });
                }
            }
        }
    }

    /// Disconnects from a worker that does the same.
    fn close(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.remove(&worker) else { return };
        self.tickets.remove(&peer.ticket);
        self.places.release(worker);
        let disconnect = || peer.comm.disconnect();
        if let Err(error) = self.runtime.pulse().during(Call::Disconnect, DISCONNECT_LIMIT, disconnect) {
            tracing::warn!("{worker} could not be disconnected: {error}");
        }
        // Not before: a guard that stands in for its worker takes the close of its channel for the end of its host.
        self.runtime.control().forget(peer.ticket);
    }

    fn receive_arrived(&mut self) {
        let mut failed = Vec::new();
        for (&worker, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.receiving && !peer.is_suspect) {
            let probed = peer.comm.probe().and_then(|found| match found {
                Some(message) => {
                    let is_credit = traffic::is_credit(&message);
                    let label = if is_credit { Operation::TakeCreditFrom } else { Operation::ReceiveFrom };
                    let memory = if is_credit { Vec::new() } else { peer.inbox.memory() };
                    self.operations.receive(&peer.comm, &message, memory, label(worker))?;
                    Ok(true)
                }
                None => Ok(false),
            });
            match probed {
                Ok(receiving) => peer.receiving = receiving,
                Err(error) => failed.push((worker, error.to_string())),
            }
        }
        failed.into_iter().for_each(|(worker, error)| self.suspect(worker, error));
    }

    fn finish_operations(&mut self, reports: &mut Vec<Report>) {
        let mut received = Vec::new();
        let mut failed = Vec::new();
        let tested = self.operations.test_some(|Completed { label, result }| match (label, result) {
            (Operation::SendTo(_), Ok(_sent)) => {}
            (Operation::ReceiveFrom(worker), Ok(message)) => received.push((worker, Some(message))),
            (Operation::TakeCreditFrom(worker), Ok(_empty)) => received.push((worker, None)),
            (
                Operation::SendTo(worker)
                | Operation::ReceiveFrom(worker)
                | Operation::TakeCreditFrom(worker),
                Err(error),
            ) => {
                failed.push((worker, error.to_string()));
            }
        });
        if let Err(error) = tested {
            // The call as a whole failed: MPI itself is unwell, and no worker can be trusted.
            failed.extend(self.peers.keys().map(|&worker| (worker, error.to_string())));
        }
        self.has_moved |= !received.is_empty();
        for (worker, message) in received {
            if let Err(error) = self.take_in(worker, message, reports) {
                failed.push((worker, error));
            }
        }
        failed.into_iter().for_each(|(worker, error)| self.suspect(worker, error));
    }

    /// Takes in a message, or a credit, that has come from a worker.
    fn take_in(
        &mut self,
        worker: WorkerId,
        message: Option<Received>,
        reports: &mut Vec<Report>,
    ) -> Result<(), String> {
        let Some(peer) = self.peers.get_mut(&worker) else { return Ok(()) };
        peer.receiving = false;
        self.silent.take_if(|(silent, _)| *silent == worker);
        let Some(Received { memory, came }) = message else {
            peer.outbox.credit().map_err(|error| error.to_string())?;
            return self.send_waiting(worker).map_err(|error| error.to_string());
        };
        let Taken { frame, credit } = peer.inbox.take(memory, came).map_err(|error| error.to_string())?;
        reports.extend(frame.map(|frame| Report::Frame { worker, bytes: Bytes::from(frame) }));
        if credit {
            peer.outbox.owe_credit();
            self.send_waiting(worker).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Notes who is dead by what the guards have said since it was last looked.
    fn note_dead(&mut self) {
        if self.notices.is_empty() {
            return;
        }
        self.waiting.extend(self.notices.try_iter());
        for (ticket, _) in self.waiting.iter().filter(|(_, notice)| matches!(notice, Notice::Ended(..))) {
            let worker = self.tickets.get(ticket);
            if let Some(peer) = worker.and_then(|worker| self.peers.get_mut(worker)) {
                peer.is_dead = true;
            }
        }
    }

    /// Sends what may be sent of what waits for a worker.
    fn send_waiting(&mut self, worker: WorkerId) -> Result<(), MpiError> {
        self.note_dead();
        let is_there = |peer: &&mut Peer| !peer.is_suspect && !peer.is_dead;
        let Some(peer) = self.peers.get_mut(&worker).filter(is_there) else { return Ok(()) };
        let (outbox, label) = (&mut peer.outbox, Operation::SendTo(worker));
        // Where a broken connection is fatal, frames travel in portions.
        let look_first = self.flow.is_some();
        let sent = traffic::send_waiting(outbox, &mut self.operations, &peer.comm, label, look_first)?;
        if let Some(bell) = peer.bell.as_ref().filter(|_| sent.any) {
            bell.ring();
        }
        if sent.refused && !self.refused.contains(&worker) {
            self.refused.push(worker);
        }
        Ok(())
    }

    /// Sends again what could not be sent before.
    fn send_refused(&mut self) {
        for worker in std::mem::take(&mut self.refused) {
            if let Err(error) = self.send_waiting(worker) {
                self.suspect(worker, error.to_string());
            }
        }
    }

    /// An MPI call failed with a worker: most likely it has died, and its guard knows how.
    fn suspect(&mut self, worker: WorkerId, error: String) {
        if let Some(peer) = self.peers.get_mut(&worker).filter(|peer| !peer.is_suspect) {
            peer.is_suspect = true;
            self.suspects.push((worker, error, Instant::now()));
        }
    }

    /// Gives up the worker that was ordered, if it is the one. It may have connected by now, and is ended all the same.
    fn give_up_coming(&mut self, is_it: impl FnOnce(WorkerId) -> bool) -> Option<WorkerId> {
        let coming = self.coming.take_if(|coming| is_it(coming.worker))?;
        self.runtime.control().kill(coming.guarded.ticket);
        self.places.release(coming.worker);
        Some(coming.worker)
    }

    /// Reports the suspects of whom no guard has said anything.
    fn give_up_suspects(&mut self, reports: &mut Vec<Report>) {
        let (peers, places) = (&self.peers, &mut self.places);
        self.suspects.retain(|(worker, error, since)| {
            let is_there = peers.contains_key(worker);
            let is_over = since.elapsed() > GUARD_PATIENCE;
            if is_there && is_over {
                places.suspect(*worker);
                reports.push(Report::Lost { worker: *worker, reason: error.clone() });
            }
            is_there && !is_over
        });
    }
}

impl Transport for MpiTransport {
    fn spawn(&mut self, worker: WorkerId, program: &Program) {
        self.spawns.push_back((worker, program.clone()));
    }

    fn send(&mut self, worker: WorkerId, frame: Parcel) {
        let Some(peer) = self.peers.get_mut(&worker) else { return };
        peer.outbox.push(frame);
        if self.refused.contains(&worker) {
            return;
        }
        if let Err(error) = self.send_waiting(worker) {
            self.suspect(worker, error.to_string());
        }
    }

    fn disconnect(&mut self, worker: WorkerId) {
        self.close(worker);
    }

    fn abandon(&mut self, worker: WorkerId) {
        self.spawns.retain(|(waiting, _)| *waiting != worker);
        self.give_up_coming(|coming| coming == worker);
        for label in [Operation::SendTo, Operation::ReceiveFrom, Operation::TakeCreditFrom] {
            self.operations.abandon(&label(worker));
        }
        // The communicator is neither freed nor disconnected: both are collective.
        if let Some(peer) = self.peers.remove(&worker) {
            self.tickets.remove(&peer.ticket);
            self.runtime.control().kill(peer.ticket);
            self.runtime.note_loss();
        }
        self.places.release(worker);
    }

    fn poll(&mut self, reports: &mut Vec<Report>) -> bool {
        let before = reports.len();
        self.receive_arrived();
        self.finish_operations(reports);
        // After what the worker sent before it ended.
        self.hear_guards(reports);
        self.send_refused();
        self.give_up_suspects(reports);
        self.spawn_next(reports);
        reports.len() > before || std::mem::take(&mut self.has_moved)
    }

    fn cancel_spawns(&mut self) -> Vec<WorkerId> {
        let coming = self.give_up_coming(|_| true);
        coming.into_iter().chain(self.spawns.drain(..).map(|(worker, _)| worker)).collect()
    }

    fn is_pending(&self) -> bool {
        // Of one that was ordered the doorbell tells.
        !self.operations.is_empty()
            || !self.spawns.is_empty() && self.coming.is_none()
            || !self.suspects.is_empty()
            || self.peers.values().any(|peer| !peer.outbox.is_empty())
    }

    fn has_arrived(&mut self) -> bool {
        let is_here = |peer: &Peer| !peer.is_suspect && !matches!(peer.comm.probe(), Ok(None));
        !self.notices.is_empty()
            || !self.waiting.is_empty()
            || self.coming.as_ref().is_some_and(|coming| coming.birth.has_news())
            || self.peers.values().any(is_here)
    }

    fn rings(&self) -> Rings {
        if self.peers.values().all(|peer| peer.bell.is_some()) { Rings::Mostly } else { Rings::Never }
    }
}

impl Drop for MpiTransport {
    fn drop(&mut self) {
        // After an orderly end nobody is left. After any other, nobody may stay.
        self.give_up_coming(|_| true);
        for peer in self.peers.values() {
            self.runtime.control().kill(peer.ticket);
            self.runtime.note_loss();
        }
    }
}

/// What is to be started so that there is a guard, in the words of MPI.
struct Errand {
    command: CString,
    arguments: Vec<CString>,
    info: Vec<(CString, CString)>,
}

impl Errand {
    fn of(address: &str, host: &[(&'static str, String)], ticket: Ticket) -> Result<Self, String> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|error| error.to_string());
        let executable =
            env::current_exe().map_err(|error| format!("this executable has no path: {error}"))?;
        let command = text(executable.as_os_str().as_bytes())?;
        let arguments = launch::guard_arguments(address, ticket);
        let arguments =
            arguments.iter().map(|argument| text(argument.as_bytes())).collect::<Result<_, _>>()?;
        let secret = launch::secret_info();
        let ours = host.iter().chain(&secret).map(|(key, value)| (*key, value.as_str()));
        // A guard keeps no directory busy; it starts the worker in its own.
        let info = std::iter::once(("wdir", "/")).chain(launch::spawn_info().iter().copied()).chain(ours);
        let info = info.map(|(key, value)| Ok((text(key.as_bytes())?, text(value.as_bytes())?)));
        Ok(Self { command, arguments, info: info.collect::<Result<_, String>>()? })
    }

    fn spawn(&self, spawner: &Comm) -> Result<Comm, String> {
        let spawned = Info::new().and_then(|mut info| {
            for (key, value) in &self.info {
                info.set(key, value)?;
            }
            spawner.spawn(&self.command, &self.arguments, &info)
        });
        spawned.map_err(|error| error.to_string())
    }

    fn as_wanted(&self) -> Wanted<'_> {
        Wanted {
            executable: self.command.as_bytes(),
            arguments: self.arguments.iter().map(|argument| argument.as_bytes()).collect(),
            info: self.info.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect(),
        }
    }
}

/// Makes sure that there is one process on the other side.
fn single(comm: Comm) -> Result<Comm, String> {
    match comm.remote_size() {
        Ok(1) => Ok(comm),
        Ok(size) => Err(format!("one worker was asked for, and {size} came")),
        Err(error) => Err(error.to_string()),
    }
}

/// A start that failed, as the guard tells it.
fn failure(ended: &Ended, at: Option<&Whereabouts>) -> SpawnFailure {
    let cause = match ended.how {
        How::NotStarted { .. } => SpawnCause::NotStarted,
        How::Overdue => SpawnCause::Overdue,
        How::NoWorker => SpawnCause::NoWorker,
        How::Unfit => SpawnCause::Mismatch,
        How::Jammed | How::GuardGone | How::Silent { .. } | How::Exited { .. } | How::Signalled { .. } => {
            SpawnCause::Ended
        }
    };
    SpawnFailure::new(cause, describe(ended, at))
}

/// How a worker ended, and the last that it said.
fn describe(ended: &Ended, at: Option<&Whereabouts>) -> String {
    let place = at.map_or_else(String::new, |at| format!(" at {}", at.host));
    let process = at.map_or_else(|| "its process".to_owned(), |at| format!("its process {}{place}", at.pid));
    let how = match &ended.how {
        How::NotStarted { reason } => reason.clone(),
        How::Overdue => {
            return format!(
                "it had not initialized MPI within the `spawn_timeout`, and was ended{}",
                last_words(ended)
            );
        }
        How::Jammed => {
            return format!(
                "it did not get through MPI_Init, while which another worker had died, and was ended{}",
                last_words(ended)
            );
        }
        How::GuardGone => format!("its guard{place} ended without a word"),
        How::Silent { after } => {
            format!("nothing was heard{place} for {after:?}, the `heartbeat_timeout`: the host or the way to it is gone")
        }
        How::NoWorker => {
            "it initialized MPI, but is no offshoot worker: `offshoot::init()` or `offshoot::worker::serve()` must \
             be the first line of its `main`"
                .to_owned()
        }
        How::Unfit => return format!("it cannot work for this host{}", last_words(ended)),
        How::Exited { code } => format!("{process} exited with code {code}"),
        How::Signalled { signal, core } => {
            let core = if *core { ", core dumped" } else { "" };
            let (signal, memory) = (process::signal_name(*signal), memory(ended));
            format!("{process} was killed by {signal}{core}{memory}")
        }
    };
    let before = if ended.stand_in { " before it initialized MPI" } else { "" };
    format!("{how}{before}{}", last_words(ended))
}

/// How much memory it had, where that may be why it was killed.
fn memory(ended: &Ended) -> String {
    match (&ended.how, ended.peak_kib) {
        (How::Signalled { signal, .. }, peak @ 1..) if process::may_be_for_memory(*signal) => {
            format!(
                " when it had used {} MiB of memory at most (the system does that where memory runs out)",
                peak.div_ceil(1024)
            )
        }
        _ => String::new(),
    }
}

fn last_words(ended: &Ended) -> String {
    match &ended.stderr[..] {
        [] => String::new(),
        lines => format!("; its last words:\n    {}", lines.join("\n    ")),
    }
}
