//! Both ends of a channel, one of them in the hands of somebody who does not keep to the rules.

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::ids::WorkerId;
use crate::wire::parent::{FromParent, ToParent};

fn ends() -> (Channel, Channel) {
    let (one, other) = Channel::pair().expect("the system has sockets");
    (Channel::new(one), Channel::new(other))
}

fn frame(length: usize) -> ToParent {
    ToParent::Frame { worker: WorkerId(7), bytes: (0..length).map(|at| at as u8).collect::<Vec<_>>().into() }
}

fn receive(channel: &mut Channel) -> Option<ToParent> {
    let arrived = channel.receive().expect("it keeps to the rules")?;
    Some(ToParent::decode(arrived.message).expect("it is one of ours"))
}

/// What comes of a packet with these bytes, and these files.
fn comes_of(bytes: &[u8], files: &[BorrowedFd<'_>]) -> ChannelError {
    let (one, mut other) = ends();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(files)));
    sendmsg(&one.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).expect("it is sent");
    loop {
        match other.receive() {
            Ok(Some(arrived)) => {
                assert!(ToParent::decode(arrived.message).is_ok(), "what is handed out may make no sense")
            }
            Ok(None) => panic!("nothing is wrong with it"),
            Err(error) => return error,
        }
    }
}

#[test]
fn messages_of_all_lengths_arrive_in_order() {
    let (mut one, mut other) = ends();
    let lengths =
        [0, 1, 100, INLINE_MAX - 40, INLINE_MAX, INLINE_MAX + 1, 3, PACKET_MAX, 5 << 20, 2, INLINE_MAX / 2];
    for length in lengths {
        one.push(frame(length).encode(), None).expect("there is memory");
    }
    let mut arrived = Vec::new();
    while arrived.len() < lengths.len() {
        one.flush().expect("the other side is there");
        arrived.extend(std::iter::from_fn(|| receive(&mut other)));
    }
    assert!(arrived == lengths.map(frame));
    assert_eq!(one.waiting(), 0);
}

#[test]
fn a_file_goes_with_its_message() {
    let (mut one, mut other) = ends();
    let file = process::seal([&b"abc"[..]].into_iter()).expect("there is memory");
    one.push(frame(1).encode(), None).expect("it is short");
    one.push(ToParent::Bells.encode(), Some(file)).expect("it is short");
    one.push(frame(2).encode(), None).expect("it is short");
    one.flush().expect("the other side is there");
    let files: Vec<bool> =
        (0..3).map(|_| other.receive().expect("fine").expect("there").file.is_some()).collect();
    assert_eq!(files, [false, true, false]);
}

#[test]
fn who_does_not_read_blocks_nobody() {
    let (mut one, mut other) = ends();
    let mut count = 0;
    while one.waiting() < 1 << 20 {
        one.push(frame(1000).encode(), None).expect("it is short");
        one.flush().expect("the other side is there");
        count += 1;
    }
    for _ in 0..count {
        while !other.has_arrived() {
            one.flush().expect("the other side is there");
        }
        assert!(receive(&mut other) == Some(frame(1000)));
    }
    assert!(receive(&mut other).is_none() && one.waiting() == 0);
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    let (mut one, mut other) = ends();
    // The one that goes has unread messages, which the system tells the other side as an error.
    other.push(frame(9).encode(), None).expect("it is short");
    other.flush().expect("the other side is there");
    one.push(frame(5).encode(), None).expect("it is short");
    one.flush().expect("the other side is there");
    drop(one);
    assert!(receive(&mut other) == Some(frame(5)));
    assert!(matches!(other.receive(), Err(ChannelError::Closed)));
    other.push(frame(1).encode(), None).expect("it is short");
    assert!(matches!(other.flush(), Err(ChannelError::Closed)));
}

#[test]
fn garbage_and_parts_of_messages_are_errors() {
    let (head, body) = frame(100).encode();
    let whole = [&head[..], &body].concat();
    for length in 1..whole.len() {
        assert!(matches!(comes_of(&whole[..length], &[]), ChannelError::Wire(_)), "{length} bytes of it");
        assert!(matches!(comes_of(&[&whole[..], &whole[..length]].concat(), &[]), ChannelError::Wire(_)));
    }
    assert!(matches!(comes_of(b"GET / HTTP/1.1\r\n\r\n", &[]), ChannelError::Wire(_)));
    assert!(matches!(comes_of(&vec![0; PACKET_MAX + 1], &[]), ChannelError::Packet));
}

#[test]
fn files_that_are_not_as_they_should_be_are_errors() {
    let sealed = process::seal([&b"abc"[..]].into_iter()).expect("there is memory");
    let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).expect("there is memory");
    rustix::io::write(&open, b"abc").expect("it can be written");
    assert!(matches!(comes_of(&wire::bulk(3), &[]), ChannelError::NoFile));
    assert!(matches!(comes_of(&wire::bulk(4), &[sealed.as_fd()]), ChannelError::System(_)), "another length");
    assert!(matches!(comes_of(&wire::bulk(u64::MAX), &[sealed.as_fd()]), ChannelError::System(_)));
    assert!(matches!(comes_of(&wire::bulk(3), &[open.as_fd()]), ChannelError::System(_)), "not sealed");
    assert!(matches!(comes_of(&wire::bulk(3), &[sealed.as_fd(), sealed.as_fd()]), ChannelError::Packet));
}

#[test]
fn a_message_of_the_other_direction_is_an_error() {
    let (head, body) = FromParent::Silent { worker: WorkerId(1) }.encode();
    assert!(ToParent::decode([&head[..], &body].concat().into()).is_err());
}
