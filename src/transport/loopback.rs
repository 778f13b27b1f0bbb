//! Workers in memory: threads of this process behind the same port, which really serialize.
//!
//! For tests of code that uses a pool, and of everything above the transport, on machines without an
//! MPI that can spawn. A program's executable, arguments, environment and directory play no part.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use rustc_hash::FxHashMap;

use super::claim::{Claim, Word};
use super::{Doorbell, Link, LinkError, Report, Rings, Transport};
use crate::error::{SpawnCause, SpawnFailure};
use crate::ids::WorkerId;
use crate::launch::Program;
use crate::task::Registry;
use crate::wire::frame::Parcel;
use crate::worker::{self, Place};

/// The workers of one pool, each a thread.
pub(crate) struct LoopbackTransport {
    doorbell: Arc<Doorbell>,
    registry: Arc<Registry>,
    peers: FxHashMap<WorkerId, Peer>,
    reports: Receiver<Report>,
    report: Sender<Report>,
}

struct Peer {
    inbox: Sender<Bytes>,
    /// Where it says what it has begun.
    word: Word,
}

impl LoopbackTransport {
    pub(crate) fn new(registry: Registry, doorbell: Arc<Doorbell>) -> Self {
        let (report, reports) = unbounded();
        Self { doorbell, registry: Arc::new(registry), peers: FxHashMap::default(), reports, report }
    }
}

impl Transport for LoopbackTransport {
    fn spawn(&mut self, worker: WorkerId, _program: &Program) {
        let (to_worker, inbox) = unbounded();
        let link =
            LoopbackLink { worker, inbox, report: self.report.clone(), doorbell: Arc::clone(&self.doorbell) };
        let registry = Arc::clone(&self.registry);
        let word = Word::own();
        let claim = Claim::new(word.clone());
        let started = thread::Builder::new().name(format!("offshoot {worker}")).spawn(move || {
            // A broken link needs no word: the other end is what broke it.
            let place = Place { host: "loopback".into(), rank: 0, claim, voice: None };
            let _ = worker::run(link, &registry, place);
        });
        let report = match started {
            Ok(_detached) => {
                self.peers.insert(worker, Peer { inbox: to_worker, word });
                Report::Spawned { worker }
            }
            Err(error) => {
                let reason = format!("no thread could be started: {error}");
                Report::SpawnFailed { worker, failure: SpawnFailure::new(SpawnCause::NotStarted, reason) }
            }
        };
        self.report.send(report).expect("this side holds the receiver");
    }

    fn send(&mut self, worker: WorkerId, frame: Parcel) {
        let Some(peer) = self.peers.get(&worker) else { return };
        if peer.inbox.send(frame.into_bytes()).is_err() {
            let report = Report::Lost { worker, reason: "its thread has ended".to_owned() };
            self.report.send(report).expect("this side holds the receiver");
        }
    }

    fn recall(&mut self, worker: WorkerId) {
        if let Some(begun) = self.peers.get(&worker).and_then(|peer| peer.word.recall()) {
            self.report.send(Report::Recalled { worker, begun }).expect("this side holds the receiver");
        }
    }

    fn disconnect(&mut self, worker: WorkerId) {
        self.peers.remove(&worker);
    }

    fn abandon(&mut self, worker: WorkerId) {
        self.peers.remove(&worker);
    }

    fn poll(&mut self, reports: &mut Vec<Report>) -> bool {
        let before = reports.len();
        reports.extend(self.reports.try_iter());
        reports.len() > before
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

/// The worker's end of a loopback connection.
struct LoopbackLink {
    worker: WorkerId,
    inbox: Receiver<Bytes>,
    report: Sender<Report>,
    doorbell: Arc<Doorbell>,
}

impl LoopbackLink {
    fn tell(&self, report: Report) -> Result<(), LinkError> {
        self.report.send(report).map_err(|_| gone())?;
        self.doorbell.ring();
        Ok(())
    }
}

impl Link for LoopbackLink {
    fn send(&mut self, frame: Parcel) -> Result<(), LinkError> {
        self.tell(Report::Frame { worker: self.worker, bytes: frame.into_bytes() })
    }

    fn try_receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        match self.inbox.try_recv() {
            Ok(frame) => Ok(Some(frame)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    fn receive(&mut self) -> Result<Bytes, LinkError> {
        self.inbox.recv().map_err(|_| gone())
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }
}

impl Drop for LoopbackLink {
    fn drop(&mut self) {
        // After a goodbye the driver has forgotten this worker and ignores the report.
        let _ = self.tell(Report::Lost { worker: self.worker, reason: "its thread has ended".to_owned() });
    }
}

fn gone() -> LinkError {
    LinkError("its pool is gone".to_owned())
}
