//! How frames become messages: whole, or in portions of which only so many bytes are under way at once.
//!
//! An MPI library that aborts its process when a peer dies does so because an operation was pending: a message was
//! sent or received in part. One that fits into what the system has buffered between two processes is sent
//! at once and comes whole, or not at all. So where it matters ([`Flow`]) a frame is cut into small messages, and
//! the receiver confirms every so many bytes with a credit, an empty message; a sender that has a window's worth
//! of bytes unconfirmed waits. What waits lies here, in its own process, and no operation of MPI is pending for it.
//!
//! A message after which its frame is not whole yet, by the lengths at the frame's beginning, is continued
//! by the next. [`Outbox`] is the sender's end, [`Inbox`] the receiver's; neither does any I/O.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;

use super::WireError;
use super::frame::{self, Parcel};

/// Bytes of a message and of what is under way. Both ends have the same, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The most bytes of one message.
    pub(crate) message_max: usize,
    /// The most bytes that are sent and not confirmed, each message counted with [`OVERHEAD`].
    pub(crate) window: usize,
}

/// The most bytes of a message where there is no flow: below what fits the `int` of every MPI.
const MESSAGE_MAX: usize = 1 << 29;
/// What a message takes up in the system's buffers, beside its bytes.
const OVERHEAD: usize = 256;

impl Flow {
    /// Whether a sender that waits will always be given a credit, and a receiver sees in a frame's first message how
    /// long that is.
    pub(crate) const fn is_sound(self) -> bool {
        let portion = self.portion();
        self.message_max >= frame::PREFIX && portion >= OVERHEAD && self.message_max <= portion - OVERHEAD
    }

    /// A receiver confirms when it has as many bytes to confirm.
    const fn portion(self) -> usize {
        self.window / 2
    }
}

/// The bytes that one side counts towards the next credit: the same on both, because messages keep their order.
#[derive(Debug, Default)]
struct Count(usize);

impl Count {
    /// Counts a message. The bytes that a credit is due for, if one is.
    fn add(&mut self, flow: Flow, message: usize) -> Option<usize> {
        self.0 += message + OVERHEAD;
        (self.0 >= flow.portion()).then(|| std::mem::take(&mut self.0))
    }
}

/// Frames that are to be sent to one receiver.
#[derive(Debug)]
pub(crate) struct Outbox {
    flow: Option<Flow>,
    waiting: VecDeque<Parcel>,
    /// Bytes that were sent and not confirmed.
    unconfirmed: usize,
    count: Count,
    /// What the credits that are still to come will confirm.
    credits: VecDeque<usize>,
    /// Credits that this side owes.
    owed: usize,
    /// What could not be sent when it was its turn.
    refused: Option<Message>,
}

/// What is sent at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A frame, or a part of one.
    Part(Bytes),
    /// Bytes are confirmed.
    Credit,
}

impl Outbox {
    pub(crate) fn new(flow: Option<Flow>) -> Self {
        Self {
            flow,
            waiting: VecDeque::new(),
            unconfirmed: 0,
            count: Count::default(),
            credits: VecDeque::new(),
            owed: 0,
            refused: None,
        }
    }

    pub(crate) fn push(&mut self, frame: impl Into<Parcel>) {
        self.waiting.push_back(frame.into());
    }

    /// The other side is to be given a credit.
    pub(crate) fn owe_credit(&mut self) {
        self.owed += 1;
    }

    /// The next message that may be sent now.
    pub(crate) fn next(&mut self) -> Option<Message> {
        if let Some(refused) = self.refused.take() {
            return Some(refused);
        }
        if self.owed > 0 {
            self.owed -= 1;
            return Some(Message::Credit);
        }
        self.next_part().map(Message::Part)
    }

    /// Takes a message back that could not be sent: it is the next again.
    pub(crate) fn put_back(&mut self, message: Message) {
        assert!(self.refused.is_none(), "no two messages are the next");
        self.refused = Some(message);
    }

    fn next_part(&mut self) -> Option<Bytes> {
        let message_max = self.flow.map_or(MESSAGE_MAX, |flow| flow.message_max);
        let frame = self.waiting.front_mut()?;
        let length = frame.next_length(message_max)?;
        if self.flow.is_some_and(|flow| self.unconfirmed + length + OVERHEAD > flow.window) {
            return None;
        }
        let (mut part, is_shared) = frame.take(message_max)?;
        if frame.is_empty() {
            self.waiting.pop_front();
        }
        if let Some(flow) = self.flow {
            if is_shared {
                // A copy, so that no more than a window is left to an MPI that is never done with it.
                part = Bytes::copy_from_slice(&part);
            }
            self.unconfirmed += length + OVERHEAD;
            self.credits.extend(self.count.add(flow, length));
        }
        Some(part)
    }

    /// Takes in a credit.
    ///
    /// # Errors
    /// If none was due: the other side does not keep to the protocol.
    pub(crate) fn credit(&mut self) -> Result<(), WireError> {
        let confirmed = self.credits.pop_front().ok_or(WireError::Credit)?;
        self.unconfirmed -= confirmed;
        Ok(())
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.owed == 0 && self.refused.is_none()
    }

    /// Whether everything was sent, and every credit for it has come.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_empty() && self.credits.is_empty()
    }
}

/// Frames that are being received from one sender.
#[derive(Debug)]
pub(crate) struct Inbox {
    flow: Option<Flow>,
    /// A frame that is not whole yet, and its length.
    begun: Option<(Vec<u8>, usize)>,
    count: Count,
}

/// What a message came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// A frame, if one is whole now.
    pub(crate) frame: Option<Vec<u8>>,
    /// Whether a credit is to be sent.
    pub(crate) credit: bool,
}

impl Inbox {
    pub(crate) fn new(flow: Option<Flow>) -> Self {
        Self { flow, begun: None, count: Count::default() }
    }

    /// What the next message is to be received into, behind what is there already: where it belongs. Where there is a
    /// flow it is a memory of its own, so that no more than a message is left to an MPI that is never done with it.
    pub(crate) fn memory(&mut self) -> Vec<u8> {
        match &mut self.begun {
            Some((frame, _)) if self.flow.is_none() => std::mem::take(frame),
            Some(_) | None => Vec::new(),
        }
    }

    /// Takes in the next message: the last `came` bytes of this memory.
    ///
    /// # Errors
    /// If it makes no sense as the continuation of a frame. What it begins is checked when it is whole.
    pub(crate) fn take(&mut self, memory: Vec<u8>, came: usize) -> Result<Taken, WireError> {
        let credit = self.flow.is_some_and(|flow| self.count.add(flow, came).is_some());
        if came == 0 {
            return Err(WireError::Short { length: 0 });
        }
        let frame = match self.begun.take() {
            None => match frame::length(&memory).filter(|&length| length > memory.len()) {
                Some(length) => self.go_on(memory, length)?,
                None => Some(memory),
            },
            // It was received behind what had come before.
            Some((begun, length)) if begun.is_empty() => self.go_on(memory, length)?,
            Some((mut begun, length)) => {
                let came = begun.len() + memory.len();
                // No more room than twice what has come: the length is only a claim as yet.
                if begun.capacity() < came && came <= length {
                    begun.reserve_exact((2 * came).min(length) - begun.len());
                }
                begun.extend_from_slice(&memory);
                self.go_on(begun, length)?
            }
        };
        Ok(Taken { frame, credit })
    }

    /// Hands out a frame that is whole now, or keeps it until it is.
    fn go_on(&mut self, frame: Vec<u8>, length: usize) -> Result<Option<Vec<u8>>, WireError> {
        let came = frame.len();
        match came.cmp(&length) {
            Ordering::Less => {
                self.begun = Some((frame, length));
                Ok(None)
            }
            Ordering::Equal => Ok(Some(frame)),
            Ordering::Greater => Err(WireError::Portion { came, length }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::payload::Part;

    const FLOW: Flow = Flow { message_max: 1000, window: 4000 };

    fn a_frame(body: usize) -> Vec<u8> {
        let mut frame = frame::begin(7, 0);
        frame::end_head(&mut frame, body);
        frame.extend((0..body).map(|at| at as u8));
        frame
    }

    /// As a transport receives.
    fn receive(inbox: &mut Inbox, message: &[u8]) -> Result<Taken, WireError> {
        let mut memory = inbox.memory();
        memory.extend_from_slice(message);
        inbox.take(memory, message.len())
    }

    /// Has everything delivered, credits too, and checks that no more than a window is ever under way.
    fn deliver<F: Clone + Into<Parcel>>(flow: Option<Flow>, frames: &[F]) -> Vec<Vec<u8>> {
        let (mut outbox, mut inbox) = (Outbox::new(flow), Inbox::new(flow));
        frames.iter().for_each(|frame| outbox.push(frame.clone()));
        let mut came = Vec::new();
        while !outbox.is_empty() {
            // Each is refused once.
            let under_way: Vec<_> = std::iter::from_fn(|| {
                let message = outbox.next()?;
                outbox.put_back(message);
                outbox.next()
            })
            .map(|message| match message {
                Message::Part(part) => part,
                Message::Credit => panic!("it receives nothing"),
            })
            .collect();
            assert!(!under_way.is_empty(), "it waits for a credit that does not come");
            if let Some(flow) = flow {
                assert!(under_way.iter().all(|message| message.len() <= flow.message_max));
                assert!(under_way.iter().map(Bytes::len).sum::<usize>() <= flow.window);
            }
            for message in under_way {
                let taken = receive(&mut inbox, &message).expect("it makes sense");
                came.extend(taken.frame);
                if taken.credit {
                    outbox.credit().expect("it is due");
                }
            }
        }
        assert!(outbox.is_settled(), "no credit is missing");
        came
    }

    #[test]
    fn frames_of_all_lengths_arrive_in_order() {
        let lengths = [0, 1, 500, 983, 984, 985, 1984, 1985, 3000, 100_000, 0, 7];
        let mut frames: Vec<_> = lengths.into_iter().map(a_frame).collect();
        frames.extend((0..500).map(|_| a_frame(3)));
        assert_eq!(deliver(Some(FLOW), &frames), frames);
        assert_eq!(deliver(None, &frames), frames);
    }

    #[test]
    fn large_payloads_travel_without_a_copy_and_arrive_in_their_places() {
        let payload = |length: usize, seed: usize| Bytes::from_iter((0..length).map(|at| (at * seed) as u8));
        let payloads = [
            payload(10, 3),
            payload(300_000, 5),
            payload(400_000, 7),
            payload(0, 1),
            payload(20, 9),
            payload(1 << 20, 11),
        ];
        let mut beginning = frame::begin(7, 0);
        frame::end_head(&mut beginning, payloads.iter().map(Bytes::len).sum());
        let parcel = Parcel::new(beginning.clone(), payloads.iter().map(Part::Bytes));
        let whole = parcel.clone().into_bytes();
        assert_eq!(whole, [&[Bytes::from(beginning)], &payloads[..]].concat().concat());

        let mut outbox = Outbox::new(None);
        outbox.push(parcel.clone());
        let parts: Vec<_> = std::iter::from_fn(|| outbox.next()).collect();
        assert_eq!(parts.len(), 5, "what is small goes together");
        for at in [1, 2, 5] {
            let is_it = |message: &Message| matches!(message, Message::Part(part) if part.as_ptr() == payloads[at].as_ptr());
            assert!(parts.iter().any(is_it), "payload {at} was copied");
        }
        for flow in [None, Some(FLOW)] {
            assert_eq!(deliver(flow, &[parcel.clone(), a_frame(5).into()]), [whole.to_vec(), a_frame(5)]);
        }
    }

    #[test]
    fn a_sender_without_credit_waits() {
        let mut outbox = Outbox::new(Some(FLOW));
        outbox.push(a_frame(100_000));
        assert_eq!(std::iter::from_fn(|| outbox.next()).count(), 3);
        assert!(outbox.next().is_none() && !outbox.is_empty());
    }

    #[test]
    fn credits_do_not_wait_behind_parts() {
        let mut outbox = Outbox::new(Some(FLOW));
        outbox.push(a_frame(100_000));
        outbox.owe_credit();
        assert!(!outbox.is_empty());
        assert_eq!(outbox.next(), Some(Message::Credit));
        assert!(matches!(outbox.next(), Some(Message::Part(_))));
    }

    #[test]
    fn a_credit_that_is_not_due_is_refused() {
        let mut outbox = Outbox::new(Some(FLOW));
        outbox.push(a_frame(10));
        assert!(outbox.next().is_some());
        assert!(matches!(outbox.credit(), Err(WireError::Credit)));
        assert!(matches!(Outbox::new(None).credit(), Err(WireError::Credit)));
    }

    #[test]
    fn lies_about_lengths_are_refused() {
        let mut inbox = Inbox::new(Some(FLOW));
        let frame = a_frame(1500);
        assert_eq!(receive(&mut inbox, &frame[..1000]).expect("a beginning").frame, None);
        assert!(matches!(
            receive(&mut inbox, &[0; 1000]),
            Err(WireError::Portion { came: 2000, length: 1516 })
        ));
        assert!(matches!(receive(&mut Inbox::new(Some(FLOW)), &[]), Err(WireError::Short { .. })));
        // More than a frame may have, or what is no frame at all, is not waited for: whoever opens it complains.
        for nonsense in
            [a_frame_that_claims(u64::MAX), a_frame_that_claims(1 << 46), vec![0; 500], vec![0; 3]]
        {
            let taken = receive(&mut Inbox::new(Some(FLOW)), &nonsense).expect("it is passed on");
            assert_eq!(taken.frame, Some(nonsense));
        }
    }

    fn a_frame_that_claims(body: u64) -> Vec<u8> {
        let mut frame = a_frame(10);
        frame[8..16].copy_from_slice(&body.to_le_bytes());
        frame
    }
}
