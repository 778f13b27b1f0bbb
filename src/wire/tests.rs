//! What the other side may send: the right thing, a part of it, too much, or nonsense. No decoder panics.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::array::Remote;
use super::codec::{self, CODEC_ID, CodecError};
use super::control::{
    BellPlace, Dropped, Ended, FROM_GUARD_MAX, FromGuard, How, LINE_MAX, Output, Secret, Splitter, Start,
    StreamName, Ticket, ToGuard, Watch,
};
use super::frame::{FRAME_MAX, PREFIX, PROTOCOL_VERSION, WireError};
use super::message::{
    AnswerMessage, Failure, FromWorker, Hello, KnownTask, Outcome, TaskMessage, ToWorker, Welcome, WireKind,
};
use super::payload::{Payload, Piece};
use crate::ids::{TaskId, WorkerId};
use crate::process;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

/// Bytes, or bytes and what is lent between them.
fn payload() -> impl Strategy<Value = Payload> {
    let pieces =
        (bytes(), any::<Remote>()).prop_map(|(bytes, remote)| [Piece::Bytes(bytes), Piece::Remote(remote)]);
    prop_oneof![
        3 => bytes().prop_map(Payload::from),
        1 => vec(pieces, 1..4).prop_map(|pieces| Payload::of(pieces.concat())),
    ]
}

fn task_message() -> impl Strategy<Value = TaskMessage> {
    (any::<u64>(), any::<u32>(), any::<u32>(), payload()).prop_map(|(task, kind, attempt, arguments)| {
        TaskMessage { task: TaskId(task), kind: WireKind(kind), attempt, arguments }
    })
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        vec(any::<String>(), 0..4).prop_map(|causes| Failure::Returned { causes }),
        (any::<String>(), any::<Option<String>>())
            .prop_map(|(message, location)| Failure::Panicked { message, location }),
        any::<String>().prop_map(|reason| Failure::Arguments { reason }),
        any::<String>().prop_map(|reason| Failure::Result { reason }),
        Just(Failure::Unknown),
    ]
}

fn answer() -> impl Strategy<Value = AnswerMessage> {
    let outcome = prop_oneof![
        payload().prop_map(Outcome::Done),
        failure().prop_map(Outcome::Failed),
        Just(Outcome::Skipped),
    ];
    (any::<u64>(), any::<u64>(), outcome).prop_map(|(task, nanos, outcome)| AnswerMessage {
        task: TaskId(task),
        ran: Duration::from_nanos(nanos),
        outcome,
    })
}

pub(crate) fn to_worker() -> impl Strategy<Value = ToWorker> {
    prop_oneof![
        (any::<u32>(), any::<bool>(), proptest::option::of((any::<u32>(), bytes()))).prop_map(
            |(worker, lend, initializer)| {
                let initializer = initializer.map(|(kind, arguments)| (WireKind(kind), arguments));
                let probe = process::probe().filter(|_| lend);
                ToWorker::Welcome(Welcome { worker: WorkerId(worker), probe, lend, initializer })
            }
        ),
        vec(task_message(), 0..20).prop_map(ToWorker::Tasks),
        vec(any::<u64>().prop_map(TaskId), 0..20).prop_map(ToWorker::Recant),
        Just(ToWorker::Resume),
        Just(ToWorker::Fetched),
        Just(ToWorker::Retire),
    ]
}

pub(crate) fn from_worker() -> impl Strategy<Value = FromWorker> {
    let known =
        (any::<String>(), any::<String>()).prop_map(|(name, signature)| KnownTask { name, signature });
    let hello = (any::<String>(), any::<u32>(), vec(known, 0..10)).prop_map(|(host, pid, known)| {
        FromWorker::Hello(Hello { codec: CODEC_ID.to_owned(), host, pid, probe: process::probe(), known })
    });
    prop_oneof![
        hello,
        any::<bool>().prop_map(|lend| FromWorker::Ready { lend }),
        failure().prop_map(FromWorker::Unfit),
        vec(answer(), 0..20).prop_map(FromWorker::Answers),
        Just(FromWorker::Bye),
    ]
}

proptest! {
    #[test]
    fn what_a_host_says_comes_back_the_same(message in to_worker()) {
        prop_assert_eq!(ToWorker::decode(message.encode().into_bytes()).expect("it is whole"), message);
    }

    #[test]
    fn what_a_worker_says_comes_back_the_same(message in from_worker()) {
        prop_assert_eq!(FromWorker::decode(message.encode().into_bytes()).expect("it is whole"), message);
    }

    #[test]
    fn every_truncation_is_refused(message in from_worker(), reply in to_worker()) {
        let frame = message.encode().into_bytes();
        for length in 0..frame.len() {
            prop_assert!(FromWorker::decode(frame.slice(..length)).is_err(), "{} of {} bytes", length, frame.len());
        }
        let frame = reply.encode().into_bytes();
        for length in 0..frame.len() {
            prop_assert!(ToWorker::decode(frame.slice(..length)).is_err(), "{} of {} bytes", length, frame.len());
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused(message in from_worker(), tail in vec(any::<u8>(), 1..9)) {
        let frame = [message.encode().into_bytes().to_vec(), tail].concat();
        prop_assert!(FromWorker::decode(frame.into()).is_err());
    }

    #[test]
    fn no_garbage_panics(garbage in vec(any::<u8>(), 0..400)) {
        let _ = FromWorker::decode(garbage.clone().into());
        let _ = ToWorker::decode(garbage.clone().into());
        // Garbage behind a correct prefix reaches the decoders of heads.
        for kind in 0..=u8::MAX {
            let frame = framed(kind, &garbage, garbage.len() / 2);
            let _ = FromWorker::decode(frame.clone());
            let _ = ToWorker::decode(frame);
        }
    }

    #[test]
    fn one_wrong_byte_never_panics(message in from_worker(), at in any::<prop::sample::Index>(), wrong in any::<u8>()) {
        let mut frame = message.encode().into_bytes().to_vec();
        let at = at.index(frame.len());
        frame[at] = wrong;
        let _ = FromWorker::decode(frame.into());
    }

    #[test]
    fn values_come_back_the_same(numbers in vec(any::<f64>(), 0..100), text in any::<String>(), pair in any::<(u64, Option<i32>)>()) {
        let value = (numbers, text, pair);
        let encoded = codec::encode_value(&value).expect("it encodes");
        let decoded: (Vec<f64>, String, (u64, Option<i32>)) = codec::decode_value(&encoded).expect("it is whole");
        prop_assert_eq!(decoded.0.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), value.0.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        prop_assert_eq!((decoded.1, decoded.2), (value.1, value.2));
    }
}

/// A frame with a correct prefix around any head and body.
fn framed(kind: u8, content: &[u8], head: usize) -> Bytes {
    let mut frame = ToWorker::Retire.encode().into_bytes().to_vec();
    frame.truncate(PREFIX);
    frame[3] = kind;
    frame[4..8].copy_from_slice(&u32::try_from(head).expect("it is short").to_le_bytes());
    frame[8..16].copy_from_slice(&((content.len() - head) as u64).to_le_bytes());
    frame.extend_from_slice(content);
    frame.into()
}

#[test]
fn another_version_is_named() {
    let mut frame = FromWorker::Ready { lend: true }.encode().into_bytes().to_vec();
    frame[2] = PROTOCOL_VERSION + 1;
    let error = FromWorker::decode(frame.into()).expect_err("it is another version");
    assert!(matches!(error, WireError::Version { theirs } if theirs == PROTOCOL_VERSION + 1));
    assert!(error.to_string().contains("build both with the same offshoot"), "{error}");
}

#[test]
fn another_codec_is_named() {
    let hello =
        Hello { codec: "postcard-1".to_owned(), host: "h1".to_owned(), pid: 1, probe: None, known: vec![] };
    let error =
        FromWorker::decode(FromWorker::Hello(hello).encode().into_bytes()).expect_err("it is another codec");
    assert!(error.to_string().contains("postcard-1"), "{error}");
}

#[test]
fn what_is_not_ours_is_recognized() {
    let error =
        FromWorker::decode(Bytes::from_static(b"HTTP/1.1 400 Bad Request")).expect_err("it is not ours");
    assert!(matches!(error, WireError::Magic));
}

#[test]
fn claims_beyond_the_message_are_refused_before_anything_is_allocated() {
    // A body of 2^40 bytes in a frame of 16.
    let mut frame = FromWorker::Ready { lend: true }.encode().into_bytes().to_vec();
    frame[8..16].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(matches!(FromWorker::decode(frame.into()), Err(WireError::Length { .. })));
    // An answer whose result claims more than its body has.
    let answer = AnswerMessage {
        task: TaskId(1),
        ran: Duration::ZERO,
        outcome: Outcome::Done(Bytes::from_static(b"four").into()),
    };
    let mut frame = FromWorker::Answers(vec![answer]).encode().into_bytes().to_vec();
    frame.truncate(frame.len() - 4);
    frame[8..16].copy_from_slice(&0_u64.to_le_bytes());
    let error = FromWorker::decode(frame.into()).expect_err("the body is gone");
    assert!(matches!(error, WireError::Body { claimed: 4, body: 0 }), "{error}");
}

#[test]
fn a_frame_that_claims_more_than_any_machine_has_is_refused() {
    for claim in [FRAME_MAX as u64 + 1, u64::MAX] {
        let mut frame = FromWorker::Ready { lend: true }.encode().into_bytes().to_vec();
        frame[8..PREFIX].copy_from_slice(&claim.to_le_bytes());
        assert!(matches!(FromWorker::decode(frame.into()), Err(WireError::Length { .. })));
    }
}

#[test]
fn a_short_value_that_claims_a_huge_string_is_refused() {
    let mut bytes = u64::MAX.to_le_bytes().to_vec();
    bytes.extend_from_slice(b"ab");
    assert!(matches!(codec::decode_value::<String>(&bytes), Err(CodecError::Decode(_))));
    assert!(matches!(codec::decode_value::<Vec<u64>>(&bytes), Err(CodecError::Decode(_))));
}

#[test]
fn bytes_left_over_after_a_value_are_refused() {
    let mut bytes = codec::encode_value(&7_u32).expect("it encodes");
    bytes.push(0);
    assert!(matches!(codec::decode_value::<u32>(&bytes), Err(CodecError::Trailing { left: 1, total: 5 })));
}

#[test]
fn a_message_of_the_wrong_side_is_refused() {
    assert!(matches!(ToWorker::decode(FromWorker::Bye.encode().into_bytes()), Err(WireError::Kind { .. })));
    assert!(matches!(
        FromWorker::decode(ToWorker::Retire.encode().into_bytes()),
        Err(WireError::Kind { .. })
    ));
}

fn ended() -> impl Strategy<Value = Ended> {
    let how = prop_oneof![
        any::<String>().prop_map(|reason| How::NotStarted { reason }),
        any::<i32>().prop_map(|code| How::Exited { code }),
        (any::<i32>(), any::<bool>()).prop_map(|(signal, core)| How::Signalled { signal, core }),
    ];
    (how, any::<bool>(), any::<u64>(), vec(any::<String>(), 0..8))
        .prop_map(|(how, stand_in, peak_kib, stderr)| Ended { how, stand_in, peak_kib, stderr })
}

fn output() -> impl Strategy<Value = Output> {
    let stream = prop_oneof![Just(StreamName::Stdout), Just(StreamName::Stderr)];
    let task = proptest::option::of(any::<u64>().prop_map(TaskId));
    let dropped = (any::<u64>(), any::<u64>()).prop_map(|(lines, bytes)| Dropped { lines, bytes });
    (stream, task, dropped, vec(any::<u8>(), 0..100)).prop_map(|(stream, task, dropped, bytes)| Output {
        stream,
        task,
        dropped,
        bytes: bytes.into(),
    })
}

pub(crate) fn from_guard() -> impl Strategy<Value = FromGuard> {
    prop_oneof![
        (any::<u64>(), any::<[u8; 16]>())
            .prop_map(|(ticket, secret)| FromGuard::Here { ticket: Ticket(ticket), secret: Secret(secret) }),
        (any::<u32>(), any::<String>()).prop_map(|(pid, host)| FromGuard::Started { pid, host }),
        any::<String>().prop_map(|port| FromGuard::Awaited { port }),
        Just(FromGuard::Ready),
        Just(FromGuard::Beat),
        Just(FromGuard::Leaving),
        any::<Option<u64>>().prop_map(|begun| FromGuard::Recalled { begun: begun.map(TaskId) }),
        output().prop_map(FromGuard::Output),
        ended().prop_map(FromGuard::Ended),
    ]
}

pub(crate) fn to_guard() -> impl Strategy<Value = ToGuard> {
    let text = || vec(any::<u8>(), 0..30);
    let bell = any::<Option<(u32, i32, u32, u32)>>()
        .prop_map(|bell| bell.map(|(pid, file, mark, at)| BellPlace { pid, file, mark, at }));
    let watch = (any::<bool>(), any::<Option<Duration>>(), bell).prop_map(
        |(is_output_wanted, heartbeat_timeout, bell)| Watch { is_output_wanted, heartbeat_timeout, bell },
    );
    let start = (text(), vec(text(), 0..5), vec((text(), text()), 0..5), text(), watch);
    let start = start.prop_map(|(executable, arguments, variables, directory, watch)| Start {
        executable,
        arguments,
        variables,
        directory,
        watch,
    });
    prop_oneof![
        start.prop_map(ToGuard::Start),
        Just(ToGuard::Spawned),
        any::<Duration>().prop_map(|grace| ToGuard::Kill { grace }),
        any::<u64>().prop_map(|cost| ToGuard::Taken { cost }),
        Just(ToGuard::Beat),
        Just(ToGuard::Recall),
    ]
}

proptest! {
    #[test]
    fn what_a_parent_says_comes_back_the_same(message in to_guard()) {
        prop_assert_eq!(ToGuard::decode(message.encode().into()).expect("it is whole"), message);
    }

    #[test]
    fn what_guards_say_comes_through_a_stream_however_it_is_cut(
        messages in vec(from_guard(), 0..8),
        cuts in vec(1_usize..50, 1..20),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(FromGuard::encode).collect();
        let (mut splitter, mut heard, mut rest) = (Splitter::new(FROM_GUARD_MAX), vec![], &stream[..]);
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            splitter.feed(now);
            while let Some(frame) = splitter.next_frame().expect("the stream is whole") {
                heard.push(FromGuard::decode(frame).expect("the frame is whole"));
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(heard, messages);
    }

    #[test]
    fn no_garbage_on_the_control_channel_panics(garbage in vec(any::<u8>(), 0..400)) {
        let mut splitter = Splitter::new(FROM_GUARD_MAX);
        splitter.feed(&garbage);
        while let Ok(Some(frame)) = splitter.next_frame() {
            let _ = FromGuard::decode(frame.clone());
            let _ = ToGuard::decode(frame);
        }
        let _ = FromGuard::decode(framed(129, &garbage, garbage.len()));
        let _ = ToGuard::decode(framed(130, &garbage, garbage.len()));
        let _ = FromGuard::decode(framed(131, &garbage, garbage.len()));
    }
}

#[test]
fn a_control_message_that_claims_too_much_is_refused_at_its_prefix() {
    let mut frame = FromGuard::Ready.encode();
    frame[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut splitter = Splitter::new(FROM_GUARD_MAX);
    splitter.feed(&frame[..PREFIX]);
    assert!(matches!(splitter.next_frame(), Err(WireError::Oversize { .. })));
}

#[test]
fn more_output_than_one_message_may_have_is_refused() {
    let of = |length| {
        let (stream, task, dropped) = (StreamName::Stdout, None, Dropped::default());
        FromGuard::Output(Output { stream, task, dropped, bytes: vec![b'x'; length].into() })
    };
    assert_eq!(FromGuard::decode(of(LINE_MAX).encode().into()).expect("it is just so long"), of(LINE_MAX));
    assert!(FromGuard::decode(of(LINE_MAX + 1).encode().into()).is_err());
}

#[test]
fn a_control_stream_that_is_not_ours_is_refused() {
    let mut splitter = Splitter::new(FROM_GUARD_MAX);
    splitter.feed(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n");
    assert!(matches!(splitter.next_frame(), Err(WireError::Magic)));
}
