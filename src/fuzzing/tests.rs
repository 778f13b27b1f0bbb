//! Bytes that are no message, or nearly one, given to every decoder: what `make test` tries of what the fuzzer tries for
//! longer.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{DECODERS, check};
use crate::error::BuildError;
use crate::finding::Finding;
use crate::ids::{TaskId, WorkerId};
use crate::wire::control::{Dropped, Output, Start, StreamName, Watch};
use crate::wire::frame::PREFIX;
use crate::wire::message::{AnswerMessage, FromWorker, Outcome, ToWorker};
use crate::wire::parent::{self, FromParent, ParentFacts, Refusal, ToParent, Wishes};
use crate::wire::tests::{from_guard, from_worker, to_guard, to_worker};

fn check_all(bytes: &[u8]) {
    DECODERS.iter().for_each(|(_, property)| check(*property, bytes));
}

/// A message of any kind, as it travels.
fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        to_worker().prop_map(|message| message.encode().into_bytes().to_vec()),
        from_worker().prop_map(|message| message.encode().into_bytes().to_vec()),
        to_guard().prop_map(|message| message.encode()),
        from_guard().prop_map(|message| message.encode()),
        select(to_parent()).prop_map(|message| whole(message.encode())),
        select(from_parent()).prop_map(|message| whole(message.encode())),
    ]
}

fn whole((head, body): parent::Halves) -> Vec<u8> {
    [&head[..], &body].concat()
}

/// One of each kind.
fn to_parent() -> Vec<ToParent> {
    let (worker, text) = (WorkerId(3), || b"a text".to_vec());
    let start = Start {
        executable: text(),
        arguments: vec![text(), vec![]],
        variables: vec![(text(), text())],
        directory: text(),
        watch: Watch::default(),
    };
    let wishes = Wishes {
        spawn_timeout: Duration::from_secs(30),
        kill_grace: Duration::ZERO,
        heartbeat_timeout: Duration::MAX,
        is_output_wanted: true,
        workers_max: 4,
        slots: crate::slots::Slots::of_cores(),
    };
    vec![
        ToParent::Bells,
        ToParent::Begin(wishes),
        ToParent::Spawn { worker, start },
        ToParent::Disconnect { worker },
        ToParent::Abandon { worker },
        ToParent::CancelSpawns,
        ToParent::Recall { worker },
        ToParent::Taken { piece: 1 << 40 },
        ToParent::Leave,
        ToParent::Frame { worker, bytes: text().into() },
    ]
}

fn from_parent() -> Vec<FromParent> {
    let (worker, text) = (WorkerId(3), || "a text".to_owned());
    let facts = ParentFacts {
        pid: 12,
        version: text(),
        thread_level: text(),
        containment: crate::Containment::Fast,
        manager: text(),
    };
    let output = Output {
        stream: StreamName::Stderr,
        task: Some(TaskId(9)),
        dropped: Dropped { lines: 1, bytes: 2 },
        bytes: b"a line\n".to_vec().into(),
    };
    let refusals = [
        Refusal::Preflight { check: text(), found: text(), remedy: Some(text()) },
        Refusal::OwnHostOnly { source: crate::slots::Source::Slurm, reason: text() },
        Refusal::Mpi(text()),
        Refusal::Stuck(text()),
        Refusal::System(text()),
    ];
    let others = [
        FromParent::Here(facts),
        FromParent::Spawned { worker },
        FromParent::SpawnFailed { worker, cause: crate::SpawnCause::Mpi, reason: text() },
        FromParent::Lost { worker, reason: text() },
        FromParent::Recalled { worker, begun: Some(crate::ids::TaskId(7)) },
        FromParent::Leaving { worker },
        FromParent::Silent { worker },
        FromParent::Stuck { reason: text() },
        FromParent::Frame { worker, bytes: b"bytes".to_vec().into() },
        FromParent::Output { worker, piece: 1, host: text(), output },
    ];
    refusals.map(FromParent::Refused).into_iter().chain(others).collect()
}

/// What a parent says of why it cannot serve is the error that it was.
#[test]
fn a_refusal_is_an_error_again() {
    for error in [
        BuildError::Mpi("one".to_owned()),
        BuildError::Stuck("two".to_owned()),
        BuildError::System("three".to_owned()),
    ] {
        let again = BuildError::from(Refusal::from(error.clone()));
        assert_eq!(again.to_string(), error.to_string());
    }
    let finding = Finding::failure("launcher", "there is none", "install it");
    let again = BuildError::from(Refusal::from(BuildError::Preflight(finding)));
    assert!(matches!(&again, BuildError::Preflight(_)), "{again:?}");
    assert!(["launcher: there is none", "install it"].iter().all(|words| again.to_string().contains(words)));
}

/// Says in the prefix of a frame what its lengths are, as far as that can be.
fn mend_lengths(frame: &mut [u8], body: usize) {
    let head = frame.len() - PREFIX - body;
    frame[4..8].copy_from_slice(&u32::try_from(head).expect("it is short").to_le_bytes());
    frame[8..16].copy_from_slice(&(body as u64).to_le_bytes());
}

/// How many bytes of body a frame has.
fn body_of(frame: &[u8]) -> usize {
    let length = frame[8..16].try_into().expect("they are eight");
    usize::try_from(u64::from_le_bytes(length)).expect("it is a whole frame")
}

proptest! {
    #[test]
    fn no_bytes_harm_a_decoder(bytes in vec(any::<u8>(), 0..600)) {
        check_all(&bytes);
    }

    #[test]
    fn no_change_of_a_message_harms_a_decoder(
        mut frame in message(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        check_all(&frame);
        // As a stream, and as portions.
        check_all(&[&[frame.len() as u8][..], &frame].concat());
    }

    /// The lengths are right, so that the decoders of heads see it.
    #[test]
    fn no_change_of_a_head_harms_a_decoder(
        mut frame in message(),
        at in any::<Index>(),
        put in vec(any::<u8>(), 0..12),
        removed in 0_usize..4,
    ) {
        let body = body_of(&frame);
        let head = PREFIX..frame.len() - body;
        let from = head.start + at.index(head.len() + 1);
        let until = (from + removed).min(head.end);
        frame.splice(from..until, put);
        mend_lengths(&mut frame, body);
        check_all(&frame);
    }

    /// 253 announces eight bytes of an integer, wherever the codec looks for one.
    #[test]
    fn no_claim_takes_memory(mut frame in message(), at in any::<Index>(), claim in any::<u64>(), shift in 0_u32..64) {
        let body = body_of(&frame);
        let from = PREFIX + at.index(frame.len() - PREFIX - body + 1);
        frame.splice(from..from, [253].into_iter().chain((claim >> shift).to_le_bytes()));
        mend_lengths(&mut frame, body);
        check_all(&frame);
    }

    #[test]
    fn no_lengths_of_a_frame_harm_a_decoder(mut frame in message(), head in any::<u32>(), body in any::<u64>(), shift in 0_u32..64) {
        frame[4..8].copy_from_slice(&(head >> (shift / 2)).to_le_bytes());
        frame[8..16].copy_from_slice(&(body >> shift).to_le_bytes());
        check_all(&frame);
        check_all(&[&[0][..], &frame].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_truncation_harms_a_decoder(frame in message()) {
        (0..=frame.len().min(1500)).for_each(|length| check_all(&frame[..length]));
    }
}

/// Lists of what is least on the wire and most in memory.
#[test]
fn many_small_things_take_the_memory_that_is_justified() {
    let skipped = AnswerMessage {
        task: crate::ids::TaskId(0),
        ran: std::time::Duration::ZERO,
        outcome: Outcome::Skipped,
    };
    check_all(&FromWorker::Answers(vec![skipped; 100_000]).encode().into_bytes());
    check_all(&ToWorker::Recant(vec![crate::ids::TaskId(0); 1_000_000]).encode().into_bytes());
}

/// Of every length of message, because limits go with it.
#[test]
fn a_string_that_is_claimed_takes_no_memory() {
    for length in [10, 1000, 70_000, 1 << 20, (1 << 20) + 100, 20 << 20] {
        for shift in 10..40 {
            let mut value = vec![0; length];
            value[..8].copy_from_slice(&0_u64.to_le_bytes());
            // The string behind an empty list of numbers.
            value.splice(8..8, (1_u64 << shift).to_le_bytes());
            check(crate::wire::properties::value, &value);
        }
    }
}

/// The first portion of a frame that says that it has almost a gigabyte.
#[test]
fn a_frame_that_is_claimed_takes_no_memory() {
    let mut frame = FromWorker::Bye.encode().into_bytes().to_vec();
    frame[8..16].copy_from_slice(&((1_u64 << 30) - 100).to_le_bytes());
    let portion = [&[7][..], &frame, &[0; 8], &[2, 1, 2, 3, 4]].concat();
    check(crate::wire::properties::portions, &portion);
}
