//! What must hold of each decoder whatever bytes it is given. The tests call these with bytes that they make up, the
//! fuzzer (`fuzz/`) with such as lead to places where nothing has been yet.
//!
//! Each decodes, and that must not panic, nor take more memory than the bytes justify: `fuzzing.rs` counts it. What was
//! decoded is encoded again, and that must be decoded to the same.

use std::fmt::Debug;

use bytes::Bytes;

use super::WireError;
use super::codec;
use super::control::{FROM_GUARD_MAX, FromGuard, Splitter, TO_GUARD_MAX, ToGuard};
use super::flow::{Flow, Inbox, Message, Outbox, Taken};
use super::frame::{self, PREFIX};
use super::marker::{MARK, Marker};
use super::message::{FromWorker, ToWorker};
use super::parent::{self, FromParent, Part, ToParent};
use crate::ids::{TaskId, WorkerId};

/// A message to a worker.
pub(crate) fn to_worker(bytes: &[u8]) {
    comes_back(bytes, &[1, 2, 3, 4, 5, 6, 7], ToWorker::decode, |message| message.encode().into_bytes());
}

/// A message of a worker: hello, answers, goodbye.
pub(crate) fn from_worker(bytes: &[u8]) {
    comes_back(bytes, &[65, 66, 67, 68, 69, 70], FromWorker::decode, |message| message.encode().into_bytes());
}

/// A message to a guard.
pub(crate) fn to_guard(bytes: &[u8]) {
    comes_back(bytes, &[130], ToGuard::decode, ToGuard::encode);
}

/// A message of a guard.
pub(crate) fn from_guard(bytes: &[u8]) {
    comes_back(bytes, &[129, 131], FromGuard::decode, FromGuard::encode);
}

/// A message to an isolated parent.
pub(crate) fn to_parent(bytes: &[u8]) {
    comes_back(bytes, &[161, 163], ToParent::decode, |message| whole(message.clone().encode()));
}

/// A message of an isolated parent.
pub(crate) fn from_parent(bytes: &[u8]) {
    comes_back(bytes, &[162, 163, 165], FromParent::decode, |message| whole(message.clone().encode()));
}

fn whole((head, body): parent::Halves) -> Vec<u8> {
    [&head[..], &body].concat()
}

/// A packet between a host and its isolated parent: messages, or places of messages, and nothing between them.
pub(crate) fn packet(bytes: &[u8]) {
    let messages: Vec<u8> = bytes
        .chunks(9)
        .flat_map(|chunk| {
            let message = match chunk[0] % 3 {
                0 => parent::bulk(u64::from(chunk[0])),
                1 => whole(ToParent::Frame { worker: WorkerId(1), bytes: chunk.to_vec().into() }.encode()),
                _ => whole(ToParent::Leave.encode()),
            };
            message.into_iter()
        })
        .collect();
    assert_eq!(parts(&messages), Ok((messages.len(), bytes.chunks(9).count())), "our own packets are whole");
    for packet in [bytes.to_vec(), [&messages[..], bytes].concat()] {
        if let Ok((taken, _)) = parts(&packet) {
            assert_eq!(taken, packet.len(), "nothing is left out");
        }
    }
}

/// How many bytes the parts of a packet have, and how many parts there are.
fn parts(packet: &[u8]) -> Result<(usize, usize), String> {
    let (mut packet, mut taken, mut count) = (Bytes::copy_from_slice(packet), 0, 0);
    loop {
        let before = packet.len();
        match parent::next_in(&mut packet) {
            Ok(Some(Part::Message(message))) => {
                assert_eq!(message.len(), before - packet.len());
                let _ = (ToParent::decode(message.clone()), FromParent::decode(message));
            }
            Ok(Some(Part::InFile { .. })) => {}
            Ok(None) => return Ok((taken, count)),
            Err(error) => return Err(error.to_string()),
        }
        (taken, count) = (taken + before - packet.len(), count + 1);
    }
}

/// The bytes as they are, and as what a correct prefix says that they are: of their first two bytes, one chooses the kind
/// of message, the other how much of the rest is its head.
fn comes_back<T: Debug + PartialEq, B: Into<Bytes>>(
    bytes: &[u8],
    kinds: &[u8],
    decode: impl Fn(Bytes) -> Result<T, WireError>,
    encode: impl Fn(&T) -> B,
) {
    let framed = bytes.split_first_chunk().map(|([kind, body], content)| {
        let mut frame = frame::begin(kinds[usize::from(*kind) % kinds.len()], content.len());
        let (head, body) = content.split_at(content.len() - usize::from(*body).min(content.len()));
        frame.extend_from_slice(head);
        frame::end_head(&mut frame, body.len());
        frame.extend_from_slice(body);
        Bytes::from(frame)
    });
    for frame in [Some(Bytes::copy_from_slice(bytes)), framed].into_iter().flatten() {
        match decode(frame) {
            Ok(message) => {
                let again = decode(encode(&message).into()).expect("our own messages are whole");
                assert_eq!(again, message);
            }
            // Whoever is told must be told something.
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A value of a user's, of a type with most of what types are made of.
pub(crate) fn value(bytes: &[u8]) {
    type Value = (Vec<f64>, String, Vec<(u8, Option<String>)>, Option<Box<[i64]>>, Result<u32, char>);
    let Ok(value) = codec::decode_value::<Value>(bytes) else { return };
    let encoded = codec::encode_value(&value).expect("it was decoded");
    let again: Value = codec::decode_value(&encoded).expect("it is whole");
    assert_eq!(codec::encode_value(&again).expect("it was decoded"), encoded);
}

/// Either end of the control channel, a stream. The first byte says in what pieces it comes.
pub(crate) fn control_stream(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    // The last is less than what comes, as the others are in real life.
    for length_max in [FROM_GUARD_MAX, TO_GUARD_MAX, 40] {
        let whole = split(bytes, bytes.len().max(1), length_max);
        let in_pieces = split(bytes, usize::from(piece) + 1, length_max);
        assert_eq!(in_pieces, whole, "the same, however it comes");
        for frame in whole.0 {
            let _ = FromGuard::decode(frame.clone());
            let _ = ToGuard::decode(frame);
        }
    }
}

/// The frames of a stream, and whether it makes sense to the end.
fn split(bytes: &[u8], piece: usize, length_max: usize) -> (Vec<Bytes>, bool) {
    let (mut splitter, mut frames) = (Splitter::new(length_max), Vec::new());
    for piece in bytes.chunks(piece) {
        splitter.feed(piece);
        loop {
            let is_there = splitter.has_frame();
            match splitter.next_frame() {
                Ok(Some(frame)) => {
                    assert!(is_there && frame.len() <= length_max);
                    frames.push(frame);
                }
                Ok(None) => {
                    assert!(!is_there, "a frame that is there is not handed out");
                    break;
                }
                Err(_) => {
                    assert!(is_there);
                    return (frames, false);
                }
            }
        }
    }
    (frames, true)
}

/// As a transport receives.
fn receive(inbox: &mut Inbox, message: &[u8]) -> Result<Taken, WireError> {
    let mut memory = inbox.memory();
    memory.extend_from_slice(message);
    inbox.take(memory, message.len())
}

/// Portions and credits of the data channel. Of each two bytes the first says what comes, and how much of it: a
/// credit, or a message of so many of the bytes that follow.
pub(crate) fn portions(bytes: &[u8]) {
    const FLOW: Flow = Flow { message_max: 1 << 10, window: 4 << 10 };
    for flow in [None, Some(FLOW)] {
        let (mut inbox, mut outbox) = (Inbox::new(flow), Outbox::new(flow));
        (0..8).for_each(|_| outbox.push(ToWorker::Retire.encode()));
        let (mut rest, mut came, mut taken) = (bytes, 0, 0);
        while let Some((&what, following)) = rest.split_first() {
            rest = following;
            if what == 0 {
                if outbox.credit().is_err() {
                    return;
                }
            } else {
                let length = usize::from(what - 1) * 4;
                let (message, following) = rest.split_at(length.min(rest.len()));
                rest = following;
                came += message.len();
                let Ok(arrived) = receive(&mut inbox, message) else { return };
                if let Some(frame) = arrived.frame {
                    taken += frame.len();
                    from_worker(&frame);
                }
                arrived.credit.then(|| outbox.owe_credit());
            }
            while let Some(message) = outbox.next() {
                match message {
                    Message::Part(part) => assert!(flow.is_none_or(|flow| part.len() <= flow.message_max)),
                    Message::Credit => assert!(flow.is_some(), "whole frames are not confirmed"),
                }
            }
        }
        assert!(taken <= came, "no more is handed on than has come");
    }
}

/// Frames, cut into portions of any size and put together again.
pub(crate) fn frames_in_portions(bytes: &[u8]) {
    let Some((&[first, second], content)) = bytes.split_first_chunk() else { return };
    let message_max = PREFIX + usize::from(first);
    let flow = Flow { message_max, window: 2 * (message_max + 256 + usize::from(second)) };
    assert!(flow.is_sound());
    let mut outbox = Outbox::new(Some(flow));
    let frames: Vec<_> = content.chunks(usize::from(second) * 8 + 1).map(a_frame).collect();
    frames.iter().for_each(|frame| outbox.push(frame.clone()));
    let (mut inbox, mut arrived) = (Inbox::new(Some(flow)), Vec::new());
    while let Some(message) = outbox.next() {
        let Message::Part(part) = message else { panic!("it owes nothing") };
        let taken = receive(&mut inbox, &part).expect("it is as it was sent");
        arrived.extend(taken.frame);
        if taken.credit {
            outbox.credit().expect("it is due");
        }
    }
    assert!(outbox.is_settled() && arrived == frames);
}

fn a_frame(body: &[u8]) -> Vec<u8> {
    let mut frame = frame::begin(7, 0);
    frame::end_head(&mut frame, body.len());
    frame.extend_from_slice(body);
    assert_eq!(frame.len(), PREFIX + body.len());
    frame
}

/// Marks in what a worker writes, which may hold anything, parts of marks and marks of others among it.
pub(crate) fn marks(bytes: &[u8]) {
    let marker = Marker::new([0, 0x0101]);
    let own = marker.mark(TaskId(7));
    // The fuzzer need not guess a mark.
    let stream: Vec<u8> =
        bytes.split(|byte| *byte == 0xff).flat_map(|part| [part, &own[..]].concat()).collect();
    let all = find_all(&marker, &stream, stream.len().max(1));
    for piece in [1, MARK - 1, 31] {
        assert_eq!(find_all(&marker, &stream, piece), all, "the same, however it comes");
    }
}

/// The text between marks, and the marks; what may be the begin of one is held back until more comes.
fn find_all(marker: &Marker, stream: &[u8], piece: usize) -> (Vec<u8>, Vec<TaskId>) {
    let (mut text, mut tasks, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        held.extend_from_slice(piece);
        while let Some((at, task)) = marker.find(&held) {
            text.extend_from_slice(&held[..at]);
            tasks.push(task);
            held.drain(..at + MARK);
        }
        let begun = marker.begun(&held);
        assert!(begun < MARK && begun <= held.len());
        text.extend(held.drain(..held.len() - begun));
    }
    text.extend(held);
    (text, tasks)
}
