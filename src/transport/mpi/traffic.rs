//! What both ends do with messages: parts of frames one way, credits the other (`wire/flow.rs`).

use std::time::Duration;

use super::ffi::{Arrived, Comm, MpiError, Operations};
use crate::wire::flow::{Message, Outbox};
use bytes::Bytes;

/// The tag of a frame, or of a part of one. The intercommunicators are ours alone, so it need not differ from
/// anything of others.
const FRAME_TAG: i32 = 1;
/// The tag of a credit, an empty message.
const CREDIT_TAG: i32 = 2;

/// For so long after they have met, both sides look closely for the other's first word. An MPI makes its connection when that is
/// sent, calls it sent, and needs both sides several times before it arrives, about which no bell is rung (Open MPI 4.1.4
/// over TCP: starts took 0.1 or 0.2 s longer now and then, the length of one or two deep sleeps).
pub(super) const CONNECTING: Duration = Duration::from_secs(2);

/// Whether what has arrived is a credit.
pub(super) fn is_credit(message: &Arrived) -> bool {
    message.tag == CREDIT_TAG
}

/// What became of what waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Whether anything was sent.
    pub(super) any: bool,
    /// Whether MPI could not take the rest: it still waits, and its turn comes again.
    pub(super) refused: bool,
}

/// Sends what may be sent now of what waits.
///
/// With `look_first` MPI takes in first what has happened since it was last called: a connection that it knows to be
/// broken is no error, a message that is on its way when it breaks may be one that ends this process.
pub(super) fn send_waiting<L: Copy + PartialEq>(
    outbox: &mut Outbox,
    operations: &mut Operations<L>,
    comm: &Comm,
    label: L,
    look_first: bool,
) -> Result<Sent, MpiError> {
    let (mut any, mut look) = (false, look_first);
    while let Some(message) = outbox.next() {
        if std::mem::take(&mut look) {
            // What it finds stays where it is.
            comm.probe()?;
        }
        let refused = match message {
            Message::Part(part) => operations.send(comm, FRAME_TAG, part, label)?.map(Message::Part),
            Message::Credit => {
                operations.send(comm, CREDIT_TAG, Bytes::new(), label)?.map(|_empty| Message::Credit)
            }
        };
        if let Some(message) = refused {
            outbox.put_back(message);
            return Ok(Sent { any, refused: true });
        }
        any = true;
    }
    Ok(Sent { any, refused: false })
}
