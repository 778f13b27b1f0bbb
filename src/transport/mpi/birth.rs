//! A worker that this process starts as its own process manager: ordered first, met when it has come so far.
//!
//! `MPI_Comm_spawn` of MPICH does the same in one call: it opens a port, has a process started that knows it, and accepts
//! whoever comes there. In that call nothing else happens on this thread, for as long as a process takes to start, and if the
//! process dies between its first word and its last the call never returns. In three steps the thread is free until the
//! worker is about to connect, and what is left to wait for has a limit.
//!
//! Each worker has a port that no other ever has: one that was given up may have spoken there all the same, and what it has
//! said waits in the library for whoever accepts at that port next.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::ffi::{Comm, Info};
use super::spawner::Wanted;
use super::starts::Failed;
use crate::containment::Containment;
use crate::launch::{self, Office, PortNames};
use crate::transport::Doorbell;

/// For how many seconds the library waits for each of the two things that a worker says when it connects. It does so at once.
const MEETING_LIMIT: &CStr = c"3";
/// The same with the MPI's own choice of transport, over which what is said after that is written where this thread's stack
/// was. So that takes longer than any process that lives may be kept from a processor.
const MEETING_LIMIT_FAST: &CStr = c"10";

/// Where this process orders its workers, and the ports at which it meets them.
pub(super) struct Ports {
    office: Office,
    names: RefCell<PortNames>,
    limit: &'static CStr,
}

/// One worker on its way.
pub(super) struct Birth {
    port: CString,
    limit: &'static CStr,
    news: Receiver<bool>,
}

impl Ports {
    /// None where the library calls its ports otherwise than expected.
    pub(super) fn learn(office: Office, spawner: &Comm, containment: Containment) -> Option<Self> {
        // Only there the library says what it calls a port, however long that is.
        let question = Wanted {
            command: c"offshoot".to_owned(),
            arguments: Vec::new(),
            info: vec![(CString::new(launch::ASKS_FOR_PORT).ok()?, c"1".to_owned())],
        };
        if question.spawn_from(spawner).is_ok() {
            tracing::warn!("something was started by a spawn that starts nothing");
        }
        let names = office.port_names();
        if names.is_none() {
            tracing::debug!(
                "what the MPI calls its ports is not understood: workers are spawned in one call each"
            );
        }
        let limit = match containment {
            Containment::Survivable => MEETING_LIMIT,
            Containment::Fast => MEETING_LIMIT_FAST,
        };
        Some(Self { names: RefCell::new(names?), office, limit })
    }
}

impl Birth {
    /// Has it started. The doorbell is rung when there are news of it. None if there are no more ports.
    pub(super) fn order(ports: &Ports, wanted: &Wanted, doorbell: &Arc<Doorbell>) -> Option<Self> {
        let port = ports.names.borrow_mut().next()?;
        let (tell, news) = bounded(1);
        let doorbell = Arc::clone(doorbell);
        ports.office.order(&wanted.as_order(), port.to_bytes(), move |is_coming| {
            // Nobody waits for it any more, perhaps.
            let _ = tell.send(is_coming);
            doorbell.ring();
        });
        Some(Self { port, limit: ports.limit, news })
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Whether it is about to connect, or has ended; none as long as nothing is known.
    pub(super) fn news(&self) -> Option<bool> {
        // The process manager lives as long as this process.
        self.news.try_recv().ok()
    }

    /// Meets it, if it is about to connect.
    pub(super) fn meet(self, spawner: &Comm, is_coming: bool) -> Result<Comm, Failed> {
        if !is_coming {
            return Err(Failed::new("it ended before it could be met"));
        }
        let mut info = Info::new()?;
        info.set(c"timeout", self.limit)?;
        Ok(spawner.accept(&self.port, &info)?)
    }
}
