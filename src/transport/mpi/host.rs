//! The driver's end: every worker of one pool, each on an intercommunicator of its own.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use rustc_hash::FxHashMap;

use super::Runtime;
use super::ffi::{Comm, Completed, MpiError, Operations, Received};
use super::places::Places;
use super::spawner::Health;
use super::starts::{GUARD_PATIENCE, Newborn, Starts, Terms};
use super::traffic::{self, CONNECTING};
use super::words::{describe, failure};
use crate::ids::WorkerId;
use crate::launch::{self, Program, Site};
use crate::transport::bells::WorkerBell;
use crate::transport::control::Notice;
use crate::transport::{Call, Report, Rings, Transport};
use crate::wire::control::{How, Ticket};
use crate::wire::flow::{Flow, Inbox, Outbox, Taken};
use crate::wire::frame::Parcel;

/// How long a worker may take that has said goodbye.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The workers of one pool.
pub(crate) struct MpiTransport {
    runtime: Rc<Runtime>,
    starts: Starts,
    peers: FxHashMap<WorkerId, Peer>,
    tickets: FxHashMap<Ticket, WorkerId>,
    operations: Operations<Operation>,
    /// In what portions frames travel.
    flow: Option<Flow>,
    /// Workers to whom a message could not be sent when it was its turn.
    refused: Vec<WorkerId>,
    /// Whether bytes have moved since the last poll.
    has_moved: bool,
    /// What the guards say.
    notices: Receiver<(Ticket, Notice)>,
    /// What was taken from there and is still to be looked at.
    waiting: Vec<(Ticket, Notice)>,
    /// Workers with whom an MPI call failed, and when. Their guards have a moment to say what happened.
    suspects: Vec<(WorkerId, String, Instant)>,
    /// Workers that have said goodbye, and whose disconnect was put off.
    leaving: Vec<WorkerId>,
    /// The worker that was spawned last, and when, if it has not said anything yet.
    silent: Option<(WorkerId, Instant)>,
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
    /// When it has come, if it has not said anything yet.
    mute_since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    SendTo(WorkerId),
    ReceiveFrom(WorkerId),
    TakeCreditFrom(WorkerId),
}

impl Peer {
    /// Whether its first word may still need this side's attention.
    fn is_connecting(&self) -> bool {
        self.mute_since.is_some_and(|since| since.elapsed() < CONNECTING)
    }
}

impl MpiTransport {
    pub(crate) fn new(runtime: Rc<Runtime>, terms: Terms, sites: Vec<Site>) -> Self {
        let (notify, notices) = unbounded();
        Self {
            starts: Starts::new(Rc::clone(&runtime), terms, Places::new(sites), notify),
            runtime,
            peers: FxHashMap::default(),
            tickets: FxHashMap::default(),
            operations: Operations::new(),
            flow: launch::flow(),
            refused: Vec::new(),
            has_moved: false,
            notices,
            waiting: Vec::new(),
            suspects: Vec::new(),
            leaving: Vec::new(),
            silent: None,
        }
    }

    /// Has starts go on, and takes in what has come of them.
    fn advance_starts(&mut self, mut births: Vec<Newborn>, reports: &mut Vec<Report>) {
        let is_silent = self.silent.is_some_and(|(_, since)| since.elapsed() < launch::greeting());
        let is_calm = !is_silent && !self.runtime.control().has_death_within(launch::spawn_pause());
        self.starts.advance(is_calm, &mut births);
        for birth in births {
            match birth {
                Newborn::Failed { worker, failure } => reports.push(Report::SpawnFailed { worker, failure }),
                Newborn::Come { worker, comm, ticket, bell, end } => {
                    self.tickets.insert(ticket, worker);
                    self.waiting.extend(end.map(|(ended, at)| (ticket, Notice::Ended(ended, at))));
                    let (outbox, inbox) = (Outbox::new(self.flow), Inbox::new(self.flow));
                    let (receiving, is_suspect, is_dead, now) = (false, false, false, Instant::now());
                    let mute_since = Some(now);
                    let peer = Peer {
                        comm,
                        ticket,
                        bell,
                        outbox,
                        inbox,
                        receiving,
                        is_suspect,
                        is_dead,
                        mute_since,
                    };
                    self.peers.insert(worker, peer);
                    self.silent = Some((worker, now));
                    reports.push(Report::Spawned { worker });
                }
            }
        }
    }

    /// Takes in what the guards say.
    fn hear_guards(&mut self, reports: &mut Vec<Report>) -> Vec<Newborn> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend(self.notices.try_iter());
        let mut births = Vec::new();
        for (ticket, notice) in waiting {
            let Some(notice) = self.starts.hear(ticket, notice, &mut births) else { continue };
            let Some(&worker) = self.tickets.get(&ticket) else { continue };
            match notice {
                Notice::Ready => {}
                Notice::Recalled { begun } => reports.push(Report::Recalled { worker, begun }),
                Notice::Ended(ended, at) if ended.stand_in => {
                    // The guard has initialized MPI in the worker's place, and is leaving.
                    self.starts.places.note_start(worker, false);
                    self.close(worker);
                    reports.push(Report::SpawnFailed { worker, failure: failure(&ended, at.as_ref()) });
                }
                Notice::Ended(ended, at) if ended.how == How::NoWorker => {
                    self.abandon(worker);
                    reports.push(Report::SpawnFailed { worker, failure: failure(&ended, at.as_ref()) });
                }
                // Whoever waited for the host to part from it does not any more.
                Notice::Ended(..) if self.leaving.contains(&worker) => self.abandon(worker),
                Notice::Ended(ended, at) => {
                    if matches!(ended.how, How::GuardGone | How::Silent { .. }) {
                        self.starts.places.suspect(worker);
                    }
                    reports.push(Report::Lost { worker, reason: describe(&ended, at.as_ref()) });
                }
            }
        }
        births
    }

    /// Disconnects from a worker that does the same. A disconnect goes through the MPI's daemons, and waits for them:
    /// where they are silent it is put off, and where they are lost the worker is given up.
    fn close(&mut self, worker: WorkerId) {
        match self.runtime.health() {
            Health::Good => self.disconnect_now(worker),
            Health::Doubtful => self.leaving.push(worker),
            Health::Lost => self.abandon(worker),
        }
    }

    fn disconnect_now(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.remove(&worker) else { return };
        self.tickets.remove(&peer.ticket);
        self.starts.places.release(worker);
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
        peer.mute_since = None;
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

    /// Reports the suspects of whom no guard has said anything.
    fn give_up_suspects(&mut self, reports: &mut Vec<Report>) {
        let (peers, places) = (&self.peers, &mut self.starts.places);
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
        self.starts.order(worker, program);
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

    fn recall(&mut self, worker: WorkerId) {
        if let Some(peer) = self.peers.get(&worker) {
            self.runtime.control().recall(peer.ticket);
        }
    }

    fn disconnect(&mut self, worker: WorkerId) {
        self.close(worker);
    }

    fn abandon(&mut self, worker: WorkerId) {
        self.starts.abandon(worker);
        self.leaving.retain(|leaving| *leaving != worker);
        for label in [Operation::SendTo, Operation::ReceiveFrom, Operation::TakeCreditFrom] {
            self.operations.abandon(&label(worker));
        }
        // The communicator is neither freed nor disconnected: both are collective.
        if let Some(peer) = self.peers.remove(&worker) {
            self.tickets.remove(&peer.ticket);
            self.runtime.control().kill(peer.ticket);
            self.runtime.note_loss();
        }
        self.starts.places.release(worker);
    }

    fn poll(&mut self, reports: &mut Vec<Report>) -> bool {
        let before = reports.len();
        self.receive_arrived();
        self.finish_operations(reports);
        // After what the worker sent before it ended.
        let births = self.hear_guards(reports);
        self.send_refused();
        self.give_up_suspects(reports);
        self.advance_starts(births, reports);
        if !self.leaving.is_empty() && self.runtime.health() != Health::Doubtful {
            std::mem::take(&mut self.leaving).into_iter().for_each(|worker| self.close(worker));
        }
        reports.len() > before || std::mem::take(&mut self.has_moved)
    }

    fn cancel_spawns(&mut self) -> Vec<WorkerId> {
        self.starts.cancel()
    }

    fn is_pending(&self) -> bool {
        !self.operations.is_empty()
            || self.starts.is_pending()
            || !self.leaving.is_empty()
            || !self.suspects.is_empty()
            || self.peers.values().any(|peer| !peer.outbox.is_empty() || peer.is_connecting())
    }

    fn bytes_under_way(&self) -> usize {
        self.operations.bytes()
    }

    fn has_arrived(&mut self) -> bool {
        let is_here = |peer: &Peer| !peer.is_suspect && !matches!(peer.comm.probe(), Ok(None));
        !self.notices.is_empty()
            || !self.waiting.is_empty()
            || self.starts.has_arrived()
            || self.peers.values().any(is_here)
    }

    fn rings(&self) -> Rings {
        if self.peers.values().all(|peer| peer.bell.is_some()) { Rings::Mostly } else { Rings::Never }
    }
}

impl Drop for MpiTransport {
    fn drop(&mut self) {
        // After an orderly end nobody is left. After any other, nobody may stay.
        for peer in self.peers.values() {
            self.runtime.control().kill(peer.ticket);
            self.runtime.note_loss();
        }
    }
}
