//! The driver's end: every worker of one pool, each on an intercommunicator of its own.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::ffi::{Comm, Ended, Info, MpiError, Operations};
use super::{FRAME_TAG, Runtime};
use crate::ids::WorkerId;
use crate::launch::{self, Program};
use crate::transport::{Report, Transport};

/// The workers of one pool.
pub(crate) struct MpiTransport {
    runtime: Rc<Runtime>,
    peers: FxHashMap<WorkerId, Peer>,
    spawns: VecDeque<(WorkerId, Program)>,
    operations: Operations<Operation>,
    /// Errors of `send`, to be reported by the next `poll`.
    broken: Vec<Report>,
}

struct Peer {
    comm: Comm,
    /// Whether a frame of this worker is being received. One at a time keeps frames in order.
    receiving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    SendTo(WorkerId),
    ReceiveFrom(WorkerId),
}

impl MpiTransport {
    pub(crate) fn new(runtime: Rc<Runtime>) -> Self {
        Self {
            runtime,
            peers: FxHashMap::default(),
            spawns: VecDeque::new(),
            operations: Operations::new(),
            broken: Vec::new(),
        }
    }

    /// Starts the worker that has waited longest for it. One a poll: the workers that run are served
    /// between two spawns, each of which blocks for as long as the MPI takes.
    fn spawn_next(&mut self, reports: &mut Vec<Report>) -> bool {
        let Some((worker, program)) = self.spawns.pop_front() else { return false };
        reports.push(match start(&self.runtime, &program) {
            Ok(comm) => {
                self.peers.insert(worker, Peer { comm, receiving: false });
                Report::Spawned { worker }
            }
            Err(reason) => Report::SpawnFailed { worker, reason },
        });
        true
    }

    fn receive_arrived(&mut self, reports: &mut Vec<Report>) {
        for (&worker, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.receiving) {
            let probed = peer.comm.probe(FRAME_TAG).and_then(|found| match found {
                Some(message) => {
                    self.operations.receive(message, Operation::ReceiveFrom(worker))?;
                    Ok(true)
                }
                None => Ok(false),
            });
            match probed {
                Ok(receiving) => peer.receiving = receiving,
                Err(error) => reports.push(lost(worker, &error)),
            }
        }
    }

    fn finish_operations(&mut self, reports: &mut Vec<Report>) {
        let peers = &mut self.peers;
        let tested = self.operations.test_some(|Ended { label, result }| match (label, result) {
            (Operation::SendTo(_), Ok(_sent)) => {}
            (Operation::ReceiveFrom(worker), Ok(buffer)) => {
                if let Some(peer) = peers.get_mut(&worker) {
                    peer.receiving = false;
                }
                reports.push(Report::Frame { worker, bytes: Bytes::from(buffer) });
            }
            (Operation::SendTo(worker) | Operation::ReceiveFrom(worker), Err(error)) => {
                reports.push(lost(worker, &error));
            }
        });
        if let Err(error) = tested {
            // The call as a whole failed: MPI itself is unwell, and no worker can be trusted.
            reports.extend(peers.keys().map(|&worker| lost(worker, &error)));
        }
    }
}

impl Transport for MpiTransport {
    fn spawn(&mut self, worker: WorkerId, program: &Program) {
        self.spawns.push_back((worker, program.clone()));
    }

    fn send(&mut self, worker: WorkerId, frame: Vec<u8>) {
        let Some(peer) = self.peers.get(&worker) else { return };
        if let Err(error) = self.operations.send(&peer.comm, FRAME_TAG, frame, Operation::SendTo(worker)) {
            self.broken.push(lost(worker, &error));
        }
    }

    fn disconnect(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.remove(&worker) else { return };
        if let Err(error) = peer.comm.disconnect() {
            tracing::warn!("{worker} could not be disconnected: {error}");
        }
    }

    fn abandon(&mut self, worker: WorkerId) {
        self.spawns.retain(|(waiting, _)| *waiting != worker);
        self.operations.abandon(&Operation::SendTo(worker));
        self.operations.abandon(&Operation::ReceiveFrom(worker));
        // The communicator is neither freed nor disconnected: both are collective.
        self.peers.remove(&worker);
    }

    fn poll(&mut self, reports: &mut Vec<Report>) -> bool {
        let before = reports.len();
        reports.append(&mut self.broken);
        self.receive_arrived(reports);
        self.finish_operations(reports);
        self.spawn_next(reports);
        reports.len() > before
    }

    fn is_pending(&self) -> bool {
        !self.operations.is_empty() || !self.spawns.is_empty() || !self.broken.is_empty()
    }

    fn rings(&self) -> bool {
        false
    }
}

fn lost(worker: WorkerId, error: &MpiError) -> Report {
    Report::Lost { worker, reason: error.to_string() }
}

/// Spawns one worker of a program and makes sure that it is one process.
fn start(runtime: &Runtime, program: &Program) -> Result<Comm, String> {
    launch::preflight(program)?;
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|error| error.to_string());
    let command = text(program.path().as_os_str().as_bytes())?;
    let arguments: Vec<CString> = launch::record_arguments(program)
        .into_iter()
        .map(|argument| text(argument.as_bytes()))
        .collect::<Result<_, _>>()?;
    let directory = text(program.directory()?.as_os_str().as_bytes())?;
    let spawned = Info::new().and_then(|mut info| {
        info.set(c"wdir", &directory)?;
        runtime.spawner().spawn(&command, &arguments, &info)
    });
    let comm = spawned.map_err(|error| error.to_string())?;
    match comm.remote_size() {
        Ok(1) => Ok(comm),
        Ok(size) => Err(format!("one worker was asked for, and {size} came")),
        Err(error) => Err(error.to_string()),
    }
}
