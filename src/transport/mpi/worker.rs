//! The worker's end: one host, rank 0 of the other side.

use std::thread;

use bytes::Bytes;

use super::FRAME_TAG;
use super::ffi::{Comm, Completed, MpiError, Operations};
use crate::transport::{Link, LinkError, Patience};

/// The connection of a worker to its host.
pub(crate) struct MpiLink {
    host: Comm,
    operations: Operations<Direction>,
    receiving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Out,
    In,
}

impl MpiLink {
    pub(crate) fn new(host: Comm) -> Self {
        Self { host, operations: Operations::new(), receiving: false }
    }

    /// Leaves the host, which does the same, and ends MPI. What was sent has been flushed.
    pub(crate) fn leave(self) -> Result<(), LinkError> {
        self.host.disconnect()?;
        super::runtime::finalize_worker().map_err(LinkError)
    }

    /// Progresses what is under way; returns a frame if one has come in whole.
    fn progress(&mut self) -> Result<Option<Bytes>, MpiError> {
        let mut received = None;
        let mut failed = None;
        self.operations.test_some(|Completed { label, result }| match (label, result) {
            (Direction::In, Ok(buffer)) => received = Some(Bytes::from(buffer)),
            (Direction::Out, Ok(_sent)) => {}
            (Direction::In | Direction::Out, Err(error)) => failed = Some(error),
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(received),
        }
    }
}

impl Link for MpiLink {
    fn send(&mut self, frame: Vec<u8>) -> Result<(), LinkError> {
        Ok(self.operations.send(&self.host, FRAME_TAG, frame, Direction::Out)?)
    }

    fn try_receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        // One receive at a time keeps frames in order: a small one may end before a large one that
        // was found earlier.
        if !self.receiving
            && let Some(message) = self.host.probe(FRAME_TAG)?
        {
            self.operations.receive(&self.host, &message, Direction::In)?;
            self.receiving = true;
        }
        let received = self.progress()?;
        self.receiving &= received.is_none();
        Ok(received)
    }

    fn receive(&mut self) -> Result<Bytes, LinkError> {
        let mut patience = Patience::new();
        loop {
            if let Some(frame) = self.try_receive()? {
                return Ok(frame);
            }
            if let Some(sleep) = patience.pause() {
                thread::sleep(sleep);
            }
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        let mut patience = Patience::new();
        assert!(!self.receiving, "a worker flushes for the last time when nothing is sent to it any more");
        while !self.operations.is_empty() {
            self.progress()?;
            if let Some(sleep) = patience.pause() {
                thread::sleep(sleep);
            }
        }
        Ok(())
    }
}

impl From<MpiError> for LinkError {
    fn from(error: MpiError) -> Self {
        Self(error.to_string())
    }
}
