//! A worker that this process starts as its own process manager: ordered first, met when it has come so far.
//!
//! `MPI_Comm_spawn` of MPICH does the same in one call: it opens a port, has a process started that knows it, and accepts
//! whoever comes there. In that call nothing else happens on this thread, for as long as a process takes to start, and if the
//! process dies between its first word and its last the call never returns. In three steps the thread is free until the
//! worker is about to connect, and what is left to wait for has a limit.
//!
//! A worker may connect and be given up all the same. What it has said waits in the library then, for whoever comes to the
//! port next, and that is nobody: such a port is never closed, so that no other gets its number. There are 2048.

use std::ffi::CStr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::ffi::{Comm, Info, MpiError, Port};
use super::starts::Failed;
use crate::launch::{Office, Wanted};
use crate::transport::Doorbell;

/// For how many seconds the library waits for each of the two things that a worker says when it connects. It does so at once.
const MEETING_LIMIT: &CStr = c"3";

/// One worker on its way.
pub(super) struct Birth {
    port: Port,
    news: Receiver<bool>,
}

impl Birth {
    /// Has it started. The doorbell is rung when there are news of it.
    pub(super) fn order(
        office: &Office,
        wanted: &Wanted<'_>,
        doorbell: &Arc<Doorbell>,
    ) -> Result<Self, MpiError> {
        let port = Port::open()?;
        let (tell, news) = bounded(1);
        let doorbell = Arc::clone(doorbell);
        office.order(wanted, port.name().to_bytes(), move |is_coming| {
            // Nobody waits for it any more, perhaps.
            let _ = tell.send(is_coming);
            doorbell.ring();
        });
        Ok(Self { port, news })
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
            return Err(match self.port.close() {
                Ok(()) => Failed::new("it ended before it could be met"),
                Err(error) => error.into(),
            });
        }
        let met = Info::new().and_then(|mut info| {
            info.set(c"timeout", MEETING_LIMIT)?;
            spawner.accept(&self.port, &info)
        });
        let comm = met?;
        if let Err(error) = self.port.close() {
            tracing::debug!("a port could not be closed: {error}");
        }
        Ok(comm)
    }
}
