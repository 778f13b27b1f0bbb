//! The worker's end: one host, rank 0 of the other side.

use std::collections::VecDeque;
use std::hint;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ffi::{Comm, Completed, MpiError, Operations, Received};
use super::traffic::{self, CONNECTING};
use crate::process;
use crate::transport::bells::Pair;
use crate::transport::{Attention, Link, LinkError, Patience};
use crate::wire;
use crate::wire::flow::{Flow, Inbox, Outbox};
use crate::wire::frame::Parcel;

/// A worker that has had nothing to do for so long gives back the memory that it has kept for more.
const TIDY_AFTER: Duration = Duration::from_secs(5);

/// Who has taken a nap as long as this has been idle, and so has the host as a rule.
const DEEP: Duration = Duration::from_millis(10);
/// For so long it looks for what it was rung for, and yields to nobody: whoever yields on a busy machine waits for all others.
const LOOK_OUT: Duration = Duration::from_micros(250);

/// The connection of a worker to its host.
pub(crate) struct MpiLink {
    host: Comm,
    operations: Operations<Direction>,
    outbox: Outbox,
    inbox: Inbox,
    /// Frames that came in whole and that nobody has taken yet.
    arrived: VecDeque<Bytes>,
    /// Whether a message is being received. One at a time keeps them in order: a small one may end before a
    /// large one that was found earlier.
    receiving: bool,
    /// When it was made, if nothing has come yet.
    mute_since: Option<Instant>,
    /// What wakes the host, and this worker, where both are on one machine.
    bells: Option<Rc<Pair>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Out,
    In,
    CreditIn,
}

impl MpiLink {
    pub(crate) fn new(host: Comm, flow: Option<Flow>, bells: Option<Pair>) -> Self {
        let (outbox, inbox) = (Outbox::new(flow), Inbox::new(flow));
        let (operations, arrived) = (Operations::new(), VecDeque::new());
        let (mute_since, bells) = (Some(Instant::now()), bells.map(Rc::new));
        Self { host, operations, outbox, inbox, arrived, receiving: false, mute_since, bells }
    }

    /// Leaves the host, which does the same, and ends MPI. What was sent has been flushed.
    pub(crate) fn leave(self) -> Result<(), LinkError> {
        self.host.disconnect()?;
        super::runtime::finalize_worker().map_err(LinkError)
    }

    /// Takes in what has come, and progresses what is under way. Whether bytes have moved.
    fn progress(&mut self) -> Result<bool, LinkError> {
        if !self.receiving
            && let Some(message) = self.host.probe()?
        {
            let is_credit = traffic::is_credit(&message);
            let label = if is_credit { Direction::CreditIn } else { Direction::In };
            let memory = if is_credit { Vec::new() } else { self.inbox.memory() };
            self.operations.receive(&self.host, &message, memory, label)?;
            self.receiving = true;
        }
        let (mut message, mut credit, mut failed) = (None, false, None);
        self.operations.test_some(|Completed { label, result }| match (label, result) {
            (Direction::In, Ok(received)) => message = Some(received),
            (Direction::CreditIn, Ok(_empty)) => credit = true,
            (Direction::Out, Ok(_sent)) => {}
            (Direction::In | Direction::CreditIn | Direction::Out, Err(error)) => failed = Some(error),
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let has_moved = message.is_some() || credit;
        self.receiving &= !has_moved;
        self.mute_since.take_if(|_| has_moved);
        if credit {
            self.outbox.credit()?;
        }
        if let Some(Received { memory, came }) = message {
            let taken = self.inbox.take(memory, came)?;
            self.arrived.extend(taken.frame.map(Bytes::from));
            if taken.credit {
                self.outbox.owe_credit();
            }
        }
        self.send_waiting()?;
        Ok(has_moved)
    }

    fn send_waiting(&mut self) -> Result<(), MpiError> {
        // What is refused is tried again with the next progress.
        let (operations, label) = (&mut self.operations, Direction::Out);
        let sent = traffic::send_waiting(&mut self.outbox, operations, &self.host, label, false)?;
        if let Some(bells) = self.bells.as_ref().filter(|_| sent.any) {
            bells.host.ring();
        }
        Ok(())
    }

    /// Makes progress until something holds.
    fn wait_until(&mut self, holds: impl Fn(&Self) -> bool) -> Result<(), LinkError> {
        let (begun, mut patience, mut is_tidy) = (Instant::now(), Patience::new(), false);
        while !holds(self) {
            if self.progress()? {
                patience.reset();
            } else if let Some(nap) = patience.pause(self.attention()) {
                if begun.elapsed() > TIDY_AFTER && !std::mem::replace(&mut is_tidy, true) {
                    wire::tidy();
                    process::give_back_freed_memory();
                }
                self.nap(nap)?;
            }
        }
        Ok(())
    }

    /// How what comes is noticed.
    fn attention(&self) -> Attention {
        match &self.bells {
            // What is under way needs this side's attention.
            _ if !self.operations.is_empty() => Attention::to(self.operations.bytes()),
            _ if self.mute_since.is_some_and(|since| since.elapsed() < CONNECTING) => Attention::to(0),
            Some(_) => Attention::Rung,
            None => Attention::Remote,
        }
    }

    /// Sleeps for so long at most.
    fn nap(&mut self, nap: Duration) -> Result<(), LinkError> {
        let Some(bells) = self.bells.clone() else {
            thread::sleep(nap);
            return Ok(());
        };
        let mut moved = Ok(false);
        let is_rung = bells.own.sleep(Some(Instant::now() + nap), || {
            moved = self.progress();
            !matches!(moved, Ok(false))
        });
        moved?;
        if is_rung && nap > DEEP {
            self.look_out()?;
        }
        Ok(())
    }

    /// Somebody has woken this worker together with the host's thread, which has to find out first what there is to do.
    fn look_out(&mut self) -> Result<(), LinkError> {
        let until = Instant::now() + LOOK_OUT;
        while !self.progress()? && Instant::now() < until {
            hint::spin_loop();
        }
        Ok(())
    }
}

impl Link for MpiLink {
    fn send(&mut self, frame: Parcel) -> Result<(), LinkError> {
        self.outbox.push(frame);
        Ok(self.send_waiting()?)
    }

    fn try_receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        while self.arrived.is_empty() && self.progress()? {}
        Ok(self.arrived.pop_front())
    }

    fn receive(&mut self) -> Result<Bytes, LinkError> {
        self.wait_until(|link| !link.arrived.is_empty())?;
        Ok(self.arrived.pop_front().expect("it was waited for"))
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        self.wait_until(|link| link.outbox.is_settled() && link.operations.is_empty())
    }
}

impl From<MpiError> for LinkError {
    fn from(error: MpiError) -> Self {
        Self(error.to_string())
    }
}
